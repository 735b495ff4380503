package swarm

import (
	"context"
	"fmt"
	"maps"
	"path"
	"slices"
	"strconv"

	"github.com/keyturn/keyturn/internal/rotation"
)

// Adopt returns what the declared services read of a credential now as version
// 1: the secrets, whatever their names, and the public fields that stand in
// variables. It reads only. All services must agree.
//
// A public field that no service has in a variable is not among the version's
// Public fields, and a secret's value cannot be read by anybody: the caller has
// to know it from elsewhere.
func (t *Target) Adopt(ctx context.Context, credential string) (rotation.Version, error) {
	v := rotation.Version{Credential: credential, Number: 1, Public: map[string]string{}, Objects: map[string]rotation.Object{}}
	if err := t.adopt(ctx, &v); err != nil {
		return rotation.Version{}, err
	}
	return v, nil
}

func (t *Target) adopt(ctx context.Context, v *rotation.Version) error {
	if err := t.engine.manager(ctx); err != nil {
		return err
	}
	placements := t.Layouts[v.Credential].Placements
	if len(placements) == 0 {
		return rotation.Errorf(rotation.Invalid, "declare the services that read it under services:", "no service is declared")
	}
	a := adoption{version: v, from: map[string]string{}}
	for _, p := range placements {
		s, err := t.engine.service(ctx, p.Service)
		if err != nil {
			return err
		}
		if err := a.service(viewOf(s.Spec), p); err != nil {
			return fmt.Errorf("service %q: %w", p.Service, err)
		}
	}
	for _, field := range a.unknown {
		if _, ok := v.Public[field]; !ok {
			t.Logger.Warn("a public field stands in no variable of the services", "credential", v.Credential, "field", field)
		}
	}
	for field, o := range v.Objects {
		for _, f := range t.fields(v.Credential) {
			if n := t.numberIn(v.Credential, f, o.Name); n > 1 {
				return rotation.Errorf(rotation.Invalid, fmt.Sprintf("give the field another base name: secrets: {%s: …}", field),
					"the secret %q is named as version %d would be", o.Name, n)
			}
		}
	}
	return t.declared(ctx, v.Credential, holds(*v, nil))
}

// An adoption gathers a version from the services that read it.
type adoption struct {
	version *rotation.Version
	from    map[string]string // field → the service that it was found in
	unknown []string
}

func (a *adoption) service(now view, p rotation.Placement) error {
	for _, name := range slices.Sorted(maps.Keys(p.File)) {
		at, ok := now.env(name)
		if !ok {
			return rotation.Errorf(rotation.Invalid, "is the variable's name right? A fixed path is declared under path:",
				"it has no variable %q", name)
		}
		if !path.IsAbs(at) {
			// What stands there may be the value itself: it is not repeated.
			return rotation.Errorf(rotation.Invalid, "file: is for variables that hold the path of a mounted secret",
				"the variable %q holds no absolute path", name)
		}
		if err := a.mount(now, path.Clean(at), "the path that it holds", p.File[name], p.Service); err != nil {
			return fmt.Errorf("variable %q: %w", name, err)
		}
	}
	for _, at := range slices.Sorted(maps.Keys(p.Path)) {
		if err := a.mount(now, path.Clean(at), strconv.Quote(at), p.Path[at], p.Service); err != nil {
			return err
		}
	}
	for _, name := range slices.Sorted(maps.Keys(p.Env)) {
		field := p.Env[name]
		value, ok := now.env(name)
		if !ok {
			a.unknown = append(a.unknown, field)
			continue
		}
		if other, ok := a.version.Public[field]; ok && other != value {
			return rotation.Errorf(rotation.Refused, "bring them onto one credential first, or declare two credentials",
				"its %s is another than that of service %q", field, a.from[field])
		}
		a.version.Public[field], a.from[field] = value, p.Service
	}
	return nil
}

// mount adopts the secret that is mounted at a path, which errors call shown:
// what stands in a variable may be a value.
func (a *adoption) mount(now view, at, shown, field, service string) error {
	ref := now.at(at)
	if ref == nil {
		return rotation.Errorf(rotation.Invalid, "a file in the image, a bind mount or a config cannot be rotated: mount a secret there first",
			"no secret is mounted at %s%s", shown, mounted(now))
	}
	o := rotation.Object{ID: ref.SecretID, Name: ref.SecretName}
	if other, ok := a.version.Objects[field]; ok && other != o {
		return rotation.Errorf(rotation.Refused, "bring them onto one credential first, or declare two credentials",
			"its %s is the secret %q, that of service %q is %q", field, o.Name, a.from[field], other.Name)
	}
	a.version.Objects[field], a.from[field] = o, service
	return nil
}

// mounted lists where secrets are mounted, for errors.
func mounted(v view) string {
	if len(v.Secrets) == 0 {
		return ": it has no secrets"
	}
	var at []string
	for _, ref := range v.Secrets {
		at = append(at, targetOf(ref))
	}
	return fmt.Sprintf("; secrets are at %q", at)
}
