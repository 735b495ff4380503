package rotation_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/keyturn/keyturn/internal/rotation"
	"github.com/keyturn/keyturn/internal/rotation/rotationtest"
)

// in runs a test in a bubble with an adopted drafted credential.
func in(t *testing.T, mounts rotation.Mounts, test func(t *testing.T, s *rotationtest.Scenario)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		s := adopted(drafted, mounts)
		test(t, s)
		if err := s.World.Faults(); err != nil {
			t.Errorf("the world: %v", err)
		}
	})
}

func do(s *rotationtest.Scenario, phase rotation.Phase) (rotation.Summary, error) {
	return s.Engine().Do(context.Background(), phase, s.Procs(), rotation.Options{})
}

// must runs phases that have to be done.
func must(t *testing.T, s *rotationtest.Scenario, phases ...rotation.Phase) {
	t.Helper()
	for _, p := range phases {
		if sum, err := do(s, p); err != nil || sum.Outcome != rotation.Done {
			t.Fatalf("Do(%s) = %+v, %v, want done", p, sum, err)
		}
	}
}

func credential(t *testing.T, s *rotationtest.Scenario) rotation.Credential {
	t.Helper()
	l, err := s.Journal.Ledger()
	if err != nil {
		t.Fatal(err)
	}
	return l.Credential("orders")
}

func wantClass(t *testing.T, doing string, err error, want rotation.Class) {
	t.Helper()
	if err == nil || rotation.ClassOf(err) != want {
		t.Fatalf("%s = %v of class %d, want class %d", doing, err, rotation.ClassOf(err), want)
	}
}

// Every phase out of its turn is refused with a hint, and nothing is written.
func TestPhaseOrder(t *testing.T) {
	all := []rotation.Phase{rotation.Prepare, rotation.Validate, rotation.Cutover, rotation.Cleanup, rotation.Rollback}
	for name, c := range map[string]struct {
		done    []rotation.Phase
		refused []rotation.Phase
	}{
		"nothing open": {nil, []rotation.Phase{rotation.Validate, rotation.Cutover, rotation.Rollback}},
		"prepared":     {all[:1], []rotation.Phase{rotation.Cutover, rotation.Cleanup}},
		"validated":    {all[:2], []rotation.Phase{rotation.Cleanup}},
		"cut over":     {all[:3], []rotation.Phase{rotation.Prepare}},
	} {
		for _, wrong := range c.refused {
			t.Run(name+", "+string(wrong), func(t *testing.T) {
				in(t, rotation.Switch, func(t *testing.T, s *rotationtest.Scenario) {
					must(t, s, c.done...)
					records, effects := len(s.Journal.All()), len(s.World.Effects())
					_, err := do(s, wrong)
					wantClass(t, string(wrong), err, rotation.Refused)
					if rotation.HintOf(err) == "" {
						t.Errorf("%v has no hint", err)
					}
					if len(s.Journal.All()) != records || len(s.World.Effects()) != effects {
						t.Errorf("something was written or done: %d records, %d effects more", len(s.Journal.All())-records, len(s.World.Effects())-effects)
					}
				})
			})
		}
	}
}

// Done again changes nothing.
func TestAgainIsNothing(t *testing.T) {
	in(t, rotation.Dual, func(t *testing.T, s *rotationtest.Scenario) {
		for _, p := range []rotation.Phase{rotation.Prepare, rotation.Validate, rotation.Cutover} {
			must(t, s, p)
			effects, c := len(s.World.Effects()), credential(t, s)
			must(t, s, p)
			if n := len(s.World.Effects()); n != effects {
				t.Errorf("%s again has %d effects: %v", p, n-effects, s.World.Effects()[effects:])
			}
			if again := credential(t, s); again.OverlapUntil != c.OverlapUntil || again.Open.Phase != c.Open.Phase {
				t.Errorf("%s again moved the overlap or the phase", p)
			}
		}
	})
}

// Hard problem 47: an outage is unknown, at whichever step of whichever phase
// it is met; nothing is taken back, and the next run goes on.
func TestOutage(t *testing.T) {
	for i, phase := range []rotation.Phase{rotation.Prepare, rotation.Validate, rotation.Cutover, rotation.Cleanup} {
		for at := 0; ; at++ {
			met := false
			in(t, rotation.Switch, func(t *testing.T, s *rotationtest.Scenario) {
				must(t, s, []rotation.Phase{rotation.Prepare, rotation.Validate, rotation.Cutover}[:i]...)
				s.World.Advance(25 * time.Hour)
				met = outage(t, s, phase, at)
			})
			if !met {
				if at < 3 {
					t.Errorf("%s has only %d steps to meet an outage at", phase, at)
				}
				break
			}
		}
	}
}

