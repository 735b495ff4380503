package rotation_test

import (
	"slices"
	"strings"
	"testing"

	"github.com/keyturn/keyturn/internal/rotation"
	"github.com/keyturn/keyturn/internal/rotation/rotationtest"
)

func revoke(t *testing.T, s *rotationtest.Scenario) {
	t.Helper()
	s.World.Outage("orders", true)
	sum, err := s.Engine().Revoke(t.Context(), s.Procs(), rotation.Options{Reason: "it was stolen"})
	if err != nil || sum.Outcome != rotation.Done {
		t.Fatalf("Revoke = %+v, %v", sum, err)
	}
}

// forced brings the rotation that is open, or the next one, to its end, without waiting.
func forced(t *testing.T, s *rotationtest.Scenario, phases ...rotation.Phase) {
	t.Helper()
	for _, phase := range phases {
		procs := s.Procs()
		for _, p := range procs {
			p.(*rotation.Standard).Emergency = true
			p.(*rotation.Standard).Force = phase == rotation.Cleanup
		}
		opt := rotation.Options{}
		if phase == rotation.Cleanup {
			opt.Force = "it was stolen"
		}
		if sum, err := s.Engine().Do(t.Context(), phase, procs, opt); err != nil || sum.Outcome != rotation.Done {
			t.Fatalf("%s after the revocation = %+v, %v", phase, sum, err)
		}
	}
}

// What services use is ended first, wherever the rotation stands, and a new version is
// brought to them: nothing measures itself by what was revoked.
func TestRevoke(t *testing.T) {
	all := []rotation.Phase{rotation.Prepare, rotation.Validate, rotation.Cutover, rotation.Cleanup}
	for name, tt := range map[string]struct {
		before  []rotation.Phase
		ended   []int
		then    []rotation.Phase
		current int
	}{
		"nothing is open":   {nil, nil, all, 2},
		"prepared":          {all[:1], []int{2}, all[1:], 2},
		"validated":         {all[:2], []int{2}, all[2:], 2},
		"within an overlap": {all[:3], nil, append([]rotation.Phase{rotation.Cleanup}, all...), 3},
	} {
		t.Run(name, func(t *testing.T) {
			in(t, rotation.Switch, func(t *testing.T, s *rotationtest.Scenario) {
				must(t, s, tt.before...)
				s.World.Session("orders", credential(t, s).Last().Identity, "a thief")
				revoke(t, s)
				if got := s.World.Accepted("orders"); !slices.Equal(got, tt.ended) {
					t.Fatalf("after the revocation versions %v are accepted, want %v", got, tt.ended)
				}
				for _, service := range []string{"api"} {
					s.World.Ill(service, true) // its logins fail
				}
				revoke(t, s) // again is nothing
				forced(t, s, tt.then...)
				if c := credential(t, s); c.Open != nil || c.Last().Number != tt.current {
					t.Errorf("in the end version %d is in service, open %v", c.Last().Number, c.Open)
				}
				if got := s.World.Accepted("orders"); !slices.Equal(got, []int{tt.current}) {
					t.Errorf("in the end versions %v are accepted", got)
				}
			})
		})
	}
}

// One backend does not answer: the others' versions are ended all the same, and it is
// named.
func TestRevokeGoesOnPastOne(t *testing.T) {
	rotationtest.Bubble(t, func(t *testing.T) {
		s, w := batch()
		w.Outage("orders", true)
		w.Outage("queue", true)
		w.Down("orders", true)
		_, err := s.Engine().Revoke(t.Context(), s.Procs(), rotation.Options{Reason: "it was stolen"})
		if rotation.ClassOf(err) != rotation.Unknown || !strings.Contains(err.Error(), `"orders"`) || strings.Contains(err.Error(), `"queue"`) {
			t.Errorf("Revoke = %v", err)
		}
		if got := w.Accepted("queue"); len(got) != 0 {
			t.Errorf("of the other versions %v are accepted", got)
		}
		w.Down("orders", false)
		if _, err := s.Engine().Revoke(t.Context(), s.Procs(), rotation.Options{Reason: "it was stolen"}); err != nil {
			t.Errorf("Revoke again = %v", err)
		}
		if got := w.Accepted("orders"); len(got) != 0 {
			t.Errorf("versions %v are accepted", got)
		}
	})
}

// A revocation without a reason is none.
func TestRevokeNeedsAReason(t *testing.T) {
	in(t, rotation.Switch, func(t *testing.T, s *rotationtest.Scenario) {
		_, err := s.Engine().Revoke(t.Context(), s.Procs(), rotation.Options{Reason: " "})
		wantClass(t, "Revoke", err, rotation.Invalid)
		if got := s.World.Accepted("orders"); !slices.Equal(got, []int{1}) {
			t.Errorf("accepted are %v", got)
		}
	})
}
