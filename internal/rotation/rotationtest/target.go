package rotationtest

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"

	"github.com/keyturn/keyturn/internal/rotation"
)

// Target is a fake target. With Traits.OneVersion a version that is put
// replaces the one before it.
type Target struct {
	w      *World
	traits rotation.Traits
	fields []string
}

var _ rotation.Target = (*Target)(nil)

// Target returns the world's target, whose services read the fields.
func (w *World) Target(traits rotation.Traits, fields ...string) *Target {
	return &Target{w: w, traits: traits, fields: fields}
}

// Preflight implements [rotation.Preflighter].
func (t *Target) Preflight(ctx context.Context, c rotation.Credential) error {
	return t.w.call(ctx, "preflight target", func() error {
		for _, name := range slices.Sorted(maps.Keys(t.w.services)) {
			if t.w.services[name].ill && !c.Stricken() {
				return rotation.Errorf(rotation.Unknown, "make it well first", "service %q is ill", name)
			}
		}
		return nil
	})
}

// Traits implements [rotation.Target].
func (t *Target) Traits() rotation.Traits { return t.traits }

func (t *Target) name(v rotation.Version, field string) string {
	if t.traits.OneVersion {
		return v.Credential + "_" + field
	}
	return fmt.Sprintf("%s_%s_v%d", v.Credential, field, v.Number)
}

// Put implements [rotation.Target]: field by field.
func (t *Target) Put(ctx context.Context, v rotation.Version, m rotation.Material) (rotation.Version, error) {
	v = v.Clone()
	v.Objects = map[string]rotation.Object{}
	err := t.w.call(ctx, "put", func() error {
		for _, field := range t.fields {
			value, ok := m[field]
			if !ok {
				return fmt.Errorf("version %d has no field %q", v.Number, field)
			}
			if err := t.putOne(ctx, v, field, string(value.Reveal())); err != nil {
				return err
			}
		}
		return nil
	})
	return v, err
}

func (t *Target) putOne(ctx context.Context, v rotation.Version, field, value string) error {
	w, name := t.w, t.name(v, field)
	if o, ok := w.objects[name]; ok && !t.traits.OneVersion {
		if o.value != value {
			return fmt.Errorf("%q is there with another value", name)
		}
		v.Objects[field] = rotation.Object{ID: o.id, Name: name}
		return nil
	}
	if w.names[name] && !t.traits.OneVersion {
		return w.faultf("the name %q is used twice", name)
	}
	w.serial++
	w.names[name] = true
	o := &object{id: fmt.Sprintf("id%d", w.serial), name: name, credential: v.Credential, field: field, value: value,
		number: v.Number, rotation: rotation.RotationID(ctx)}
	w.objects[name] = o
	v.Objects[field] = rotation.Object{ID: o.id, Name: name}
	return w.effect("put %s", name)
}

// held returns the objects of a version that are there, by field.
func (t *Target) held(v rotation.Version) map[string]*object {
	out := map[string]*object{}
	for _, field := range t.fields {
		if o, ok := t.w.objects[t.name(v, field)]; ok && o.number == v.Number {
			out[field] = o
		}
	}
	// Version 1 may have names of its own: it was adopted.
	for field, o := range v.Objects {
		if known, ok := t.w.objects[o.Name]; ok && known.id == o.ID && known.number == v.Number {
			out[field] = known
		}
	}
	return out
}

// Observe implements [rotation.Target].
func (t *Target) Observe(ctx context.Context, v rotation.Version) (h rotation.Holding, err error) {
	err = t.w.call(ctx, "hold", func() error {
		held := t.held(v)
		h = rotation.Holding{Objects: map[string]rotation.Object{}, Complete: len(held) == len(t.fields), Uses: t.w.uses(v)}
		for field, o := range held {
			h.Objects[field] = rotation.Object{ID: o.id, Name: o.name}
		}
		return nil
	})
	return h, err
}

// uses returns every spec, previous spec and task that names a version.
func (w *World) uses(v rotation.Version) []rotation.Use {
	var out []rotation.Use
	for _, name := range slices.Sorted(maps.Keys(w.services)) {
		s := w.services[name]
		if s.spec.names(v) {
			out = append(out, rotation.Use{Kind: "spec", Name: name})
		}
		if s.previous.names(v) {
			out = append(out, rotation.Use{Kind: "previous-spec", Name: name})
		}
		for i, t := range s.tasks {
			if slices.ContainsFunc(t[v.Credential], func(h holds) bool { return h.number == v.Number }) {
				out = append(out, rotation.Use{Kind: "task", Name: fmt.Sprintf("%s.%d", name, i)})
			}
		}
	}
	return out
}

