package swarm

import (
	"context"
	"strings"
	"time"

	"github.com/docker/docker/api/types/events"
	"github.com/docker/docker/api/types/filters"
	"github.com/docker/docker/api/types/swarm"
)

const (
	reopen = time.Second            // until the event stream is asked for again
	echo   = 100 * time.Millisecond // until what an event tells of has got to the manager
)

// watch follows the engine's events and gives a sign when something may have
// changed that a move waits for. Swarm has no events for tasks, and those of
// containers are of this node alone, so the signs only shorten the wait for the
// next look. A stream that ends, as at a restart of the engine, is opened
// again. The caller must call stop, which waits until the watch is over.
func (t *Target) watch(ctx context.Context) (wake <-chan struct{}, stop func()) {
	ctx, cancel := context.WithCancel(ctx)
	signs, done := make(chan struct{}, 1), make(chan struct{})
	sign := func() {
		select {
		case signs <- struct{}{}:
		default:
		}
	}
	go func() {
		defer close(done)
		for {
			err := t.follow(ctx, sign)
			if ctx.Err() != nil {
				return
			}
			t.Logger.Debug("the event stream ended, tasks are still looked at", "error", err)
			select {
			case <-ctx.Done():
				return
			case <-time.After(reopen):
				sign() // for what was missed
			}
		}
	}()
	return signs, func() { cancel(); <-done }
}

// follow gives signs until the event stream ends.
func (t *Target) follow(ctx context.Context, sign func()) error {
	messages, errs := t.engine.Events(ctx, events.ListOptions{Filters: filters.NewArgs(
		filters.Arg("type", string(events.ServiceEventType)), filters.Arg("type", string(events.ContainerEventType)))})
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case err := <-errs:
			return err
		case m := <-messages:
			// Health checks make two exec events a second and task.
			if !strings.HasPrefix(string(m.Action), "exec_") {
				sign()
			}
		}
	}
}

// A pace says how long to wait before the next look: briefly after a sign, for
// what it tells of takes a moment to arrive, and longer while nothing changes.
type pace struct{ poll, next time.Duration }

func (t *Target) pace() *pace { return &pace{t.Poll, t.Poll} }

// changed ends the growth of the waits.
func (p *pace) changed() { p.next = min(p.next, p.poll) }

// wait waits for a sign, or until it is time to look without one.
func (p *pace) wait(ctx context.Context, wake <-chan struct{}) {
	select {
	case <-ctx.Done():
	case <-wake:
		p.next = min(p.poll, echo)
	case <-time.After(p.next):
		p.next = min(p.next*3/2, 5*p.poll)
	}
}

// hasHealthcheck reports whether the tasks of a service are running only when
// they are healthy: the spec has a health check, or the image. An image that is
// not on this manager counts as having none.
func (e engine) hasHealthcheck(ctx context.Context, s swarm.ServiceSpec) bool {
	c := s.TaskTemplate.ContainerSpec
	if c == nil {
		return false
	}
	if c.Healthcheck != nil && len(c.Healthcheck.Test) > 0 {
		return c.Healthcheck.Test[0] != "NONE"
	}
	image, err := e.ImageInspect(ctx, c.Image)
	if err != nil || image.Config == nil || image.Config.Healthcheck == nil {
		return false
	}
	test := image.Config.Healthcheck.Test
	return len(test) > 0 && test[0] != "NONE"
}

// downNodes returns the names of the nodes that nobody hears from, by their ids.
func (e engine) downNodes(ctx context.Context) (map[string]string, error) {
	nodes, err := e.nodes(ctx)
	if err != nil {
		return nil, err
	}
	out := map[string]string{}
	for _, n := range nodes {
		if n.Status.State == swarm.NodeStateDown {
			out[n.ID] = n.Description.Hostname
		}
	}
	return out, nil
}

// nodes returns every node.
func (e engine) nodes(ctx context.Context) ([]swarm.Node, error) {
	nodes, err := e.NodeList(ctx, swarm.NodeListOptions{})
	if err != nil {
		return nil, fault(err)
	}
	return nodes, nil
}
