package rotation_test

import (
	"context"
	"sync"
	"testing"

	"github.com/keyturn/keyturn/internal/rotation"
	"github.com/keyturn/keyturn/internal/rotation/rotationtest"
)

// spared is a backend that counts refusals, or one that does not.
type spared struct {
	rotation.Backend
	sparing bool
}

func (s spared) ProbeSpec(v rotation.Version) rotation.ProbeSpec {
	spec := s.Backend.ProbeSpec(v)
	spec.Sparing = s.sparing
	return spec
}

// counted is a target that counts what its probes answer, by version.
type counted struct {
	rotation.Target
	mu      sync.Mutex
	answers map[int]map[rotation.Answer]int
}

func (c *counted) Probe(ctx context.Context, v rotation.Version, spec rotation.ProbeSpec, from rotation.Placement) rotation.ProbeResult {
	r := c.Target.Probe(ctx, v, spec, from)
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.answers[v.Number] == nil {
		c.answers[v.Number] = map[rotation.Answer]int{}
	}
	c.answers[v.Number][r.Answer]++
	return r
}

// TestSparing tries a version that is refused from four places, where refusals lock others
// out: one place alone is refused, once. What works is tried from all.
func TestSparing(t *testing.T) {
	for sparing, want := range map[bool]int{true: 1, false: 12} { // from four places, three times
		in(t, rotation.Switch, func(t *testing.T, s *rotationtest.Scenario) {
			must(t, s, rotation.Prepare)
			procs := s.Procs()
			std := procs[0].(*rotation.Standard)
			next := credential(t, s).Next()
			if err := std.Backend.End(t.Context(), next, rotation.ToDiscard); err != nil {
				t.Fatal(err)
			}
			target := &counted{Target: std.Target, answers: map[int]map[rotation.Answer]int{}}
			std.Backend, std.Target = spared{std.Backend, sparing}, target
			for len(std.Placements) < 4 {
				std.Placements = append(std.Placements, std.Placements[0])
			}
			_, err := s.Engine().Do(t.Context(), rotation.Validate, procs, rotation.Options{})
			wantClass(t, "validate", err, rotation.Failed)
			if got := target.answers[next.Number][rotation.Dead]; got != want {
				t.Errorf("sparing %v: refused %d times, want %d", sparing, got, want)
			}
			if got := target.answers[1][rotation.Alive]; got < 4 {
				t.Errorf("sparing %v: what works was tried from %d places, want 4", sparing, got)
			}
		})
	}
}