// outage lets the backend fall silent at the n-th step of a phase. It reports
// whether there is such a step.
func outage(t *testing.T, s *rotationtest.Scenario, phase rotation.Phase, n int) (met bool) {
	t.Helper()
	steps, point := 0, "the lock"
	e := s.Engine()
	e.Hook = func(at string) {
		if !strings.HasPrefix(at, "before effect") {
			return
		}
		if steps++; steps == n {
			point, met = at, true
			s.World.Down("orders", true)
		}
	}
	if n == 0 {
		met = true
		s.World.Down("orders", true)
	}
	_, err := e.Do(t.Context(), phase, s.Procs(), rotation.Options{})
	if !met {
		return false
	}
	down := credential(t, s)
	s.World.Down("orders", false)
	if class := rotation.ClassOf(err); err != nil && class != rotation.Unknown && class != rotation.Stuck {
		t.Errorf("%s, down at %q: %v of class %d, want unknown", phase, point, err, class)
	}
	if down.Burnt > 2 || slices.ContainsFunc(down.Versions, func(v rotation.Version) bool { return v.State == rotation.Discarded }) {
		t.Errorf("%s, down at %q: something was taken back: %+v", phase, point, down.Versions)
	}
	s.World.Advance(time.Second)
	must(t, s, phase)
	return true
}

// A refused version is taken back by validate, without a restart.
func TestDeadAtValidate(t *testing.T) {
	in(t, rotation.Switch, func(t *testing.T, s *rotationtest.Scenario) {
		must(t, s, rotation.Prepare)
		next := credential(t, s).Next()
		s.World.Spoil(next)
		_, err := do(s, rotation.Validate)
		wantClass(t, "validate", err, rotation.Failed)
		if s.World.Updates("api") != 0 {
			t.Errorf("the service was updated %d times, want none", s.World.Updates("api"))
		}
		if err := s.End(); err != nil {
			t.Error(err)
		}
	})
}

// Unhealthy at cutover: back; dual has exactly one more update.
func TestUnhealthyAtCutover(t *testing.T) {
	for mounts, updates := range map[rotation.Mounts]int{rotation.Switch: 2, rotation.Dual: 3} {
		t.Run(string(mounts), func(t *testing.T) {
			in(t, mounts, func(t *testing.T, s *rotationtest.Scenario) {
				must(t, s, rotation.Prepare, rotation.Validate)
				s.World.Unhealthy("api", 2, true)
				_, err := do(s, rotation.Cutover)
				wantClass(t, "cutover", err, rotation.Failed)
				if !errors.Is(err, rotation.ErrUnhealthy) {
					t.Errorf("%v is not ErrUnhealthy", err)
				}
				if got := s.World.Updates("api"); got != updates {
					t.Errorf("%d updates, want %d", got, updates)
				}
				if err := s.End(); err != nil {
					t.Error(err)
				}
			})
		})
	}
}

// The record of a rollback says why: the step that failed first, what it found, and when
// the services were last seen healthy.
func TestWhyOfARollback(t *testing.T) {
	in(t, rotation.Switch, func(t *testing.T, s *rotationtest.Scenario) {
		must(t, s, rotation.Prepare, rotation.Validate)
		s.World.Unhealthy("api", 2, true)
		_, err := do(s, rotation.Cutover)
		wantClass(t, "cutover", err, rotation.Failed)
		why := causes(t, s)
		if len(why) != 1 {
			t.Fatalf("%d causes on the record, want 1", len(why))
		}
		c := why[0]
		if c.Credential != "orders" || c.Phase != rotation.Cutover || c.Step != "move" || !strings.Contains(err.Error(), c.Error) {
			t.Errorf("cause is %+v, want the move of the cutover, and its error %v", c, err)
		}
		if c.Healthy == nil || c.Healthy.After(c.At) {
			t.Errorf("last healthy %v, failed %v", c.Healthy, c.At)
		}
		if found := fmt.Sprint(c.Found["services"]); !strings.Contains(found, "api") {
			t.Errorf("found %v, want the service", c.Found)
		}
		if err := s.End(); err != nil {
			t.Error(err)
		}
	})
	in(t, rotation.Switch, func(t *testing.T, s *rotationtest.Scenario) { // nothing was seen healthy yet
		s.World.Expect(rotationtest.Plan{Call: "arm", How: rotationtest.FailBefore})
		_, err := do(s, rotation.Prepare)
		wantClass(t, "prepare", err, rotation.Failed)
		if why := causes(t, s); len(why) != 1 || why[0].Phase != rotation.Prepare || why[0].Step != "arm" || why[0].Healthy != nil {
			t.Errorf("causes are %+v, want the arming", why)
		}
	})
	in(t, rotation.Switch, func(t *testing.T, s *rotationtest.Scenario) { // asked for: no failure
		must(t, s, rotation.Prepare, rotation.Validate, rotation.Cutover, rotation.Rollback)
		if why := causes(t, s); len(why) != 0 {
			t.Errorf("a rollback that was asked for has the cause %+v", why)
		}
	})
}

