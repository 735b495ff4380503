package swarm

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/containerd/errdefs"
	"github.com/docker/docker/api/types/swarm"

	"github.com/keyturn/keyturn/internal/rotation"
)

// Remove implements [rotation.Target]. Swarm itself looks at the specs alone; a
// rollback to a previous spec whose secret is gone would take the service
// down. So where only previous specs are left, an update with the spec as it
// is moves them on first, and restarts nothing.
//
// A secret that a deployment made again under the name of one that was removed
// goes, too, if it bears our labels.
func (t *Target) Remove(ctx context.Context, v rotation.Version) error {
	if err := t.remove(ctx, v); err != nil {
		return fmt.Errorf("removing version %d of %q: %w", v.Number, v.Credential, err)
	}
	return nil
}

func (t *Target) remove(ctx context.Context, v rotation.Version) error {
	if len(v.Objects) == 0 {
		return nil
	}
	list, err := t.engine.secrets(ctx)
	if err != nil {
		return err
	}
	var found []swarm.Secret
	for _, s := range list {
		for _, o := range v.Objects {
			if o.ID == s.ID || o.Name == s.Spec.Name && bears(s, v) {
				found = append(found, s)
			}
		}
	}
	if len(found) == 0 {
		return nil
	}
	ours := holds(v, nil)
	if err := t.sweep(ctx, v.Credential, func(s swarm.ServiceSpec) bool { return names(s.TaskTemplate, ours) }); err != nil {
		return err
	}
	uses, err := t.uses(ctx, v.Credential, ours)
	if err != nil {
		return err
	}
	if err := inUse(uses); err != nil {
		return err
	}
	for _, u := range uses {
		if err := t.moveOn(ctx, u.service, ours); err != nil {
			return err
		}
	}
	for _, s := range found {
		if err := t.removeSecret(ctx, s); err != nil {
			return err
		}
	}
	return nil
}

func (t *Target) removeSecret(ctx context.Context, s swarm.Secret) error {
	if err := rotation.CheckLease(ctx); err != nil {
		return err
	}
	err := t.engine.SecretRemove(ctx, s.ID)
	switch {
	case err == nil, errdefs.IsNotFound(err):
		return nil
	case strings.Contains(err.Error(), "is in use by"):
		return fmt.Errorf("%w: %w", rotation.ErrInUse, err)
	}
	return fault(fmt.Errorf("removing secret %q: %w", s.Spec.Name, err))
}

// inUse is the error of uses that are more than a previous spec.
func inUse(uses []use) error {
	var by []string
	for _, u := range uses {
		if u.Kind != usePrevious {
			by = append(by, strings.TrimSpace(u.Kind+" of "+u.Name+" "+u.Detail))
		}
	}
	if len(by) == 0 {
		return nil
	}
	return rotation.Classify(rotation.Failed, "deploy the stack file that names the new secret",
		fmt.Errorf("%w: %s", rotation.ErrInUse, strings.Join(by, ", ")))
}

// moveOn makes the previous spec of a service the one that it has now, by an
// update that changes nothing.
func (t *Target) moveOn(ctx context.Context, was swarm.Service, ours func(*swarm.SecretReference) bool) error {
	for range tries {
		s, err := t.engine.service(ctx, was.ID)
		if ctx.Err() == nil && rotation.ClassOf(err) == rotation.Invalid {
			return nil // the service is gone
		}
		if err != nil {
			return err
		}
		if s.PreviousSpec == nil || !names(s.PreviousSpec.TaskTemplate, ours) {
			return nil
		}
		if names(s.Spec.TaskTemplate, ours) {
			return inUse([]use{{Use: rotation.Use{Kind: useSpec, Name: s.Spec.Name}}})
		}
		// Any update makes the updater replace what does not have the spec yet.
		if state := underWay(s.Service); state != "" {
			return rotation.Classify(rotation.Failed, "wait until it is over", fmt.Errorf("%w: the update of service %q is %s", rotation.ErrInUse, s.Spec.Name, state))
		}
		if err = t.engine.update(ctx, s, s.raw); err == nil {
			return nil
		}
		if !errors.Is(err, errStale) {
			return err
		}
	}
	return fmt.Errorf("moving the previous spec of service %q on: %w", was.Spec.Name, errStale)
}

// underWay returns the state of an update that is not over, or "".
func underWay(s swarm.Service) swarm.UpdateState {
	if s.UpdateStatus == nil {
		return ""
	}
	switch s.UpdateStatus.State {
	case swarm.UpdateStateUpdating, swarm.UpdateStatePaused, swarm.UpdateStateRollbackStarted, swarm.UpdateStateRollbackPaused:
		return s.UpdateStatus.State
	}
	return ""
}