// Snapshot implements [rotation.Target].
func (t *Target) Snapshot(ctx context.Context, places []rotation.Placement) (map[string]json.RawMessage, error) {
	out := map[string]json.RawMessage{}
	err := t.w.call(ctx, "snapshot", func() error {
		for _, p := range places {
			s, ok := t.w.services[p.Service]
			if !ok {
				return t.w.faultf("there is no service %q", p.Service)
			}
			b, err := json.Marshal(s.spec.slots)
			if err != nil {
				return err
			}
			out[p.Service] = b
		}
		return nil
	})
	return out, err
}

// Remove implements [rotation.Target].
func (t *Target) Remove(ctx context.Context, v rotation.Version) error {
	return t.w.call(ctx, "remove", func() error {
		if t.traits.OneVersion {
			return nil
		}
		var by []string
		for _, u := range t.w.uses(v) {
			if u.Kind != "previous-spec" {
				by = append(by, u.Kind+" "+u.Name)
			}
		}
		if len(by) > 0 {
			return fmt.Errorf("removing version %d: %w: %v", v.Number, rotation.ErrInUse, by)
		}
		for _, name := range slices.Sorted(maps.Keys(t.w.services)) {
			if s := t.w.services[name]; s.previous.names(v) {
				s.previous = s.spec.clone()
				if err := t.w.effect("move the previous spec of %s on", name); err != nil {
					return err
				}
			}
		}
		for _, field := range slices.Sorted(maps.Keys(v.Objects)) {
			o := v.Objects[field]
			there, ok := t.w.objects[o.Name]
			if !ok || o.ID != "" && there.id != o.ID {
				continue
			}
			delete(t.w.objects, o.Name)
			if err := t.w.effect("remove %s", o.Name); err != nil {
				return err
			}
		}
		return nil
	})
}

// Orphans implements [rotation.Target].
func (t *Target) Orphans(ctx context.Context, credential string) (out []rotation.Orphan, err error) {
	err = t.w.call(ctx, "orphans", func() error {
		by := map[int]*rotation.Orphan{}
		for _, name := range slices.Sorted(maps.Keys(t.w.objects)) {
			o := t.w.objects[name]
			if o.credential != credential {
				continue
			}
			if by[o.number] == nil {
				by[o.number] = &rotation.Orphan{Rotation: o.rotation,
					Version: rotation.Version{Credential: credential, Number: o.number, Objects: map[string]rotation.Object{}}}
			}
			by[o.number].Version.Objects[o.field] = rotation.Object{ID: o.id, Name: o.name}
		}
		for _, number := range slices.Sorted(maps.Keys(by)) {
			out = append(out, *by[number])
		}
		return nil
	})
	return out, err
}

// Probe implements [rotation.Prober].
func (t *Target) Probe(ctx context.Context, v rotation.Version, spec rotation.ProbeSpec, from rotation.Placement) (r rotation.ProbeResult) {
	end := rotation.EndpointResult{Endpoint: spec.Endpoints[0], Answer: rotation.Inconclusive}
	err := t.w.call(ctx, "probe", func() error {
		sys := t.w.systems[v.Credential]
		held := t.held(v)
		if len(held) != len(t.fields) {
			return errors.New("the value is not there")
		}
		if from.Service != "" && t.w.services[from.Service] == nil {
			return t.w.faultf("there is no service %q", from.Service)
		}
		switch {
		case sys.down, sys.mute[v.Number]:
			return errors.New("no answer")
		case t.w.accepts(sys, spec.Identity, held["password"].value):
			end.Answer = rotation.Alive
		default:
			end.Answer, end.Code, end.Reason = rotation.Dead, "28P01", "refused"
		}
		return nil
	})
	if err != nil {
		end.Answer, end.Reason = rotation.Inconclusive, err.Error()
	}
	return rotation.ProbeResult{Endpoints: []rotation.EndpointResult{end}, From: from.Service}.Summarize()
}
