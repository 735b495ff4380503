package swarm

import (
	"cmp"
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

// Move implements [rotation.Target]. The shifts are tried on every service
// before the first is touched. Services are moved one after the other, in the
// order of their first shift, so that trouble with the first spares the others.
// A service that turns unhealthy is left as it is, with its update stopped: the
// caller moves it back, which supersedes that update.
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
	if err := t.relabel(ctx, shifts); err != nil {
		return report, err
	}
	wake, stop := t.watch(ctx)
	defer stop()
	var moves []*move
	for _, name := range order {
		m := &move{Target: t, service: name, shifts: byService[name], wake: wake}
		if err := m.check(ctx); err != nil {
			return report, fmt.Errorf("moving service %q: no service was touched yet: %w", name, err)
		}
		moves = append(moves, m)
	}
	for _, m := range moves {
		err := m.run(ctx)
		report.Services = append(report.Services, m.report)
		if err != nil {
			return report, fmt.Errorf("moving service %q: %w", m.service, err)
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
	since    time.Time
	baseline map[string]bool // ids of the tasks before the first update
	release  string          // what was shipped then, apart from our fields
	ours     bool            // the tasks are replaced by us, now or in a run that was cut off
}

func (m *move) rollout() rotation.Rollout { return m.shifts[0].Placement.Rollout }

func (m *move) run(ctx context.Context) error {
	m.report.Service = m.service
	m.since = m.Now()
	ctx, cancel := context.WithTimeout(ctx, cmp.Or(m.rollout().Timeout, defaultTimeout))
	defer cancel()
	if err := m.begin(ctx); err != nil {
		return err
	}
	err := m.converge(ctx)
	m.report.Millis = m.Now().Sub(m.since).Milliseconds()
	if err != nil {
		if errors.Is(err, rotation.ErrUnhealthy) {
			m.report.Unhealthy = err.Error()
		}
		return err
	}
	return m.settle(ctx)
}

// check tries the shifts on the service as it is, and changes nothing.
func (m *move) check(ctx context.Context) error {
	s, err := m.read(ctx)
	if err != nil {
		return err
	}
	_, err = m.want(viewOf(s.Spec))
	return err
}

// read reads the service. What was noted of another one of its name, which was
// removed since, does not count.
func (m *move) read(ctx context.Context) (service, error) {
	s, err := m.engine.service(ctx, m.service)
	if err != nil {
		return s, err
	}
	for i := range m.shifts {
		b, err := beforeOf(m.shifts[i].Before)
		if err != nil {
			return s, err
		}
		if b != nil && b.ID != s.ID {
			m.shifts[i].Before = nil
		}
	}
	return s, nil
}

// want returns the view of a spec or a task as the shifts have it.
func (m *move) want(v view) (view, error) { return apply(v, m.shifts, m.base) }

// begin makes the one update, if one is needed.
func (m *move) begin(ctx context.Context) error {
	for range tries {
		s, err := m.read(ctx)
		if err != nil {
			return err
		}
		tasks, err := m.engine.tasks(ctx, s.ID)
		if err != nil {
			return err
		}
		release := m.releaseOf(s)
		updated, err := m.rewrite(ctx, s, release)
		if err == nil {
			m.begun(s, tasks, release, updated)
			return nil
		}
		if !errors.Is(err, errStale) {
			return err
		}
		m.Logger.Info("service was changed meanwhile, reading it again", "service", m.service)
	}
	return rotation.Classify(rotation.Unknown, "is a deployment of it running?", errStale)
}

// begun remembers how the service was before the first update of the move.
func (m *move) begun(s service, tasks []swarm.Task, release string, updated bool) {
	m.report.Updated = m.report.Updated || updated
	m.ours = m.ours || updated || m.cutOff(s)
	if m.baseline != nil {
		return // put right after somebody else's deployment
	}
	m.baseline, m.release = map[string]bool{}, release
	for _, task := range tasks {
		m.baseline[task.ID] = true
	}
}

// cutOff reports whether a run before this one began to move the service.
func (m *move) cutOff(s service) bool {
	if s.job() {
		id := m.shifts[0].Rotation
		return id != "" && s.Spec.Labels[labelRotation] == id
	}
	_, marked := markOf(s.Spec.Labels)
	return marked
}

// rewrite updates the service once, if it does not read what it is to read, or
// if a run that was cut off updates it with other settings than those of now.
func (m *move) rewrite(ctx context.Context, s service, release string) (bool, error) {
	now := viewOf(s.Spec)
	next, err := m.want(now)
	if err != nil {
		return false, err
	}
	old, marked := markOf(now.Labels)
	right := next.reads(now)
	if right && (!marked || s.job()) {
		return false, nil
	}
	if !s.job() {
		k := mark{Was: now.Update, Release: release}
		if marked {
			k.Was = old.restored(now.Update)
		}
		k.Set = settings(k.Was, m.rollout())
		if right && reflect.DeepEqual(k.Set, now.Update) {
			return false, nil
		}
		next.Update = k.Set
		if err := k.put(&next); err != nil {
			return false, err
		}
	}
	if !right {
		m.sign(&next)
	}
	spec, err := patch(s.raw, next)
	if err != nil {
		return false, err
	}
	return true, m.engine.update(ctx, s, spec)
}
