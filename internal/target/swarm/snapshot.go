package swarm

import (
	"context"
	"encoding/json"
	"fmt"
	"path"

	"github.com/keyturn/keyturn/internal/rotation"
)

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
			b = before{ID: s.ID, Env: map[string]string{}, Update: s.Spec.UpdateConfig}
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
	mount := func(at string) {
		if ref := v.at(path.Clean(at)); ref != nil && b.at(path.Clean(at)) == nil {
			b.Secrets = append(b.Secrets, ref)
		}
	}
	for name := range p.Env {
		if value, ok := v.env(name); ok {
			b.Env[name] = value
		}
	}
	for name := range p.File {
		// Whatever is no path may be a value that somebody put there.
		if at, _ := v.env(name); path.IsAbs(at) {
			b.Env[name] = at
			mount(at)
		}
	}
	for at := range p.Path {
		mount(at)
	}
}
