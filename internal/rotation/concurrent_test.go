package rotation_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/keyturn/keyturn/internal/rotation"
	"github.com/keyturn/keyturn/internal/rotation/rotationtest"
)

// leasers are the two kinds: in the journal, and in the target.
var leasers = map[string]func(*rotationtest.Scenario) rotation.Leaser{
	"journal": func(s *rotationtest.Scenario) rotation.Leaser { return s.Leaser },
	"target":  func(s *rotationtest.Scenario) rotation.Leaser { return s.World.Leaser() },
}

// Hard problem 16 and 59: beside a running job a second one is refused; a dead
// one is taken over, and if it lives after all it stops before its next effect.
func TestTwoEngines(t *testing.T) {
	for kind, leaser := range leasers {
		for _, dead := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, dead %v", kind, dead), func(t *testing.T) {
				in(t, rotation.Switch, func(t *testing.T, s *rotationtest.Scenario) {
					s.Leaser = leaser(s)
					second := s.Engine()
					second.Dead = func(rotation.Holder) bool { return dead }
					var other error
					puts := 0
					first := s.Engine()
					first.Hook = func(at string) {
						if at == "before effect: prepare put" {
							// The lock of the backend is the first one's; it is let go to show that the leases alone hold.
							s.World.Unlock("orders")
							_, other = second.Do(t.Context(), rotation.Prepare, s.Procs(), rotation.Options{})
							puts++
						}
					}
					_, err := first.Do(t.Context(), rotation.Prepare, s.Procs(), rotation.Options{})
					if puts != 1 {
						t.Fatalf("the first came to its put %d times, want 1", puts)
					}
					if !dead {
						wantClass(t, "the second", other, rotation.Refused)
						if busy, ok := errors.AsType[*rotation.BusyError](other); !ok || busy.Holder.Run != first.Run.Run {
							t.Errorf("the second: %v, want a BusyError that names %s", other, first.Run.Run)
						}
						if err != nil {
							t.Errorf("the first: %v", err)
						}
						return
					}
					if other != nil {
						t.Fatalf("the second: %v", other)
					}
					if !errors.Is(err, rotation.ErrLeaseLost) {
						t.Errorf("the first: %v, want ErrLeaseLost", err)
					}
					s.World.Advance(time.Hour)
					must(t, s, rotation.Validate, rotation.Cutover)
				})
			})
		}
	}
}

// A lease whose time is over needs nobody's word.
func TestDeadlineOfALease(t *testing.T) {
	for kind, leaser := range leasers {
		t.Run(kind, func(t *testing.T) {
			in(t, rotation.Switch, func(t *testing.T, s *rotationtest.Scenario) {
				l := leaser(s)
				now := s.World.Now()
				want := rotation.Holder{Run: "one", Phase: rotation.Prepare, Deadline: now.Add(time.Hour)}
				one, err := l.Acquire(t.Context(), "x", want, nil, false)
				if err != nil {
					t.Fatal(err)
				}
				if _, err := l.Acquire(t.Context(), "x", want, nil, false); err == nil {
					t.Error("Acquire gave a lease twice")
				}
				s.World.Advance(2 * time.Hour)
				want.Deadline = s.World.Now().Add(time.Hour)
				two, err := l.Acquire(t.Context(), "x", want, nil, false)
				if err != nil || two.Holder().Epoch <= one.Holder().Epoch {
					t.Fatalf("Acquire after the deadline = %v, %v, want a greater epoch", two, err)
				}
				if err := one.Release(t.Context()); err != nil && !errors.Is(err, rotation.ErrLeaseLost) {
					t.Error(err)
				}
				if _, err := l.Acquire(t.Context(), "x", want, nil, false); err == nil {
					t.Error("the release of a lost lease gave the new one away")
				}
				three, err := l.Acquire(t.Context(), "x", want, nil, true)
				if err != nil || three.Holder().Epoch <= two.Holder().Epoch {
					t.Fatalf("Acquire by force = %v, %v", three, err)
				}
				if err := three.Release(t.Context()); err != nil {
					t.Fatal(err)
				}
				four, err := l.Acquire(t.Context(), "x", want, nil, false)
				if err != nil || four.Holder().Epoch <= three.Holder().Epoch {
					t.Errorf("Acquire after release = %v, %v, want a greater epoch", four, err)
				}
			})
		})
	}
}

