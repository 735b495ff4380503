package swarm

import (
	"github.com/keyturn/keyturn/internal/rotation"
)

// movable tries on a service what a rotation would make of its spec, and
// changes nothing: a secret at a path that is to be ours, a field that is
// mounted and not declared any more, a variable that holds no path.
func (t *Target) movable(s service, c rotation.Credential) error {
	next := t.imagined(c)
	var moved, beside []rotation.Shift
	for _, p := range t.Layouts[c.Name].Placements {
		if p.Service != s.Spec.Name {
			continue
		}
		for _, field := range p.Env {
			next.Public[field] = ""
		}
		shift := rotation.Shift{Placement: p, Main: next, Known: c.Versions}
		moved = append(moved, shift)
		if last := c.Last(); p.Mounts == rotation.Dual && last.Number > 0 {
			shift.Main, shift.Beside = last, &next
			beside = append(beside, shift)
		}
	}
	for _, shifts := range [][]rotation.Shift{beside, moved} {
		_, err := apply(viewOf(s.Spec), shifts, t.base)
		if err != nil && len(c.Versions) == 0 {
			return rotation.Classify(rotation.ClassOf(err), "if it is what this credential is now, take it over: keyturn adopt "+c.Name, err)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// imagined is a version that comes after all that are on record.
func (t *Target) imagined(c rotation.Credential) rotation.Version {
	v := rotation.Version{Credential: c.Name, Number: c.Burnt + 1, Public: map[string]string{}, Objects: map[string]rotation.Object{}}
	for _, field := range t.fields(c.Name) {
		v.Objects[field] = rotation.Object{ID: "none yet " + field, Name: t.base(c.Name, field)}
	}
	return v
}
