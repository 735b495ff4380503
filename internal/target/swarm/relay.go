package swarm

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/containerd/errdefs"
	"github.com/docker/docker/api/types/swarm"

	"github.com/keyturn/keyturn/internal/rotation"
)

const (
	relayStart = time.Minute     // bounds how long a relay may take to run
	relayEnd   = 3 * time.Second // and how long we wait for its removal: it ends by itself
)

// A Relay makes connections from the networks of a credential's services: to a
// database that only an overlay network reaches. A task of Keyturn's image stands
// on these networks, on the manager that we talk to. Each connection is an exec
// in its container through the engine's API, which copies bytes; no port is
// opened, and TLS ends where it would without it.
//
// The task is started by the first connection, and removed by [Relay.Close]. A
// process that is killed leaves none running: one exec (the anchor) lives as long
// as its process, and the task ends by itself when nothing is left in it. What
// remains of it then is removed by [Target.Sweep].
type Relay struct {
	t          *Target
	credential string

	turn chan struct{} // holds one: who has it starts the task, and the others wait
	task *relayTask    // guarded by turn
}

// A relayTask is a relay that was started.
type relayTask struct {
	service   string   // id
	name      string   // of the service
	container string   // id
	program   []string // the entry point of the image
	networks  []string // that the container is on, by name
	anchor    net.Conn
	gone      chan struct{} // closed when the anchor has ended
	ended     sync.WaitGroup
}

// Relay returns a relay on the networks of a credential's services.
func (t *Target) Relay(credential string) *Relay {
	return &Relay{t: t, credential: credential, turn: make(chan struct{}, 1)}
}

// Start starts the task, if none runs.
func (r *Relay) Start(ctx context.Context) error {
	_, err := r.taken(ctx)
	return err
}

// Dial connects to a TCP address whose name is looked up where the services are.
func (r *Relay) Dial(ctx context.Context, _, address string) (net.Conn, error) {
	task, err := r.taken(ctx)
	if err != nil {
		return nil, err
	}
	return r.t.through(ctx, task, address)
}

func (r *Relay) taken(ctx context.Context) (*relayTask, error) {
	select {
	case r.turn <- struct{}{}:
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	defer func() { <-r.turn }()
	return r.running(ctx)
}

// Close removes the task, also when the time of its user is over.
func (r *Relay) Close() error {
	r.turn <- struct{}{}
	defer func() { <-r.turn }()
	if r.task == nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), relayEnd)
	defer cancel()
	r.t.stop(ctx, r.task)
	r.task = nil
	return r.t.sweep(ctx, r.credential, isRelay) // those of runs that were killed meanwhile
}

// running returns the task, started now if there is none that runs.
func (r *Relay) running(ctx context.Context) (*relayTask, error) {
	if r.task != nil {
		select {
		case <-r.task.gone:
			r.t.Logger.Debug("the relay ended, another one is started", "service", r.task.name)
			r.t.stop(ctx, r.task)
			r.task = nil
		default:
			return r.task, nil
		}
	}
	ctx, cancel := context.WithTimeout(ctx, relayStart)
	defer cancel()
	for tries := 1; ; tries++ {
		task, err := r.start(ctx)
		if errors.Is(err, errNotStarted) && tries < probeTries && ctx.Err() == nil {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("starting a relay: %w", err)
		}
		r.task = task
		return task, nil
	}
}

// start makes the service and waits until its task runs and is anchored.
func (r *Relay) start(ctx context.Context) (_ *relayTask, err error) {
	t := r.t
	spec, err := t.relaySpec(ctx, r.credential)
	if err != nil {
		return nil, err
	}
	wake, stop := t.watch(ctx)
	defer stop()
	made, err := t.engine.ServiceCreate(ctx, spec, swarm.ServiceCreateOptions{})
	if err != nil {
		return nil, fault(err)
	}
	task := &relayTask{service: made.ID, name: spec.Name, gone: make(chan struct{})}
	defer func() {
		if err != nil {
			t.stop(ctx, task)
		}
	}()
	began := time.Now()
	if task.container, err = t.relayRuns(ctx, made.ID, wake); err != nil {
		return nil, err
	}
	if err = t.look(ctx, task, len(RelayArgs())); err != nil {
		return nil, err
	}
	if task.anchor, err = t.exec(ctx, task, "--anchor"); err != nil {
		return nil, err
	}
	task.ended.Go(func() {
		defer close(task.gone)
		_, _ = task.anchor.Read(make([]byte, 1)) // it says nothing until its end
	})
	t.Logger.Debug("a relay was started", "service", task.name, "after", time.Since(began))
	return task, nil
}

// stop ends a relay and removes its service.
func (t *Target) stop(ctx context.Context, task *relayTask) {
	if task.anchor != nil {
		_ = task.anchor.Close()
	}
	task.ended.Wait()
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), relayEnd)
	defer cancel()
	if err := t.engine.ServiceRemove(ctx, task.service); err != nil && !errdefs.IsNotFound(err) {
		t.Logger.Warn("removing a relay", "service", task.name, "error", err)
	}
}

// relayRuns waits until the one task of a relay runs, and returns its container.
func (t *Target) relayRuns(ctx context.Context, id string, wake <-chan struct{}) (string, error) {
	why, pace := "it was not placed yet", t.pace()
	for {
		tasks, err := t.engine.tasks(ctx, id)
		if err != nil && ctx.Err() == nil {
			return "", err
		}
		for _, task := range tasks {
			s := task.Status
			switch {
			case s.State == swarm.TaskStateRunning && s.ContainerStatus != nil:
				return s.ContainerStatus.ContainerID, nil
			case strings.HasPrefix(s.Err, errNotStarted.Error()):
				return "", notStarted(s.Err)
			case ended(s.State):
				return "", rotation.Errorf(rotation.Unknown, fmt.Sprintf("is the image %q on that node, and is it of Keyturn?", t.ProbeImage),
					"its task is %s: %s", s.State, s.Err)
			}
			why = fmt.Sprintf("its task is %s: %s %s", s.State, s.Message, s.Err)
		}
		pace.wait(ctx, wake)
		if ctx.Err() != nil {
			return "", rotation.Classify(rotation.Unknown, "look at: docker service ps --no-trunc, and docker node ls", fmt.Errorf("%s: %w", strings.TrimSpace(why), ctx.Err()))
		}
	}
}

// look notes of a relay's container what its image starts, without our arguments,
// and where it is.
func (t *Target) look(ctx context.Context, task *relayTask, ours int) error {
	c, err := t.engine.ContainerInspect(ctx, task.container)
	if errdefs.IsNotFound(err) {
		return rotation.Errorf(rotation.Unknown, "let swarm.host be one manager, and not an address that several share",
			"its container is not on the engine that was asked")
	}
	if err != nil {
		return fault(err)
	}
	words := append([]string{c.Path}, c.Args...)
	task.program = words[:max(1, len(words)-ours)]
	if c.NetworkSettings == nil {
		return nil
	}
	for _, name := range slices.Sorted(maps.Keys(c.NetworkSettings.Networks)) {
		if name != "bridge" { // where a container is that was put nowhere
			task.networks = append(task.networks, name)
		}
	}
	return nil
}
