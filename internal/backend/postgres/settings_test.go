package postgres_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"go.yaml.in/yaml/v3"

	"github.com/keyturn/keyturn/internal/backend/postgres"
	"github.com/keyturn/keyturn/internal/rotation"
	"github.com/keyturn/keyturn/internal/rotation/rotationtest"
	"github.com/keyturn/keyturn/internal/secret"
)

// decoder decodes a section, or what has the form of one.
func decoder(keys any) func(any) error {
	text, ok := keys.(string)
	if !ok {
		b, err := yaml.Marshal(keys)
		if err != nil {
			return func(any) error { return err }
		}
		text = string(b)
	}
	return rotationtest.Decoder(text)
}

const good = "admin: postgres://keyturn@db:5432/orders\nadmin-password: {from-env: PW}\nrole: orders\n"

func TestSectionDefaults(t *testing.T) {
	got, err := postgres.Section(decoder(good))
	if err != nil {
		t.Fatal(err)
	}
	want := postgres.Settings{Admin: "postgres://keyturn@db:5432/orders", AdminPassword: secret.Source{Env: "PW"},
		Role: "orders", Strategy: "alternating", Rights: "functions", Logins: []string{"orders_a", "orders_b", "orders_c"}, Schema: "keyturn"}
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("Section (-want +got):\n%s", d)
	}
}

// TestSectionFaults shows that every fault has its key, and that none repeats a
// password.
func TestSectionFaults(t *testing.T) {
	const canary = "hunter2-canary"
	for _, tt := range []struct{ yaml, key, text string }{
		{"admin-password: {from-env: P}\nrole: orders", "admin", "the administrator's URL is missing"},
		{strings.Replace(good, "keyturn@", "keyturn:"+canary+"@", 1), "admin", "the URL holds a password"},
		{strings.Replace(good, "5432", "54x32"+canary, 1), "admin", "the URL names no host, or a malformed one"},
		{strings.Replace(good, "keyturn@", "", 1), "admin", "the administrator's URL names no user"},
		{strings.Replace(good, "/orders", "", 1), "admin", "the URL names no database"},
		{strings.Replace(good, "postgres://", "mysql://", 1), "admin", "the URL does not begin with postgres://"},
		{strings.Replace(good, "/orders", "/orders?sslmode=require", 1), "admin", "sslmode in the URL weakens the connection"},
		{strings.Replace(good, "/orders", "/orders?password="+canary, 1), "admin", "the URL has a parameter"},
		{strings.Replace(good, "/orders", "/o'rders", 1), "admin", "the administrator's URL has a user or a database with other characters"},
		{strings.Replace(good, "{from-env: PW}", "{}", 1), "admin-password", "the administrator's password has no place"},
		{strings.Replace(good, "{from-env: PW}", "{from-env: A, from-file: B}", 1), "admin-password", "the administrator's password has two places"},
		{strings.Replace(good, "role: orders", "", 1), "role", "the role is missing"},
		{strings.Replace(good, "role: orders", "role: pg_orders", 1), "role", "this cannot be the name of the role"},
		{strings.Replace(good, "role: orders", "role: or ders\nlogins: [a, b]", 1), "role", "this cannot be the name of the role"},
		{strings.Replace(good, "role: orders", "role: keyturn", 1), "role", "the role is the administrator"},
		{good + "logins: [orders_a]", "logins", "one login takes no turns"},
		{good + "strategy: single-role\nlogins: [orders]", "logins", "with strategy: single-role the role itself is the login"},
		{good + "strategy: " + canary, "strategy", "unknown strategy"},
		{good + "logins: [orders_a, orders_a]", "logins.1", "the login is named twice"},
		{good + "logins: [orders_a, orders]", "logins.1", "the login is the role"},
		{good + "logins: [orders_a, keyturn]", "logins.1", "the login is the administrator"},
		{good + "probe: [postgres://x@pooler/orders]", "probe.0", "a probe's URL names a user"},
		{good + "probe: [postgres://pooler/orders, 'postgres://:" + canary + "@h/d']", "probe.1", "the URL holds a password"},
		{good + "insecure-tls: [off]", "insecure-tls.0", "unknown weakening"},
		{good + "allow-changed: [everything]", "allow-changed.0", "unknown change"},
		{good + "schema: " + strings.Repeat("x", 58), "schema", "the schema's name is too long"},
		{good + "logins: [orders_a, keyturn_owner]", "logins.1", "the login is the owner of the functions"},
		{strings.Replace(good, "role: orders", "role: keyturn_owner", 1), "role", "the role is the owner of the functions"},
		{good + "schema: key\nlogins: [orders_a, key_owner]", "logins.1", "the login is the owner of the functions"},
		{strings.Replace(good, "keyturn@", "keyturn_owner@", 1), "admin", "the administrator is the owner of the functions"},
		{strings.Replace(good, "/orders", "/orders?"+canary+"=1", 1), "admin", "the URL has a parameter"},
		{strings.Replace(good, "role: orders", "role: '"+canary+" x'\nlogins: [a, b]", 1), "role", "this cannot be the name of the role"},
		{good + "logins: [orders_a, '" + canary + " x']", "logins.1", "this cannot be the name of a login"},
		{good + "insecure-tls: [" + canary + "]", "insecure-tls.0", "unknown weakening"},
		{good + "allow-changed: ['" + canary + ":x']", "allow-changed.0", "unknown change"},
		{good + "schema: pg_x", "schema", "this cannot be the name of the schema"},
	} {
		_, err := postgres.Section(decoder(tt.yaml))
		f, ok := errors.AsType[*rotation.Fault](err)
		if !ok || f.Key() != tt.key || f.Error() != tt.text {
			t.Errorf("Section(%q) = %v, want %q: %q", tt.yaml, err, tt.key, tt.text)
		}
		if strings.Contains(fmt.Sprintf("%v %+v %+v", err, f, *f), canary) {
			t.Errorf("Section repeats a password: %v", err)
		}
	}
}

