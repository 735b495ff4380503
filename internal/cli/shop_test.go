package cli_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/keyturn/keyturn/rotated"
	"github.com/keyturn/keyturn/rotated/rotatedpgx"

	"github.com/keyturn/keyturn/internal/testserver"
)

const (
	adminPassword = "admin-canary-4b7e"
	firstPassword = "first-canary-91aa"
)

var (
	serial  atomic.Int64
	setting sync.Mutex // the set-up script changes roles of the whole cluster
)

// A shop is an application's database with one login that owns its tables, and
// a directory from which the application reads the credential.
type shop struct {
	t       testing.TB
	pg      *testserver.Postgres
	name    string // of the credential, the role and the database
	root    string // of the directory target
	config  string
	journal string
	env     []string
	secrets []string // that it was handed, beside the passwords
}

// newShop makes a shop in which everything is set up and nothing adopted. More
// are lines of the credential in the configuration.
func newShop(t *testing.T, pg *testserver.Postgres, more ...string) *shop {
	t.Helper()
	dir := t.TempDir()
	s := &shop{t: t, pg: pg, name: fmt.Sprintf("shop%d", serial.Add(1)), root: filepath.Join(dir, "credentials"),
		config: filepath.Join(dir, "keyturn.yml"), journal: filepath.Join(dir, "state", "journal.jsonl")}
	s.env = append(os.Environ(), "KEYTURN_PG_PASSWORD="+adminPassword, "CI=")
	s.database()
	s.sql("postgres",
		fmt.Sprintf("create role %s login password '%s'", s.name, firstPassword),
		fmt.Sprintf("create role keyturn_%s login password '%s'", s.name, adminPassword))
	s.sql(s.name, fmt.Sprintf("create schema authorization %[1]s; set role %[1]s; create table items (id int); reset role", s.name))
	home := filepath.Join(s.root, s.name, "initial")
	s.must(os.MkdirAll(home, 0o755))
	s.must(os.WriteFile(filepath.Join(home, "username"), []byte(s.name), 0o400))
	s.must(os.WriteFile(filepath.Join(home, "password"), []byte(firstPassword+"\n"), 0o400))
	for field, value := range map[string]string{"host": "127.0.0.1", "port": fmt.Sprint(pg.Port()), "database": s.name} {
		s.must(os.WriteFile(filepath.Join(home, field), []byte(value), 0o400))
	}
	s.must(os.Symlink("initial", filepath.Join(s.root, s.name, "current")))
	s.write(more...)
	sql := s.ok("setup", "postgres")
	setting.Lock()
	defer setting.Unlock()
	s.sql(s.name, sql)
	return s
}

// database makes the shop's database, for as long as the test runs: a hundred of
// them take their time to be removed with their server.
func (s *shop) database() {
	s.t.Helper()
	s.sql("postgres", "create database "+s.name)
	s.t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
		defer cancel()
		_ = s.pg.Exec(ctx, "postgres", "drop database "+s.name+" with (force)") // a server that the test stopped goes as a whole
	})
}

// withLines adds lines to the credential at a configuration's end, those that
// begin with "postgres." to its section.
func withLines(text string, lines []string) string {
	for _, line := range lines {
		if key, ok := strings.CutPrefix(line, "postgres."); ok {
			text = strings.Replace(text, "      role:", "      "+key+"\n      role:", 1)
			continue
		}
		text += "    " + line + "\n"
	}
	return text
}

// write writes the configuration.
func (s *shop) write(more ...string) {
	s.t.Helper()
	text := fmt.Sprintf(`version: 1
journal: file:%s
directory: {path: %s}
credentials:
  %s:
    postgres:
      admin: postgres://keyturn_%s@%s/%s
      admin-password: {from-env: KEYTURN_PG_PASSWORD}
      ca: %s
      role: %s
    services:
      app: {path: {/run/secrets/password: password, /run/secrets/username: username}}
    minimum-age: 0s
`, s.journal, s.root, s.name, s.name, s.pg.Addr(), s.name, s.pg.CAFile(), s.name)
	text = withLines(text, more)
	if !strings.Contains(text, "overlap:") {
		text += "    overlap: 1s\n"
	}
	s.must(os.WriteFile(s.config, []byte(text), 0o600))
}

func (s *shop) must(err error) {
	s.t.Helper()
	if err != nil {
		s.t.Fatal(err)
	}
}

func (s *shop) sql(database string, statements ...string) {
	s.t.Helper()
	s.must(s.pg.Exec(context.Background(), database, statements...))
}

// A result is what a run of keyturn came to.
type result struct {
	stdout, stderr string
	code           int
	points         []string // where it was, if it was told to die
}

// command returns keyturn as a process of its own, in a folder of its own.
func (s *shop) command(ctx context.Context, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, program(s.t), append([]string{"--config", s.config}, args...)...)
	cmd.Env = s.env
	cmd.Dir = s.t.TempDir()
	return cmd
}

