package swarm

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/docker/docker/api/types/swarm"

	"github.com/keyturn/keyturn/internal/rotation"
)

// Preflight implements [rotation.Preflighter]. It checks that the engine
// manages a Swarm, that every service that uses a secret of the credential is
// declared or ignored, that the declared ones exist, are converged and are not
// being updated, that nothing is in the way of what is to be mounted, and that a second task of each finds a place if it is to
// start first. What is worth knowing and keeps nothing from going on is logged;
// see [Target.Warnings].
func (t *Target) Preflight(ctx context.Context, c rotation.Credential) error {
	if err := t.preflight(ctx, c); err != nil {
		return fmt.Errorf("checking the services of %q: %w", c.Name, err)
	}
	return nil
}

func (t *Target) preflight(ctx context.Context, c rotation.Credential) error {
	if err := t.engine.manager(ctx); err != nil {
		return err
	}
	var faults []error
	for _, field := range t.fields(c.Name) {
		if _, err := t.nameOf(c.Name, field, c.Burnt+1); err != nil {
			faults = append(faults, err)
		}
	}
	if err := t.declared(ctx, c.Name, t.known(c)); err != nil {
		faults = append(faults, err)
	}
	if c.Open == nil || len(c.Open.Steps) == 0 {
		if err := t.returned(ctx, c); err != nil {
			faults = append(faults, err)
		}
	}
	seen := map[string]bool{}
	for _, p := range t.Layouts[c.Name].Placements {
		if seen[p.Service] {
			continue
		}
		seen[p.Service] = true
		if err := t.preflightService(ctx, p, c); err != nil {
			faults = append(faults, err)
		}
	}
	return strongest(faults)
}

// strongest joins errors and keeps the class that lets nobody go on: one that
// was told for certain comes before one that could not be told.
func strongest(faults []error) error {
	slices.SortStableFunc(faults, func(a, b error) int {
		rank := func(err error) int {
			if rotation.ClassOf(err) == rotation.Unknown {
				return 1
			}
			return 0
		}
		return rank(a) - rank(b)
	})
	if len(faults) <= 1 {
		return errors.Join(faults...)
	}
	return rotation.Classify(rotation.ClassOf(faults[0]), rotation.HintOf(faults[0]), errors.Join(faults...))
}

// manager checks that the engine is one that manages a Swarm.
func (e engine) manager(ctx context.Context) error {
	info, err := e.Info(ctx)
	if err != nil {
		return fault(fmt.Errorf("asking the engine at %s: %w", e.DaemonHost(), err))
	}
	switch {
	case info.Swarm.LocalNodeState != swarm.LocalNodeStateActive:
		return rotation.Errorf(rotation.Invalid, "run: docker swarm init, or point swarm.host at a manager",
			"the engine at %s is in no Swarm (%s)", e.DaemonHost(), info.Swarm.LocalNodeState)
	case !info.Swarm.ControlAvailable:
		return rotation.Errorf(rotation.Invalid, "point swarm.host at a manager: docker node ls shows them",
			"the engine at %s is a worker of its Swarm, not a manager", e.DaemonHost())
	}
	return nil
}

// known tells the references to any secret of a credential from others: by
// what is on record, and by name.
func (t *Target) known(c rotation.Credential) func(*swarm.SecretReference) bool {
	var onRecord []func(*swarm.SecretReference) bool
	for _, v := range c.Versions {
		onRecord = append(onRecord, holds(v, nil))
	}
	fields := t.fields(c.Name)
	return func(ref *swarm.SecretReference) bool {
		for _, ours := range onRecord {
			if ours(ref) {
				return true
			}
		}
		return slices.ContainsFunc(fields, func(f string) bool { return t.numberIn(c.Name, f, ref.SecretName) > 0 })
	}
}