// Somebody else's record lands first: the run builds its own again and goes on.
func TestConflictsAreBuiltAgain(t *testing.T) {
	in(t, rotation.Switch, func(t *testing.T, s *rotationtest.Scenario) {
		e := s.Engine()
		n := 0
		e.Hook = func(at string) {
			if strings.HasPrefix(at, "before record") {
				n++
				s.Journal.Rival(func([]rotation.Record) []rotation.Record {
					return []rotation.Record{{Credential: "other", Step: "note", Status: rotation.RecordNote}}
				})
			}
		}
		if _, err := e.Do(t.Context(), rotation.Prepare, s.Procs(), rotation.Options{}); err != nil {
			t.Fatal(err)
		}
		if n == 0 {
			t.Error("nothing was written")
		}
		must(t, s, rotation.Validate, rotation.Cutover)
	})
}

// Hard problem 38: cancelled before and after every step, a run ends with
// nothing undone by it, and the next one goes on.
func TestCancellation(t *testing.T) {
	points := map[string]bool{}
	in(t, rotation.Dual, func(t *testing.T, s *rotationtest.Scenario) {
		for _, p := range []rotation.Phase{rotation.Prepare, rotation.Validate, rotation.Cutover} {
			e := s.Engine()
			e.Hook = func(at string) { points[at] = true }
			if _, err := e.Do(t.Context(), p, s.Procs(), rotation.Options{}); err != nil {
				t.Fatal(err)
			}
		}
	})
	for point := range points {
		t.Run(point, func(t *testing.T) {
			in(t, rotation.Dual, func(t *testing.T, s *rotationtest.Scenario) {
				for _, p := range []rotation.Phase{rotation.Prepare, rotation.Validate, rotation.Cutover} {
					ctx, cancel := context.WithCancel(t.Context())
					e := s.Engine()
					e.Hook = func(at string) {
						if at == point {
							cancel()
						}
					}
					begun := time.Now()
					_, err := e.Do(ctx, p, s.Procs(), rotation.Options{})
					if took := time.Since(begun); ctx.Err() != nil && took > 5*time.Second {
						t.Errorf("%s took %s to end", p, took)
					}
					cancel()
					if err != nil {
						if !errors.Is(err, context.Canceled) {
							t.Fatalf("%s cancelled at %q = %v, want context.Canceled", p, point, err)
						}
						must(t, s, p)
					}
				}
				for _, r := range s.Journal.All() {
					if r.Phase == rotation.Rollback {
						t.Fatalf("cancelled at %q: something was rolled back", point)
					}
				}
				s.World.Advance(25 * time.Hour)
				must(t, s, rotation.Cleanup)
				if err := s.End(); err != nil {
					t.Error(err)
				}
			})
		})
	}
}

// A batch moves each service once, and is undone together.
func TestBatch(t *testing.T) {
	rotationtest.Bubble(t, func(t *testing.T) {
		s, w := batch()
		must(t, s, rotation.Prepare)
		_, err := s.Engine().Do(t.Context(), rotation.Validate, s.Procs()[:1], rotation.Options{})
		wantClass(t, "validate of a part", err, rotation.Refused)
		must(t, s, rotation.Validate)
		w.Unhealthy("worker", 2, true)
		_, err = do(s, rotation.Cutover)
		wantClass(t, "cutover", err, rotation.Failed)
		if err := s.End(); err != nil {
			t.Error(err)
		}
		for _, name := range []string{"orders", "queue"} {
			if got := w.Reads("api", name); !slices.Equal(got, []int{1}) {
				t.Errorf("api reads %v of %s, want [1]", got, name)
			}
		}
		updates := w.Updates("api")
		must(t, s, rotation.Prepare, rotation.Validate, rotation.Cutover)
		if got := w.Updates("api") - updates; got != 1 {
			t.Errorf("api was updated %d times for two credentials, want once", got)
		}
	})
}

