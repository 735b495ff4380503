package cli_test

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/keyturn/keyturn/internal/cli/undertest/hooks"
)

// killed runs keyturn and kills it at a point.
func (s *shop) killed(point string, args ...string) {
	s.t.Helper()
	if r := s.runWith([]string{hooks.DieAt + "=" + point}, args...); r.code != -1 {
		s.t.Fatalf("keyturn %v was not killed at %q: exit %d\n%s%s", args, point, r.code, r.stdout, r.stderr)
	}
}

// TestRotateDueGoesOn kills a rotation between two phases, long before the next
// one is due: the schedule that began it goes on with it.
func TestRotateDueGoesOn(t *testing.T) {
	t.Parallel()
	for point, service := range map[string]string{
		"after record: prepare  done":           "initial",
		"after record: validate  done":          "initial",
		"before effect: cutover expire old":     "v2",
		"before effect: cutover move":           "initial",
		"after record: cutover  done":           "v2",
		"after effect: prepare put":             "initial",
		"before effect: validate probe":         "initial",
		"after record: cutover move started":    "initial",
		"after record: prepare arm done":        "initial",
		"before effect: cutover lift bound":     "initial",
		"before record: cutover move done":      "v2",
		"after record: cutover expire old done": "v2",
	} {
		t.Run(point, func(t *testing.T) {
			t.Parallel()
			s := newShop(t, servers.postgres.Get(t), "overlap: 1h")
			s.ok("adopt", s.name)
			l := s.startLoad()
			s.killed(point, "rotate", s.name)
			if got := s.inService(); got != service {
				t.Errorf("killed %s, current leads to %q, want %q", point, got, service)
			}
			s.ok("rotate", "--due")
			p := s.status()
			if p.Current < 2 || p.Previous != 1 || p.Next != "cleanup" {
				t.Errorf("killed %s and gone on with: %+v, want version 2 in service and version 1 in its overlap", point, p)
			}
			// In the overlap there is nothing to do but to wait, and it is said.
			if out := s.ok("rotate", "--due"); !strings.Contains(out, "cleanup waiting") {
				t.Errorf("in the overlap rotate --due says:\n%s", out)
			}
			s.ahead(2 * time.Hour)
			s.ok("rotate", "--due")
			l.stop(t)
			s.finished(p.Current) // cleaned up, and not rotated again before its time
			if out := s.ok("rotate", "--due"); out != "nothing is due\n" {
				t.Errorf("when all is done rotate --due says:\n%s", out)
			}
		})
	}
}

// TestDueEndsRollback kills a rollback: whatever schedule comes next brings it
// to its end, and begins no rotation whose time has not come.
func TestDueEndsRollback(t *testing.T) {
	t.Parallel()
	for _, command := range []string{"rotate", "prepare", "validate", "cutover", "cleanup"} {
		t.Run(command, func(t *testing.T) {
			t.Parallel()
			s := newShop(t, servers.postgres.Get(t), "overlap: 1h")
			s.ok("adopt", s.name)
			l := s.startLoad()
			s.ok("rotate", s.name)
			s.killed("after effect: rollback move back", "rollback", "--reason", "drill", s.name)
			if p := s.status(); p.Next != "rollback" {
				t.Fatalf("status is %+v, want a rollback under way", p)
			}
			if out := s.ok("status"); !strings.Contains(out, "next: keyturn rollback --reason 'go on with it' "+s.name) {
				t.Errorf("status names no command that goes on:\n%s", out)
			}
			s.ok(command, "--due")
			if got := s.inService(); got != "initial" {
				t.Errorf("current leads to %q, want %q", got, "initial")
			}
			s.nothingLeft(2, s.name+"_a")
			l.stop(t)
		})
	}
}

// TestDueTakesTurns asks for every phase of every credential that is due for
// it, while each stands elsewhere: it is no refusal that none is.
func TestDueTakesTurns(t *testing.T) {
	t.Parallel()
	s := newShop(t, servers.postgres.Get(t), "overlap: 1h")
	none := func(when string, phases ...string) {
		t.Helper()
		for _, phase := range phases {
			if out := s.ok(phase, "--due"); out != "nothing is due for "+phase+"\n" {
				t.Errorf("%s %s --due says:\n%s", when, phase, out)
			}
		}
	}
	s.ok("adopt", s.name)
	none("adopted,", "prepare", "validate", "cutover", "cleanup")
	s.ok("prepare", s.name)
	none("prepared,", "prepare", "cutover", "cleanup")
	s.ok("validate", "--due")
	none("validated,", "prepare", "validate", "cleanup")
	s.ok("cutover", "--due")
	none("cut over,", "prepare", "validate", "cutover")
	if out := s.ok("cleanup", "--due"); !strings.Contains(out, "cleanup waiting") {
		t.Errorf("in the overlap cleanup --due says:\n%s", out)
	}
	s.ahead(2 * time.Hour)
	s.ok("cleanup", "--due")
	s.finished(2)
}

// TestDueRetriesTheQueue leaves an object of the old version on the retirement
// queue, in a rotation that is closed: the schedules come back to it.
func TestDueRetriesTheQueue(t *testing.T) {
	t.Parallel()
	for _, command := range []string{"cleanup", "rotate"} {
		t.Run(command, func(t *testing.T) {
			t.Parallel()
			s := newShop(t, servers.postgres.Get(t))
			s.ok("adopt", s.name)
			s.ok("rotate", s.name)
			time.Sleep(time.Second) // the overlap
			r := s.start("before effect: cleanup remove", "cleanup", s.name)
			s.point("initial") // somebody uses it again, at the last moment
			r.goOn()
			if r := r.wait(); r.code != 0 {
				t.Fatalf("cleanup: exit %d\n%s%s", r.code, r.stdout, r.stderr)
			}
			if p := s.status(); p.Next != "" || p.Queue != 1 {
				t.Fatalf("status is %+v, want a closed rotation and one object on the queue", p)
			}
			s.point("v2")
			s.ok(command, "--due")
			s.finished(2)
		})
	}
}

// TestSeveralRotations lets one of two wait and the other fail: both are told,
// and the exit code is that of the failure, whichever comes first.
func TestSeveralRotations(t *testing.T) {
	t.Parallel()
	for _, first := range []string{"waits", "fails"} {
		t.Run(first+" first", func(t *testing.T) {
			t.Parallel()
			waits, fails := apart(t, "overlap: 1h")
			if first == "fails" {
				waits, fails = fails, waits
			}
			waits.ok("rotate", waits.name)
			fails.sql(fails.name, "revoke all on all functions in schema keyturn from keyturn_"+fails.name)
			args := []string{"rotate", waits.name, fails.name}
			waits.fails(1, []string{"cleanup waits for the overlap", "permission denied"}, args...)
			r := waits.run(append(args, "-o", "json")...)
			var doc struct {
				Exit     int
				Phases   []struct{ Outcome string }
				Failures []struct {
					Credentials []string
					Exit        int
					Error       string
				}
			}
			waits.must(json.Unmarshal([]byte(r.stdout), &doc))
			if r.code != 1 || doc.Exit != 1 || len(doc.Phases) != 1 || len(doc.Failures) != 2 {
				t.Errorf("exit %d, %+v: want 1, one phase that waits and two failures", r.code, doc)
			}
			for _, f := range doc.Failures {
				if want := map[string]int{waits.name: 3, fails.name: 1}[f.Credentials[0]]; f.Exit != want || (f.Error == "") != (want == 3) {
					t.Errorf("of %v it says exit %d and %q, want %d", f.Credentials, f.Exit, f.Error, want)
				}
			}
		})
	}
}
