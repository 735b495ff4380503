package testserver

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/docker/docker/api/types/container"
	"github.com/docker/docker/api/types/filters"
	"github.com/docker/docker/api/types/swarm"
	"github.com/docker/docker/pkg/stdcopy"
)

// CreateService creates a service without asking any registry for its image
// and returns its id.
func (e *Engine) CreateService(ctx context.Context, spec swarm.ServiceSpec) (string, error) {
	answer, err := e.client.ServiceCreate(ctx, spec, swarm.ServiceCreateOptions{})
	if err != nil {
		return "", fmt.Errorf("creating service %q: %w", spec.Name, err)
	}
	return answer.ID, nil
}

// CreateSecret creates a secret and returns a reference that mounts it at
// /run/secrets/<name>, readable by everyone in the container.
func (e *Engine) CreateSecret(ctx context.Context, name string, value []byte) (*swarm.SecretReference, error) {
	answer, err := e.client.SecretCreate(ctx, swarm.SecretSpec{Annotations: swarm.Annotations{Name: name}, Data: value})
	if err != nil {
		return nil, fmt.Errorf("creating secret %q: %w", name, err)
	}
	return &swarm.SecretReference{
		SecretID: answer.ID, SecretName: name,
		File: &swarm.SecretReferenceFileTarget{Name: name, UID: "0", GID: "0", Mode: 0o444},
	}, nil
}

// Tasks returns all tasks of the service, also those that have ended and are
// still known.
func (e *Engine) Tasks(ctx context.Context, service string) ([]swarm.Task, error) {
	tasks, err := e.client.TaskList(ctx, swarm.TaskListOptions{Filters: filters.NewArgs(filters.Arg("service", service))})
	if err != nil {
		return nil, fmt.Errorf("listing the tasks of %q: %w", service, err)
	}
	return tasks, nil
}

// WaitTasks waits until exactly n tasks of the service are in the state, and
// returns them. A task with a HEALTHCHECK is running once it is healthy. Tasks
// that were replaced do not count towards swarm.TaskStateRunning.
func (e *Engine) WaitTasks(ctx context.Context, service string, state swarm.TaskState, n int) ([]swarm.Task, error) {
	var last []swarm.Task
	for {
		tasks, err := e.Tasks(ctx, service)
		if err != nil {
			if ctx.Err() != nil {
				return nil, fmt.Errorf("waiting for %d %s tasks of %q, last seen %s: %w", n, state, service, describe(last), ctx.Err())
			}
			return nil, err
		}
		last = tasks
		var match []swarm.Task
		for _, task := range tasks {
			if task.Status.State == state {
				match = append(match, task)
			}
		}
		if len(match) == n {
			return match, nil
		}
		select {
		case <-ctx.Done():
			return nil, fmt.Errorf("waiting for %d %s tasks of %q, last seen %s: %w", n, state, service, describe(last), ctx.Err())
		case <-time.After(50 * time.Millisecond):
		}
	}
}

// describe is the states of tasks in a few words.
func describe(tasks []swarm.Task) string {
	text := ""
	for _, t := range tasks {
		text += fmt.Sprintf("[%s wants %s: %s %s]", t.Status.State, t.DesiredState, t.Status.Message, t.Status.Err)
	}
	if text == "" {
		return "none"
	}
	return text
}

// RemoveService removes the service and waits until its containers have
// stopped in peace: after that its outcomes are complete. See [ReadLoad].
func (e *Engine) RemoveService(ctx context.Context, service string) error {
	found, _, err := e.client.ServiceInspectWithRaw(ctx, service, swarm.ServiceInspectOptions{})
	if err != nil {
		return fmt.Errorf("removing service %q: %w", service, err)
	}
	if err := e.client.ServiceRemove(ctx, service); err != nil {
		return fmt.Errorf("removing service %q: %w", service, err)
	}
	label := filters.NewArgs(filters.Arg("label", "com.docker.swarm.service.id="+found.ID))
	for {
		left, err := e.client.ContainerList(ctx, container.ListOptions{Filters: label})
		if err != nil {
			return fmt.Errorf("removing service %q: %w", service, err)
		}
		if len(left) == 0 {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("removing service %q: %d containers are left: %w", service, len(left), ctx.Err())
		case <-time.After(50 * time.Millisecond):
		}
	}
}

// TaskOutput returns what the container of a task has written to both of its
// streams, as long as the container exists.
func (e *Engine) TaskOutput(ctx context.Context, task swarm.Task) (stdout, stderr string, err error) {
	if task.Status.ContainerStatus == nil {
		return "", "", fmt.Errorf("reading the output of task %q: it has no container", task.ID)
	}
	logs, err := e.client.ContainerLogs(ctx, task.Status.ContainerStatus.ContainerID, container.LogsOptions{ShowStdout: true, ShowStderr: true})
	if err != nil {
		return "", "", fmt.Errorf("reading the output of task %q: %w", task.ID, err)
	}
	var out, errOut limitedText
	_, err = stdcopy.StdCopy(&out, &errOut, logs)
	if err := errors.Join(err, logs.Close()); err != nil {
		return "", "", fmt.Errorf("reading the output of task %q: %w", task.ID, err)
	}
	return string(out), string(errOut), nil
}

// TaskFile returns a file as the container of a running task sees it: what is
// mounted for it, too.
func (e *Engine) TaskFile(ctx context.Context, task swarm.Task, path string) ([]byte, error) {
	if task.Status.ContainerStatus == nil {
		return nil, fmt.Errorf("reading %q of task %q: it has no container", path, task.ID)
	}
	found, err := e.client.ContainerInspect(ctx, task.Status.ContainerStatus.ContainerID)
	if err != nil {
		return nil, fmt.Errorf("reading %q of task %q: %w", path, task.ID, err)
	}
	// By way of the engine's own /proc, in which its process ids hold.
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/root/proc/%d/root%s", e.Pid(), found.State.Pid, path))
	if err != nil {
		return nil, fmt.Errorf("reading %q of task %q: %w", path, task.ID, err)
	}
	return data, nil
}

// limitedText keeps the first MiB of what is written to it.
type limitedText []byte

var _ io.Writer = (*limitedText)(nil)

// Write never fails.
func (t *limitedText) Write(p []byte) (int, error) {
	*t = append(*t, p[:min(len(p), max(0, 1<<20-len(*t)))]...)
	return len(p), nil
}
