package secret_test

import (
	"regexp"
	"testing"

	"github.com/keyturn/keyturn/internal/secret"
)

// A UUID has the form of version 4, and no two are alike.
func TestGenerateUUID(t *testing.T) {
	form := regexp.MustCompile(`^[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$`)
	seen := map[string]bool{}
	for range 1000 {
		text := string(secret.GenerateUUID().Reveal())
		if !form.MatchString(text) || seen[text] {
			t.Fatalf("%q is no UUID of version 4, or came twice", text)
		}
		seen[text] = true
	}
}
