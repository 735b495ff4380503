package certificate_test

import (
	"testing"

	"github.com/keyturn/keyturn/internal/backend/certificate"
	"github.com/keyturn/keyturn/internal/rotation/rotationtest"
)

// TestPage reads every section that docs/backends/certificate.md shows.
func TestPage(t *testing.T) {
	names := (*certificate.ACME)(nil).NotBuilt()
	rotationtest.Page(t, "certificate", certificate.Section, append(names, certificate.Settings{}.Fields()...),
		certificate.Settings{}, certificate.ACME{}, certificate.HTTP01{}, certificate.DNS01{}, certificate.CertManager{}, certificate.RotateCA{})
}
