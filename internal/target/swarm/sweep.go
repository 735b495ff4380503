package swarm

import (
	"context"
	"errors"
	"fmt"

	"github.com/containerd/errdefs"
	"github.com/docker/docker/api/types/swarm"
)

// Sweep implements [rotation.Sweeper]. It removes what probes have left: the
// services and configs of the credential that are labelled as probes. The
// caller holds the lease, so that nobody waits for them any more.
func (t *Target) Sweep(ctx context.Context, credential string) error {
	err := t.sweep(ctx, credential, func(swarm.ServiceSpec) bool { return true })
	configs, listErr := t.engine.ConfigList(ctx, swarm.ConfigListOptions{})
	if listErr != nil {
		return errors.Join(err, fault(fmt.Errorf("looking for what probes left: %w", listErr)))
	}
	for _, c := range configs {
		if c.Spec.Labels[labelProbe] != "" && c.Spec.Labels[labelCredential] == credential {
			t.clean(ctx, "config "+c.Spec.Name, func(ctx context.Context) error { return t.engine.ConfigRemove(ctx, c.ID) })
		}
	}
	return err
}

// sweep removes the probes of a credential for which which is true.
func (t *Target) sweep(ctx context.Context, credential string, which func(swarm.ServiceSpec) bool) error {
	services, err := t.engine.services(ctx)
	if err != nil {
		return err
	}
	for _, s := range services {
		if !isProbe(s.Spec) || s.Spec.Labels[labelCredential] != credential || !which(s.Spec) {
			continue
		}
		if isRelay(s.Spec) && t.used(ctx, s) {
			continue
		}
		if rmErr := t.engine.ServiceRemove(ctx, s.ID); rmErr != nil && !errdefs.IsNotFound(rmErr) {
			err = errors.Join(err, fault(fmt.Errorf("removing probe %q: %w", s.Spec.Name, rmErr)))
		}
	}
	return err
}

// unanchored is how old a relay may be that nobody is in: it may still be started.
const unanchored = relayStart

// used reports whether somebody is in a relay, as far as can be seen from here. It
// may be one who only looks, and holds no lease.
func (t *Target) used(ctx context.Context, s swarm.Service) bool {
	tasks, err := t.engine.tasks(ctx, s.ID)
	if err != nil || len(tasks) == 0 {
		return t.Now().Sub(s.CreatedAt) < unanchored
	}
	for _, task := range tasks {
		if ended(task.Status.State) {
			continue
		}
		if task.Status.ContainerStatus == nil || t.Now().Sub(s.CreatedAt) < unanchored || t.inside(ctx, task.Status.ContainerStatus.ContainerID) {
			return true
		}
	}
	return false
}

// inside reports whether anything was started in a container that still runs. One
// that is on another engine may have somebody in it.
func (t *Target) inside(ctx context.Context, container string) bool {
	c, err := t.engine.ContainerInspect(ctx, container)
	if err != nil {
		return true
	}
	for _, id := range c.ExecIDs {
		if e, err := t.engine.ContainerExecInspect(ctx, id); err == nil && e.Running {
			return true
		}
	}
	return false
}
