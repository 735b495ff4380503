package rotatedpgx_test

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"maps"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/keyturn/keyturn/internal/testserver"
	"github.com/keyturn/keyturn/rotated"
	"github.com/keyturn/keyturn/rotated/rotatedpgx"
)

var vars = rotated.Vars{"POSTGRES_USER": "username", "POSTGRES_PASSWORD": "password"}

// A bench is a real server with two logins, and a folder for secrets.
type bench struct {
	*testing.T
	*testserver.Postgres
	dir    string
	config *pgx.ConnConfig
	dials  atomic.Int64
	again  atomic.Int64 // second attempts that the pool's hook needed
}

func newBench(t *testing.T, server *testserver.Postgres) *bench {
	t.Helper()
	b := &bench{T: t, Postgres: server, dir: t.TempDir()}
	b.run("DROP ROLE IF EXISTS orders_a, orders_b", "CREATE ROLE orders_a NOLOGIN", "CREATE ROLE orders_b NOLOGIN")
	var err error
	if b.config, err = pgx.ParseConfig(server.URL("nobody", "nothing", "postgres")); err != nil {
		t.Fatal(err)
	}
	b.config.AfterNetConnect = func(_ context.Context, _ *pgconn.Config, conn net.Conn) (net.Conn, error) {
		b.dials.Add(1)
		return conn, nil
	}
	return b
}

func (b *bench) run(statements ...string) {
	b.Helper()
	if err := b.Exec(context.Background(), "postgres", statements...); err != nil {
		b.Fatal(err)
	}
}

func login(n int) string { return []string{"orders_b", "orders_a"}[n%2] }

func (b *bench) arm(n int) {
	b.Helper()
	b.run(fmt.Sprintf("ALTER ROLE %s LOGIN PASSWORD 'p%d'", login(n), n))
}

func (b *bench) end(n int) {
	b.Helper()
	b.run(fmt.Sprintf("ALTER ROLE %s NOLOGIN PASSWORD NULL VALID UNTIL '-infinity'", login(n)),
		fmt.Sprintf("ALTER ROLE %s VALID UNTIL 'infinity'", login(n)))
}

// secret writes the password of a version, once, and returns the path.
func (b *bench) secret(n int) string {
	b.Helper()
	path := filepath.Join(b.dir, fmt.Sprintf("v%d", n))
	if _, err := os.Stat(path); err == nil {
		return path
	}
	if err := os.WriteFile(path, fmt.Appendf(nil, "p%d\n", n), 0o600); err != nil {
		b.Fatal(err)
	}
	return path
}

// put adds a version to the folder and moves the link current to it.
func (b *bench) put(n int) {
	b.Helper()
	dir := filepath.Join(b.dir, fmt.Sprintf("v%d", n))
	next := filepath.Join(b.dir, "next")
	for _, err := range []error{
		os.Mkdir(dir, 0o700),
		os.WriteFile(filepath.Join(dir, "username"), []byte(login(n)), 0o400),
		os.WriteFile(filepath.Join(dir, "password"), fmt.Appendf(nil, "p%d", n), 0o400),
		os.Symlink(filepath.Base(dir), next),
		os.Rename(next, filepath.Join(b.dir, "current")),
	} {
		if err != nil {
			b.Fatal(err)
		}
	}
}

// one is the environment of a task with one version, two with the next beside it.
func (b *bench) one(n int) map[string]string {
	return map[string]string{"POSTGRES_USER": login(n), "POSTGRES_PASSWORD_FILE": b.secret(n)}
}

func (b *bench) two(n int) map[string]string {
	env := b.one(n)
	maps.Copy(env, map[string]string{"POSTGRES_USER_NEW": login(n + 1), "POSTGRES_PASSWORD_FILE_NEW": b.secret(n + 1)})
	return env
}

func source(env map[string]string) *rotated.Source {
	return rotated.EnvFunc(func(name string) (string, bool) { v, ok := env[name]; return v, ok }, vars)
}

// A client makes a new connection, and returns the user it came in as.
type client func(context.Context, *bench, *rotated.Source) (string, error)

