package rotation_test

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/keyturn/keyturn/internal/rotation"
	"github.com/keyturn/keyturn/internal/rotation/rotationtest"
)

// Hard problem 44: an old stack file is deployed when cleanup was begun and is
// not at its end: the expiry is put off all the same.
func TestOldStackFileAmidCleanup(t *testing.T) {
	in(t, rotation.Switch, func(t *testing.T, s *rotationtest.Scenario) {
		must(t, s, rotation.Prepare, rotation.Validate, rotation.Cutover)
		c := credential(t, s)
		s.World.Advance(25 * time.Hour)
		s.World.Mute(c.Next(), true)
		if _, err := do(s, rotation.Cleanup); err == nil {
			t.Fatal("cleanup went well")
		}
		if at, complete := credential(t, s).At(rotation.Cleanup); !at || complete {
			t.Fatal("cleanup was not begun")
		}
		s.World.Mute(c.Next(), false)
		s.World.DeployOld("api", c.Last())
		for range 20 { // ten days
			if sum, err := do(s, rotation.Cleanup); err != nil || sum.Outcome != rotation.Waiting {
				t.Fatalf("Do(cleanup) = %+v, %v, want waiting", sum, err)
			}
			s.World.Advance(12 * time.Hour)
		}
		s.World.DeployOld("api", c.Next())
		must(t, s, rotation.Cleanup)
		if err := s.End(); err != nil {
			t.Error(err)
		}
	})
}

// One backend of a batch does not answer: the other's old version is looked
// after, and its cleanup comes to its end.
func TestCleanupOfABatchGoesOnPastOne(t *testing.T) {
	rotationtest.Bubble(t, func(t *testing.T) {
		s, w := batch()
		must(t, s, rotation.Prepare, rotation.Validate, rotation.Cutover)
		w.Down("queue", true)
		w.Advance(25 * time.Hour)
		_, err := do(s, rotation.Cleanup)
		wantClass(t, "cleanup", err, rotation.Unknown)
		if !strings.Contains(err.Error(), `"queue"`) {
			t.Errorf("%v does not name the one that is down", err)
		}
		if c := credential(t, s); c.Open != nil {
			t.Errorf("orders is open at %s, want it closed", c.Open.Phase)
		}
		w.Down("queue", false)
		must(t, s, rotation.Cleanup)
		if err := s.End(); err != nil {
			t.Error(err)
		}
	})
}

// Somebody removed the old secret before the proof: nobody can try it again, and
// the administrator's view stands, with a word on the record.
func TestOldSecretWasRemovedByHand(t *testing.T) {
	in(t, rotation.Switch, func(t *testing.T, s *rotationtest.Scenario) {
		must(t, s, rotation.Prepare, rotation.Validate, rotation.Cutover)
		s.World.Drop(credential(t, s).Last())
		s.World.Advance(25 * time.Hour)
		must(t, s, rotation.Cleanup)
		if !slices.ContainsFunc(s.Journal.All(), func(r rotation.Record) bool {
			return r.Step == "proof" && r.Status == rotation.RecordDone && strings.Contains(string(r.Evidence["refused"]), "not provable")
		}) {
			t.Error("the record does not say that the proof could not be had")
		}
		if err := s.End(); err != nil {
			t.Error(err)
		}
	})
}

// A blank reason is none.
func TestForceNeedsAReason(t *testing.T) {
	in(t, rotation.Switch, func(t *testing.T, s *rotationtest.Scenario) {
		must(t, s, rotation.Prepare, rotation.Validate, rotation.Cutover)
		procs := s.Procs()
		procs[0].(*rotation.Standard).Force = true
		_, err := s.Engine().Do(t.Context(), rotation.Cleanup, procs, rotation.Options{Force: "  "})
		wantClass(t, "cleanup", err, rotation.Refused)
		if got := s.World.Accepted("orders"); !slices.Equal(got, []int{1, 2}) {
			t.Errorf("accepted are %v, want [1 2]", got)
		}
	})
}

