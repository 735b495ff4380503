package rotation_test

import (
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/keyturn/keyturn/internal/rotation"
	"github.com/keyturn/keyturn/internal/rotation/rotationtest"
)

// inTarget runs a test whose leases are kept apart from the journal.
func inTarget(t *testing.T, mounts rotation.Mounts, test func(t *testing.T, s *rotationtest.Scenario)) {
	t.Helper()
	in(t, mounts, func(t *testing.T, s *rotationtest.Scenario) {
		s.Leaser = s.World.Leaser()
		test(t, s)
	})
}

// A look that fails before the end of the old version takes nobody's way back.
func TestWayBackAfterAHiccupAtCleanup(t *testing.T) {
	in(t, rotation.Switch, func(t *testing.T, s *rotationtest.Scenario) {
		must(t, s, rotation.Prepare, rotation.Validate, rotation.Cutover)
		s.World.Advance(25 * time.Hour)
		s.World.Mute(credential(t, s).Next(), true)
		_, err := do(s, rotation.Cleanup)
		if err == nil || !strings.Contains(err.Error(), "does not answer") {
			t.Fatalf("cleanup = %v, want that the current version does not answer", err)
		}
		must(t, s, rotation.Rollback)
		if got := s.World.Reads("api", "orders"); !slices.Equal(got, []int{1}) {
			t.Errorf("the service reads %v, want [1]", got)
		}
		if err := s.End(); err != nil {
			t.Error(err)
		}
	})
}

// Somebody deployed a service on the new version and declared it nowhere: a
// rollback moves the declared ones, and ends the new version when nobody reads it.
func TestRollbackSparesWhatItDidNotMove(t *testing.T) {
	in(t, rotation.Switch, func(t *testing.T, s *rotationtest.Scenario) {
		must(t, s, rotation.Prepare, rotation.Validate, rotation.Cutover)
		s.World.Service("late", 1)
		s.World.DeployOld("late", credential(t, s).Next())
		must(t, s, rotation.Rollback)
		if c := credential(t, s); c.Open != nil || len(c.Queue) != 2 {
			t.Fatalf("open %v, queue %+v, want closed with the end and the removal queued", c.Open, c.Queue)
		}
		if got := s.World.Accepted("orders"); !slices.Equal(got, []int{1, 2}) {
			t.Errorf("accepted are %v, want [1 2]", got)
		}
		s.World.Service("late", 1) // made anew, without it
		must(t, s, rotation.Cleanup)
		if err := s.End(); err != nil {
			t.Error(err)
		}
	})
}

// Hard problem 59: the lease is asked before the update of every service, and a
// run that lost it in between changes nothing more.
func TestTakeOverAmidAMove(t *testing.T) {
	for kind, leaser := range leasers {
		t.Run(kind, func(t *testing.T) {
			rotationtest.Bubble(t, func(t *testing.T) {
				s, w := batch()
				s.Leaser = leaser(s)
				if kind == "journal" {
					s.Leaser = &rotation.JournalLeaser{Journal: s.Journal, Now: w.Now}
				}
				must(t, s, rotation.Prepare, rotation.Validate)
				second := s.Engine()
				second.Dead = func(rotation.Holder) bool { return false }
				var other error
				first := s.Engine()
				procs := s.Procs()
				for _, p := range procs {
					std := p.(*rotation.Standard)
					std.Target = &between{Target: std.Target, after: "api", do: func() {
						w.Unlock("orders")
						w.Unlock("queue")
						_, other = second.Do(t.Context(), rotation.Rollback, s.Procs(), rotation.Options{Reason: "drill", TakeOver: true})
					}}
				}
				// Both procedures must share one target to make one move.
				procs[1].(*rotation.Standard).Target = procs[0].(*rotation.Standard).Target
				_, err := first.Do(t.Context(), rotation.Cutover, procs, rotation.Options{})
				if other != nil {
					t.Fatalf("the second: %v", other)
				}
				if !errors.Is(err, rotation.ErrLeaseLost) {
					t.Errorf("the first: %v, want ErrLeaseLost", err)
				}
				if got := w.Reads("worker", "queue"); !slices.Equal(got, []int{1}) {
					t.Errorf("worker reads %v, want [1]", got)
				}
				if err := s.End(); err != nil {
					t.Error(err)
				}
			})
		})
	}
}

