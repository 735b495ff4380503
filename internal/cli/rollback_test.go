package cli_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/keyturn/keyturn/internal/cli/undertest/hooks"
)

// ahead moves the clock of the runs that follow.
func (s *shop) ahead(d time.Duration) {
	s.env = append(s.env, hooks.ClockAhead+"="+d.String())
}

// TestRollback goes back in the overlap, at different moments, under load.
func TestRollback(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name   string
		before func(s *shop) // after the cutover
	}{
		{"in the overlap", func(*shop) {}},
		{"after the fail-safe expiry was reached", func(s *shop) {
			s.sql("postgres", fmt.Sprintf("alter role %s valid until '%s'", s.name, time.Now().Add(-time.Minute).UTC().Format(time.RFC3339)))
		}},
		{"after overlap and grace by the clock", func(s *shop) { s.ahead(90 * 24 * time.Hour) }},
		{"while sessions of both are open", func(s *shop) {
			s.session(s.name, firstPassword)
			s.session(s.name+"_a", s.password("v2"))
		}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			s := newShop(t, servers.postgres.Get(t), "overlap: 1h")
			s.ok("adopt", s.name)
			l := s.startLoad()
			s.ok("rotate", s.name)
			if got := s.inService(); got != "v2" {
				t.Fatalf("after the cutover current leads to %q", got)
			}
			tt.before(s)
			out := s.ok("rollback", "--reason", "the release is broken", s.name)
			if want := s.name + ": v1 current\n"; !strings.Contains(out, want) {
				t.Errorf("rollback prints %q, want %q in it", out, want)
			}
			if got := s.inService(); got != "initial" {
				t.Errorf("after the rollback current leads to %q, want %q", got, "initial")
			}
			s.nothingLeft(2, s.name+"_a")
			if got := s.value("select coalesce(rolvaliduntil, 'infinity')::text from pg_authid where rolname = $1", s.name); got != "infinity" {
				t.Errorf("the login that is in service again is valid until %s", got)
			}
			s.recorded("the release is broken")
			s.env = s.env[:len(s.env):len(s.env)]
			s.env = append(s.env, hooks.ClockAhead+"=0s")
			s.write("overlap: 1s")
			s.ok("rotate", "--wait", s.name)
			l.stop(t)
			s.finished(3)
		})
	}
}

// value asks for one value.
func (s *shop) value(query string, args ...any) string {
	s.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	conn, err := s.pg.Connect(ctx, "postgres", s.pg.AdminPassword(), "postgres")
	s.must(err)
	defer conn.Close(ctx)
	var got string
	s.must(conn.QueryRow(ctx, query, args...).Scan(&got))
	return got
}

// session opens a session of an application that keeps it until the test's end.
func (s *shop) session(login, password string) {
	s.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	conn, err := s.pg.Connect(ctx, login, password, s.name)
	s.must(err)
	s.t.Cleanup(func() { conn.Close(context.Background()) })
}

// password reads what stands in a version's directory.
func (s *shop) password(version string) string {
	s.t.Helper()
	b, err := os.ReadFile(filepath.Join(s.root, s.name, version, "password"))
	s.must(err)
	return strings.TrimSpace(string(b))
}

// recorded checks that a text stands in the journal.
func (s *shop) recorded(text string) {
	s.t.Helper()
	b, err := os.ReadFile(s.journal)
	s.must(err)
	if !strings.Contains(string(b), text) {
		s.t.Errorf("%q is not on the record", text)
	}
}

// TestRollbackAfterRetirement is refused, with the way forward.
func TestRollbackAfterRetirement(t *testing.T) {
	t.Parallel()
	s := newShop(t, servers.postgres.Get(t))
	s.ok("adopt", s.name)
	l := s.startLoad()
	s.ok("rotate", "--wait", s.name)
	s.fails(3, []string{"the version before is retired", "hint: the way is forward: keyturn rotate " + s.name}, "rollback", "--reason", "too late", s.name)
	s.finished(2)

	// Once its end was begun there is no way back either.
	s.ok("rotate", s.name)
	time.Sleep(time.Second)
	r := s.start("before effect: cleanup end", "cleanup", s.name)
	s.must(r.cmd.Process.Kill())
	r.wait()
	s.fails(3, []string{"the end of version 2 was begun", "hint: the way is forward: keyturn cleanup " + s.name}, "rollback", "--reason", "too late", s.name)
	s.ok("cleanup", s.name)
	l.stop(t)
	s.finished(3)
}

// TestRollbackToNothingThatWorks leaves the services where they are when the
// old version does not work any more.
func TestRollbackToNothingThatWorks(t *testing.T) {
	t.Parallel()
	s := newShop(t, servers.postgres.Get(t), "overlap: 1h", quick)
	s.ok("adopt", s.name)
	l := s.startLoad()
	s.ok("rotate", s.name)
	s.sql("postgres", fmt.Sprintf("alter role %s password 'somebody changed it'", s.name))
	s.fails(4, []string{"version 1, to go back to, is dead", "hint: the services were left where they are"}, "rollback", "--reason", "drill", s.name)
	if got := s.inService(); got != "v2" {
		t.Errorf("current leads to %q, want v2", got)
	}
	s.sql("postgres", fmt.Sprintf("alter role %s password '%s'", s.name, firstPassword))
	s.ok("rollback", "--reason", "drill", s.name)
	l.stop(t)
	s.nothingLeft(2, s.name+"_a")
}