// declared refuses services that use a secret of the credential, in their spec
// or in the one before, and that nobody has declared: a move would pass them
// by, and the end of the old version would hit them. A service that runs no
// task now counts as well.
func (t *Target) declared(ctx context.Context, credential string, ours func(*swarm.SecretReference) bool) error {
	uses, err := t.uses(ctx, credential, ours)
	if err != nil {
		return err
	}
	var strangers []string
	for _, u := range uses {
		name := u.service.Spec.Name
		known := t.ignored(credential, name) ||
			slices.ContainsFunc(t.Layouts[credential].Placements, func(p rotation.Placement) bool { return p.Service == name })
		if known || u.Kind == useTask || slices.ContainsFunc(strangers, func(s string) bool { return strings.HasPrefix(s, fmt.Sprintf("%q", name)) }) {
			continue
		}
		detail := ""
		if r := u.service.Spec.Mode.Replicated; r != nil && r.Replicas != nil && *r.Replicas == 0 {
			detail = " (0 replicas)"
		} else if (service{Service: u.service}).job() {
			detail = " (a job)"
		}
		if u.Kind == usePrevious {
			detail = " (in its previous spec)"
		}
		strangers = append(strangers, fmt.Sprintf("%q", name)+detail)
	}
	if len(strangers) == 0 {
		return nil
	}
	slices.Sort(strangers)
	return rotation.Errorf(rotation.Refused, "declare it under services:, or under ignore: with a reason",
		"a secret of %q is used by undeclared services: %s", credential, strings.Join(strangers, ", "))
}

// preflightService checks one declared service.
func (t *Target) preflightService(ctx context.Context, p rotation.Placement, c rotation.Credential) error {
	s, err := t.engine.service(ctx, p.Service)
	if err != nil {
		return err
	}
	if s.Spec.TaskTemplate.ContainerSpec == nil {
		return rotation.Errorf(rotation.Refused, "", "service %q runs no container", p.Service)
	}
	if err := t.movable(s, c); err != nil {
		return err
	}
	if at, complete := c.At(rotation.Prepare); at && !complete && names(s.Spec.TaskTemplate, holds(c.Next(), nil)) {
		return nil // our own move, which was cut off: it is gone on with, or taken back
	}
	if state := underWay(s.Service); state != "" {
		settled := state == swarm.UpdateStateUpdating && t.quiet(ctx, s)
		if !settled {
			return rotation.Errorf(rotation.Refused, "wait until it is over, or finish it: docker service ps --no-trunc "+p.Service,
				"an update of service %q is %s", p.Service, state)
		}
	}
	if s.job() || c.Stricken() { // what fails now is what the move mends
		return nil
	}
	tasks, err := t.engine.tasks(ctx, s.ID)
	if err != nil {
		return err
	}
	if err := healthy(s, tasks); err != nil {
		return err
	}
	if p.Rollout.Order != swarm.UpdateOrderStartFirst {
		return nil
	}
	return t.placeable(ctx, s, p)
}

// quiet reports whether an update has nothing left to do but to watch its tasks.
func (t *Target) quiet(ctx context.Context, s service) bool {
	tasks, err := t.engine.tasks(ctx, s.ID)
	if err != nil || healthy(s, tasks) != nil {
		return false
	}
	for _, task := range tasks {
		if alive(task) && (!running(task.DesiredState) || !viewOf(s.Spec).reads(taskView(task.Spec)) ||
			task.Spec.ForceUpdate != s.Spec.TaskTemplate.ForceUpdate ||
			task.Spec.ContainerSpec.Image != s.Spec.TaskTemplate.ContainerSpec.Image) {
			return false
		}
	}
	return true
}

// healthy checks that as many tasks run as are to run.
func healthy(s service, tasks []swarm.Task) error {
	wanted, up, why := 0, 0, ""
	for _, t := range tasks {
		if !running(t.DesiredState) || ended(t.Status.State) {
			continue
		}
		wanted++
		if t.Status.State == swarm.TaskStateRunning {
			up++
		} else {
			why = fmt.Sprintf(": task %s is %s %s", taskName(s.Spec.Name, t), t.Status.State, t.Status.Err)
		}
	}
	if r := s.Spec.Mode.Replicated; r != nil && r.Replicas != nil {
		wanted = int(*r.Replicas)
	}
	if up == wanted {
		return nil
	}
	return rotation.Errorf(rotation.Unknown, "make it well first: docker service ps --no-trunc "+s.Spec.Name,
		"service %q has %d of %d tasks running%s", s.Spec.Name, up, wanted, strings.TrimRight(why, " "))
}
