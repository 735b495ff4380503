package swarm

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/containerd/errdefs"
	"github.com/docker/docker/api/types/swarm"

	"github.com/keyturn/keyturn/internal/rotation"
)

const (
	probeSpecPath = "/run/keyturn/probe.json"
	probeDir      = "/run/secrets/keyturn"

	defaultProbe = 30 * time.Second // where the context has no end
	cleanLimit   = 10 * time.Second

	probeTries = 3 // of a container that the engine cannot start, which passes on a busy node
)

// errNotStarted is of a probe that never ran, so that it may be tried again.
var errNotStarted = errors.New("starting container failed") // as Swarm's agent begins it

// Probe implements [rotation.Prober]. It runs a job with one task on the
// service's networks and nodes, as its user, with the secrets of the version
// as the service has them. The answer is the exit code; what the task printed
// gives the reasons, if it can be read.
func (t *Target) Probe(ctx context.Context, v rotation.Version, spec rotation.ProbeSpec, from rotation.Placement) rotation.ProbeResult {
	where := "the Swarm"
	if from.Service != "" {
		where = "where service " + from.Service + " runs"
	}
	result, err := t.probe(ctx, v, spec, from)
	for again := 1; again < probeTries && errors.Is(err, errNotStarted) && ctx.Err() == nil; again++ {
		t.Logger.Debug("trying a probe again", "reason", err)
		result, err = t.probe(ctx, v, spec, from)
	}
	if err != nil {
		result = rotation.ProbeResult{Answer: rotation.Inconclusive, Reason: reason(err)}
	}
	result.From = where
	return result
}

// reason is an error and its hint on one line.
func reason(err error) string {
	if hint := rotation.HintOf(err); hint != "" {
		return fmt.Sprintf("%v (%s)", err, hint)
	}
	return err.Error()
}

func (t *Target) probe(ctx context.Context, v rotation.Version, spec rotation.ProbeSpec, from rotation.Placement) (_ rotation.ProbeResult, err error) {
	if _, ok := ctx.Deadline(); !ok {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, defaultProbe)
		defer cancel()
	}
	data, err := json.Marshal(spec)
	if err != nil {
		return rotation.ProbeResult{}, err
	}
	job, err := t.job(ctx, v, from)
	if err != nil {
		return rotation.ProbeResult{}, fmt.Errorf("preparing the probe: %w", err)
	}
	config, err := t.engine.ConfigCreate(ctx, swarm.ConfigSpec{Annotations: swarm.Annotations{Name: job.Name, Labels: job.Labels}, Data: data})
	if err != nil {
		return rotation.ProbeResult{}, fault(fmt.Errorf("storing what to probe: %w", err))
	}
	defer t.clean(ctx, "config "+job.Name, func(ctx context.Context) error { return t.engine.ConfigRemove(ctx, config.ID) })
	job.TaskTemplate.ContainerSpec.Configs = []*swarm.ConfigReference{{ConfigID: config.ID, ConfigName: job.Name,
		File: &swarm.ConfigReferenceFileTarget{Name: probeSpecPath, UID: "0", GID: "0", Mode: 0o444}}}
	wake, stop := t.watch(ctx)
	defer stop()
	made, err := t.engine.ServiceCreate(ctx, job, swarm.ServiceCreateOptions{})
	if err != nil {
		return rotation.ProbeResult{}, fault(fmt.Errorf("starting the probe: %w", err))
	}
	defer t.clean(ctx, "service "+job.Name, func(ctx context.Context) error { return t.engine.ServiceRemove(ctx, made.ID) })
	task, err := t.await(ctx, made.ID, wake)
	if err != nil && task.Status.State == swarm.TaskStateRunning {
		return silent(spec, err), nil
	}
	if err != nil {
		return rotation.ProbeResult{}, err
	}
	if strings.HasPrefix(task.Status.Err, errNotStarted.Error()) {
		return rotation.ProbeResult{}, notStarted(t.notRun(task))
	}
	return t.answer(ctx, made.ID, task), nil
}

