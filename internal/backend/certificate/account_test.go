package certificate_test

import (
	"encoding/base64"
	"os"
	"strings"
	"testing"

	"github.com/keyturn/keyturn/internal/backend/certificate"
	"github.com/keyturn/keyturn/internal/rotation"
	"github.com/keyturn/keyturn/internal/secret"
	"github.com/keyturn/keyturn/internal/testserver"
)

// TestExternalAccount is an authority that makes accounts for its customers alone.
func TestExternalAccount(t *testing.T) {
	t.Parallel()
	mac := base64.RawURLEncoding.EncodeToString([]byte("the key of customer one, for tests 1"))
	other := base64.RawURLEncoding.EncodeToString([]byte("the key of a customer, but not ours"))
	pebble := testserver.NewPebble(t, testserver.PebbleOptions{Customers: map[string]string{"customer-1": mac}})
	f := newFixture(t, pebble)
	as := func(id, key string) func(made) {
		return func(m made) {
			m.ACME.ExternalAccount = &certificate.ExternalAccount{ID: id, Key: secret.Source{Env: "MAC"}}
			account := m.Getenv
			m.Getenv = func(name string) string {
				if name == "MAC" {
					return key
				}
				return account(name)
			}
		}
	}
	order := func(change func(made)) error {
		_, err := f.backend(change).Order(t.Context(), f.version(1, rotation.Pending))
		return err
	}
	look := func(change func(made)) error { return f.backend(change).Preflight(t.Context(), rotation.Credential{}) }
	nobody := func(made) {}
	for name, c := range map[string]struct {
		err   error
		class rotation.Class
		want  string
	}{
		"nobody is named, before":    {look(nobody), rotation.Refused, "for its customers alone"},
		"nobody is named":            {order(nobody), rotation.Refused, "externalAccountRequired"},
		"a customer that it has not": {order(as("customer-2", mac)), rotation.Refused, "making the account"},
		"another key":                {order(as("customer-1", other)), rotation.Refused, "making the account"},
		"no key":                     {look(as("customer-1", "")), rotation.Invalid, "holds no value"},
		"a key that is none":         {look(as("customer-1", "hunter2 hunter2 hunter2 hunter2")), rotation.Invalid, "no key in base64url"},
		"a key that is too short":    {look(as("customer-1", "aHVudGVyMg")), rotation.Invalid, "no key in base64url"},
	} {
		if c.err == nil || rotation.ClassOf(c.err) != c.class || !strings.Contains(c.err.Error(), c.want) || name != "no key" && rotation.HintOf(c.err) == "" {
			t.Errorf("%s: %v of class %d, want class %d: %q, with a hint", name, c.err, rotation.ClassOf(c.err), c.class, c.want)
			continue
		}
		for _, value := range []string{mac, other, "hunter2", "aHVudGVyMg"} {
			if strings.Contains(c.err.Error(), value) {
				t.Errorf("%s: the error holds a key: %v", name, c.err)
			}
		}
	}
	b := f.backend(as("customer-1", mac+"==\n"))
	f.must(b.Preflight(t.Context(), rotation.Credential{}))
	f.issue(b, 1)
	f.must(look(nobody)) // the account is there
	f.issue(f.backend(), 2)
	said, err := os.ReadFile(pebble.LogFile())
	f.must(err)
	if strings.Contains(string(said), mac) {
		t.Error("the key stands in the authority's log")
	}
}