// What dual and switch make services read after each phase.
func TestShifts(t *testing.T) {
	want := map[rotation.Mounts]map[rotation.Phase][]int{
		rotation.Switch: {rotation.Prepare: {1}, rotation.Validate: {1}, rotation.Cutover: {2}},
		rotation.Dual:   {rotation.Prepare: {1, 2}, rotation.Validate: {1, 2}, rotation.Cutover: {2}},
	}
	for mounts, phases := range want {
		in(t, mounts, func(t *testing.T, s *rotationtest.Scenario) {
			for _, p := range []rotation.Phase{rotation.Prepare, rotation.Validate, rotation.Cutover} {
				must(t, s, p)
				if got := s.World.Reads("api", "orders"); !slices.Equal(got, phases[p]) {
					t.Errorf("%s after %s: the service reads %v, want %v", mounts, p, got, phases[p])
				}
			}
		})
	}
}

// A person called the ceremony off in its middle: the old key stays valid. After
// the switch there is no way back, and the way forward stays open.
func TestPeopleCallItOff(t *testing.T) {
	for shares, fine := range map[int]bool{1: true, 2: false} {
		t.Run(fmt.Sprint(shares), func(t *testing.T) {
			rotationtest.Bubble(t, func(t *testing.T) {
				w := rotationtest.New()
				s := &rotationtest.Scenario{World: w, Journal: w.Journal(), Leaser: w.Leaser()}
				s.Procs = func() []rotation.Procedure { return []rotation.Procedure{w.People("seal", 2)} }
				first := rotationtest.Cycle()
				first[2].Waits = func(w *rotationtest.World, _ rotation.Summary) { w.People("seal", 2).Share() }
				s.Script = first
				if err := s.Run(); err != nil {
					t.Fatal(err)
				}
				must(t, s, rotation.Prepare, rotation.Validate)
				sum, err := do(s, rotation.Cutover)
				if err != nil || sum.Outcome != rotation.Waiting {
					t.Fatalf("Do(cutover) = %+v, %v, want waiting", sum, err)
				}
				for range shares {
					w.People("seal", 2).Share()
				}
				_, err = do(s, rotation.Rollback)
				if fine && err != nil {
					t.Fatal(err)
				}
				if !fine {
					wantClass(t, "rollback", err, rotation.Refused)
					must(t, s, rotation.Cutover, rotation.Cleanup)
				}
				want := map[bool][]int{true: {1}, false: {2}}[fine]
				if got := w.Accepted("seal"); !slices.Equal(got, want) {
					t.Errorf("accepted is %v, want %v", got, want)
				}
				if err := s.End(); err != nil {
					t.Error(err)
				}
			})
		})
	}
}

// No value that was ever made stands in a record or an error.
func TestNoValueIsKept(t *testing.T) {
	in(t, rotation.Dual, func(t *testing.T, s *rotationtest.Scenario) {
		must(t, s, rotation.Prepare, rotation.Validate)
		s.World.Unhealthy("api", 2, true)
		_, err := do(s, rotation.Cutover)
		text := fmt.Sprintf("%+v %v", s.Journal.All(), err)
		for _, r := range s.Journal.All() {
			for _, b := range r.Evidence {
				text += string(b)
			}
		}
		values := s.World.Values()
		if len(values) < 2 {
			t.Fatalf("%d values were made", len(values))
		}
		for _, v := range values {
			if strings.Contains(text, v) {
				t.Error("a value stands in the journal or an error")
			}
		}
	})
}