func (s *shop) run(args ...string) result { return s.runWith(nil, args...) }

func (s *shop) runWith(env []string, args ...string) result {
	s.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 6*time.Minute) // a busy machine is slow
	defer cancel()
	cmd := s.command(ctx, args...)
	cmd.Env = append(cmd.Env, env...)
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	points, err := os.CreateTemp(s.t.TempDir(), "points")
	s.must(err)
	defer points.Close()
	cmd.ExtraFiles = []*os.File{points}
	err = cmd.Run()
	if exit, ok := errors.AsType[*exec.ExitError](err); err != nil && !ok {
		s.t.Fatalf("keyturn %v: %v", args, exit)
	}
	b, err := os.ReadFile(points.Name())
	s.must(err)
	s.clean(stdout.String() + stderr.String())
	return result{stdout.String(), stderr.String(), cmd.ProcessState.ExitCode(), strings.Split(strings.TrimSpace(string(b)), "\n")}
}

// clean fails the test if a value that Keyturn was handed stands in an output.
func (s *shop) clean(text string) {
	s.t.Helper()
	for _, canary := range append([]string{adminPassword, firstPassword}, s.secrets...) {
		if strings.Contains(text, canary) {
			s.t.Errorf("a value stands in the output:\n%s", text)
		}
	}
}

// ok runs keyturn, which must succeed, and returns its output.
func (s *shop) ok(args ...string) string {
	s.t.Helper()
	r := s.run(args...)
	if r.code != 0 {
		s.t.Fatalf("keyturn %s: exit %d\n%s%s", strings.Join(args, " "), r.code, r.stdout, r.stderr)
	}
	return r.stdout
}

// fails runs keyturn, which must end with a code and say every one of the words.
func (s *shop) fails(code int, words []string, args ...string) {
	s.t.Helper()
	r := s.run(args...)
	if r.code != code {
		s.t.Errorf("keyturn %s: exit %d, want %d\n%s%s", strings.Join(args, " "), r.code, code, r.stdout, r.stderr)
	}
	for _, w := range words {
		if !strings.Contains(r.stderr, w) {
			s.t.Errorf("keyturn %s: stderr lacks %q:\n%s", strings.Join(args, " "), w, r.stderr)
		}
	}
}

// position is what status says of the credential.
type position struct {
	Current, Pending, Previous, Queue int
	At, Next                          string
}

func (s *shop) status() position {
	s.t.Helper()
	var all []position
	s.must(json.Unmarshal([]byte(s.ok("status", "-o", "json")), &all))
	return all[0]
}

// A load logs in with what the directory holds, with a new connection each
// time, and no fallback.
type load struct {
	cancel context.CancelFunc
	done   sync.WaitGroup
	mu     sync.Mutex
	ok     int
	failed []string
}

func (s *shop) startLoad() *load { return s.startLoadAt(s.pg) }

func (s *shop) startLoadAt(at *testserver.Postgres) *load {
	l := &load{}
	ctx, cancel := context.WithCancel(context.Background())
	l.cancel = cancel
	source := rotated.Dir(filepath.Join(s.root, s.name), "username", "password")
	base, err := pgx.ParseConfig(at.URL("nobody", "", s.name))
	s.must(err)
	l.done.Go(func() {
		for ctx.Err() == nil {
			l.login(ctx, source, base)
			time.Sleep(250 * time.Millisecond)
		}
	})
	return l
}

func (l *load) login(ctx context.Context, source *rotated.Source, base *pgx.ConnConfig) {
	cred, err := source.Current(ctx)
	if err == nil {
		var conn *pgx.Conn
		cfg := base.Copy()
		if err = rotatedpgx.Apply(cred, cfg); err == nil {
			if conn, err = pgx.ConnectConfig(ctx, cfg); err == nil {
				_, err = conn.Exec(ctx, "select count(*) from items")
				_ = conn.Close(ctx)
			}
		}
	}
	if ctx.Err() != nil {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if err != nil {
		l.failed = append(l.failed, time.Now().Format("15:04:05.000 ")+err.Error())
		return
	}
	l.ok++
}

// stop ends the load; no login may have failed.
func (l *load) stop(t *testing.T) {
	t.Helper()
	l.cancel()
	l.done.Wait()
	if len(l.failed) > 0 || l.ok == 0 {
		t.Errorf("%d logins worked, %d failed: %s", l.ok, len(l.failed), strings.Join(l.failed[:min(3, len(l.failed))], "\n"))
	}
}

// pgScan asks the server as its superuser.
func (s *shop) pgScan(query string, into ...any) error {
	return s.pgScanIn("postgres", query, into...)
}

func (s *shop) pgScanIn(database, query string, into ...any) error {
	ctx := context.Background()
	conn, err := s.pg.Connect(ctx, testserver.AdminUser, s.pg.AdminPassword(), database)
	if err != nil {
		return err
	}
	defer conn.Close(ctx)
	return conn.QueryRow(ctx, query).Scan(into...)
}