// TestSecondJob starts a second run beside one that is in the midst of a phase,
// and beside one that was killed there.
func TestSecondJob(t *testing.T) {
	t.Parallel()
	s := newShop(t, servers.postgres.Get(t))
	s.ok("adopt", s.name)
	l := s.startLoad()
	for _, at := range []struct{ phase, point string }{
		{"prepare", "after effect: prepare put"},
		{"validate", "before effect: validate probe"},
		{"cutover", "after effect: cutover move"},
	} {
		first := s.start(at.point, at.phase, s.name)
		before := s.everything()
		for _, phase := range []string{"prepare", at.phase} {
			r := s.run(phase, s.name)
			if diff := cmp.Diff(before, s.everything()); diff != "" {
				t.Errorf("%s beside %s changed something (-before +after):\n%s", phase, at.phase, diff)
			}
			if r.code != 3 || !strings.Contains(r.stderr, "run 01") || !strings.Contains(r.stderr, "hint: wait for it") {
				t.Errorf("%s beside %s: exit %d, want 3 and the name of the run\n%s", phase, at.phase, r.code, r.stderr)
			}
		}
		if !strings.Contains(s.ok("status"), "held by run 01") {
			t.Error("status does not say that a run holds it")
		}
		first.goOn()
		if r := first.wait(); r.code != 0 {
			t.Errorf("the first %s was disturbed: exit %d\n%s", at.phase, r.code, r.stderr)
		}
	}
	time.Sleep(time.Second)
	first := s.start("before effect: cleanup proof", "cleanup", s.name)
	s.fails(3, []string{"run 01"}, "cleanup", s.name)
	s.must(first.cmd.Process.Kill())
	first.wait()
	begun := time.Now()
	s.ok("cleanup", s.name) // takes over at once: the first one is known to be dead
	if took := time.Since(begun); took > 30*time.Second {
		t.Errorf("taking over took %s", took)
	}
	l.stop(t)
	s.finished(2)
}

// TestTakeOver takes the lease of a run of which nobody here knows whether it is
// alive: it was killed on a machine that is gone.
func TestTakeOver(t *testing.T) {
	t.Parallel()
	s := newShop(t, servers.postgres.Get(t))
	s.ok("adopt", s.name)
	l := s.startLoad()
	s.killed("after effect: prepare put", "prepare", s.name)
	s.must(os.RemoveAll(s.journal + ".runs"))
	before := s.everything()
	s.fails(3, []string{"is being rotated by run 01", "hint: wait for it"}, "prepare", s.name)
	if diff := cmp.Diff(before, s.everything()); diff != "" {
		t.Errorf("beside a run that may be alive, something was changed (-before +after):\n%s", diff)
	}
	if out := s.ok("prepare", "--help"); !strings.Contains(out, "take the lease although its holder may be alive") {
		t.Errorf("--take-over is not explained:\n%s", out)
	}
	s.ok("prepare", "--take-over", s.name)
	p := s.status()
	s.ok("rotate", "--wait", s.name)
	l.stop(t)
	s.finished(p.Pending)
}

// TestEmergency does not wait for the current version's minimum age, and takes
// the login that is kept for it.
func TestEmergency(t *testing.T) {
	t.Parallel()
	s := newShop(t, servers.postgres.Get(t))
	s.ok("adopt", s.name)
	l := s.startLoad()
	s.ok("rotate", "--wait", s.name)
	b, err := os.ReadFile(s.config)
	s.must(err)
	s.must(os.WriteFile(s.config, []byte(strings.Replace(string(b), "minimum-age: 0s", "minimum-age: 1h", 1)), 0o600))
	s.fails(3, []string{"old, want at least 1h", "hint: an emergency does not wait: --emergency"}, "prepare", s.name)
	s.sql("postgres", fmt.Sprintf("alter role %s_b login", s.name)) // somebody else has the other one
	if out := s.ok("prepare", "--emergency", "--dry-run", s.name); !strings.Contains(out, fmt.Sprintf("login %[1]s_a → %[1]s_c", s.name)) {
		t.Errorf("the plan of an emergency is:\n%s", out)
	}
	s.ok("rotate", "--emergency", "--wait", s.name)
	if got := s.value("select rolcanlogin::text from pg_authid where rolname = $1", s.name+"_c"); got != "true" {
		t.Errorf("the emergency login can log in: %s", got)
	}
	l.stop(t)
	s.finished(3)
}

