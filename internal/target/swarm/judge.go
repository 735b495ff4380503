package swarm

import (
	"context"
	"fmt"
	"time"

	"github.com/docker/docker/api/types/swarm"
)

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
	paused := underWay(s.Service) == swarm.UpdateStatePaused
	for i, t := range tasks {
		ours, fresh := w.onSpec(t), !w.baseline[t.ID]
		if ours && fresh && (started(t.Status.State) || ended(t.Status.State)) {
			seen.restarts++
		}
		if ours {
			if text := w.failed(t, fresh || paused); text != "" {
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
	if seen.missing == "" && ready != seen.desired {
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

// failed returns how a task failed, or "". Of those that have ended, only some
// count: others did so before the move. One that was unhealthy may have ended
// with code 0.
func (w *watcher) failed(t swarm.Task, counts bool) string {
	switch t.Status.State {
	case swarm.TaskStateFailed, swarm.TaskStateRejected, swarm.TaskStateComplete:
		if counts {
			return how(t)
		}
	case swarm.TaskStateStarting:
		limit, began := w.rollout().HealthTimeout, w.starting[t.ID]
		if limit > 0 && running(t.DesiredState) && w.Now().Sub(began) > limit {
			return fmt.Sprintf("not healthy %s after its start", limit)
		}
	}
	return ""
}

// how says how a task ended.
func how(t swarm.Task) string {
	text := t.Status.Err
	if text == "" {
		text = "ended before it was healthy (" + t.Status.Message + ")"
	}
	return string(t.Status.State) + ": " + text
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

// judgeJob says how far a job is. The update of it was a run of it, which Swarm
// calls an iteration; one that a killed run made is waited for as well. A run
// that was not ours says nothing.
func (w *watcher) judgeJob(s service, tasks []swarm.Task) sight {
	seen := sight{desired: 1}
	if j := s.Spec.Mode.ReplicatedJob; j != nil && j.TotalCompletions != nil {
		seen.desired = int(*j.TotalCompletions)
	}
	done := 0
	for i, t := range tasks {
		if !w.onSpec(t) {
			if alive(t) {
				seen.missing = fmt.Sprintf("task %s of the run before is still to end", taskName(w.service, t))
			}
			continue
		}
		if !w.ours || !latest(s, t) {
			continue
		}
		switch t.Status.State {
		case swarm.TaskStateComplete:
			done++
		case swarm.TaskStateRunning:
			if *w.health {
				done++
			}
		case swarm.TaskStateFailed, swarm.TaskStateRejected:
			seen.bad, seen.badText = &tasks[i], how(t)
		}
	}
	if w.report.Updated {
		seen.restarts = done
	}
	if seen.missing == "" && done == 0 && w.ours && seen.desired > 0 {
		seen.missing = "its run has not ended yet"
	}
	return seen
}

// latest reports whether a task is of the latest run of a job.
func latest(s service, t swarm.Task) bool {
	return s.JobStatus == nil || t.JobIteration != nil && t.JobIteration.Index == s.JobStatus.JobIteration.Index
}
