package rotation_test

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/keyturn/keyturn/internal/rotation"
	"github.com/keyturn/keyturn/internal/rotation/rotationtest"
)

// inGap runs a test on a service whose backend accepts one version at a time.
func inGap(t *testing.T, test func(t *testing.T, s *rotationtest.Scenario)) {
	t.Helper()
	rotationtest.Bubble(t, func(t *testing.T) { test(t, adopted(replacing, rotation.Switch)) })
}

// Hard problem 12: a gap is announced in the plan, refused where nobody accepted
// it, measured, and told.
func TestGapIsAnnouncedAndMeasured(t *testing.T) {
	inGap(t, func(t *testing.T, s *rotationtest.Scenario) {
		plan, err := s.Engine().Plan(t.Context(), rotation.Prepare, s.Procs()[0].(*rotation.Standard))
		if err != nil {
			t.Fatal(err)
		}
		if c := plan.Credentials[0]; c.Gap == "" || !strings.Contains(strings.Join(c.Warnings, " "), c.Gap) {
			t.Errorf("the plan says gap %q, warnings %q, want the gap in both", c.Gap, c.Warnings)
		}
		must(t, s, rotation.Prepare, rotation.Validate)
		s.World.Expect(rotationtest.Plan{Call: "move", Do: func(string) { s.World.AdvanceLocked(7 * time.Second) }})
		sum, err := do(s, rotation.Cutover)
		if err != nil || !slices.ContainsFunc(sum.Notes, func(n string) bool { return strings.Contains(n, `the gap of "orders" took 7s`) }) {
			t.Fatalf("cutover = %v, %q, want a note of a gap of 7 s", err, sum.Notes)
		}
		s.World.Expect(rotationtest.Plan{Call: "move", Do: func(string) { s.World.AdvanceLocked(3 * time.Second) }})
		sum, err = do(s, rotation.Rollback)
		if err != nil || !slices.ContainsFunc(sum.Notes, func(n string) bool { return strings.Contains(n, "took 3s") }) {
			t.Fatalf("rollback = %v, %q, want a note of a gap of 3 s", err, sum.Notes)
		}
		if err := s.End(); err != nil {
			t.Error(err)
		}
	})
}

func TestGapMustBeAccepted(t *testing.T) {
	inGap(t, func(t *testing.T, s *rotationtest.Scenario) {
		procs := s.Procs
		s.Procs = func() []rotation.Procedure {
			all := procs()
			all[0].(*rotation.Standard).Policy.AcceptGap = false
			return all
		}
		_, err := do(s, rotation.Prepare)
		if rotation.ClassOf(err) != rotation.Refused || !strings.Contains(rotation.HintOf(err), "accept-gap: true") {
			t.Errorf("prepare = %v (%s), want refused with accept-gap in the hint", err, rotation.HintOf(err))
		}
	})
}

// A run that stops in the gap, before any service was moved, closes it: whether it
// was cancelled, got no answer, or was refused. The next run makes the cutover.
func TestGapIsClosed(t *testing.T) {
	for name, stop := range map[string]func(*testing.T, *rotationtest.Scenario, context.CancelFunc){
		"cancelled": func(_ *testing.T, s *rotationtest.Scenario, cancel context.CancelFunc) {
			s.World.Expect(rotationtest.Plan{Call: "activate", Do: func(string) { cancel() }})
		},
		"no answer to the probe": func(t *testing.T, s *rotationtest.Scenario, _ context.CancelFunc) {
			s.World.Mute(credential(t, s).Next(), true)
		},
		"no answer to the activation": func(_ *testing.T, s *rotationtest.Scenario, _ context.CancelFunc) {
			s.World.Expect(rotationtest.Plan{Call: "activate", How: rotationtest.LoseAfter})
		},
	} {
		t.Run(name, func(t *testing.T) {
			inGap(t, func(t *testing.T, s *rotationtest.Scenario) {
				must(t, s, rotation.Prepare, rotation.Validate)
				ctx, cancel := context.WithCancel(t.Context())
				defer cancel()
				stop(t, s, cancel)
				_, err := s.Engine().Do(ctx, rotation.Cutover, s.Procs(), rotation.Options{})
				if class := rotation.ClassOf(err); err == nil || class != rotation.Unknown && !errors.Is(err, context.Canceled) {
					t.Fatalf("cutover = %v of class %d, want unknown or cancelled", err, class)
				}
				if got := s.World.Accepted("orders"); !slices.Equal(got, []int{1}) {
					t.Errorf("accepted are %v after the run stopped, want [1]: the services read that", got)
				}
				s.World.Mute(credential(t, s).Next(), false)
				must(t, s, rotation.Cutover)
				s.World.Advance(25 * time.Hour)
				must(t, s, rotation.Cleanup)
				if err := s.End(); err != nil {
					t.Error(err)
				}
			})
		})
	}
}

// Of a batch, the gap begins when all the others' steps before the move are done.
func TestGapBeginsLast(t *testing.T) {
	rotationtest.Bubble(t, func(t *testing.T) {
		w := rotationtest.New()
		w.Service("api", 2)
		s := &rotationtest.Scenario{World: w, Journal: w.Journal(), Leaser: w.Leaser()}
		target := w.Target(rotation.Traits{}, fields...)
		s.Procs = func() []rotation.Procedure {
			return []rotation.Procedure{
				w.Standard(w.Replacing("orders"), target, "orders", place("api", rotation.Switch)),
				w.Standard(w.Drafted("queue"), target, "queue", place("api", rotation.Switch)),
			}
		}
		for _, v := range []rotation.Version{w.Running("orders", "orders", fields, "api"), w.Running("queue", "queue_a", fields, "api")} {
			if err := s.Adopt(v); err != nil {
				t.Fatal(err)
			}
		}
		must(t, s, rotation.Prepare, rotation.Validate)
		n := len(w.Calls())
		must(t, s, rotation.Cutover)
		calls := w.Calls()[n:]
		from, to := slices.Index(calls, "activate"), slices.Index(calls, "move")
		between := slices.DeleteFunc(slices.Clone(calls[from+1:to]), func(c string) bool { return c == "check" })
		if !slices.Equal(between, []string{"probe"}) {
			t.Errorf("between activation and move are the calls %q, want one probe of the new version", between)
		}
	})
}
