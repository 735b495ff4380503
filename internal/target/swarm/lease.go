package swarm

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/containerd/errdefs"
	"github.com/docker/docker/api/types/swarm"

	"github.com/keyturn/keyturn/internal/rotation"
)

// lockName is the name of the config that is the lease of a credential.
func lockName(credential string) string { return "keyturn.lock." + credential }

// Acquire implements [rotation.Leaser].
func (t *Target) Acquire(ctx context.Context, credential string, want rotation.Holder, dead func(rotation.Holder) bool, force bool) (rotation.Lease, error) {
	l, err := t.acquire(ctx, credential, want, dead, force)
	if err != nil {
		return nil, err // not a nil *lease
	}
	return l, nil
}

func (t *Target) acquire(ctx context.Context, credential string, want rotation.Holder, dead func(rotation.Holder) bool, force bool) (*lease, error) {
	name := lockName(credential)
	if len(name) > 64 {
		return nil, rotation.Errorf(rotation.Invalid, "51 characters are the limit", "the name %q is too long for a lease", credential)
	}
	last := want.Epoch
	for range tries {
		holder := want
		holder.Epoch = last + 1
		spec, err := lockSpec(credential, holder)
		if err != nil {
			return nil, err
		}
		made, err := t.engine.ConfigCreate(ctx, spec)
		if err == nil {
			return &lease{target: t, credential: credential, id: made.ID, holder: holder}, nil
		}
		if !errdefs.IsConflict(err) && !errdefs.IsAlreadyExists(err) {
			return nil, fault(err)
		}
		there, held, err := t.lock(ctx, name)
		if errdefs.IsNotFound(err) {
			continue // removed in between
		}
		if err != nil {
			return nil, err
		}
		if held.Run != "" && !force && t.Now().Before(held.Deadline) && (dead == nil || !dead(held)) {
			return nil, &rotation.BusyError{Credential: credential, Holder: held}
		}
		holder.Epoch = max(want.Epoch, held.Epoch) + 1
		err = t.rewriteLock(ctx, there, credential, holder)
		if err == nil {
			return &lease{target: t, credential: credential, id: there.ID, holder: holder}, nil
		}
		if !errors.Is(err, errStale) && !errdefs.IsNotFound(err) {
			return nil, err
		}
	}
	return nil, rotation.Classify(rotation.Unknown, "", errStale)
}

func lockSpec(credential string, h rotation.Holder) (swarm.ConfigSpec, error) {
	data, err := json.Marshal(h)
	return swarm.ConfigSpec{
		Annotations: swarm.Annotations{Name: lockName(credential), Labels: map[string]string{labelCredential: credential, labelHolder: string(data)}},
		Data:        []byte("The lease of a rotation by Keyturn; its labels say who holds it.\n"),
	}, err
}

// lock reads a lease. One whose label was lost has no holder.
func (t *Target) lock(ctx context.Context, nameOrID string) (swarm.Config, rotation.Holder, error) {
	var h rotation.Holder
	c, _, err := t.engine.ConfigInspectWithRaw(ctx, nameOrID)
	if err != nil {
		return c, h, fault(err)
	}
	if label := c.Spec.Labels[labelHolder]; label != "" {
		if err := json.Unmarshal([]byte(label), &h); err != nil {
			return c, h, rotation.Errorf(rotation.Unknown, "if no rotation runs, remove it: docker config rm "+c.Spec.Name,
				"reading the holder of %q: %w", c.Spec.Name, err)
		}
	}
	return c, h, nil
}

// rewriteLock gives a lease another holder, if nobody was faster.
func (t *Target) rewriteLock(ctx context.Context, c swarm.Config, credential string, h rotation.Holder) error {
	spec, err := lockSpec(credential, h)
	if err != nil {
		return err
	}
	next := c.Spec
	next.Labels = spec.Labels
	return fault(t.engine.ConfigUpdate(ctx, c.ID, c.Version, next))
}

// A lease is held until it is released or taken over.
type lease struct {
	target     *Target
	credential string
	id         string
	holder     rotation.Holder
}

func (l *lease) Holder() rotation.Holder { return l.holder }

// Check reads the lease again.
func (l *lease) Check(ctx context.Context) error {
	_, held, err := l.target.lock(ctx, l.id)
	if errdefs.IsNotFound(err) {
		return rotation.Classify(rotation.Refused, "", fmt.Errorf("%w: its config was removed", rotation.ErrLeaseLost))
	}
	if err != nil {
		return fmt.Errorf("reading the lease of %q: %w", l.credential, err)
	}
	if held.Run != l.holder.Run || held.Epoch != l.holder.Epoch {
		return rotation.Classify(rotation.Refused, "", fmt.Errorf("%w by run %q, epoch %d", rotation.ErrLeaseLost, held.Run, held.Epoch))
	}
	return nil
}

// Release leaves the config with the epoch and no holder.
func (l *lease) Release(ctx context.Context) error {
	for range tries {
		c, held, err := l.target.lock(ctx, l.id)
		if errdefs.IsNotFound(err) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("releasing the lease of %q: %w", l.credential, err)
		}
		if held.Run != l.holder.Run || held.Epoch != l.holder.Epoch {
			return nil
		}
		err = l.target.rewriteLock(ctx, c, l.credential, rotation.Holder{Epoch: held.Epoch})
		if !errors.Is(err, errStale) {
			if err != nil {
				return fmt.Errorf("releasing the lease of %q: %w", l.credential, err)
			}
			return nil
		}
	}
	return fmt.Errorf("releasing the lease of %q: %w", l.credential, errStale)
}