// An old stack file, deployed after cutover: the expiry is put off, cleanup
// waits, and goes on when the file is right.
func TestOldStackFile(t *testing.T) {
	in(t, rotation.Switch, func(t *testing.T, s *rotationtest.Scenario) {
		must(t, s, rotation.Prepare, rotation.Validate, rotation.Cutover)
		c := credential(t, s)
		s.World.DeployOld("api", c.Last())
		for range 20 { // ten days
			s.World.Advance(12 * time.Hour)
			sum, err := do(s, rotation.Cleanup)
			if err != nil || sum.Outcome != rotation.Waiting {
				t.Fatalf("Do(cleanup) = %+v, %v, want waiting", sum, err)
			}
		}
		s.World.DeployOld("api", c.Next())
		must(t, s, rotation.Cleanup)
		if err := s.End(); err != nil {
			t.Error(err)
		}
	})
}

func TestCleanupWaitsOrIsForced(t *testing.T) {
	in(t, rotation.Switch, func(t *testing.T, s *rotationtest.Scenario) {
		must(t, s, rotation.Prepare, rotation.Validate, rotation.Cutover)
		sum, err := do(s, rotation.Cleanup)
		if err != nil || sum.Outcome != rotation.Waiting || !sum.Until.Equal(credential(t, s).OverlapUntil) {
			t.Fatalf("Do(cleanup) = %+v, %v, want waiting until the overlap is over", sum, err)
		}
		procs := s.Procs()
		procs[0].(*rotation.Standard).Force = true
		if _, err := s.Engine().Do(t.Context(), rotation.Cleanup, procs, rotation.Options{Force: "it leaked"}); err != nil {
			t.Fatal(err)
		}
		forced := slices.IndexFunc(s.Journal.All(), func(r rotation.Record) bool { return strings.Contains(string(r.Evidence["reason"]), "it leaked") })
		ended := slices.IndexFunc(s.Journal.All(), func(r rotation.Record) bool { return r.Step == "end" })
		if forced < 0 || forced > ended {
			t.Errorf("the reason stands at record %d, the end at %d", forced, ended)
		}
		if err := s.End(); err != nil {
			t.Error(err)
		}
	})
}

// Sessions keep the old version for their grace, no longer.
func TestSessionsHaveTheirGrace(t *testing.T) {
	in(t, rotation.Switch, func(t *testing.T, s *rotationtest.Scenario) {
		must(t, s, rotation.Prepare, rotation.Validate, rotation.Cutover)
		s.World.Session("orders", "orders_a", "psql of somebody")
		s.World.Advance(25 * time.Hour)
		sum, err := do(s, rotation.Cleanup)
		if err != nil || sum.Outcome != rotation.Waiting || !strings.Contains(sum.For, "psql of somebody") {
			t.Fatalf("Do(cleanup) = %+v, %v, want waiting for the session", sum, err)
		}
		s.World.Advance(24 * time.Hour)
		must(t, s, rotation.Cleanup)
		if n := s.World.Sessions("orders", "orders_a"); n != 0 {
			t.Errorf("%d sessions live on", n)
		}
	})
}

// What cannot be removed yet is queued, tried again by every run, and settled.
func TestQueue(t *testing.T) {
	in(t, rotation.Switch, func(t *testing.T, s *rotationtest.Scenario) {
		must(t, s, rotation.Prepare, rotation.Validate, rotation.Cutover)
		old := credential(t, s).Last()
		s.World.Service("late", 1)
		s.World.Expect(rotationtest.Plan{Call: "remove", Do: func(string) { s.World.UseLocked("late", old) }})
		s.World.Advance(25 * time.Hour)
		must(t, s, rotation.Cleanup)
		if c := credential(t, s); c.Open != nil || len(c.Queue) != 1 {
			t.Fatalf("open %v, queue %v, want closed with one thing queued", c.Open, c.Queue)
		}
		must(t, s, rotation.Cleanup)
		if c := credential(t, s); len(c.Queue) != 1 || c.Queue[0].Tries != 1 {
			t.Fatalf("queue %+v, want the same with one try", c.Queue)
		}
		s.World.Service("late", 1) // made anew
		must(t, s, rotation.Cleanup)
		if err := s.End(); err != nil {
			t.Error(err)
		}
	})
}
