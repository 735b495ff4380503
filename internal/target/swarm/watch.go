package swarm

import (
	"context"
	"strings"

	"github.com/docker/docker/api/types/events"
	"github.com/docker/docker/api/types/filters"
	"github.com/docker/docker/api/types/swarm"
)

// watch follows the engine's events and gives a sign when something may have
// changed that a move waits for. Swarm has no events for tasks, and those of
// containers are of this node alone, so the signs only shorten the wait for the
// next look. The caller must call stop, which waits until the watch is over.
func (t *Target) watch(ctx context.Context) (wake <-chan struct{}, stop func()) {
	ctx, cancel := context.WithCancel(ctx)
	sign, done := make(chan struct{}, 1), make(chan struct{})
	go func() {
		defer close(done)
		messages, errs := t.engine.Events(ctx, events.ListOptions{Filters: filters.NewArgs(
			filters.Arg("type", string(events.ServiceEventType)), filters.Arg("type", string(events.ContainerEventType)))})
		for {
			select {
			case <-ctx.Done():
				return
			case err := <-errs:
				if ctx.Err() == nil {
					t.Logger.Debug("the event stream ended, tasks are still looked at", "error", err)
				}
				return
			case m := <-messages:
				// Health checks make two exec events a second and task.
				if strings.HasPrefix(string(m.Action), "exec_") {
					continue
				}
				select {
				case sign <- struct{}{}:
				default:
				}
			}
		}
	}()
	return sign, func() { cancel(); <-done }
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

// nodes returns every node.
func (e engine) nodes(ctx context.Context) ([]swarm.Node, error) {
	nodes, err := e.NodeList(ctx, swarm.NodeListOptions{})
	if err != nil {
		return nil, fault(err)
	}
	return nodes, nil
}
