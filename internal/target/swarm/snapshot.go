package swarm

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"path"
	"slices"

	"github.com/docker/docker/api/types/swarm"

	"github.com/keyturn/keyturn/internal/rotation"
)

// A before is the part of a service that is ours, as it was before a rotation
// first touched it. No value of a secret can stand in it. The update settings
// are not in it: they may be changed until the move. See [mark].
type before struct {
	ID       string                   `json:"id"` // one made again under its name is another service
	Secrets  []*swarm.SecretReference `json:"secrets,omitempty"`
	Env      map[string]string        `json:"env,omitempty"`
	Other    []string                 `json:"other,omitempty"` // variables that hold something else than the path of a secret
	Rotation string                   `json:"rotation,omitempty"`
}

func beforeOf(data json.RawMessage) (*before, error) {
	if len(data) == 0 {
		return nil, nil
	}
	var b before
	if err := json.Unmarshal(data, &b); err != nil {
		return nil, fmt.Errorf("reading how a service was before: %w", err)
	}
	return &b, nil
}

// Snapshot implements [rotation.Target].
func (t *Target) Snapshot(ctx context.Context, placements []rotation.Placement) (map[string]json.RawMessage, error) {
	all := map[string]before{}
	for _, p := range placements {
		s, err := t.engine.service(ctx, p.Service)
		if err != nil {
			return nil, fmt.Errorf("noting how services are: %w", err)
		}
		b, ok := all[p.Service]
		if !ok {
			b = before{ID: s.ID, Env: map[string]string{}, Rotation: s.Spec.Labels[labelRotation]}
		}
		b.note(viewOf(s.Spec), p)
		all[p.Service] = b
	}
	out := map[string]json.RawMessage{}
	for service, b := range all {
		data, err := json.Marshal(b)
		if err != nil {
			return nil, fmt.Errorf("noting how services are: %w", err)
		}
		out[service] = data
	}
	return out, nil
}

// note adds the part that a placement declares.
func (b *before) note(v view, p rotation.Placement) {
	mounted := func(at string) bool {
		ref := v.at(path.Clean(at))
		if ref != nil && b.at(path.Clean(at)) == nil {
			b.Secrets = append(b.Secrets, ref)
		}
		return ref != nil
	}
	for name := range p.Env {
		if value, ok := v.env(name); ok {
			b.Env[name] = value
		}
	}
	for _, name := range slices.Sorted(maps.Keys(p.File)) {
		at, ok := v.env(name)
		switch {
		case path.IsAbs(at) && mounted(at):
			b.Env[name] = at
		case ok: // what stands there may be a value
			b.Other = append(b.Other, name)
		}
	}
	for at := range p.Path {
		mounted(at)
	}
}

// at returns what was mounted at a path.
func (b *before) at(target string) *swarm.SecretReference {
	if b == nil {
		return nil
	}
	return view{Secrets: b.Secrets}.at(target)
}

// had reports whether the service had a variable.
func (b *before) had(name string) bool {
	_, ok := b.Env[name]
	return ok || slices.Contains(b.Other, name)
}
