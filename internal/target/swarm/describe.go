package swarm

import (
	"context"
	"slices"
	"time"

	"github.com/keyturn/keyturn/internal/rotation"
)

var (
	_ rotation.Describer = (*Target)(nil)
	_ rotation.Warner    = (*Target)(nil)
	_ rotation.Namer     = (*Target)(nil)
)

// startTime is how long a task takes to start and to be healthy, for estimates
// before anything was measured.
const startTime = 3 * time.Second

// Describe implements [rotation.Describer].
func (t *Target) Describe(ctx context.Context, placements []rotation.Placement) ([]rotation.ServicePlan, error) {
	var plans []rotation.ServicePlan
	for _, p := range placements {
		if slices.ContainsFunc(plans, func(s rotation.ServicePlan) bool { return s.Service == p.Service }) {
			continue
		}
		s, err := t.engine.service(ctx, p.Service)
		if err != nil {
			return plans, err
		}
		plan := rotation.ServicePlan{Service: p.Service, Order: p.Rollout.Order, Parallelism: p.Rollout.Parallelism}
		if plan.Tasks, err = t.desired(ctx, s); err != nil {
			return plans, err
		}
		plan.About = about(plan.Tasks, p.Rollout)
		plans = append(plans, plan)
	}
	return plans, nil
}

// desired returns how many tasks a service should have.
func (t *Target) desired(ctx context.Context, s service) (int, error) {
	if r := s.Spec.Mode.Replicated; r != nil && r.Replicas != nil {
		return int(*r.Replicas), nil
	}
	tasks, err := t.engine.tasks(ctx, s.ID)
	if err != nil {
		return 0, err
	}
	n := 0
	for _, task := range tasks {
		if running(task.DesiredState) {
			n++
		}
	}
	return n, nil
}

// about estimates a rolling update: rounds of starting and waiting.
func about(tasks int, r rotation.Rollout) time.Duration {
	if tasks == 0 {
		return 0
	}
	rounds := 1
	if r.Parallelism > 0 {
		rounds = (tasks + int(r.Parallelism) - 1) / int(r.Parallelism)
	}
	return time.Duration(rounds)*(startTime+r.Delay) + r.Monitor
}

// ObjectNames implements [rotation.Namer].
func (t *Target) ObjectNames(v rotation.Version) []string {
	var names []string
	for _, field := range t.fields(v.Credential) {
		if name, err := t.nameOf(v.Credential, field, v.Number); err == nil {
			names = append(names, name)
		}
	}
	return names
}
