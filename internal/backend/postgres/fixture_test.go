package postgres_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/url"
	"os"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/keyturn/keyturn/internal/backend/postgres"
	"github.com/keyturn/keyturn/internal/rotation"
	"github.com/keyturn/keyturn/internal/secret"
	"github.com/keyturn/keyturn/internal/testserver"
)

var (
	shared testserver.SharedPostgres // read-only after TestMain's start
	serial atomic.Int64
)

func TestMain(m *testing.M) { os.Exit(testserver.Main(m, &shared)) }

const (
	adminPassword = "admin-password-of-the-test"
	oldPassword   = "old-password-of-the-test"
)

// A fixture is a database of a test's own, with an application's login that
// owns a table, as it was before Keyturn.
type fixture struct {
	t        testing.TB
	server   *testserver.Postgres
	role     string
	database string
	settings postgres.Settings
	options  postgres.Options
	log      *strings.Builder
	held     []*pgx.Conn // sessions that fill the server
}

func newFixture(t testing.TB, server *testserver.Postgres) *fixture {
	t.Helper()
	n := serial.Add(1)
	f := &fixture{t: t, server: server, role: fmt.Sprintf("orders%d", n), database: fmt.Sprintf("shop%d", n), log: &strings.Builder{}}
	f.exec("postgres", "create database "+f.database)
	f.exec(f.database,
		fmt.Sprintf("create role %s login password '%s' connection limit 40", f.role, oldPassword),
		fmt.Sprintf("create schema %[1]s authorization %[1]s", f.role),
		fmt.Sprintf("set role %[1]s; create table %[1]s.items (id int generated always as identity, name text); reset role", f.role),
		fmt.Sprintf(`alter role %[1]s set search_path = "$user", public; alter role %[1]s in database %[2]s set work_mem = '5MB'`, f.role, f.database),
		fmt.Sprintf("create role keyturn%d login password '%s'", n, adminPassword))
	ca, err := os.ReadFile(server.CAFile())
	if err != nil {
		t.Fatal(err)
	}
	f.settings = f.section(map[string]any{
		"admin":          fmt.Sprintf("postgres://keyturn%d@%s/%s", n, server.Addr(), f.database),
		"admin-password": map[string]any{"from-env": "ADMIN"},
		"role":           f.role,
	})
	f.options = postgres.Options{CA: ca, Settle: 20 * time.Millisecond, Patience: 10 * time.Second,
		Getenv: func(string) string { return adminPassword },
		Logger: slog.New(slog.NewTextHandler(f.log, nil))}
	return f
}

// adopted is a fixture whose set-up script was run.
func adopted(t *testing.T) *fixture {
	t.Helper()
	f := newFixture(t, shared.Get(t))
	f.setup()
	return f
}

// withStandby gives the fixture's server a standby, which is named after it as a host.
func (f *fixture) withStandby(t *testing.T) (standby *testserver.Postgres) {
	t.Helper()
	standby, err := f.server.StartStandby(t.Context(), testserver.PostgresOptions{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := standby.Remove(); err != nil {
			t.Error(err)
		}
	})
	f.settings.Admin = strings.Replace(f.settings.Admin, f.server.Addr(), f.server.Addr()+","+standby.Addr(), 1)
	return standby
}

// section decodes settings as the configuration does.
func (f *fixture) section(keys map[string]any) postgres.Settings {
	f.t.Helper()
	got, err := postgres.Section(decoder(keys))
	if err != nil {
		f.t.Fatal(err)
	}
	return got.(postgres.Settings)
}

func (f *fixture) setup() {
	f.t.Helper()
	f.exec(f.database, postgres.Setup(f.settings, postgres.SetupInfo{Credential: "orders-db"}))
}

// admin is the name of the administrator's login.
func (f *fixture) admin() string {
	name, _, _ := strings.Cut(strings.TrimPrefix(f.settings.Admin, "postgres://"), "@")
	return name
}

// trySetup runs the script, which may refuse.
func (f *fixture) trySetup() error {
	return f.try(f.server.AdminURL(), f.database, postgres.Setup(f.settings, postgres.SetupInfo{}))
}

func (f *fixture) backend(change ...func(*postgres.Options)) *postgres.Backend {
	f.t.Helper()
	o := f.options
	for _, c := range change {
		c(&o)
	}
	b, err := postgres.New(f.settings, o)
	if err != nil {
		f.t.Fatal(err)
	}
	return b
}

// exec runs scripts as superuser, each by the simple protocol as psql does.
func (f *fixture) exec(database string, scripts ...string) {
	f.t.Helper()
	if err := f.try(f.server.AdminURL(), database, scripts...); err != nil {
		f.t.Fatal(err)
	}
}

func (f *fixture) try(rawURL, database string, scripts ...string) error {
	u, err := url.Parse(rawURL)
	if err != nil {
		return err
	}
	u.Path = "/" + database
	ctx := context.Background()
	conn, err := pgx.Connect(ctx, u.String())
	if err != nil {
		return err
	}
	defer conn.Close(ctx)
	for _, s := range scripts {
		if _, err := conn.PgConn().Exec(ctx, s).ReadAll(); err != nil {
			return fmt.Errorf("%.60q: %w", s, err)
		}
	}
	return nil
}

func (f *fixture) text(query string, args ...any) string {
	f.t.Helper()
	conn, err := f.server.Connect(context.Background(), testserver.AdminUser, f.server.AdminPassword(), f.database)
	if err != nil {
		f.t.Fatal(err)
	}
	defer conn.Close(context.Background())
	var s string
	if err := conn.QueryRow(context.Background(), query, args...).Scan(&s); err != nil {
		f.t.Fatalf("%s: %v", query, err)
	}
	return s
}

// connect opens a session with a material, as an application would.
func (f *fixture) connect(login string, m rotation.Material) (*pgx.Conn, error) {
	return f.server.Connect(context.Background(), login, string(m["password"].Reveal()), f.database)
}

func version(n int) rotation.Version { return rotation.Version{Credential: "orders-db", Number: n} }

func material(password string) rotation.Material {
	return rotation.Material{"password": secret.FromString(password)}
}

// prepared identifies, drafts and arms a version, for an hour.
func (f *fixture) prepared(b *postgres.Backend, n int, others ...rotation.Version) (rotation.Version, rotation.Material) {
	f.t.Helper()
	ctx := context.Background()
	v, err := b.Identify(ctx, version(n), others)
	if err != nil {
		f.t.Fatal(err)
	}
	m, err := b.Draft(v)
	if err != nil {
		f.t.Fatal(err)
	}
	if err := b.Arm(ctx, v, m, time.Now().Add(time.Hour)); err != nil {
		f.t.Fatal(err)
	}
	return v, m
}

func (f *fixture) standing(b *postgres.Backend, v rotation.Version) rotation.Standing {
	f.t.Helper()
	s, err := b.Observe(context.Background(), v)
	if err != nil {
		f.t.Fatal(err)
	}
	return s
}

func (f *fixture) probe(b *postgres.Backend, v rotation.Version, m rotation.Material) rotation.ProbeResult {
	return postgres.Login(context.Background(), b.ProbeSpec(v), m)
}

func asPgError(err error) (*pgconn.PgError, bool) { return errors.AsType[*pgconn.PgError](err) }
