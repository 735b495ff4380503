package swarm

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/docker/docker/api/types/swarm"

	"github.com/keyturn/keyturn/internal/rotation"
)

// A sight is what one look at a service's tasks shows.
type sight struct {
	missing  string      // why the service is not converged; empty if it is
	bad      *swarm.Task // a new task that failed
	badText  string
	desired  int
	restarts int
}

// converge waits until every desired task is running, and healthy, on what the
// shifts say, and no other is left.
func (m *move) converge(ctx context.Context) error {
	w := &watcher{move: m, starting: map[string]time.Time{}, firstSeen: map[string]time.Time{}}
	pace, reapplied := m.pace(), 0
	last, lastErr := sight{missing: "nothing seen yet"}, error(nil)
	for {
		seen, changed, err := w.look(ctx)
		if err == nil && seen.missing == driftText {
			// Somebody deployed a spec without our fields. They are put back,
			// and nothing else is.
			if reapplied++; reapplied > 3 {
				return rotation.Errorf(rotation.Unknown, "stop the deployment that keeps changing it, then run this again",
					"the service was changed by somebody else %d times meanwhile", reapplied)
			}
			if err := m.begin(ctx); err != nil {
				return err
			}
		}
		switch {
		case err != nil && rotation.ClassOf(err) != rotation.Unknown:
			return err
		case err != nil:
			lastErr = err
		case seen.bad != nil:
			return m.unhealthy(seen)
		case seen.missing == "":
			return nil
		default:
			last, lastErr = seen, nil
		}
		if changed {
			pace.changed()
			m.Logger.Debug("watching a service", "service", m.service, "waits for", seen.missing)
		}
		pace.wait(ctx, m.wake)
		if ctx.Err() != nil {
			return m.outOfTime(ctx, last, lastErr)
		}
	}
}

// outOfTime is the error of a service that did not converge, which proves
// nothing against what it was moved to.
func (m *move) outOfTime(ctx context.Context, last sight, err error) error {
	why := last.missing
	if err != nil {
		why = err.Error()
	}
	if errors.Is(ctx.Err(), context.Canceled) {
		return rotation.Classify(rotation.Unknown, "what was begun goes on; run this again", fmt.Errorf("watching: %s: %w", why, ctx.Err()))
	}
	return rotation.Errorf(rotation.Unknown, "look at: docker service ps --no-trunc "+m.service+"; when it is well again, run this again",
		"not converged after %s: %s", m.Now().Sub(m.since).Round(time.Second), why)
}

// unhealthy is the error of a task that failed. It says something against what
// the service was moved to only if the task is of the release that the move
// was made on, and if the move made it.
func (m *move) unhealthy(seen sight) error {
	task := *seen.bad
	name := taskName(m.service, task)
	switch {
	case !m.ours:
		return rotation.Errorf(rotation.Unknown, "it was not touched; make it well, then run this again: docker service ps --no-trunc "+m.service,
			"task %s: %s", name, seen.badText)
	case m.fingerprint(task.Spec) != m.release:
		return rotation.Errorf(rotation.Unknown, "somebody shipped another release meanwhile; when it is well, run this again",
			"task %s of image %q: %s", name, task.Spec.ContainerSpec.Image, seen.badText)
	}
	return rotation.Classify(rotation.Failed, "look at: docker service logs "+task.ID,
		fmt.Errorf("%w: task %s: %s", rotation.ErrUnhealthy, name, seen.badText))
}

// driftText is what a look says of a spec that does not hold our fields.
const driftText = "its spec does not name what it is to read"

// A watcher looks at one service again and again.
type watcher struct {
	*move
	starting  map[string]time.Time // when a task was first seen to start, by our clock
	firstSeen map[string]time.Time // when a task was first seen to run
	states    map[string]swarm.TaskState
	health    *bool             // whether the tasks have a health check
	down      map[string]string // names by ids
	downAt    time.Time
	short     int // tasks that were missing at the last look
	shortAt   time.Time
}

// look reads the service and its tasks once, and reports whether anything changed.
func (w *watcher) look(ctx context.Context) (sight, bool, error) {
	s, err := w.engine.service(ctx, w.service)
	if err != nil {
		return sight{}, false, err
	}
	now := viewOf(s.Spec)
	next, err := w.want(now)
	if err != nil {
		return sight{}, false, err
	}
	if !next.reads(now) {
		return sight{missing: driftText}, true, nil
	}
	tasks, err := w.engine.tasks(ctx, s.ID)
	if err != nil {
		return sight{}, false, err
	}
	if w.health == nil {
		has := w.engine.hasHealthcheck(ctx, s.Spec)
		w.health = &has
	}
	changed := w.note(tasks)
	seen := w.judge(ctx, s, tasks)
	w.missing(seen.desired, tasks)
	w.report.Tasks, w.report.Restarts = seen.desired, seen.restarts
	return seen, changed, nil
}

// note remembers when tasks got to where they are.
func (w *watcher) note(tasks []swarm.Task) (changed bool) {
	now := w.Now()
	states := map[string]swarm.TaskState{}
	for _, t := range tasks {
		states[t.ID] = t.Status.State
		changed = changed || w.states[t.ID] != t.Status.State
		switch t.Status.State {
		case swarm.TaskStateStarting:
			if w.starting[t.ID].IsZero() {
				w.starting[t.ID] = now
			}
		case swarm.TaskStateRunning:
			if w.firstSeen[t.ID].IsZero() {
				w.firstSeen[t.ID] = now
				w.slowest(t, now)
			}
		}
	}
	w.states = states
	return changed
}

// missing adds up for how long fewer tasks ran than the service is to have, whatever they
// read: that is what its users feel. Jobs are not always to run.
func (w *watcher) missing(desired int, tasks []swarm.Task) {
	now := w.Now()
	if !w.shortAt.IsZero() {
		w.report.ShortMillis += int64(w.short) * now.Sub(w.shortAt).Milliseconds()
	}
	w.short, w.shortAt = 0, now
	job := false
	for _, t := range tasks {
		job = job || t.JobIteration != nil
		if t.Status.State == swarm.TaskStateRunning {
			desired--
		}
	}
	if !job {
		w.short = max(0, desired)
	}
}

// slowest keeps the longest time from a new task's start to running, which for
// a task with a health check is healthy.
func (w *watcher) slowest(t swarm.Task, now time.Time) {
	if w.baseline[t.ID] {
		return
	}
	took := t.Status.Timestamp.Sub(t.CreatedAt)
	if started := w.starting[t.ID]; !started.IsZero() {
		took = now.Sub(started)
	}
	w.report.SlowestHealth = max(w.report.SlowestHealth, took.Milliseconds())
}

// nodeDown reports whether a node cannot say what became of its tasks. Such a
// task is no longer waited for; cleanup still sees it as a use.
func (w *watcher) nodeDown(ctx context.Context, id string) bool {
	if now := w.Now(); now.Sub(w.downAt) > 2*time.Second {
		down, err := w.engine.downNodes(ctx)
		if err != nil {
			return false
		}
		w.down, w.downAt = down, now
	}
	_, down := w.down[id]
	return down
}
