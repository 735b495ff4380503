package swarm

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"time"

	"github.com/docker/docker/api/types/swarm"

	"github.com/keyturn/keyturn/internal/rotation"
)

// defaultTimeout bounds the move of a service that has no timeout of its own.
const defaultTimeout = 10 * time.Minute

// Move implements [rotation.Target]. Services are moved one after the other,
// in the order of their first shift, so that trouble with the first spares the
// others. A service that turns unhealthy is left as it is, with its update
// stopped: the caller moves it back, which supersedes that update.
func (t *Target) Move(ctx context.Context, shifts []rotation.Shift) (rotation.Report, error) {
	var report rotation.Report
	var order []string
	byService := map[string][]rotation.Shift{}
	for _, s := range shifts {
		name := s.Placement.Service
		if _, ok := byService[name]; !ok {
			order = append(order, name)
		}
		s, err := t.resolve(ctx, s)
		if err != nil {
			return report, fmt.Errorf("moving service %q: %w", name, err)
		}
		byService[name] = append(byService[name], s)
	}
	wake, stop := t.watch(ctx)
	defer stop()
	for _, name := range order {
		m := &move{Target: t, service: name, shifts: byService[name], wake: wake}
		err := m.run(ctx)
		report.Services = append(report.Services, m.report)
		if err != nil {
			return report, fmt.Errorf("moving service %q: %w", name, err)
		}
	}
	return report, nil
}

// resolve fills in ids that the record does not know yet.
func (t *Target) resolve(ctx context.Context, s rotation.Shift) (rotation.Shift, error) {
	versions := []*rotation.Version{&s.Main}
	if s.Beside != nil {
		beside := *s.Beside
		s.Beside = &beside
		versions = append(versions, s.Beside)
	}
	for _, v := range versions {
		complete := true
		for _, o := range v.Objects {
			complete = complete && o.ID != ""
		}
		if complete && len(v.Objects) > 0 {
			continue
		}
		objects, err := t.objects(ctx, *v)
		if err != nil {
			return s, err
		}
		v.Objects = objects
	}
	return s, nil
}

// A move moves one service.
type move struct {
	*Target
	service string
	shifts  []rotation.Shift
	wake    <-chan struct{}

	report   rotation.ServiceReport
	baseline map[string]bool // ids of the tasks before the update
	spec     swarm.ServiceSpec
	update   *swarm.UpdateConfig // the settings that the move needs
}

func (m *move) rollout() rotation.Rollout { return m.shifts[0].Placement.Rollout }

func (m *move) run(ctx context.Context) error {
	m.report.Service = m.service
	limit := m.rollout().Timeout
	if limit == 0 {
		limit = defaultTimeout
	}
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	begun := m.Now()
	if err := m.begin(ctx); err != nil {
		return err
	}
	err := m.converge(ctx)
	m.report.Millis = m.Now().Sub(begun).Milliseconds()
	if err != nil {
		if errors.Is(err, rotation.ErrUnhealthy) {
			m.report.Unhealthy = err.Error()
		}
		return err
	}
	return m.settle(ctx)
}

// want returns the view of a spec or a task as the shifts have it.
func (m *move) want(v view) (view, error) { return apply(v, m.shifts, m.base) }

// begin makes the one update, if one is needed.
func (m *move) begin(ctx context.Context) error {
	for range tries {
		s, err := m.engine.service(ctx, m.service)
		if err != nil {
			return err
		}
		if err := m.note(ctx, s); err != nil {
			return err
		}
		updated, err := m.rewrite(ctx, s)
		if err == nil {
			m.report.Updated = m.report.Updated || updated
			return nil
		}
		if !errors.Is(err, errStale) {
			return err
		}
		m.Logger.Info("service was changed meanwhile, reading it again", "service", m.service)
	}
	return rotation.Classify(rotation.Unknown, "is a deployment of it running?", errStale)
}

// note remembers which tasks there were, and what the spec is.
func (m *move) note(ctx context.Context, s service) error {
	tasks, err := m.engine.tasks(ctx, s.ID)
	if err != nil {
		return err
	}
	m.baseline = map[string]bool{}
	for _, task := range tasks {
		m.baseline[task.ID] = true
	}
	m.spec, m.update = s.Spec, nil
	if !s.job() {
		m.update = settings(s.Spec.UpdateConfig, m.rollout())
	}
	return nil
}

// settings returns the update settings for a move: the rollout's, and a stop at
// the first task that fails. "rollback" would bring back what somebody shipped
// over, too.
func settings(now *swarm.UpdateConfig, r rotation.Rollout) *swarm.UpdateConfig {
	var u swarm.UpdateConfig
	if now != nil {
		u = *now
	}
	u.Parallelism, u.Delay, u.FailureAction, u.MaxFailureRatio = r.Parallelism, r.Delay, swarm.UpdateFailureActionPause, 0
	if r.Order != "" {
		u.Order = r.Order
	}
	if r.Monitor > 0 {
		u.Monitor = r.Monitor
	}
	return &u
}

// rewrite updates the service once, if it does not read what it is to read.
func (m *move) rewrite(ctx context.Context, s service) (bool, error) {
	now := viewOf(s.Spec)
	next, err := m.want(now)
	if err != nil {
		return false, err
	}
	if next.reads(now) {
		return false, nil
	}
	if m.update != nil {
		next.Update = m.update
	}
	if id := m.shifts[0].Rotation; id != "" {
		if next.Labels == nil {
			next.Labels = map[string]string{}
		}
		next.Labels[labelRotation] = id
	}
	spec, err := patch(s.raw, next)
	if err != nil {
		return false, err
	}
	return true, m.engine.update(ctx, s, spec)
}

// settle sets the update settings back. The updater ends its own watch over
// the tasks with that, and restarts nothing. Settings that are not the ones we
// made are somebody else's, and stay.
func (m *move) settle(ctx context.Context) error {
	b, err := beforeOf(m.shifts[0].Before)
	if err != nil || b == nil || m.update == nil {
		return err
	}
	for range tries {
		s, err := m.engine.service(ctx, m.service)
		if err != nil {
			return err
		}
		now := viewOf(s.Spec)
		if reflect.DeepEqual(now.Update, b.Update) || !reflect.DeepEqual(now.Update, settings(b.Update, m.rollout())) {
			return nil
		}
		next := now.clone()
		next.Update = b.Update
		spec, err := patch(s.raw, next)
		if err != nil {
			return err
		}
		if err := m.engine.update(ctx, s, spec); err == nil {
			return nil
		} else if !errors.Is(err, errStale) {
			return fmt.Errorf("setting the update settings back: %w", err)
		}
	}
	return rotation.Classify(rotation.Unknown, "", fmt.Errorf("setting the update settings back: %w", errStale))
}
