package swarm

import (
	"context"
	"fmt"
	"slices"

	"github.com/docker/docker/api/types/swarm"

	"github.com/keyturn/keyturn/internal/rotation"
)

// Warnings returns what people should know of the credential's services before
// they are moved, and which is no reason not to. It reads only.
func (t *Target) Warnings(ctx context.Context, credential string) ([]string, error) {
	var warnings []string
	for _, p := range t.Layouts[credential].Placements {
		s, err := t.engine.service(ctx, p.Service)
		if err != nil {
			return nil, err
		}
		switch {
		case s.job():
			warnings = append(warnings, fmt.Sprintf("service %q is a job: moving it runs it once", p.Service))
			continue
		case !t.engine.hasHealthcheck(ctx, s.Spec):
			warnings = append(warnings, fmt.Sprintf("service %q has no HEALTHCHECK that this manager knows of: a task counts as healthy when it ran for %s", p.Service, p.Rollout.Monitor))
		}
		if p.Rollout.Order == swarm.UpdateOrderStopFirst {
			gap, err := t.gap(ctx, s)
			if err != nil {
				return nil, err
			}
			warnings = append(warnings, gap...)
		}
		if s.Spec.UpdateConfig != nil && s.Spec.UpdateConfig.FailureAction == swarm.UpdateFailureActionRollback {
			warnings = append(warnings, fmt.Sprintf("service %q has failure_action: rollback; during a move it is pause, and set back at the end", p.Service))
		}
		if c := s.Spec.TaskTemplate.ContainerSpec; c != nil && p.Rollout.Order == swarm.UpdateOrderStartFirst {
			for _, m := range c.Mounts {
				if m.Type == "volume" && !m.ReadOnly {
					warnings = append(warnings, fmt.Sprintf("service %q writes to the volume at %q: with start-first two tasks may do so for a moment", p.Service, m.Target))
				}
			}
		}
	}
	return warnings, nil
}

// gap says what stop-first means for a service.
func (t *Target) gap(ctx context.Context, s service) ([]string, error) {
	n, err := t.desired(ctx, s)
	switch {
	case err != nil || n == 0:
		return nil, err
	case n == 1:
		return []string{fmt.Sprintf("service %q is moved stop-first: its one task is gone for a moment, until the one after it runs", s.Spec.Name)}, nil
	}
	return []string{fmt.Sprintf("service %q is moved stop-first: each of its %d tasks is gone for a moment, until the one after it runs", s.Spec.Name, n)}, nil
}

// returned tells of secrets of versions that are over: the deployment of an old
// stack file makes one again that it declares. Nothing uses it, or the check of
// the services would say so.
func (t *Target) returned(ctx context.Context, c rotation.Credential) error {
	list, err := t.engine.secrets(ctx)
	if err != nil {
		return err
	}
	for _, s := range list {
		_, number := t.recognise(c.Name, s)
		v, known := c.Version(number)
		over := known && (v.State == rotation.Retired || v.State == rotation.Discarded)
		queued := slices.ContainsFunc(c.Queue, func(p rotation.Parked) bool { return p.Version == number })
		if over && !queued {
			t.Logger.Warn("a secret of a version that is over is there again: take it out of the stack file and remove it",
				"secret", s.Spec.Name, "version", number, "state", v.State)
		}
	}
	return nil
}
