package rotation_test

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/keyturn/keyturn/internal/rotation"
	"github.com/keyturn/keyturn/internal/rotation/rotationtest"
)

// drawn makes every procedure of a scenario one whose services are deployed from
// something that says what the text says, "" for the right thing.
func drawn(s *rotationtest.Scenario, says *string, strict bool, force string) {
	procs := s.Procs
	s.Procs = func() []rotation.Procedure {
		all := procs()
		for _, p := range all {
			std := p.(*rotation.Standard)
			std.Policy.Strict, std.Force = strict, force != ""
			std.Blueprint = func(v rotation.Version) []string {
				if *says == "" {
					return nil
				}
				return []string{*says}
			}
		}
		return all
	}
}

// Hard problem 37: as long as a deploy would bring the old version back, it is
// kept, for weeks, and lives: its expiry is put off, unless that was refused.
func TestCleanupWaitsForTheBlueprint(t *testing.T) {
	for _, strict := range []bool{false, true} {
		in(t, rotation.Switch, func(t *testing.T, s *rotationtest.Scenario) {
			says := "orders.yml:7: the secret is the old one"
			drawn(s, &says, strict, "")
			must(t, s, rotation.Prepare, rotation.Validate, rotation.Cutover)
			s.World.Advance(25 * time.Hour)
			extended := false
			for range 4 { // two days
				sum, err := do(s, rotation.Cleanup)
				if err != nil || sum.Outcome != rotation.Waiting || !strings.Contains(sum.For, says) || !strings.Contains(sum.Hint, "--force") {
					t.Fatalf("strict %v: Do(cleanup) = %+v, %v, want waiting for the stack file", strict, sum, err)
				}
				extended = extended || strings.Contains(strings.Join(sum.Notes, " "), "put off")
				s.World.Advance(12 * time.Hour)
			}
			if extended == strict {
				t.Errorf("strict %v: the expiry was put off: %v", strict, extended)
			}
			says = ""
			must(t, s, rotation.Cleanup)
			if err := s.End(); err != nil {
				t.Error(err)
			}
		})
	}
}

// Whoever says why does not wait for it.
func TestForcedCleanupPassesTheBlueprint(t *testing.T) {
	in(t, rotation.Switch, func(t *testing.T, s *rotationtest.Scenario) {
		says := "orders.yml cannot be read"
		drawn(s, &says, false, "the stack is gone")
		must(t, s, rotation.Prepare, rotation.Validate, rotation.Cutover)
		sum, err := s.Engine().Do(context.Background(), rotation.Cleanup, s.Procs(), rotation.Options{Force: "the stack is gone"})
		if err != nil || sum.Outcome != rotation.Done {
			t.Fatalf("Do(cleanup) = %+v, %v, want done", sum, err)
		}
		if err := s.End(); err != nil {
			t.Error(err)
		}
	})
}