func causes(t *testing.T, s *rotationtest.Scenario) []rotation.Cause {
	t.Helper()
	var out []rotation.Cause
	for _, r := range s.Journal.All() {
		if text, ok := r.Evidence["cause"]; ok {
			var c rotation.Cause
			if err := json.Unmarshal(text, &c); err != nil {
				t.Fatal(err)
			}
			out = append(out, c)
		}
	}
	return out
}

// A move whose end nobody can tell is neither undone nor forgotten.
func TestUnknownAtMove(t *testing.T) {
	in(t, rotation.Switch, func(t *testing.T, s *rotationtest.Scenario) {
		must(t, s, rotation.Prepare, rotation.Validate)
		s.World.Expect(rotationtest.Plan{Call: "move", How: rotationtest.LoseAfter})
		_, err := do(s, rotation.Cutover)
		wantClass(t, "cutover", err, rotation.Unknown)
		if got := s.World.Reads("api", "orders"); !slices.Equal(got, []int{2}) {
			t.Errorf("the service reads %v, want [2]", got)
		}
		must(t, s, rotation.Cutover)
		if got := s.World.Updates("api"); got != 1 {
			t.Errorf("%d updates, want 1", got)
		}
	})
}

// Approval came a week late: the bound of the pending version has passed.
func TestAWeekLate(t *testing.T) {
	in(t, rotation.Switch, func(t *testing.T, s *rotationtest.Scenario) {
		must(t, s, rotation.Prepare, rotation.Validate)
		s.World.Advance(8 * 24 * time.Hour)
		_, err := do(s, rotation.Cutover)
		wantClass(t, "cutover", err, rotation.Failed)
		if got := s.World.Updates("api"); got != 0 {
			t.Errorf("%d updates, want none", got)
		}
		if err := s.End(); err != nil {
			t.Error(err)
		}
		must(t, s, rotation.Prepare, rotation.Validate, rotation.Cutover)
	})
}

func TestMinimumAge(t *testing.T) {
	in(t, rotation.Switch, func(t *testing.T, s *rotationtest.Scenario) {
		must(t, s, rotation.Prepare, rotation.Validate, rotation.Cutover)
		s.World.Advance(25 * time.Hour)
		must(t, s, rotation.Cleanup)
		try := func(emergency bool) error {
			procs := s.Procs()
			std := procs[0].(*rotation.Standard)
			std.Policy.MinimumAge, std.Emergency = 48*time.Hour, emergency
			_, err := s.Engine().Do(t.Context(), rotation.Prepare, procs, rotation.Options{})
			return err
		}
		wantClass(t, "prepare", try(false), rotation.Refused)
		if credential(t, s).Open != nil {
			t.Error("a rotation was opened")
		}
		if err := try(true); err != nil {
			t.Errorf("in an emergency: %v", err)
		}
	})
}

// Hard problem 3: a value that is never taken is given up after three numbers.
func TestDiscardsAreCapped(t *testing.T) {
	in(t, rotation.Switch, func(t *testing.T, s *rotationtest.Scenario) {
		for range 4 {
			s.World.Expect(rotationtest.Plan{Call: "arm", How: rotationtest.LoseBefore})
			_, err := do(s, rotation.Prepare)
			if rotation.ClassOf(err) == rotation.Failed {
				if c := credential(t, s); c.Open != nil || c.Burnt != 4 {
					t.Fatalf("open %v, burnt %d, want closed after numbers 2, 3 and 4", c.Open, c.Burnt)
				}
				s.World.Forget()
				if err := s.End(); err != nil {
					t.Error(err)
				}
				return
			}
			wantClass(t, "prepare", err, rotation.Unknown)
		}
		t.Error("it is tried for ever")
	})
}

func TestAdoptTwice(t *testing.T) {
	in(t, rotation.Switch, func(t *testing.T, s *rotationtest.Scenario) {
		n := len(s.World.Effects())
		_, err := s.Engine().Adopt(t.Context(), "orders", rotation.Options{}, func(context.Context) (rotation.Adoption, error) {
			t.Error("it looked")
			return rotation.Adoption{}, nil
		})
		wantClass(t, "Adopt", err, rotation.Refused)
		if len(s.World.Effects()) != n {
			t.Error("it had effects")
		}
	})
}

// A journal that cannot be written stops the run; nothing is concluded from it.
func TestJournalFails(t *testing.T) {
	for _, after := range []bool{false, true} {
		t.Run(fmt.Sprintf("landed %v", after), func(t *testing.T) {
			in(t, rotation.Switch, func(t *testing.T, s *rotationtest.Scenario) {
				must(t, s, rotation.Prepare, rotation.Validate)
				s.World.Expect(rotationtest.Plan{Call: "move", Do: func(string) { s.Journal.Fail(errors.New("disk full"), after) }})
				_, err := do(s, rotation.Cutover)
				wantClass(t, "cutover", err, rotation.Unknown)
				if got := s.World.Reads("api", "orders"); !slices.Equal(got, []int{2}) {
					t.Errorf("the service reads %v, want [2]: it was healthy there", got)
				}
				must(t, s, rotation.Cutover)
			})
		})
	}
}
