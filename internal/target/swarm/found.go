package swarm

import (
	"context"
	"slices"
	"strings"
)

// stackLabel is what docker stack deploy puts on everything that it makes.
const stackLabel = "com.docker.stack.namespace"

// A Found is a service as it is deployed, for whoever writes a configuration or
// compares one. Variables may hold values that are secret: what is not known to
// be public by its name is not to be shown.
type Found struct {
	Name   string
	Stack  string // that it was deployed with; "" for none
	Env    map[string]string
	Mounts []FoundMount
}

// A FoundMount is a secret that a service mounts.
type FoundMount struct {
	Secret string // its name
	Target string // the absolute path
}

// Found returns every service of the Swarm but probes, by name. It reads only.
func (t *Target) Found(ctx context.Context) ([]Found, error) {
	if err := t.engine.manager(ctx); err != nil {
		return nil, err
	}
	list, err := t.engine.services(ctx)
	if err != nil {
		return nil, err
	}
	var out []Found
	for _, s := range list {
		if isProbe(s.Spec) {
			continue
		}
		f := Found{Name: s.Spec.Name, Stack: s.Spec.Labels[stackLabel], Env: map[string]string{}}
		v := viewOf(s.Spec)
		for _, entry := range v.Env {
			name, value, _ := strings.Cut(entry, "=")
			f.Env[name] = value
		}
		for _, ref := range v.Secrets {
			f.Mounts = append(f.Mounts, FoundMount{Secret: ref.SecretName, Target: targetOf(ref)})
		}
		out = append(out, f)
	}
	slices.SortFunc(out, func(a, b Found) int { return strings.Compare(a.Name, b.Name) })
	return out, nil
}