// A lease that cannot be read is not lost: nothing is concluded, nothing undone.
func TestLeaseThatCannotBeRead(t *testing.T) {
	inTarget(t, rotation.Switch, func(t *testing.T, s *rotationtest.Scenario) {
		s.World.Expect(rotationtest.Plan{Call: "check", Skip: 1, How: rotationtest.FailBefore})
		_, err := do(s, rotation.Prepare)
		wantClass(t, "prepare", err, rotation.Unknown)
		if c := credential(t, s); c.Open == nil || c.Open.Phase != rotation.Prepare {
			t.Errorf("open is %+v, want it to stand at prepare", c.Open)
		}
		must(t, s, rotation.Prepare, rotation.Validate, rotation.Cutover)
	})
}

// A rollback that stops half-way says so, with the command that goes on; any
// later run brings it to its end.
func TestRollbackThatStopsHalfWay(t *testing.T) {
	in(t, rotation.Switch, func(t *testing.T, s *rotationtest.Scenario) {
		must(t, s, rotation.Prepare, rotation.Validate, rotation.Cutover)
		s.World.Unhealthy("api", 1, true)
		_, err := do(s, rotation.Rollback)
		wantClass(t, "rollback", err, rotation.Stuck)
		if hint := rotation.HintOf(err); !strings.Contains(hint, `keyturn rollback --reason "go on" orders`) {
			t.Errorf("the hint is %q, want the command that goes on", hint)
		}
		s.World.Unhealthy("api", 1, false)
		_, err = do(s, rotation.Cutover)
		wantClass(t, "cutover", err, rotation.Failed) // what it was to bring was rolled back
		if err := s.End(); err != nil {
			t.Error(err)
		}
	})
}

// A rollback that is given up gives the old version its fail-safe back.
func TestRollbackGivenUpKeepsTheFailSafe(t *testing.T) {
	for name, broken := range map[string]string{"at once": "", "by the next cleanup": "expire"} {
		t.Run(name, func(t *testing.T) {
			in(t, rotation.Switch, func(t *testing.T, s *rotationtest.Scenario) {
				must(t, s, rotation.Prepare, rotation.Validate, rotation.Cutover)
				old := credential(t, s).Last()
				s.World.Mute(old, true)
				if broken != "" {
					s.World.Expect(rotationtest.Plan{Call: broken, Skip: 1, How: rotationtest.LoseBefore})
				}
				_, err := do(s, rotation.Rollback)
				wantClass(t, "rollback", err, rotation.Unknown)
				if until := s.World.Until(old); (until == "") != (broken != "") {
					t.Errorf("the old version ends at %q", until)
				}
				if sum, err := do(s, rotation.Cleanup); err != nil || sum.Outcome != rotation.Waiting {
					t.Fatalf("Do(cleanup) = %+v, %v, want waiting", sum, err)
				}
				if s.World.Until(old) == "" {
					t.Error("the old version has no fail-safe")
				}
				s.World.Mute(old, false)
				s.World.Advance(25 * time.Hour)
				must(t, s, rotation.Cleanup)
			})
		})
	}
}

// A cutover that stops before its move leaves the new version its bound.
func TestCutoverThatStopsKeepsTheBound(t *testing.T) {
	in(t, rotation.Switch, func(t *testing.T, s *rotationtest.Scenario) {
		must(t, s, rotation.Prepare, rotation.Validate)
		c := credential(t, s)
		s.World.Mute(c.Last(), true)
		_, err := do(s, rotation.Cutover)
		wantClass(t, "cutover", err, rotation.Unknown)
		if s.World.Until(c.Next()) == "" {
			t.Error("the new version has no bound")
		}
		s.World.Mute(c.Last(), false)
		must(t, s, rotation.Cutover)
		if until := s.World.Until(c.Next()); until != "" {
			t.Errorf("the version in service ends at %s", until)
		}
	})
}

