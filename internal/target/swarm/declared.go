package swarm

import (
	"context"
	"fmt"
	"maps"
	"slices"

	"github.com/keyturn/keyturn/internal/rotation"
)

// AsDeclared looks whether every declared service reads the version in service (and,
// where both are mounted, the next one beside it) exactly as it is declared: secrets,
// paths, variables, owner and mode. It changes nothing. A phase that is under way is no
// time for it.
func (t *Target) AsDeclared(ctx context.Context, c rotation.Credential) ([]rotation.Remark, error) {
	current, ok := c.In(rotation.Current)
	if !ok || c.Open != nil && !c.Open.Complete {
		return nil, nil
	}
	byService := map[string][]rotation.Shift{}
	for _, p := range t.Layouts[c.Name].Placements {
		s := rotation.Shift{Placement: p, Main: current, Known: c.Versions}
		if next := c.Next(); p.Mounts == rotation.Dual && next.State == rotation.Pending {
			s.Beside = &next
		}
		resolved, err := t.resolve(ctx, s)
		if err != nil {
			return nil, err
		}
		byService[p.Service] = append(byService[p.Service], resolved)
	}
	var out []rotation.Remark
	for _, name := range slices.Sorted(maps.Keys(byService)) {
		s, err := t.engine.service(ctx, name)
		if err != nil {
			return out, err
		}
		is := viewOf(s.Spec)
		should, err := apply(is, byService[name], t.base)
		switch {
		case err != nil:
			out = append(out, rotation.Remark{Level: rotation.Problem, Text: err.Error(), Hint: rotation.HintOf(err)})
		case !is.reads(should):
			out = append(out, rotation.Remark{Level: rotation.Problem, Hint: "put the service right, or the declaration: keyturn plan " + c.Name + " shows what is declared",
				Text: fmt.Sprintf("service %q does not read version %d as it is declared: a secret, its path, owner or mode, or a variable is another", name, current.Number)})
		default:
			out = append(out, rotation.Remark{Level: rotation.Fine, Text: fmt.Sprintf("service %q reads version %d exactly as declared", name, current.Number)})
		}
	}
	return out, nil
}