// notStarted is errNotStarted with all that is known of it.
type notStarted string

func (e notStarted) Error() string      { return string(e) }
func (notStarted) Is(target error) bool { return target == errNotStarted }

// silent is the answer of a probe that ran and had none when the time was over:
// it tried, and nobody answered.
func silent(spec rotation.ProbeSpec, err error) rotation.ProbeResult {
	var r rotation.ProbeResult
	for _, e := range spec.Endpoints {
		r.Endpoints = append(r.Endpoints, rotation.EndpointResult{Endpoint: e, Answer: rotation.Inconclusive, Reason: "no answer: " + err.Error()})
	}
	return r.Summarize()
}

// clean removes what a probe made, also when its time is over. What is left
// is found by its label later; see [Target.Sweep].
func (t *Target) clean(ctx context.Context, what string, remove func(context.Context) error) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), cleanLimit)
	defer cancel()
	// Swarm refuses to remove a config while the job that names it is on its way out.
	for {
		err := remove(ctx)
		if err == nil || errdefs.IsNotFound(err) {
			return
		}
		select {
		case <-ctx.Done():
			t.Logger.Warn("removing what a probe made", "what", what, "error", err)
			return
		case <-time.After(t.Poll):
		}
	}
}

// await waits until the one task of a probe has ended. With an error it returns
// how the task was seen last.
func (t *Target) await(ctx context.Context, id string, wake <-chan struct{}) (swarm.Task, error) {
	var last swarm.Task
	why, pace := "it was not placed yet", t.pace()
	for {
		tasks, err := t.engine.tasks(ctx, id)
		if err != nil && ctx.Err() == nil {
			return last, err
		}
		for _, task := range tasks {
			if last = task; ended(task.Status.State) {
				return task, nil
			}
			why = fmt.Sprintf("its task is %s: %s %s", task.Status.State, task.Status.Message, task.Status.Err)
		}
		pace.wait(ctx, wake)
		if ctx.Err() != nil {
			return last, rotation.Classify(rotation.Unknown, "", fmt.Errorf("waiting for the probe: %s: %w", why, ctx.Err()))
		}
	}
}

// answer reads the exit code of a probe, and what it printed.
func (t *Target) answer(ctx context.Context, service string, task swarm.Task) rotation.ProbeResult {
	if task.Status.ContainerStatus == nil || task.Status.State == swarm.TaskStateRejected {
		return rotation.ProbeResult{Answer: rotation.Inconclusive, Reason: t.notRun(task)}
	}
	answer, ok := answerOf(task.Status.ContainerStatus.ExitCode)
	if !ok {
		return rotation.ProbeResult{Answer: rotation.Inconclusive, Reason: t.notRun(task)}
	}
	result := rotation.ProbeResult{Answer: answer}
	printed, err := t.printed(ctx, service)
	if err != nil {
		t.Logger.Debug("reading what a probe printed", "error", err)
		result.Reason = "the probe's exit code says so; its output could not be read"
		return result
	}
	if printed.Answer == answer { // the exit code is the answer, always
		result = printed
	}
	return result
}

// notRun says why a probe has no answer.
func (t *Target) notRun(task swarm.Task) string {
	text := fmt.Sprintf("the probe did not run to its end: task is %s", task.Status.State)
	if task.Status.Err != "" {
		text += ": " + task.Status.Err
	}
	c := task.Status.ContainerStatus
	switch {
	case task.Status.State == swarm.TaskStateRejected:
		text += fmt.Sprintf(" (is the image %q on that node?)", t.ProbeImage)
	case c != nil && c.ExitCode == 0:
		text += fmt.Sprintf(", exit code 0, which is no answer (is %q the image of Keyturn?)", t.ProbeImage)
	case c != nil:
		text += ", exit code " + strconv.Itoa(c.ExitCode)
	}
	return text
}
