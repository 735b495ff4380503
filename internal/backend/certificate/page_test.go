package certificate_test

import (
	"strings"
	"testing"

	"github.com/keyturn/keyturn/internal/backend/certificate"
	"github.com/keyturn/keyturn/internal/rotation/rotationtest"
)

// TestPage reads every section that docs/backends/certificate.md shows, and looks for every
// key and field there.
func TestPage(t *testing.T) {
	page, sections := rotationtest.Page(t, "../../../docs/backends/certificate.md", "certificate")
	if len(sections) < 3 {
		t.Errorf("the page shows %d sections, want at least 3", len(sections))
	}
	for _, s := range sections {
		if _, err := certificate.Section(rotationtest.Decoder(s)); err != nil {
			t.Errorf("the page shows a section that is refused: %v\n%s", err, s)
		}
	}
	for _, known := range []map[string]string{certificate.Settings{}.Documented(), certificate.ACME{}.Documented(), certificate.HTTP01{}.Documented(), certificate.DNS01{}.Documented()} {
		for key := range known {
			if !strings.Contains(page, key+":") {
				t.Errorf("the page says nothing of %s", key)
			}
		}
	}
	later := append((*certificate.Settings)(nil).NotBuilt(), (*certificate.ACME)(nil).NotBuilt()...)
	for _, name := range append(later, (certificate.Settings{}).Fields()...) {
		if !strings.Contains(page, "`"+name+"`") {
			t.Errorf("the page says nothing of %s", name)
		}
	}
}
