package rotation_test

import (
	"testing"

	"github.com/keyturn/keyturn/internal/rotation"
	"github.com/keyturn/keyturn/internal/secret"
)

// TestRenderEscapes puts a value with everything that a format minds into each.
func TestRenderEscapes(t *testing.T) {
	const value = `a"b'c\d}}e{{f{username}@/ +`
	for _, c := range []struct{ template, want string }{
		{"postgres://{username}:{password}@h/db", "postgres://app:a%22b%27c%5Cd%7D%7De%7B%7Bf%7Busername%7D%40%2F%20%2B@h/db"},
		{`{{"p":"{password}"}}`, `{"p":"a\"b'c\\d}}e{{f{username}@/ +"}`},
		{"\n  " + `{{"p": {{"q":"{password}"}}}}`, "\n  " + `{"p": {"q":"a\"b'c\\d}}e{{f{username}@/ +"}}`},
		{`{{"p":"{password}","u":"x://{username}:{password}@h"}}`, `{"p":"a\"b'c\\d}}e{{f{username}@/ +","u":"x://app:a%22b%27c%5Cd%7D%7De%7B%7Bf%7Busername%7D%40%2F%20%2B@h"}`},
		{"user={username} password={password}", `user='app' password='a"b\'c\\d}}e{{f{username}@/ +'`},
		{"{username}:{password}", "app:" + value},
	} {
		m := rotation.Material{"username": secret.FromString("app"), "password": secret.FromString(value)}
		if err := rotation.Render(m, map[string]string{"made": c.template}); err != nil {
			t.Errorf("Render(%q) = %v, want no error", c.template, err)
			continue
		}
		if got := string(m["made"].Reveal()); got != c.want {
			t.Errorf("Render(%q) made %q, want %q", c.template, got, c.want)
		}
	}
}

func TestRenderNamesWhatIsMissing(t *testing.T) {
	for _, templates := range []map[string]string{
		{"a": "{nowhere}"},
		{"a": "{b}", "b": "{a}"},
		{"a": "{a}"},
	} {
		m := rotation.Material{"password": secret.FromString("hunter2")}
		if err := rotation.Render(m, templates); err == nil {
			t.Errorf("Render(%v) = nil, want an error", templates)
		}
	}
}

// TestRenderInTurn makes fields of fields that are made themselves.
func TestRenderInTurn(t *testing.T) {
	m := rotation.Material{"password": secret.FromString("p%")}
	templates := map[string]string{"a": `{{"dsn":"{b}"}}`, "b": "x://u:{password}@h"}
	if err := rotation.Render(m, templates); err != nil {
		t.Fatal(err)
	}
	if got, want := string(m["a"].Reveal()), `{"dsn":"x://u:p%25@h"}`; got != want {
		t.Errorf("Render(%v) made %q, want %q", templates, got, want)
	}
}
