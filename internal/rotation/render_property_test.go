package rotation_test

import (
	"encoding/json"
	"net/url"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/keyturn/keyturn/internal/rotation"
	"github.com/keyturn/keyturn/internal/secret"
)

func render(t rapid.TB, template string, m map[string]string) string {
	t.Helper()
	material := rotation.Material{}
	for k, v := range m {
		material[k] = secret.FromString(v)
	}
	if err := rotation.Render(material, map[string]string{"out": template}); err != nil {
		t.Fatalf("Render(%q) = %v", template, err)
	}
	return string(material["out"].Reveal())
}

func TestRender(t *testing.T) {
	for _, c := range []struct{ template, password, want string }{
		{"postgres://u:{password}@h/db", "p@s/ +%?", "postgres://u:p%40s%2F%20%2B%25%3F@h/db"},
		{`{{"user":"u","password":"{password}"}}`, `a"b\c`, `{"user":"u","password":"a\"b\\c"}`},
		{"host=h password={password}", `it's \ so`, `host=h password='it\'s \\ so'`},
		{"{password}", `plain "' text`, `plain "' text`},
		{"h:5432:db:u:{password}", "x", "h:5432:db:u:x"},
		{`{{"a":{{"b":"{password}"}}}}`, "}}{{", `{"a":{"b":"}}{{"}}`},
	} {
		if got := render(t, c.template, map[string]string{"password": c.password}); got != c.want {
			t.Errorf("Render(%q) with %q = %q, want %q", c.template, c.password, got, c.want)
		}
	}
}

// Whatever the value is, the format's own reader gives it back.
func TestRenderReadsBack(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		p := rapid.StringN(1, 40, -1).Draw(rt, "password")
		m := map[string]string{"password": p, "username": "u"}
		u, err := url.Parse(render(rt, "db://{username}:{password}@host/x", m))
		if err != nil {
			rt.Fatal(err)
		}
		if got, _ := u.User.Password(); got != p {
			rt.Fatalf("the URL gives back %q, want %q", got, p)
		}
		var doc struct{ In struct{ Password string } }
		if err := json.Unmarshal([]byte(render(rt, `{{"in":{{"password":"{password}"}}}}`, m)), &doc); err != nil || doc.In.Password != p {
			rt.Fatalf("the JSON gives back %q (%v), want %q", doc.In.Password, err, p)
		}
		if got := unquote(strings.TrimPrefix(render(rt, "password={password}", m), "password=")); got != p {
			rt.Fatalf("the connection string gives back %q, want %q", got, p)
		}
	})
}

// unquote reads a value of a libpq connection string (section 34.1.1.1 of its manual).
func unquote(s string) string {
	var b strings.Builder
	s = strings.TrimSuffix(strings.TrimPrefix(s, "'"), "'")
	for i := 0; i < len(s); i++ {
		if s[i] == '\\' {
			i++
		}
		b.WriteByte(s[i])
	}
	return b.String()
}