func TestSectionSaysEveryFault(t *testing.T) {
	_, err := postgres.Section(decoder("admin: x\nrole: pg_x\nschema: 1\ninsecure-tls: [a, b]"))
	if n := strings.Count(err.Error(), "\n") + 1; n != 6 {
		t.Errorf("Section found %d faults, want 6:\n%v", n, err)
	}
	// What the decoder did not understand keeps nothing else from being found.
	s, err := postgres.Section(decoder(good + "roll: orders\nschema: pg_x\ninsecure-tls: [a]"))
	if n := strings.Count(err.Error(), "\n") + 1; n < 4 || !strings.Contains(err.Error(), "roll") || !strings.Contains(err.Error(), "unknown weakening") {
		t.Errorf("Section found %d faults, want what the decoder says and 2 more:\n%v", n, err)
	}
	if s.(postgres.Settings).Role != "orders" {
		t.Errorf("Section = %+v, want what could be decoded", s)
	}
}

// TestEndpoints shows where versions are tried, and that the plan warns of the
// hosts where they are not.
func TestEndpoints(t *testing.T) {
	s, err := postgres.Section(decoder(strings.Replace(good, "db:5432", "db1:5432,db2,[::1]:6000", 1)))
	if err != nil {
		t.Fatal(err)
	}
	settings := s.(postgres.Settings)
	for _, tt := range []struct {
		probe, want []string
		warning     string
	}{
		{nil, []string{"postgres://db1:5432/orders", "postgres://db2:5432/orders", "postgres://[::1]:6000/orders"},
			"no probe is set: versions are tried at the administrator's hosts (db1:5432, db2:5432, [::1]:6000)"},
		{[]string{"postgresql://p1,p2:6432/orders", "postgres://p3/orders"},
			[]string{"postgres://p1:5432/orders", "postgres://p2:6432/orders", "postgres://p3:5432/orders"},
			"probe leaves out db1:5432, db2:5432, [::1]:6000: the old password is not tried there"},
		{[]string{"postgres://pooler:6432/orders", "postgres://db1,[::1]:6000/orders"},
			[]string{"postgres://pooler:6432/orders", "postgres://db1:5432/orders", "postgres://[::1]:6000/orders"},
			"probe leaves out db2:5432: the old password is not tried there"},
		{[]string{"postgres://pooler:6432/orders", "postgres://db1,db2:5432,[::1]:6000/orders"},
			[]string{"postgres://pooler:6432/orders", "postgres://db1:5432/orders", "postgres://db2:5432/orders", "postgres://[::1]:6000/orders"}, ""},
	} {
		settings.Probe = tt.probe
		b, err := postgres.New(settings, postgres.Options{})
		if err != nil {
			t.Fatal(err)
		}
		if d := cmp.Diff(tt.want, b.ProbeSpec(rotation.Version{Identity: "orders_a"}).Endpoints); d != "" {
			t.Errorf("ProbeSpec with %v (-want +got):\n%s", tt.probe, d)
		}
		warnings, err := b.Warnings(t.Context(), "orders-db")
		if err != nil {
			t.Error(err)
		}
		if got := strings.Join(warnings, "\n"); !strings.Contains(got, tt.warning) || (got == "") != (tt.warning == "") {
			t.Errorf("Warnings with %v = %q, want %q", tt.probe, got, tt.warning)
		}
	}
}

func TestNewRefusesACertificateAuthorityThatIsNone(t *testing.T) {
	s, err := postgres.Section(decoder(good + "ca: ca.pem"))
	if err != nil {
		t.Fatal(err)
	}
	_, err = postgres.New(s.(postgres.Settings), postgres.Options{CA: []byte("no PEM")})
	if err == nil || rotation.ClassOf(err) != rotation.Invalid || !strings.Contains(err.Error(), `ca "ca.pem"`) {
		t.Errorf("New = %v, want an error about ca.pem", err)
	}
}
