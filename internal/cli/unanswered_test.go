package cli_test

import (
	"context"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/keyturn/keyturn/internal/testserver"
)

// A fault makes a server unable to answer, and able again. With KEYTURN_FAULTS=all there is one more.
type fault struct {
	name       string
	make, mend func(t *testing.T, pg *testserver.Postgres)
	stages     []stage
}

// A stage is where a fault meets a phase.
type stage struct {
	phase   string
	midst   string // the point in the phase; "": before it
	service string // what is in service then
	again   bool   // the next stage meets the same phase

	connected bool // the administrator is logged in, and stays it
}

func faults() []fault {
	every := []stage{
		{phase: "prepare", service: "initial"},
		{phase: "validate", midst: "before effect: validate probe", service: "initial"},
		{phase: "cutover", midst: "before effect: cutover lift bound", service: "initial", again: true},
		{phase: "cutover", midst: "before effect: cutover probe", service: "initial", again: true},
		{phase: "cutover", midst: "before effect: cutover expire old", service: "v2"},
		{phase: "rollback", midst: "before effect: rollback probe old", service: "v2"},
	}
	all := []fault{
		{"stopped",
			func(t *testing.T, pg *testserver.Postgres) { check(t, pg.Crash(t.Context())) },
			func(t *testing.T, pg *testserver.Postgres) { check(t, pg.Start(t.Context())) }, every},
		{"silent",
			func(t *testing.T, pg *testserver.Postgres) { check(t, pg.Pause()) },
			func(t *testing.T, pg *testserver.Postgres) { check(t, pg.Resume()) },
			[]stage{every[0], every[1], every[3], every[4], {phase: "rollback", service: "v2"}}},
		// What a phase does as administrator after its first login, it can do.
		{"full", fill, empty, []stage{every[0], every[1], every[2], {phase: "cutover", midst: every[3].midst, service: "initial", connected: true},
			{phase: "rollback", midst: every[5].midst, service: "v2", connected: true}}},
	}
	if os.Getenv("KEYTURN_FAULTS") != "all" { // what a silent one costs is the limits of time
		all = slices.DeleteFunc(all, func(f fault) bool { return f.name == "silent" })
	}
	return all
}

func check(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// fill takes every connection that people who are no superuser may have.
func fill(t *testing.T, pg *testserver.Postgres) {
	t.Helper()
	check(t, pg.Exec(t.Context(), "postgres", "create role crowd login password 'crowd'"))
	for n := 0; ; n++ {
		ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
		conn, err := pgx.Connect(ctx, pg.URL("crowd", "crowd", "postgres"))
		cancel()
		if err == nil {
			t.Cleanup(func() { conn.Close(context.Background()) })
			continue
		}
		if n == 0 || !strings.Contains(err.Error(), "53300") {
			t.Fatalf("after %d connections: %v", n, err)
		}
		return
	}
}

func empty(t *testing.T, pg *testserver.Postgres) {
	t.Helper()
	check(t, pg.Exec(t.Context(), "postgres", "alter role crowd nologin",
		"select pg_terminate_backend(pid, 5000) from pg_stat_activity where usename = 'crowd'", "drop role crowd"))
}

// TestServerThatCannotAnswer breaks the server before each phase, and in the
// middle of it: that is not known, so nothing is concluded, nothing is moved or
// taken back, and when the server is back the same command goes on.
func TestServerThatCannotAnswer(t *testing.T) {
	t.Parallel()
	for _, f := range faults() {
		t.Run(f.name, func(t *testing.T) {
			t.Parallel()
			pg := testserver.NewPostgres(t, testserver.PostgresOptions{Settings: map[string]string{"max_connections": "20"}})
			s := newShop(t, pg, quick, "overlap: 1h")
			s.ok("adopt", s.name)
			for _, st := range f.stages {
				args := []string{st.phase, s.name}
				if st.phase == "rollback" {
					args = append(args, "--reason", "drill")
				}
				var r *running
				if st.midst != "" {
					r = s.start(st.midst, args...)
				}
				f.make(t, pg)
				if r == nil {
					r = s.start("", args...)
				}
				r.goOn()
				s.unknown(r.wait(), st)
				f.mend(t, pg)
				if !st.again {
					s.ok(args...)
				}
			}
			if got := s.inService(); got != "initial" {
				t.Errorf("after all that, and a rollback, current leads to %q, want %q", got, "initial")
			}
			s.nothingLeft(2, s.name+"_a")
			s.write("overlap: 1s")
			s.ok("rotate", "--wait", s.name)
			s.finished(3)
		})
	}
}

// unknown checks a run that could not tell.
func (s *shop) unknown(r result, st stage) {
	s.t.Helper()
	when, service := st.phase+" "+st.midst, st.service
	if r.code != 4 {
		s.t.Errorf("%s: exit %d, want 4\n%s%s", when, r.code, r.stdout, r.stderr)
	}
	said := r.stderr
	if st.connected { // a bound that was lifted is put back
		said = strings.NewReplacer("undo lift bound", "", "undo lift expiry", "").Replace(said)
	}
	if strings.Contains(said, "rolled back") || strings.Contains(said, "undo ") {
		s.t.Errorf("%s: something was undone:\n%s", when, r.stderr)
	}
	if got := s.inService(); got != service {
		s.t.Errorf("%s: current leads to %q, want %q", when, got, service)
	}
}
