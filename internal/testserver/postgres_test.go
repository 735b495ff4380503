package testserver_test

import (
	"context"
	"crypto/tls"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/keyturn/keyturn/internal/testserver"
)

// code is the SQLSTATE of an error, or "".
func code(err error) string {
	var pg *pgconn.PgError
	if errors.As(err, &pg) {
		return pg.Code
	}
	return ""
}

func limited(t *testing.T, d time.Duration) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), d)
	t.Cleanup(cancel)
	return ctx
}

func TestPostgresSpeaksTLS13AndSCRAMOnly(t *testing.T) {
	pg := testserver.NewPostgres(t, testserver.PostgresOptions{})
	ctx := limited(t, time.Minute)

	conn, err := pgx.Connect(ctx, pg.AdminURL())
	if err != nil {
		t.Fatalf("Connect(AdminURL) = %v", err)
	}
	defer conn.Close(ctx)
	var version, address string
	err = conn.QueryRow(ctx, "SELECT s.version, host(inet_server_addr()) FROM pg_stat_ssl s WHERE pid = pg_backend_pid()").Scan(&version, &address)
	if err != nil || version != "TLSv1.3" || address != "127.0.0.1" {
		t.Errorf("TLS version and address = %q, %q, %v, want TLSv1.3, 127.0.0.1", version, address, err)
	}

	plain := strings.Replace(pg.AdminURL(), "verify-full", "disable", 1)
	if _, err := pgx.Connect(ctx, plain); code(err) != "28000" {
		t.Errorf("Connect without TLS = %v, want SQLSTATE 28000", err)
	}
	if _, err := pg.Connect(ctx, testserver.AdminUser, "wrong", "postgres"); code(err) != "28P01" {
		t.Errorf("Connect with a wrong password = %v, want SQLSTATE 28P01", err)
	}
	config, err := pgx.ParseConfig(pg.AdminURL())
	if err != nil {
		t.Fatal(err)
	}
	config.TLSConfig.MaxVersion = tls.VersionTLS12
	if _, err := pgx.ConnectConfig(ctx, config); err == nil {
		t.Error("Connect with TLS 1.2 = nil, want an error")
	}
	if text, err := pg.LogText(); err != nil || strings.Contains(text, pg.AdminPassword()) {
		t.Errorf("the log holds the superuser's password (or %v)", err)
	}
}

func TestPostgresCertificate(t *testing.T) {
	pg := testserver.NewPostgres(t, testserver.PostgresOptions{})
	ctx := limited(t, time.Minute)
	tests := []struct {
		name        string
		certificate testserver.Certificate
		want        string
	}{
		{"expired", testserver.Certificate{Names: []string{"127.0.0.1"}, NotAfter: time.Now().Add(-time.Minute)}, "expired"},
		{"other name", testserver.Certificate{Names: []string{"db.example"}}, "127.0.0.1"},
		{"good", testserver.Certificate{Names: []string{"127.0.0.1"}}, ""},
	}
	for _, tt := range tests {
		if err := pg.SetCertificate(tt.certificate); err != nil {
			t.Fatalf("SetCertificate(%s) = %v", tt.name, err)
		}
		conn, err := pgx.Connect(ctx, pg.AdminURL())
		if err == nil {
			_ = conn.Close(ctx)
		}
		if tt.want == "" && err != nil || tt.want != "" && (err == nil || !strings.Contains(err.Error(), tt.want)) {
			t.Errorf("%s certificate: Connect = %v, want an error with %q", tt.name, err, tt.want)
		}
	}
}