var clients = map[string]client{
	"Connect": func(ctx context.Context, b *bench, s *rotated.Source) (user string, err error) {
		conn, err := rotatedpgx.Connect(ctx, s, b.config)
		if err != nil {
			return "", err
		}
		defer conn.Close(ctx)
		return user, conn.QueryRow(ctx, "SELECT session_user").Scan(&user)
	},
	"Connector": func(ctx context.Context, b *bench, s *rotated.Source) (user string, err error) {
		db := sql.OpenDB(rotatedpgx.Connector(s, b.config))
		defer db.Close()
		return user, db.QueryRowContext(ctx, "SELECT session_user").Scan(&user)
	},
	"BeforeConnect": func(ctx context.Context, b *bench, s *rotated.Source) (user string, err error) {
		config, err := pgxpool.ParseConfig(b.URL("nobody", "nothing", "postgres"))
		if err != nil {
			return "", err
		}
		config.ConnConfig = b.config.Copy()
		config.BeforeConnect = rotatedpgx.BeforeConnect(s)
		pool, err := pgxpool.NewWithConfig(ctx, config)
		if err != nil {
			return "", err
		}
		defer pool.Close()
		err = pool.QueryRow(ctx, "SELECT session_user").Scan(&user)
		if list, _ := s.Candidates(ctx); rotatedpgx.IsRefused(err) && len(list) > 1 {
			b.again.Add(1) // the login ended between the trial and the connection
			err = pool.QueryRow(ctx, "SELECT session_user").Scan(&user)
		}
		return user, err
	},
}

func TestPostgres(t *testing.T) {
	server := testserver.NewPostgres(t, testserver.PostgresOptions{})
	for name, connect := range clients {
		t.Run(name, func(t *testing.T) {
			t.Run("refusals", func(t *testing.T) { testRefusals(newBench(t, server), connect) })
			t.Run("dual", func(t *testing.T) { testDual(newBench(t, server), connect) })
			t.Run("switch", func(t *testing.T) { testSwitch(newBench(t, server), connect) })
			t.Run("directory", func(t *testing.T) { testDirectory(newBench(t, server), connect) })
		})
	}
	t.Run("trial logins", func(t *testing.T) { testTrials(newBench(t, server)) })
	t.Run("pool is reset", func(t *testing.T) { testReset(newBench(t, server)) })
	t.Run("application's hooks", func(t *testing.T) { testHooks(newBench(t, server)) })
	t.Run("server away", func(t *testing.T) { // last: it stops the server
		b := newBench(t, server)
		b.arm(1)
		b.arm(2)
		if err := server.Stop(t.Context()); err != nil {
			t.Fatal(err)
		}
		for name, connect := range clients {
			before := source(b.two(1))
			if _, err := connect(t.Context(), b, before); err == nil || errors.Is(err, rotated.ErrRefused) {
				t.Errorf("%s: %v, want an error that is no refusal", name, err)
			}
		}
	})
}

// testRefusals shows which answers of the server lead to the next credential.
func testRefusals(b *bench, connect client) {
	const next = "orders_b"
	tests := []struct {
		say, sql, want, code string
	}{
		{"both accepted", "ALTER ROLE orders_a LOGIN PASSWORD 'p1'", "orders_a", ""},
		{"wrong password", "ALTER ROLE orders_a LOGIN PASSWORD 'other'", next, ""},
		{"no password", "ALTER ROLE orders_a LOGIN PASSWORD NULL", next, ""},
		{"expired", "ALTER ROLE orders_a LOGIN PASSWORD 'p1' VALID UNTIL '2020-01-01'", next, ""},
		{"no login, right password", "ALTER ROLE orders_a NOLOGIN PASSWORD 'p1' VALID UNTIL 'infinity'", next, ""},
		{"dropped", "DROP ROLE orders_a", next, ""},
		{"out of connections", "CREATE ROLE orders_a LOGIN PASSWORD 'p1' CONNECTION LIMIT 0", "", "53300"},
	}
	b.arm(2)
	for _, test := range tests {
		b.run(test.sql)
		user, err := connect(b.Context(), b, source(b.two(1)))
		var pg *pgconn.PgError
		switch {
		case test.code == "" && (err != nil || user != test.want):
			b.Errorf("%s: in as %q, %v, want %q", test.say, user, err, test.want)
		case test.code != "" && (!errors.As(err, &pg) || pg.Code != test.code || errors.Is(err, rotated.ErrRefused)):
			b.Errorf("%s: in as %q, %v, want SQLSTATE %s and no refusal", test.say, user, err, test.code)
		}
	}

	b.run("ALTER ROLE orders_a CONNECTION LIMIT -1")
	b.end(1)
	b.end(2)
	_, err := connect(b.Context(), b, source(b.two(1)))
	if !rotatedpgx.IsRefused(err) {
		b.Errorf("both refused: %v, want a refusal", err)
	}
	for _, value := range []string{"p1", "p2"} {
		if err != nil && strings.Contains(err.Error(), value) {
			b.Errorf("the error holds the password %q: %v", value, err)
		}
	}
}

