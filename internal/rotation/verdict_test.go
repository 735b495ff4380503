package rotation_test

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/keyturn/keyturn/internal/rotation"
	"github.com/keyturn/keyturn/internal/rotation/rotationtest"
)

// Hard problem 47: the new login gets no answer while the old one does (the last
// free connection was taken): that is unknown, and nothing is taken back.
func TestNoAnswerIsNoRefusal(t *testing.T) {
	for _, mounts := range []rotation.Mounts{rotation.Switch, rotation.Dual} {
		t.Run(string(mounts), func(t *testing.T) {
			in(t, mounts, func(t *testing.T, s *rotationtest.Scenario) {
				must(t, s, rotation.Prepare)
				next, updates := credential(t, s).Next(), s.World.Updates("api")
				s.World.Mute(next, true)
				_, err := do(s, rotation.Validate)
				wantClass(t, "validate", err, rotation.Unknown)
				if c := credential(t, s); c.Open == nil || c.Next().State != rotation.Pending || s.World.Updates("api") != updates {
					t.Errorf("it was taken back: open %v, %d updates", c.Open, s.World.Updates("api")-updates)
				}
				s.World.Mute(next, false)
				must(t, s, rotation.Validate, rotation.Cutover)
			})
		})
	}
}

// A probe that never ran (no image, no node) says nothing of the way to the
// backend, nor does one that one endpoint of two accepts (hard problem 47: the other server
// is down); one that ran and reached neither version does.
func TestProbeThatNeverRan(t *testing.T) {
	for _, row := range []struct {
		ran, some bool
		want      rotation.Class
	}{{false, false, rotation.Unknown}, {true, true, rotation.Unknown}, {true, false, rotation.Failed}} {
		in(t, rotation.Switch, func(t *testing.T, s *rotationtest.Scenario) {
			must(t, s, rotation.Prepare)
			procs := s.Procs()
			std := procs[0].(*rotation.Standard)
			std.Target = &unplaced{Target: std.Target, ran: row.ran, some: row.some}
			_, err := s.Engine().Do(t.Context(), rotation.Validate, procs, rotation.Options{})
			wantClass(t, "validate", err, row.want)
		})
	}
}

// Hard problem 3: a value that is refused is tried once more, and then another
// one is made; after three the rotation is given up.
func TestRejectedValues(t *testing.T) {
	for times, want := range map[int]struct{ burnt, arms int }{1: {2, 2}, 2: {3, 3}, 4: {4, 5}, 6: {4, 6}} {
		in(t, rotation.Switch, func(t *testing.T, s *rotationtest.Scenario) {
			s.World.Expect(rotationtest.Plan{Call: "arm", Times: times, How: rotationtest.Reject})
			_, err := do(s, rotation.Prepare)
			c := credential(t, s)
			arms := 0
			for _, call := range s.World.Calls() {
				if call == "arm" {
					arms++
				}
			}
			if c.Burnt != want.burnt || arms != want.arms {
				t.Errorf("refused %d times: number %d after %d tries, want %d after %d", times, c.Burnt, arms, want.burnt, want.arms)
			}
			if times < 6 {
				if err != nil {
					t.Errorf("refused %d times: %v", times, err)
				}
				return
			}
			wantClass(t, "prepare", err, rotation.Failed)
			if c.Open != nil {
				t.Error("the rotation is open")
			}
			if err := s.End(); err != nil {
				t.Error(err)
			}
		})
	}
}

// Hard problem 48: a deploy took the pending mount away; validate mounts it again.
func TestStrippedMountIsMountedAgain(t *testing.T) {
	in(t, rotation.Dual, func(t *testing.T, s *rotationtest.Scenario) {
		must(t, s, rotation.Prepare)
		s.World.Strip("api", "orders")
		sum, err := do(s, rotation.Validate)
		if err != nil || !slices.ContainsFunc(sum.Notes, func(n string) bool { return strings.Contains(n, "mounted again") }) {
			t.Fatalf("Do(validate) = %+v, %v, want a note", sum, err)
		}
		if got := s.World.Reads("api", "orders"); !slices.Equal(got, []int{1, 2}) {
			t.Errorf("the service reads %v, want [1 2]", got)
		}
		must(t, s, rotation.Cutover)
		s.World.Advance(25 * time.Hour)
		must(t, s, rotation.Cleanup)
		if err := s.End(); err != nil {
			t.Error(err)
		}
	})
}

// A service that is ill before cutover is not the credential's business: nothing
// is moved, nothing is undone.
func TestIllBeforeCutover(t *testing.T) {
	in(t, rotation.Switch, func(t *testing.T, s *rotationtest.Scenario) {
		must(t, s, rotation.Prepare, rotation.Validate)
		s.World.Ill("api", true)
		effects := len(s.World.Effects())
		_, err := do(s, rotation.Cutover)
		wantClass(t, "cutover", err, rotation.Unknown)
		if n := len(s.World.Effects()); n != effects {
			t.Errorf("it had effects: %q", s.World.Effects()[effects:])
		}
		s.World.Ill("api", false)
		must(t, s, rotation.Cutover)
	})
}

// An emergency is on the record, and so is a lease that was taken by force.
func TestWhatWasWaivedIsOnTheRecord(t *testing.T) {
	in(t, rotation.Switch, func(t *testing.T, s *rotationtest.Scenario) {
		procs := s.Procs()
		procs[0].(*rotation.Standard).Emergency = true
		if _, err := s.Engine().Do(t.Context(), rotation.Prepare, procs, rotation.Options{}); err != nil {
			t.Fatal(err)
		}
		if !slices.ContainsFunc(s.Journal.All(), func(r rotation.Record) bool {
			return r.Status == rotation.RecordIntent && string(r.Evidence["emergency"]) == "true"
		}) {
			t.Error("the intent does not say that it was an emergency")
		}
	})
	inTarget(t, rotation.Switch, func(t *testing.T, s *rotationtest.Scenario) {
		if _, err := s.Engine().Do(t.Context(), rotation.Prepare, s.Procs(), rotation.Options{TakeOver: true}); err != nil {
			t.Fatal(err)
		}
		if !slices.ContainsFunc(s.Journal.All(), func(r rotation.Record) bool {
			return r.Step == "lease" && string(r.Evidence["take_over"]) == "true"
		}) {
			t.Error("the lease's record does not say that it was taken over")
		}
	})
}
