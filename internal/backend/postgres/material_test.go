package postgres_test

import (
	"context"
	"strings"
	"testing"

	"github.com/keyturn/keyturn/internal/backend/postgres"
	"github.com/keyturn/keyturn/internal/rotation"
	"github.com/keyturn/keyturn/internal/secret"
)

// TestFieldsThatHoldAPassword tries a login by one mounted field, in the forms
// that templates make and people mount.
func TestFieldsThatHoldAPassword(t *testing.T) {
	f := adopted(t)
	b := f.backend()
	v, m := f.prepared(b, 2)
	plain := map[string]string{
		"a URL":                    "postgres://<u>:<p>@pooler:6432/orders",
		"a URL of a driver":        "postgresql+asyncpg://<u>:<p>@pooler/orders",
		"a URL with parameters":    "postgres://pooler/orders?user=<u>&password=<p>",
		"a keyword string":         "host=db user=<u> password=<p>",
		"quotes in it":             "host = db user = '<u>' password='<p>' dbname='or ders'",
		"semicolons":               "Host=db;Username=<u>;Password=<p>;Database=orders",
		"semicolons and spaces":    "Server=db; User=<u> ;Password=<p>",
		"lines of an environment":  "POSTGRES_USER=<u>\nPOSTGRES_PASSWORD=<p>\n",
		"quoted lines":             "PGUSER=\"<u>\"\nPGPASSWORD=\"<p>\"",
		"a password file":          "db:5432:orders:other:x\ndb:5432:orders:<u>:<p>\n",
		"JSON":                     `{"username": "<u>", "password": "<p>"}`,
		"JSON with other names":    `{"db": {"host": "db", "DB_USER": "<u>", "DB_PASSWORD": "<p>"}, "n": 1}`,
		"JSON with two of them":    `{"admin_user": "root", "admin_password": "x", "user": "<u>", "password": "<p>"}`,
		"a list in JSON":           `{"pools": [{"user": "other", "password": "x"}, {"user": "<u>", "password": "<p>"}]}`,
		"a URL in JSON":            `{"url": "postgres://<u>:<p>@pooler/orders", "password": 7}`,
		"a keyword string in JSON": `{"dsn": "user=<u> password=<p>"}`,
	}
	for name, text := range plain {
		text = strings.NewReplacer("<u>", v.Identity, "<p>", string(m["password"].Reveal())).Replace(text)
		if r := f.probe(b, v, dsn(text)); r.Answer != rotation.Alive {
			t.Errorf("%s: Login = %q (%s), want alive", name, r.Answer, r.Reason)
		}
	}
	for name, tt := range map[string]struct{ text, reason string }{
		"a URL of another login":  {"postgres://other:canary@pooler/orders", `the field "dsn" is not of this version's login`},
		"JSON of another login":   {`{"user": "other", "password": "canary"}`, `the field "dsn" is not of this version's login`},
		"user and password apart": {`{"user": "` + v.Identity + `", "db": {"password": "canary"}}`, "no field holds a password that can be found"},
		"a text":                  {"canary", "no field holds a password that can be found"},
		"a URL without password":  {"postgres://" + v.Identity + "@pooler/orders", "no field holds a password that can be found"},
		"broken JSON":             {`{"user": "canary`, "no field holds a password that can be found"},
	} {
		r := f.probe(b, v, dsn(tt.text))
		if r.Answer != rotation.Inconclusive || !strings.HasPrefix(r.Reason, tt.reason) || strings.Contains(r.Reason, "canary") {
			t.Errorf("%s: Login = %q (%s), want unknown (%s)", name, r.Answer, r.Reason, tt.reason)
		}
	}
}

// TestEscapedPasswords: what people chose holds what a form must escape.
func TestEscapedPasswords(t *testing.T) {
	f := adopted(t)
	b := f.backend()
	for _, password := range []string{`it's`, `a b`, `a;b`, `a:b`, `back\slash`, `"quoted"`, `a=b`, `per%cent`, `a/b@c`} {
		f.exec(f.database, "alter role "+f.role+" password '"+strings.ReplaceAll(password, "'", "''")+"'")
		m := rotation.Material{"username": secret.FromString(f.role), "password": secret.FromString(password)}
		templates := map[string]string{
			"url": "postgres://{username}:{password}@pooler/orders", "words": "user={username} password={password}",
			"json": `{{"user": "{username}", "password": "{password}"}}`, "nested": `{{"dsn": "postgres://{username}:{password}@pooler/orders"}}`,
		}
		if err := rotation.Render(m, templates); err != nil {
			t.Fatal(err)
		}
		for field := range templates {
			spec := b.ProbeSpec(rotation.Version{Identity: f.role})
			if r := postgres.Login(context.Background(), spec, rotation.Material{field: m[field]}); r.Answer != rotation.Alive {
				t.Errorf("%s with %q: Login = %q (%s), want alive", field, password, r.Answer, r.Reason)
			}
		}
	}
}