func TestPostgresFaults(t *testing.T) {
	pg := testserver.NewPostgres(t, testserver.PostgresOptions{Settings: map[string]string{"max_connections": "20", "log_statement": "all"}})
	ctx := limited(t, 2*time.Minute)
	if err := pg.Exec(ctx, "postgres", "CREATE ROLE orders LOGIN PASSWORD 'x'", "CREATE TABLE kept (n int)"); err != nil {
		t.Fatal(err)
	}
	login := func(ctx context.Context) error {
		conn, err := pg.Connect(ctx, "orders", "x", "postgres")
		if err != nil {
			return err
		}
		return conn.Close(ctx)
	}

	t.Run("pause", func(t *testing.T) {
		if err := pg.Pause(); err != nil {
			t.Fatal(err)
		}
		short, cancel := context.WithTimeout(ctx, 300*time.Millisecond)
		defer cancel()
		if err := login(short); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("login while paused = %v, want a timeout", err)
		}
		if err := pg.Resume(); err != nil {
			t.Fatal(err)
		}
		if err := login(ctx); err != nil {
			t.Errorf("login after Resume = %v", err)
		}
	})
	t.Run("hba", func(t *testing.T) {
		if err := pg.SetHBA("hostssl all orders 0.0.0.0/0 reject\n" + testserver.DefaultHBA); err != nil {
			t.Fatal(err)
		}
		if err := login(ctx); code(err) != "28000" {
			t.Errorf("login with a rejecting line = %v, want SQLSTATE 28000", err)
		}
		if err := pg.SetHBA("nonsense\n"); err == nil {
			t.Error("SetHBA(nonsense) = nil, want an error")
		}
		if err := pg.ResetHBA(); err != nil {
			t.Fatal(err)
		}
		if err := login(ctx); err != nil {
			t.Errorf("login after ResetHBA = %v", err)
		}
	})
	t.Run("restart", func(t *testing.T) {
		for _, end := range []func(context.Context) error{pg.Stop, pg.Crash} {
			if err := end(ctx); err != nil {
				t.Fatal(err)
			}
			if err := login(ctx); err == nil || code(err) != "" {
				t.Errorf("login while stopped = %v, want a refused connection", err)
			}
			if err := pg.Start(ctx); err != nil {
				t.Fatal(err)
			}
			if err := pg.Exec(ctx, "postgres", "SELECT FROM kept"); err != nil {
				t.Errorf("after the start: %v", err)
			}
		}
	})
	t.Run("settings", func(t *testing.T) {
		if err := pg.Set(map[string]string{"log_statement": "none"}); err != nil {
			t.Fatal(err)
		}
		if err := pg.Exec(ctx, "postgres", "SELECT 'unheard'"); err != nil {
			t.Fatal(err)
		}
		text, err := pg.LogText()
		if err != nil || strings.Contains(text, "unheard") || !strings.Contains(text, "SELECT FROM kept") {
			t.Errorf("the log = %q, %v; want the statements before log_statement=none only", text, err)
		}
	})
}

func TestPostgresStandby(t *testing.T) {
	pg := testserver.NewPostgres(t, testserver.PostgresOptions{})
	ctx := limited(t, time.Minute)
	standby, err := pg.StartStandby(ctx, testserver.PostgresOptions{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := standby.Remove(); err != nil {
			t.Error(err)
		}
	})
	if err := pg.Exec(ctx, "postgres", "CREATE ROLE orders LOGIN PASSWORD 'x'"); err != nil {
		t.Fatal(err)
	}
	if err := standby.WaitCaughtUp(ctx); err != nil {
		t.Fatal(err)
	}
	conn, err := standby.Connect(ctx, "orders", "x", "postgres")
	if err != nil {
		t.Fatalf("login on the standby with a role made on the primary = %v", err)
	}
	defer conn.Close(ctx)
	var recovering bool
	if err := conn.QueryRow(ctx, "SELECT pg_is_in_recovery()").Scan(&recovering); err != nil || !recovering {
		t.Errorf("pg_is_in_recovery() = %v, %v, want true", recovering, err)
	}
}

func TestPostgresRemoveLeavesNothing(t *testing.T) {
	for _, paused := range []bool{false, true} {
		pg, err := testserver.StartPostgres(t.Context(), testserver.PostgresOptions{})
		testserver.Require(t, err)
		if paused {
			if err := pg.Pause(); err != nil {
				t.Error(err)
			}
		}
		if err := pg.Remove(); err != nil {
			t.Errorf("Remove() = %v", err)
		}
		if left := traces(t, pg.Dir()); len(left) > 0 {
			t.Errorf("Remove() with paused = %v left %q", paused, left)
		}
	}
}
