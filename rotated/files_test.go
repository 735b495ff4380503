package rotated_test

import (
	"errors"
	"path/filepath"
	"strings"
	"testing"

	"github.com/keyturn/keyturn/rotated"
)

func TestFiles(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "db_url")
	source := rotated.Files(map[string]string{path: "dsn"})
	if _, err := source.Current(t.Context()); !errors.Is(err, rotated.ErrMissing) {
		t.Errorf("without the file: %v, want ErrMissing", err)
	}
	for _, text := range []string{"one", "two"} {
		write(t, path, text+"\n")
		c, err := source.Current(t.Context())
		if err != nil || c.Field("dsn") != text || c.Origin() != path {
			t.Errorf("Current = %q from %q, %v, want %q from %q", c.Field("dsn"), c.Origin(), err, text, path)
		}
	}
	other := filepath.Join(dir, "other")
	for name, fields := range map[string]map[string]string{
		"none": {}, "no field": {path: ""}, "no path": {"": "a"}, "one field twice": {path: "a", other: "a"},
	} {
		if _, err := rotated.Files(fields).Current(t.Context()); err == nil || errors.Is(err, rotated.ErrMissing) {
			t.Errorf("%s: %v, want an error that names the mistake", name, err)
		}
	}
}

// An error is one line, and says what to set.
func TestErrorsAreOneLine(t *testing.T) {
	_, err := setting{env: map[string]string{"DB_USER": "u", "DB_PASSWORD_FILE": "@gone", "DB_PASSWORD_FILE_NEW": "@gone"}}.
		source(t, login).Current(t.Context())
	if err == nil || strings.Contains(err.Error(), "\n") {
		t.Fatalf("Current: %v, want an error on one line", err)
	}
	for _, want := range []string{
		"reading a credential: from DB_PASSWORD_FILE and DB_USER: stat ", "gone: no such file or directory; ",
		"neither DB_USER_FILE_NEW nor DB_USER_NEW is set; DB_PASSWORD is not set",
	} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("Current: %v\nwant it to say %q", err, want)
		}
	}
}
