package swarm

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/containerd/errdefs"
	"github.com/docker/docker/api/types/swarm"

	"github.com/keyturn/keyturn/internal/rotation"
	"github.com/keyturn/keyturn/internal/secret"
)

// maxSecret is what Swarm takes as a secret, in bytes.
const maxSecret = 500*1024 - 1

// tries is how often an update that somebody got in the way of is made again.
const tries = 10

// Put implements [rotation.Target]. Every stored value is proved by the engine,
// which never gives one back: it takes an update of a secret with data in it
// only if the bytes are the same.
func (t *Target) Put(ctx context.Context, v rotation.Version, m rotation.Material) (rotation.Version, error) {
	v = v.Clone()
	if v.Objects == nil {
		v.Objects = map[string]rotation.Object{}
	}
	fields := t.fields(v.Credential)
	names := map[string]string{}
	for _, field := range fields { // every check comes before the first effect
		value, ok := m[field]
		if !ok {
			return v, rotation.Errorf(rotation.Invalid, "services may read: "+strings.Join(m.Fields(), ", "),
				"storing version %d of %q: there is no field %q", v.Number, v.Credential, field)
		}
		if n := len(value.Reveal()); n == 0 || n > maxSecret {
			return v, rotation.Errorf(rotation.Invalid, "", "storing version %d of %q: field %q has %d bytes, Swarm takes 1 to %d", v.Number, v.Credential, field, n, maxSecret)
		}
		name, err := t.nameOf(v.Credential, field, v.Number)
		if err != nil {
			return v, fmt.Errorf("storing version %d of %q: %w", v.Number, v.Credential, err)
		}
		names[field] = name
	}
	for _, field := range fields {
		o, err := t.putOne(ctx, v, names[field], m[field])
		if err != nil {
			return v, fmt.Errorf("storing field %q of version %d of %q: %w", field, v.Number, v.Credential, err)
		}
		v.Objects[field] = o
	}
	return v, nil
}

func (t *Target) putOne(ctx context.Context, v rotation.Version, name string, value secret.Value) (rotation.Object, error) {
	annotations := swarm.Annotations{Name: name, Labels: labels(v, rotation.RotationID(ctx))}
	made, err := t.engine.SecretCreate(ctx, swarm.SecretSpec{Annotations: annotations, Data: value.Reveal()})
	if err == nil {
		return rotation.Object{ID: made.ID, Name: name}, t.prove(ctx, made.ID, annotations.Labels, value)
	}
	if !errdefs.IsConflict(err) && !errdefs.IsAlreadyExists(err) {
		return rotation.Object{}, fault(fmt.Errorf("creating secret %q: %w", name, err))
	}
	there, ok, err := t.find(ctx, rotation.Object{Name: name})
	if err != nil {
		return rotation.Object{}, err
	}
	if !ok {
		return rotation.Object{}, rotation.Errorf(rotation.Unknown, "", "secret %q exists, and is not listed", name)
	}
	if owner := there.Spec.Labels[labelCredential]; owner != "" && owner != v.Credential {
		return rotation.Object{}, rotation.Errorf(rotation.Refused, "give one of them another base name under secrets:",
			"secret %q belongs to the credential %q", name, owner)
	}
	return rotation.Object{ID: there.ID, Name: name}, t.prove(ctx, there.ID, annotations.Labels, value)
}

// errDiffers says that a secret holds another value than it must.
var errDiffers = errors.New("a secret of that name holds another value")

// prove shows that a secret holds the value, and puts our labels on it.
func (t *Target) prove(ctx context.Context, id string, labels map[string]string, value secret.Value) error {
	for range tries {
		s, _, err := t.engine.SecretInspectWithRaw(ctx, id)
		if err != nil {
			return fault(fmt.Errorf("proving what was stored: %w", err))
		}
		spec := s.Spec
		spec.Labels, spec.Data = labelled(spec.Labels, labels), value.Reveal()
		err = t.engine.SecretUpdate(ctx, s.ID, s.Version, spec)
		switch {
		case err == nil:
			return nil
		case strings.Contains(err.Error(), "only updates to Labels are allowed"):
			return rotation.Classify(rotation.Refused, "the number is burnt: the next one is tried", errDiffers)
		}
		if err = fault(fmt.Errorf("proving what was stored: %w", err)); !errors.Is(err, errStale) {
			return err
		}
	}
	return rotation.Classify(rotation.Unknown, "", fmt.Errorf("proving what was stored: %w", errStale))
}

// find returns the secret of an object: by its id, or by its name where the id
// is not known.
func (t *Target) find(ctx context.Context, o rotation.Object) (swarm.Secret, bool, error) {
	list, err := t.engine.secrets(ctx)
	if err != nil {
		return swarm.Secret{}, false, err
	}
	s, ok := findIn(list, o)
	return s, ok, nil
}

func findIn(list []swarm.Secret, o rotation.Object) (swarm.Secret, bool) {
	for _, s := range list {
		if o.ID != "" && s.ID == o.ID || o.ID == "" && s.Spec.Name == o.Name {
			return s, true
		}
	}
	return swarm.Secret{}, false
}