// TestSecondJournal starts a rotation of the same credential from another
// journal: the backend's lock keeps it away, and later the foreign version does.
func TestSecondJournal(t *testing.T) {
	t.Parallel()
	s := newShop(t, servers.postgres.Get(t))
	s.ok("adopt", s.name)
	l := s.startLoad()
	config, err := os.ReadFile(s.config)
	s.must(err)
	twin := *s
	twin.config = filepath.Join(t.TempDir(), "twin.yml")
	twin.journal = filepath.Join(t.TempDir(), "twin.jsonl")
	s.must(os.WriteFile(twin.config, []byte(strings.ReplaceAll(string(config), s.journal, twin.journal)), 0o600))
	twin.ok("adopt", s.name)

	first := s.start("after effect: prepare arm", "prepare", s.name)
	twin.fails(3, []string{"another rotator holds the lock", "hint: wait until it is done"}, "prepare", s.name)
	first.goOn()
	if r := first.wait(); r.code != 0 {
		t.Errorf("the first prepare was disturbed: exit %d\n%s", r.code, r.stderr)
	}
	twin.fails(3, []string{"version 2", "not in this journal", "hint: if nobody else rotates it"}, "prepare", s.name)
	s.ok("rotate", "--wait", s.name)
	l.stop(t)
	s.finished(2)
}

// TestApprovalAWeekLate moves the clock between validate and cutover: the
// pending version's time has run out, so it is given up, and nothing is lost.
func TestApprovalAWeekLate(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name string
		late func(s *shop)
	}{
		{"by our clock", func(s *shop) { s.ahead(8 * 24 * time.Hour) }},
		{"by the server's", func(s *shop) {
			s.sql("postgres", fmt.Sprintf("alter role %s_a valid until '%s'", s.name, time.Now().Add(-24*time.Hour).UTC().Format(time.RFC3339)))
		}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			s := newShop(t, servers.postgres.Get(t), quick)
			s.ok("adopt", s.name)
			l := s.startLoad()
			s.ok("prepare", s.name)
			s.ok("validate", s.name)
			tt.late(s)
			s.fails(1, []string{"rolled back", "the time of version 2 ran out", "hint: start again: keyturn prepare"}, "cutover", s.name)
			if got := s.inService(); got != "initial" {
				t.Errorf("current leads to %q, want %q", got, "initial")
			}
			s.nothingLeft(2, s.name+"_a")
			s.env = append(s.env, hooks.ClockAhead+"=0s")
			s.ok("rotate", "--wait", s.name)
			l.stop(t)
			s.finished(3)
		})
	}
}

// TestOldVersionIsUsedAgain points the link back to the old version after the
// cutover, as deploying an old stack file does elsewhere: cleanup waits, the
// expiry is lengthened, which is said, and no login fails.
func TestOldVersionIsUsedAgain(t *testing.T) {
	t.Parallel()
	s := newShop(t, servers.postgres.Get(t), "overlap: 2s", "grace: 1h")
	s.ok("adopt", s.name)
	l := s.startLoad()
	s.ok("rotate", s.name)
	s.point("initial")
	soon := time.Now().Add(10 * time.Second).UTC()
	s.sql("postgres", fmt.Sprintf("alter role %s valid until '%s'", s.name, soon.Format(time.RFC3339)))
	time.Sleep(2 * time.Second) // the overlap
	r := s.run("cleanup", s.name)
	if r.code != 3 || !strings.Contains(r.stderr, "services that still use version 1") || !strings.Contains(r.stdout, "note: version 1 is still used: its expiry was put off to ") {
		t.Errorf("cleanup: exit %d, want 3, what it waits for, and that the expiry was put off:\n%s%s", r.code, r.stdout, r.stderr)
	}
	if left := s.value("select (rolvaliduntil > now() + interval '50 minutes')::text from pg_authid where rolname = $1", s.name); left != "true" {
		t.Errorf("the expiry of the old version was %s and was not lengthened by overlap and grace", soon)
	}
	s.recorded(`"extended"`)
	s.fails(3, []string{"version 1"}, "prepare", s.name)
	time.Sleep(time.Until(soon) + time.Second) // logins go on after the expiry that was
	s.point("v2")
	s.ok("cleanup", s.name)
	l.stop(t)
	s.finished(2)
}

// point sets the link as somebody with ln -sfn would, in one move.
func (s *shop) point(to string) {
	s.t.Helper()
	link := filepath.Join(s.root, s.name, "current")
	s.must(os.Symlink(to, link+".mine"))
	s.must(os.Rename(link+".mine", link))
}

// TestSessionOfTheOldVersionStays keeps a session of the old login open: it has
// until its grace is over, and is then ended, which is recorded.
func TestSessionOfTheOldVersionStays(t *testing.T) {
	t.Parallel()
	s := newShop(t, servers.postgres.Get(t), "overlap: 1s", "grace: 1h")
	s.ok("adopt", s.name)
	l := s.startLoad()
	s.session(s.name, firstPassword)
	s.ok("rotate", s.name)
	time.Sleep(time.Second)
	s.fails(3, []string{"sessions of version 1"}, "cleanup", s.name)
	if p := s.status(); p.Previous != 1 {
		t.Errorf("status is %+v, want version 1 previous", p)
	}
	s.ahead(2 * time.Hour)
	s.ok("cleanup", s.name)
	s.recorded(`"sessions":1`)
	l.stop(t)
	s.finished(2)
}
