package certificate

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/keyturn/keyturn/internal/rotation"
)

// A widened rotation is the usual one, but for the proof at its end: nobody mounts the bundle
// before, and what is served everywhere is verified by the next one.
type widened struct {
	*rotation.Standard
	b *Trust
}

var (
	_ rotation.Procedure  = widened{}
	_ rotation.Guard      = widened{}
	_ rotation.Overlapper = widened{}
	_ rotation.Revoker    = widened{}
)

// Procedure implements [rotation.Proceeder].
func (b *Trust) Procedure(s *rotation.Standard) rotation.Procedure { return widened{s, b} }

// Steps implements [rotation.Procedure].
func (w widened) Steps(p rotation.Phase) (before, after []rotation.Step) {
	before, after = w.Standard.Steps(p)
	if p == rotation.Cleanup {
		for i := range before {
			if before[i].Effect == rotation.Prove {
				before[i].Do = w.prove
			}
		}
	}
	return before, after
}

// prove shows that the authorities that are gone are missed by nobody.
func (w widened) prove(ctx context.Context, c rotation.Credential) (rotation.Result, error) {
	last, next := c.Last(), c.Next()
	if last.Number == 0 {
		return rotation.Result{Observed: true}, nil
	}
	holding, err := w.Target.Observe(ctx, last)
	if err != nil {
		return rotation.Result{}, err
	}
	for _, u := range holding.Uses {
		if u.Kind != "previous-spec" && !u.Idle {
			return rotation.Result{}, unknown(u.Hint, "version %d is still mounted: %s %s", last.Number, u.Kind, u.Name)
		}
	}
	var gone []string
	for _, root := range rootsOf(last) {
		if !slices.Contains(rootsOf(next), root) {
			gone = append(gone, root)
		}
	}
	next.State = rotation.Current
	r := rotation.Result{Evidence: map[string]any{"mounted by": "nobody", "authorities gone": gone}}
	places := w.Placements
	if len(places) == 0 {
		places = []rotation.Placement{{Credential: w.Name}}
	}
	for _, place := range places {
		p := w.Target.Probe(ctx, next, w.b.ProbeSpec(next), place)
		r.Evidence[strings.TrimSpace("verified from "+place.Service)] = p
		if p.Answer != rotation.Alive {
			return r, unknown("run it again: keyturn cleanup "+w.Name, "what is served is not verified by version %d: %s", next.Number, fmt.Sprint(p.Answer, ": ", p.Reason))
		}
	}
	return r, nil
}