// A first version has no way back, so it takes no other credential along.
func TestFirstVersionGoesAlone(t *testing.T) {
	rotationtest.Bubble(t, func(t *testing.T) {
		s, w := batch()
		procs := append(s.Procs(), w.Standard(w.Drafted("cache"), w.Target(rotation.Traits{}, fields...), "cache", place("api", rotation.Switch)))
		_, err := s.Engine().Do(t.Context(), rotation.Prepare, procs, rotation.Options{})
		wantClass(t, "prepare", err, rotation.Refused)
		if !strings.Contains(rotation.HintOf(err), "keyturn rotate cache") {
			t.Errorf("the hint is %q", rotation.HintOf(err))
		}
		if len(s.World.Effects()) > 0 {
			t.Errorf("it had effects: %q", s.World.Effects())
		}
	})
}

// Who has read a version when services are moved back may be about to log in with it: it is
// ended when there was no session for a second. Where no service was moved to it, nobody is.
func TestLoginsAtARollback(t *testing.T) {
	for name, c := range map[string]struct {
		phases []rotation.Phase
		want   time.Duration
	}{
		"after the cutover":  {[]rotation.Phase{rotation.Prepare, rotation.Validate, rotation.Cutover}, time.Second},
		"before the cutover": {[]rotation.Phase{rotation.Prepare, rotation.Validate}, 0},
	} {
		t.Run(name, func(t *testing.T) {
			in(t, rotation.Switch, func(t *testing.T, s *rotationtest.Scenario) {
				must(t, s, c.phases...)
				begun, ended := time.Now(), time.Time{}
				s.World.Expect(rotationtest.Plan{Call: "end", Do: func(string) { ended = time.Now() }})
				must(t, s, rotation.Rollback)
				if got := ended.Sub(begun); got < c.want || got >= c.want+time.Second {
					t.Errorf("the version was ended %s after the rollback began, want %s", got, c.want)
				}
			})
		})
	}
}

func TestRollbackAskedFor(t *testing.T) {
	for name, c := range map[string]struct {
		before func(t *testing.T, s *rotationtest.Scenario)
		class  rotation.Class
		fine   bool
	}{
		"in the overlap":         {func(*testing.T, *rotationtest.Scenario) {}, 0, true},
		"the expiry was reached": {func(_ *testing.T, s *rotationtest.Scenario) { s.World.Advance(100 * time.Hour) }, 0, true},
		"the old one is refused": {func(t *testing.T, s *rotationtest.Scenario) { s.World.Spoil(credential(t, s).Last()) }, rotation.Unknown, false},
		"after it was retired": {func(t *testing.T, s *rotationtest.Scenario) {
			s.World.Advance(25 * time.Hour)
			must(t, s, rotation.Cleanup)
		}, rotation.Refused, false},
		"after its end was begun": {func(t *testing.T, s *rotationtest.Scenario) {
			s.World.Advance(25 * time.Hour)
			s.World.Expect(rotationtest.Plan{Call: "end", How: rotationtest.LoseAfter})
			if _, err := do(s, rotation.Cleanup); err == nil {
				t.Fatal("cleanup went well")
			}
		}, rotation.Refused, false},
	} {
		t.Run(name, func(t *testing.T) {
			in(t, rotation.Switch, func(t *testing.T, s *rotationtest.Scenario) {
				must(t, s, rotation.Prepare, rotation.Validate, rotation.Cutover)
				c.before(t, s)
				_, err := do(s, rotation.Rollback)
				if !c.fine {
					wantClass(t, "rollback", err, c.class)
					if got := s.World.Reads("api", "orders"); !slices.Equal(got, []int{2}) {
						t.Errorf("the service reads %v, want [2]", got)
					}
					// The way forward stays open.
					s.World.Advance(50 * time.Hour)
					must(t, s, rotation.Cleanup)
				} else if err != nil {
					t.Fatal(err)
				}
				if err := s.End(); err != nil {
					t.Error(err)
				}
			})
		})
	}
}
