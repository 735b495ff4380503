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
	poll, reapplied := m.Poll, 0
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
			return m.unhealthy(ctx, seen)
		case seen.missing == "":
			return nil
		default:
			last, lastErr = seen, nil
		}
		if changed {
			poll = m.Poll
			m.Logger.Debug("watching a service", "service", m.service, "waits for", seen.missing)
		}
		select {
		case <-ctx.Done():
			return m.outOfTime(ctx, last, lastErr)
		case <-m.wake:
			poll = m.Poll
		case <-time.After(poll):
			poll = min(poll*3/2, 5*m.Poll)
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
		"not converged after %s: %s", m.rollout().Timeout, why)
}

// unhealthy is the error of a new task that failed. Where the task is of
// another release than the move was made on, nothing can be concluded.
func (m *move) unhealthy(ctx context.Context, seen sight) error {
	task := *seen.bad
	name := taskName(m.service, task)
	if c := task.Spec.ContainerSpec; c != nil && m.spec.TaskTemplate.ContainerSpec != nil && c.Image != m.spec.TaskTemplate.ContainerSpec.Image {
		return rotation.Errorf(rotation.Unknown, "somebody shipped another release meanwhile; when it is well, run this again",
			"task %s of image %q: %s", name, c.Image, seen.badText)
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
	health    *bool // whether the tasks have a health check
	down      map[string]bool
	downAt    time.Time
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

// judge says how far the tasks are.
func (w *watcher) judge(ctx context.Context, s service, tasks []swarm.Task) sight {
	if s.job() {
		return w.judgeJob(s, tasks)
	}
	seen := sight{desired: -1}
	if r := s.Spec.Mode.Replicated; r != nil && r.Replicas != nil {
		seen.desired = int(*r.Replicas)
	}
	ready, wanted := 0, 0
	for i, t := range tasks {
		ours, fresh := w.onSpec(t), !w.baseline[t.ID]
		if ours && fresh && started(t.Status.State) || ours && fresh && ended(t.Status.State) {
			seen.restarts++
		}
		if ours && (fresh || underWay(s.Service) == swarm.UpdateStatePaused) {
			if text := w.failed(t); text != "" {
				seen.bad, seen.badText = &tasks[i], text
				return seen
			}
		}
		switch {
		case running(t.DesiredState) && !ended(t.Status.State):
			wanted++
			if text := w.waits(t, ours); text != "" {
				seen.missing = text
			} else {
				ready++
			}
		case !ours && started(t.Status.State) && !w.nodeDown(ctx, t.NodeID):
			seen.missing = fmt.Sprintf("task %s is still to end", taskName(w.service, t))
		}
	}
	if seen.desired < 0 { // global: one per node, as Swarm has them
		seen.desired = wanted
	}
	if seen.missing == "" && ready < seen.desired {
		seen.missing = fmt.Sprintf("%d of %d tasks are running", ready, seen.desired)
	}
	return seen
}

// onSpec reports whether a task reads what the shifts say.
func (w *watcher) onSpec(t swarm.Task) bool {
	now := taskView(t.Spec)
	next, err := w.want(now)
	return err == nil && next.reads(now)
}

// failed returns how a task failed, or "". One that was unhealthy may have
// ended with code 0.
func (w *watcher) failed(t swarm.Task) string {
	switch t.Status.State {
	case swarm.TaskStateFailed, swarm.TaskStateRejected, swarm.TaskStateComplete:
		text := t.Status.Err
		if text == "" {
			text = "ended before it was healthy (" + t.Status.Message + ")"
		}
		return string(t.Status.State) + ": " + text
	case swarm.TaskStateStarting:
		limit := w.rollout().HealthTimeout
		if began := w.starting[t.ID]; limit > 0 && !began.IsZero() && w.Now().Sub(began) > limit {
			return fmt.Sprintf("not healthy %s after its start", limit)
		}
	}
	return ""
}

// waits returns what a task that is to run still lacks, or "".
func (w *watcher) waits(t swarm.Task, ours bool) string {
	name := taskName(w.service, t)
	switch {
	case !ours:
		return fmt.Sprintf("task %s still reads what it read before", name)
	case t.Status.State != swarm.TaskStateRunning:
		text := fmt.Sprintf("task %s is %s", name, t.Status.State)
		if t.Status.Err != "" {
			text += ": " + t.Status.Err
		}
		return text
	case *w.health || w.baseline[t.ID] && w.Now().Sub(t.Status.Timestamp) >= w.rollout().Monitor:
		return ""
	}
	if left := w.rollout().Monitor - w.Now().Sub(w.firstSeen[t.ID]); left > 0 {
		return fmt.Sprintf("task %s has no health check and runs for %s of %s", name, (w.rollout().Monitor - left).Round(time.Second), w.rollout().Monitor)
	}
	return ""
}

// judgeJob says how far a job is: the update was a run of it.
func (w *watcher) judgeJob(s service, tasks []swarm.Task) sight {
	seen := sight{desired: 1}
	if j := s.Spec.Mode.ReplicatedJob; j != nil && j.TotalCompletions != nil {
		seen.desired = int(*j.TotalCompletions)
	}
	done := 0
	for i, t := range tasks {
		switch ours := w.onSpec(t); {
		case !ours && alive(t):
			seen.missing = fmt.Sprintf("task %s of the run before is still to end", taskName(w.service, t))
		case !ours || w.baseline[t.ID] && w.report.Updated:
		case t.Status.State == swarm.TaskStateComplete, t.Status.State == swarm.TaskStateRunning && *w.health:
			done++
			seen.restarts++
		case t.Status.State == swarm.TaskStateFailed, t.Status.State == swarm.TaskStateRejected:
			seen.bad, seen.badText = &tasks[i], w.failed(t)
		}
	}
	if seen.missing == "" && done == 0 && w.report.Updated && seen.desired > 0 {
		seen.missing = "its run has not ended yet"
	}
	return seen
}

// nodeDown reports whether a node cannot say what became of its tasks. Such a
// task is no longer waited for; cleanup still sees it as a use.
func (w *watcher) nodeDown(ctx context.Context, id string) bool {
	if now := w.Now(); now.Sub(w.downAt) > 2*time.Second {
		nodes, err := w.engine.nodes(ctx)
		if err != nil {
			return false
		}
		w.down, w.downAt = map[string]bool{}, now
		for _, n := range nodes {
			w.down[n.ID] = n.Status.State == swarm.NodeStateDown
		}
	}
	return w.down[id]
}
