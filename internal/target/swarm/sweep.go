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
		if rmErr := t.engine.ServiceRemove(ctx, s.ID); rmErr != nil && !errdefs.IsNotFound(rmErr) {
			err = errors.Join(err, fault(fmt.Errorf("removing probe %q: %w", s.Spec.Name, rmErr)))
		}
	}
	return err
}
