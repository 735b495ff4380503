package rotationtest

import (
	"errors"
	"strings"
	"testing"

	"github.com/keyturn/keyturn/internal/rotation"
)

// Refuses decodes bad sections of a backend. Of each it is given the text, the path of its fault
// (of any: ""), and words of it: it must be refused so, with a tip, and without the canary, which
// stands in them where somebody may have written a secret.
func Refuses(t *testing.T, section func(decode func(any) error) (any, error), canary string, bad map[string][3]string) {
	t.Helper()
	for name, c := range bad {
		text, path, want := c[0], c[1], c[2]
		_, err := section(Decoder(text))
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", name, err, want)
			continue
		}
		if strings.Contains(strings.ToLower(err.Error()), canary) {
			t.Errorf("%s: the fault repeats what was written: %v", name, err)
		}
		fault, ok := errors.AsType[*rotation.Fault](err)
		if path != "" && (!ok || fault.Path != path || fault.Tip == "") {
			t.Errorf("%s: %+v, want a fault at %s with a tip", name, fault, path)
		}
	}
}
