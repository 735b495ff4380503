package main

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/keyturn/keyturn/internal/testserver/outcome"
)

func environment(pairs ...string) func(string) string {
	return func(name string) string {
		for i := 0; i < len(pairs); i += 2 {
			if pairs[i] == name {
				return pairs[i+1]
			}
		}
		return ""
	}
}

func file(t *testing.T, text string) string {
	t.Helper()
	name := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return name
}

func TestReadConfig(t *testing.T) {
	tests := []struct {
		name string
		env  []string
		want string
	}{
		{"user and file", []string{"POSTGRES_USER", "orders", "POSTGRES_PASSWORD_FILE", "/p"}, ""},
		{"two files", []string{"POSTGRES_USER_FILE", "/u", "POSTGRES_PASSWORD_FILE", "/p"}, ""},
		{"URL", []string{"DATABASE_URL_FILE", "/d"}, ""},
		{"nothing", nil, "set DATABASE_URL_FILE"},
		{"half", []string{"POSTGRES_USER", "orders"}, "set DATABASE_URL_FILE"},
		{"pause", []string{"DATABASE_URL_FILE", "/d", "LOAD_EVERY", "0s"}, "LOAD_EVERY"},
	}
	for _, tt := range tests {
		_, err := readConfig(environment(tt.env...))
		if tt.want == "" && err != nil || tt.want != "" && (err == nil || !strings.Contains(err.Error(), tt.want)) {
			t.Errorf("%s: readConfig = %v, want %q", tt.name, err, tt.want)
		}
	}
}

func TestCredentialIsReadAtEveryLogin(t *testing.T) {
	password := file(t, "one\n")
	c, err := readConfig(environment("POSTGRES_USER", "orders", "POSTGRES_PASSWORD_FILE", password, "POSTGRES_HOST", "db", "POSTGRES_PORT", "1", "POSTGRES_DB", "shop"))
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"one", "two'\\ three"} {
		if err := os.WriteFile(password, []byte(want+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		got, err := c.connConfig()
		if err != nil {
			t.Fatal(err)
		}
		if got.Password != want || got.User != "orders" || got.Host != "db" || got.Database != "shop" || got.TLSConfig == nil || got.TLSConfig.ServerName != "db" || len(got.Fallbacks) > 0 {
			t.Errorf("connConfig() = user %q, host %q, database %q, fall-backs %d, want those of the environment with verify-full", got.User, got.Host, got.Database, len(got.Fallbacks))
		}
	}
}

func TestURL(t *testing.T) {
	c, err := readConfig(environment("DATABASE_URL_FILE", file(t, "postgres://orders:s3cret@db:6/shop")))
	if err != nil {
		t.Fatal(err)
	}
	got, err := c.connConfig()
	if err != nil || got.Password != "s3cret" || got.Host != "db" || got.Port != 6 {
		t.Errorf("connConfig() = %v, want the parts of the URL", err)
	}
	c.urlFile = file(t, "postgres://orders:s3cret@db:x/shop")
	if _, err := c.connConfig(); err == nil || strings.Contains(err.Error(), "s3cret") {
		t.Errorf("connConfig() with a broken URL = %v, want an error without the password", err)
	}
}

func TestClassify(t *testing.T) {
	tests := []struct {
		err        error
		code, word string
	}{
		{fmt.Errorf("x: %w", &pgconn.PgError{Code: "28P01", Message: "no"}), "28P01", "no"},
		{fmt.Errorf("%w: %w", errCredential, os.ErrNotExist), "credential", "not exist"},
		{fmt.Errorf("x: %w", context.DeadlineExceeded), "timeout", ""},
		{fmt.Errorf("x: %w", &tls.CertificateVerificationError{Err: errors.New("bad")}), "tls", ""},
		{fmt.Errorf("user=s3cret: %w", errors.Join(syscall.ECONNREFUSED)), "connect", "connection refused"},
	}
	for _, tt := range tests {
		code, message := classify(tt.err)
		if code != tt.code || !strings.Contains(message, tt.word) || strings.Contains(message, "s3cret") {
			t.Errorf("classify(%v) = %q, %q, want %q, %q", tt.err, code, message, tt.code, tt.word)
		}
	}
}

func TestHealth(t *testing.T) {
	c := config{healthFile: filepath.Join(t.TempDir(), "health")}
	h := health{file: c.healthFile, unhealthyUser: "broken"}
	note := func(n int, o outcome.Login) {
		t.Helper()
		for range n {
			if err := h.note(o); err != nil {
				t.Fatal(err)
			}
		}
	}
	check := func(when string, want bool) {
		t.Helper()
		if err := checkHealth(c); (err == nil) != want {
			t.Errorf("%s: checkHealth() = %v, want healthy = %v", when, err, want)
		}
	}
	good, bad, broken := outcome.Login{OK: true, Session: "a"}, outcome.Login{}, outcome.Login{OK: true, Session: "broken"}
	check("before the first login", false)
	note(1, good)
	check("after a good login", true)
	note(enough-1, bad)
	check("after a few failed ones", true)
	note(1, bad)
	check("after enough failed ones", false)
	note(1, good)
	check("after a good one again", true)
	note(enough, broken)
	check("as the unhealthy user", false)
	note(1, good)
	old := time.Now().Add(-2 * healthAge)
	if err := os.Chtimes(c.healthFile, old, old); err != nil {
		t.Fatal(err)
	}
	check("after a long silence", false)
}
