package swarm

import (
	"context"
	"strings"

	"github.com/docker/docker/api/types/mount"
	"github.com/docker/docker/api/types/swarm"

	"github.com/keyturn/keyturn/internal/rotation"
)

// placeable refuses start-first where no second task would find a place: the
// update would wait for ever.
func (t *Target) placeable(ctx context.Context, s service, tasks []swarm.Task, p rotation.Placement) error {
	nodes, err := t.engine.nodes(ctx)
	if err != nil {
		return err
	}
	eligible := eligible(nodes, s.Spec.TaskTemplate.Placement)
	refuse := func(why string) error {
		return rotation.Errorf(rotation.Refused, "set order: stop-first in its rollout: each task is then gone for a moment",
			"service %q cannot start a second task first: %s", p.Service, why)
	}
	if len(eligible) == 0 {
		return refuse("no ready node fits its placement constraints")
	}
	replicas := uint64(0)
	if r := s.Spec.Mode.Replicated; r != nil && r.Replicas != nil {
		replicas = *r.Replicas
	}
	if replicas == 0 && s.Spec.Mode.Replicated != nil {
		return nil
	}
	atOnce := p.Rollout.Parallelism
	if atOnce == 0 || atOnce > replicas {
		atOnce = max(replicas, 1)
	}
	global := s.Spec.Mode.Global != nil
	if hostPort(s.Spec) && (global || replicas+atOnce > uint64(len(eligible))) {
		return refuse("it publishes a port of the host, and every node that it may run on has one already")
	}
	if limit := placement(s.Spec).MaxReplicas; limit > 0 && replicas+atOnce > limit*uint64(len(eligible)) {
		return refuse("its limit of replicas per node is reached on every node")
	}
	if c := s.Spec.TaskTemplate.ContainerSpec; c != nil {
		for _, m := range c.Mounts {
			if m.Type == mount.TypeCluster {
				return refuse("its cluster volume at " + m.Target + " may belong to one task at a time")
			}
		}
	}
	return t.room(ctx, s, eligible, atOnce, refuse)
}

// room checks that the reservations of the tasks that start first fit.
func (t *Target) room(ctx context.Context, s service, nodes []swarm.Node, atOnce uint64, refuse func(string) error) error {
	need := reserved(s.Spec.TaskTemplate)
	if need.NanoCPUs == 0 && need.MemoryBytes == 0 {
		return nil
	}
	all, err := t.engine.tasks(ctx)
	if err != nil {
		return err
	}
	fits := uint64(0)
	for _, n := range nodes {
		free := n.Description.Resources
		for _, task := range all {
			if task.NodeID == n.ID && alive(task) {
				r := reserved(task.Spec)
				free.NanoCPUs -= r.NanoCPUs
				free.MemoryBytes -= r.MemoryBytes
			}
		}
		for range atOnce {
			free.NanoCPUs -= need.NanoCPUs
			free.MemoryBytes -= need.MemoryBytes
			if free.NanoCPUs < 0 || free.MemoryBytes < 0 {
				break
			}
			fits++
		}
	}
	if fits == 0 || fits < atOnce && s.Spec.Mode.Global == nil {
		return refuse("what it reserves is free on no node that it may run on")
	}
	return nil
}

func reserved(s swarm.TaskSpec) swarm.Resources {
	if s.Resources == nil || s.Resources.Reservations == nil {
		return swarm.Resources{}
	}
	return *s.Resources.Reservations
}

func placement(s swarm.ServiceSpec) swarm.Placement {
	if s.TaskTemplate.Placement == nil {
		return swarm.Placement{}
	}
	return *s.TaskTemplate.Placement
}

func hostPort(s swarm.ServiceSpec) bool {
	if s.EndpointSpec == nil {
		return false
	}
	for _, p := range s.EndpointSpec.Ports {
		if p.PublishMode == swarm.PortConfigPublishModeHost && p.PublishedPort != 0 {
			return true
		}
	}
	return false
}

// eligible returns the nodes that take tasks and fit the constraints.
func eligible(nodes []swarm.Node, p *swarm.Placement) []swarm.Node {
	var fit []swarm.Node
	for _, n := range nodes {
		if n.Status.State != swarm.NodeStateReady || n.Spec.Availability != swarm.NodeAvailabilityActive {
			continue
		}
		if p == nil || meets(n, p.Constraints) {
			fit = append(fit, n)
		}
	}
	return fit
}

// meets reports whether a node meets the constraints of a placement. One that
// is not understood here is left to Swarm.
func meets(n swarm.Node, constraints []string) bool {
	for _, c := range constraints {
		key, want, equal := strings.Cut(c, "==")
		if !equal {
			var ok bool
			if key, want, ok = strings.Cut(c, "!="); !ok {
				continue
			}
		}
		have, known := attribute(n, strings.TrimSpace(key))
		if known && strings.EqualFold(have, strings.TrimSpace(want)) != equal {
			return false
		}
	}
	return true
}

// attribute returns what a node has for the left side of a constraint.
func attribute(n swarm.Node, key string) (value string, known bool) {
	if label, ok := strings.CutPrefix(key, "node.labels."); ok {
		return n.Spec.Labels[label], true
	}
	if label, ok := strings.CutPrefix(key, "engine.labels."); ok {
		return n.Description.Engine.Labels[label], true
	}
	switch key {
	case "node.id":
		return n.ID, true
	case "node.hostname":
		return n.Description.Hostname, true
	case "node.role":
		return string(n.Spec.Role), true
	case "node.platform.os":
		return n.Description.Platform.OS, true
	}
	return "", false
}
