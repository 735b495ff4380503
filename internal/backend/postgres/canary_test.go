package postgres_test

import (
	"context"
	"os"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/keyturn/keyturn/internal/rotation"
	"github.com/keyturn/keyturn/internal/testserver"
)

// TestServersLogHoldsNoValue logs everything that PostgreSQL can log, and looks
// for the password and the verifier after a rotation with failures in it.
func TestServersLogHoldsNoValue(t *testing.T) {
	for _, tt := range []struct {
		name    string
		without string // a right of the administrator that is taken away
	}{
		{"silenced", ""},
		{"by log_parameter_max_length alone", "revoke set on parameter log_statement, log_min_duration_statement, log_min_duration_sample, log_min_error_statement, log_transaction_sample_rate, log_parameter_max_length, auto_explain.log_min_duration, pg_stat_statements.track from %s"},
		{"by SET alone", "alter role %[1]s reset log_parameter_max_length; alter role %[1]s reset auto_explain.log_min_duration; alter role %[1]s reset pg_stat_statements.track"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			server := testserver.NewPostgres(t, testserver.PostgresOptions{Settings: map[string]string{
				"log_statement": "all", "log_duration": "on", "log_min_duration_statement": "0", "log_min_error_statement": "debug5",
				"log_parameter_max_length": "-1", "log_parameter_max_length_on_error": "-1", "log_transaction_sample_rate": "1",
				"log_error_verbosity": "verbose", "log_min_messages": "debug1",
				"shared_preload_libraries": "pg_stat_statements,auto_explain", "pg_stat_statements.track": "all",
				"auto_explain.log_min_duration": "0", "auto_explain.log_nested_statements": "on", "auto_explain.log_verbose": "on"}})
			f := newFixture(t, server)
			f.exec(f.database, "create extension pg_stat_statements")
			f.setup()
			if tt.without != "" {
				f.exec(f.database, strings.NewReplacer("%s", f.admin(), "%[1]s", f.admin()).Replace(tt.without))
			}
			b, ctx := f.backend(), context.Background()
			v, m := f.prepared(b, 2)
			f.probe(b, v, m)
			if err := b.Arm(ctx, rotation.Version{Credential: "orders-db", Number: 3, Identity: v.Identity}, m, time.Now().Add(time.Hour)); err == nil {
				t.Error("arming an armed login succeeded")
			}
			// A failure deep inside: the owner of the functions loses its power.
			f.exec(f.database, "alter role keyturn_owner nocreaterole")
			w, err := b.Identify(ctx, version(4), []rotation.Version{v})
			if err != nil {
				t.Fatal(err)
			}
			failed, _ := b.Draft(w)
			err = b.Arm(ctx, w, failed, time.Now().Add(time.Hour))
			if err == nil || strings.Contains(err.Error(), "SCRAM") || !strings.Contains(err.Error(), "42501") {
				t.Errorf("Arm without CREATEROLE = %v, want a refusal without a verifier", err)
			}
			f.exec(f.database, "alter role keyturn_owner createrole")
			if err := b.End(ctx, v, rotation.ToRevoke); err != nil {
				t.Fatal(err)
			}
			log, err := os.ReadFile(server.LogFile())
			if err != nil {
				t.Fatal(err)
			}
			if !strings.Contains(string(log), "keyturn") {
				t.Fatal("the server's log holds nothing of us: the test looks in the wrong place")
			}
			for name, value := range map[string]string{"password": string(m["password"].Reveal()), "failed password": string(failed["password"].Reveal())} {
				if strings.Contains(string(log), value) {
					t.Errorf("the server's log holds the %s", name)
				}
			}
			if found := regexp.MustCompile(`.*SCRAM-SHA-256\$[0-9]+:[A-Za-z0-9+/]{8}.{9}`).FindString(string(log)); found != "" {
				t.Errorf("the server's log holds a verifier: %.300s", found)
			}
			if n := f.text("select count(*)::text from pg_stat_statements where query ~ 'SCRAM-SHA-256.[0-9]+:[A-Za-z0-9+/]{8}'"); n != "0" {
				t.Errorf("pg_stat_statements holds %s verifiers", n)
			}
		})
	}
}

// TestLoggedLockWaitHoldsNoVerifier: a server that logs lock waits logs the
// statement that waits, inside our function. Somebody else has altered the role
// in a transaction that is still open.
func TestLoggedLockWaitHoldsNoVerifier(t *testing.T) {
	f := newFixture(t, testserver.NewPostgres(t, testserver.PostgresOptions{Settings: map[string]string{
		"log_lock_waits": "on", "deadlock_timeout": "10ms"}}))
	f.setup()
	b, ctx := f.backend(), context.Background()
	v, err := b.Identify(ctx, version(2), nil)
	if err != nil {
		t.Fatal(err)
	}
	m, err := b.Draft(v)
	if err != nil {
		t.Fatal(err)
	}
	conn, err := f.server.Connect(ctx, testserver.AdminUser, f.server.AdminPassword(), f.database)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(ctx)
	for _, statement := range []string{"begin", "alter role " + v.Identity + " connection limit 40"} {
		if _, err := conn.Exec(ctx, statement); err != nil {
			t.Fatal(err)
		}
	}
	done := make(chan error, 1)
	go func() { done <- b.Arm(ctx, v, m, time.Now().Add(time.Hour)) }()
	var log string
	for end := time.Now().Add(time.Minute); time.Now().Before(end) && !strings.Contains(log, "still waiting for"); time.Sleep(20 * time.Millisecond) {
		if log, err = f.server.LogText(); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := conn.Exec(ctx, "commit"); err != nil {
		t.Fatal(err)
	}
	if err := <-done; err != nil {
		t.Errorf("Arm beside another's ALTER ROLE: %v", err)
	}
	if log, err = f.server.LogText(); err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(log, "still waiting for") {
		t.Error("the server's log tells of no wait: the test shows nothing")
	}
	if found := regexp.MustCompile(`.*SCRAM-SHA-256\$[0-9]+:[A-Za-z0-9+/]{8}.{9}`).FindString(log); found != "" {
		t.Errorf("the server's log holds a verifier: %.300s", found)
	}
}
