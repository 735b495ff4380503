package postgres_test

import (
	"context"
	"fmt"
	"os"
	"regexp"
	"strings"
	"testing"

	"github.com/keyturn/keyturn/internal/backend/postgres"
	"github.com/keyturn/keyturn/internal/rotation"
	"github.com/keyturn/keyturn/internal/testserver"
)

// TestPage runs what docs/backends/postgres.md shows, from top to bottom, on a
// server of its own, and then rotates by its configuration.
func TestPage(t *testing.T) {
	page, err := os.ReadFile("../../../docs/backends/postgres.md")
	if err != nil {
		t.Fatal(err)
	}
	server := testserver.NewPostgres(t, testserver.PostgresOptions{})
	f := newFixture(t, server)
	f.role, f.database = "orders", "orders"
	f.exec("postgres", "create database orders", "create role orders login password '"+oldPassword+"'")
	blocks := regexp.MustCompile("(?s)```(\\w+)\n(.*?)```").FindAllStringSubmatch(string(page), -1)
	count := map[string]int{}
	for _, block := range blocks {
		kind, text := block[1], block[2]
		count[kind]++
		switch kind {
		case "yaml":
			lines := strings.Split(strings.TrimPrefix(text, "postgres:\n"), "\n")
			for i := range lines {
				lines[i] = strings.TrimPrefix(lines[i], "  ")
			}
			got, err := postgres.Section(decoder(strings.ReplaceAll(strings.Join(lines, "\n"), "127.0.0.1:5432", server.Addr())))
			if err != nil {
				t.Fatalf("a configuration of the page: %v\n%s", err, text)
			}
			if count[kind] > 2 { // of other ways: each has tests of its own
				continue
			}
			f.settings = got.(postgres.Settings)
			if count[kind] == 1 {
				f.setup()
				f.exec("orders", "alter role keyturn password '"+adminPassword+"'")
			}
		case "sql":
			f.exec("orders", text)
		case "pg_hba":
			f.must(server.SetHBA("local all all scram-sha-256\nhostssl all postgres 127.0.0.1/32 scram-sha-256\n" + text))
		case "bash": // TestTLSIsVerified runs it
		default:
			t.Errorf("the page has a block of %q that nothing runs", kind)
		}
	}
	if count["yaml"] < 4 || count["sql"] < 2 || count["pg_hba"] < 1 {
		t.Fatalf("the page has blocks %v, fewer than it should", count)
	}
	f.settings.AdminPassword.File, f.settings.AdminPassword.Env = "", "KEYTURN_PG_PASSWORD"
	b := f.backend()
	one, err := b.Adopt(context.Background(), version(1))
	if err != nil {
		t.Fatal(err)
	}
	two, m := f.prepared(b, 2, one)
	if r := f.probe(b, two, m); r.Answer != rotation.Alive {
		t.Errorf("Login = %+v, want alive", r)
	}
	for i := 1; i <= 11; i++ {
		code := fmt.Sprintf("KT%03d", i)
		if i != 7 && !strings.Contains(string(page), "| `"+code+"` |") {
			t.Errorf("the page does not say what %s means", code)
		}
	}
	for _, kind := range []string{"session-user", "own-sessions", "cron", "user-mapping", "subscription", "pg-hba", "database"} {
		if !strings.Contains(string(page), "| `"+kind+"` |") {
			t.Errorf("the page does not say what %s means", kind)
		}
	}
}
