package cli

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/keyturn/keyturn/internal/rotation"
)

// needs returns the credentials that those of a group come after, directly or by
// others, in the order of the configuration; none of the group.
func (w *wiring) needs(group []string) []string {
	after := map[string]bool{}
	var add func(name string)
	add = func(name string) {
		for _, needed := range w.credential(name).After {
			if !after[needed] {
				after[needed] = true
				add(needed)
			}
		}
	}
	for _, name := range group {
		add(name)
	}
	return slices.DeleteFunc(namesOf(w.cfg), func(name string) bool { return !after[name] || slices.Contains(group, name) })
}

// waves parts groups by what can go on at the same time: a group comes in the first
// wave after those that its credentials come after, and last of all what is an
// administrator's own, which the others are rotated with.
func (w *wiring) waves(groups [][]string) [][][]string {
	isOwn := func(g []string) bool {
		return slices.ContainsFunc(g, func(name string) bool { return w.credential(name).Own() })
	}
	var waves [][][]string
	left := slices.Clone(groups)
	for len(left) > 0 {
		waits := func(g []string) bool {
			needed := w.needs(g)
			return slices.ContainsFunc(left, func(o []string) bool {
				return !slices.Equal(o, g) && (isOwn(g) && !isOwn(o) || slices.ContainsFunc(o, func(name string) bool { return slices.Contains(needed, name) }))
			})
		}
		wave := slices.DeleteFunc(slices.Clone(left), waits)
		if len(wave) == 0 { // batches may come after each other by different members: as they stand, one by one
			wave = left[:1]
		}
		waves = append(waves, slices.Clone(wave))
		left = slices.DeleteFunc(left, func(g []string) bool {
			return slices.ContainsFunc(wave, func(o []string) bool { return slices.Equal(o, g) })
		})
	}
	return waves
}

// inOrder sorts groups by the waves that they come in.
func (w *wiring) inOrder(groups [][]string) [][]string {
	return slices.Concat(w.waves(groups)...)
}

// ahead says which rotations a group that is not begun comes after, and that are on
// their way to their cutover.
func (w *wiring) ahead(ledger *rotation.Ledger, group []string) []string {
	if ledger.Credential(group[0]).Open != nil {
		return nil
	}
	var out []string
	for _, name := range w.needs(group) {
		if c := ledger.Credential(name); c.Open != nil && rotation.NextPhase(c) != rotation.Cleanup {
			out = append(out, fmt.Sprintf("%s comes after %s, whose rotation is not cut over yet (keyturn rotate %[2]s goes on with it)", strings.Join(group, ", "), name))
		}
	}
	return out
}

// behind has a rotation that would begin wait for those that it comes after, unless it
// is an emergency.
func (w *wiring) behind(ctx context.Context, phase rotation.Phase, group []string, f phaseFlags) (rotation.Summary, bool, error) {
	if phase != rotation.Prepare || f.emergency || len(w.needs(group)) == 0 {
		return rotation.Summary{}, false, nil
	}
	ledger, err := w.ledger(ctx)
	if err != nil {
		return rotation.Summary{}, false, err
	}
	ahead := w.ahead(ledger, group)
	if len(ahead) == 0 {
		return rotation.Summary{}, false, nil
	}
	sum := rotation.Summary{Phase: phase, Outcome: rotation.Waiting, For: "what it needs: " + strings.Join(ahead, "; "), Hint: "or do not wait: --emergency"}
	for _, name := range group {
		sum.Credentials = append(sum.Credentials, rotation.PositionOf(ledger.Credential(name)))
	}
	return sum, true, nil
}