// testTrials counts the logins that the hook of the pool makes by itself.
func testTrials(b *bench) {
	b.arm(1)
	b.arm(2)
	single, both := source(b.one(1)), source(b.two(1))
	tests := []struct {
		say    string
		source *rotated.Source
		before func()
		want   int64
		user   string
	}{
		{"one credential: none", single, nil, 1, "orders_a"},
		{"two: one", both, nil, 2, "orders_a"},
		{"the first refused: two", both, func() { b.end(1) }, 3, "orders_b"},
		{"which is remembered", both, nil, 2, "orders_b"},
	}
	for _, test := range tests {
		if test.before != nil {
			test.before()
		}
		b.dials.Store(0)
		user, err := clients["BeforeConnect"](b.Context(), b, test.source)
		if err != nil || user != test.user || b.dials.Load() != test.want {
			b.Errorf("%s: in as %q, %v, by %d logins, want %q by %d", test.say, user, err, b.dials.Load(), test.user, test.want)
		}
	}
}

// testReset is the pool of the page about applications: watched and reset.
func testReset(b *bench) {
	ctx, cancel := context.WithCancel(b.Context())
	b.arm(1)
	b.arm(2)
	b.put(1)
	s := source(map[string]string{
		"POSTGRES_USER_FILE":     filepath.Join(b.dir, "current", "username"),
		"POSTGRES_PASSWORD_FILE": filepath.Join(b.dir, "current", "password"),
	})
	first, err := s.Current(ctx)
	if err != nil {
		b.Fatal(err)
	}
	config, err := pgxpool.ParseConfig(b.URL("nobody", "nothing", "postgres"))
	if err != nil {
		b.Fatal(err)
	}
	config.BeforeConnect = rotatedpgx.BeforeConnect(s)
	pool, err := pgxpool.NewWithConfig(ctx, config)
	if err != nil {
		b.Fatal(err)
	}
	defer pool.Close()
	done := make(chan struct{})
	go func() {
		defer close(done)
		for _, err := range s.Watch(ctx, first, 10*time.Millisecond) {
			if err == nil {
				pool.Reset()
			}
		}
	}()
	defer func() { cancel(); <-done }()

	who := func() (user string) {
		if err := pool.QueryRow(ctx, "SELECT session_user").Scan(&user); err != nil {
			b.Errorf("a query failed: %v", err)
		}
		return user
	}
	if got := who(); got != "orders_a" {
		b.Errorf("before: %s, want orders_a", got)
	}
	b.put(2)
	for deadline := time.Now().Add(time.Minute); who() != "orders_b"; {
		if time.Now().After(deadline) {
			b.Fatal("the pool still has connections of orders_a")
		}
		time.Sleep(5 * time.Millisecond)
	}
}

// testHooks shows that a trial login runs none of the application's own hooks,
// and that the configuration handed in is left as it was.
func testHooks(b *bench) {
	b.arm(1)
	b.arm(2)
	var calls atomic.Int64
	b.config.AfterConnect = func(context.Context, *pgconn.PgConn) error { calls.Add(1); return nil }
	for name, connect := range clients {
		calls.Store(0)
		if _, err := connect(b.Context(), b, source(b.two(1))); err != nil || calls.Load() != 1 {
			b.Errorf("%s: %v, AfterConnect called %d times, want once", name, err, calls.Load())
		}
	}
	if b.config.User != "nobody" || b.config.Password != "nothing" {
		b.Error("the configuration handed in was changed")
	}
}
