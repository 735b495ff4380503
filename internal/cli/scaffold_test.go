package cli_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/keyturn/keyturn/internal/backend/postgres"
	"github.com/keyturn/keyturn/internal/config"
)

// TestScaffoldsParse reads every configuration that the scaffold's own tests
// write, as keyturn reads it.
func TestScaffoldsParse(t *testing.T) {
	files, err := filepath.Glob("../scaffold/testdata/*.txt")
	if err != nil || len(files) < 6 {
		t.Fatalf("%d configurations are there (%v), want at least 6", len(files), err)
	}
	parsed := 0
	for _, file := range files {
		b, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		text, _, _ := strings.Cut(string(b), "not known: ")
		if strings.HasPrefix(text, "missing: ") {
			continue
		}
		if _, err := config.Parse(file, []byte(text), map[string]config.Section{"postgres": postgres.Section}); err != nil {
			t.Errorf("%v", err)
		}
		parsed++
	}
	if parsed < 5 {
		t.Errorf("%d configurations were read, want at least 5", parsed)
	}
}
