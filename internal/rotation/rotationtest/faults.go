package rotationtest

import (
	"context"
	"fmt"
	"maps"
	"os"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/keyturn/keyturn/internal/rotation"
)

// hows are the ways in which every call is made to go wrong once.
var hows = []How{FailBefore, FailAfter, LoseBefore, LoseAfter}

// FaultMatrix plays two rotations, with a rollback asked for between them, and
// lets every single call of the fakes go wrong once, in every way: it fails or
// is lost, before or after its effect. Whoever runs the next phase again and
// again must come to the same end, with the invariant kept throughout; an exit
// that says "nothing changed, or all undone" must be true, and so must a refusal.
// Build returns a world with one adopted credential, "orders", and no script.
//
// Without KEYTURN_FAULTS=all in the environment, three of each kind of call are tried.
func FaultMatrix(t *testing.T, build func() *Scenario) {
	t.Helper()
	var calls []string
	synctest.Test(t, func(t *testing.T) {
		s := build()
		if err := s.persist(); err != nil {
			t.Fatalf("without a fault: %v", err)
		}
		calls = s.World.Calls()
	})
	counts := map[string]int{}
	for _, c := range calls {
		counts[c]++
	}
	runs := 0
	for _, call := range slices.Sorted(maps.Keys(counts)) {
		step := 1
		if n := counts[call]; os.Getenv("KEYTURN_FAULTS") != "all" {
			step = max(1, n/2)
		}
		for n := 0; n < counts[call]; n += step {
			for _, how := range hows {
				var err error
				synctest.Test(t, func(*testing.T) {
					s := build()
					s.World.Expect(Plan{Call: call, Skip: n, How: how})
					err = s.persist()
				})
				if err != nil {
					t.Errorf("%s number %d %s: %v", call, n+1, how, err)
				}
				runs++
			}
		}
	}
	t.Logf("%d runs, %d kinds of calls", runs, len(counts))
}

// persist plays two rotations and a rollback between them, however often a
// phase must be run again.
func (s *Scenario) persist() error {
	rolledBack := false
	for range 80 {
		l, err := s.Journal.Ledger()
		if err != nil {
			return err
		}
		c := l.Credential("orders")
		phase := rotation.NextPhase(c)
		switch retired := s.retired(c); {
		case retired >= 2 && c.Open == nil && len(c.Queue) == 0:
			return s.End()
		case len(c.Queue) > 0 && c.Open == nil:
			phase = rotation.Cleanup
		case retired == 1 && !rolledBack && c.Open != nil && c.Open.Phase == rotation.Cutover && c.Open.Complete:
			phase, rolledBack = rotation.Rollback, true
		}
		if err := s.try(phase); err != nil {
			return err
		}
	}
	return fmt.Errorf("it comes to no end: %w", s.err)
}

func (s *Scenario) retired(c rotation.Credential) (n int) {
	for _, v := range c.Versions {
		if v.State == rotation.Retired {
			n++
		}
	}
	return n
}

// try runs a phase once and checks that the class of its error is the truth.
func (s *Scenario) try(phase rotation.Phase) error {
	before, was := len(s.World.Effects()), s.truth()
	sum, err := s.Engine().Do(context.Background(), phase, s.Procs(), rotation.Options{Reason: "the test says so"})
	s.err = err
	did := s.World.Effects()[before:]
	switch {
	case err == nil && sum.Outcome == rotation.Waiting:
		s.World.Advance(max(time.Hour, sum.Until.Sub(s.World.Now())))
	case err == nil:
	case (rotation.ClassOf(err) == rotation.Failed && !s.closed() || rotation.ClassOf(err) == rotation.Refused) && s.truth() != was:
		return fmt.Errorf("%s: %w, of a class that says nothing is left of it, and it did %q: %s became %s", phase, err, did, was, s.truth())
	}
	s.World.Revive() // the next process has other sessions
	return nil
}

// truth is what nobody can talk away: which versions are accepted, which are
// read, and where the rotation stands.
func (s *Scenario) truth() string {
	l, err := s.Journal.Ledger()
	if err != nil {
		return err.Error()
	}
	stands := "closed"
	if open := l.Credential("orders").Open; open != nil {
		stands = fmt.Sprintf("open at %s, complete %v", open.Phase, open.Complete)
	}
	return fmt.Sprintf("%v accepted, %v read, %s", s.World.Accepted("orders"), s.World.Reads("api", "orders"), stands)
}
