package swarm

import (
	"context"
	"fmt"
	"strings"

	"github.com/docker/docker/api/types/mount"
	"github.com/docker/docker/api/types/swarm"

	"github.com/keyturn/keyturn/internal/rotation"
)

// placeable refuses start-first where no second task would find a place: the
// update would wait for ever.
func (t *Target) placeable(ctx context.Context, s service, p rotation.Placement) error {
	nodes, err := t.engine.nodes(ctx)
	if err != nil {
		return err
	}
	services, err := t.engine.services(ctx)
	if err != nil {
		return err
	}
	tasks, err := t.engine.tasks(ctx)
	if err != nil {
		return err
	}
	if why := place(s, p.Rollout, nodes, services, tasks); why != "" {
		return rotation.Errorf(rotation.Refused, "set order: stop-first in its rollout: each task is then gone for a moment",
			"service %q cannot start a second task first: %s", p.Service, why)
	}
	return nil
}

// place returns why the tasks that start first find no place, or "".
func place(s service, r rotation.Rollout, nodes []swarm.Node, services []swarm.Service, tasks []swarm.Task) string {
	atOnce := uint64(1) // global: on every node
	if m := s.Spec.Mode.Replicated; m != nil && m.Replicas != nil {
		if *m.Replicas == 0 {
			return ""
		}
		if atOnce = r.Parallelism; atOnce == 0 || atOnce > *m.Replicas {
			atOnce = *m.Replicas
		}
	}
	if nodes = eligible(nodes, s.Spec.TaskTemplate.Placement); len(nodes) == 0 {
		return "no ready node fits its placement constraints"
	}
	if c := s.Spec.TaskTemplate.ContainerSpec; c != nil {
		for _, m := range c.Mounts {
			if m.Type == mount.TypeCluster {
				return "its cluster volume at " + m.Target + " may belong to one task at a time"
			}
		}
	}
	fits, why := uint64(0), ""
	for _, room := range rooms(s, nodes, services, tasks) {
		n, limit := room.fits(s, atOnce)
		if fits += n; n < atOnce {
			why = limit
		}
		if n == 0 && s.Spec.Mode.Global != nil {
			return limit
		}
	}
	if fits < atOnce {
		return why
	}
	return ""
}

// A room is what a node has for more tasks.
type room struct {
	free  map[string]int64 // of what can be reserved
	ports map[string]bool  // of the host, that are taken
	own   uint64           // tasks of the service in question
}

// rooms returns the room of each node.
func rooms(s service, nodes []swarm.Node, services []swarm.Service, tasks []swarm.Task) []room {
	ports := map[string][]string{}
	for _, other := range services {
		ports[other.ID] = hostPorts(other.Spec)
	}
	var out []room
	for _, n := range nodes {
		r := room{free: amounts(n.Description.Resources), ports: map[string]bool{}}
		for _, t := range tasks {
			if t.NodeID != n.ID || !alive(t) {
				continue
			}
			for what, amount := range reserved(t.Spec) {
				r.free[what] -= amount
			}
			for _, port := range ports[t.ServiceID] {
				r.ports[port] = true
			}
			if t.ServiceID == s.ID {
				r.own++
			}
		}
		out = append(out, r)
	}
	return out
}

// fits returns how many more tasks of a service fit into the room, up to most,
// and what keeps more of them out.
func (r room) fits(s service, most uint64) (n uint64, why string) {
	n = most
	limit := func(to int64, because string) {
		if to = max(to, 0); uint64(to) < n {
			n, why = uint64(to), because
		}
	}
	for what, amount := range reserved(s.Spec.TaskTemplate) {
		if amount > 0 {
			limit(r.free[what]/amount, "the "+what+" that it reserves is free on too few of the nodes that it may run on")
		}
	}
	if p := s.Spec.TaskTemplate.Placement; p != nil && p.MaxReplicas > 0 {
		limit(int64(p.MaxReplicas)-int64(r.own), "its limit of replicas per node is reached")
	}
	for _, port := range hostPorts(s.Spec) {
		to := int64(1)
		if r.ports[port] {
			to = 0
		}
		limit(to, "it publishes port "+port+" of the host, which is taken on the nodes that it may run on")
	}
	return n, why
}

// reserved returns what a task reserves.
func reserved(s swarm.TaskSpec) map[string]int64 {
	if s.Resources == nil || s.Resources.Reservations == nil {
		return nil
	}
	return amounts(*s.Resources.Reservations)
}

// amounts returns resources by their names. Named ones are counted.
func amounts(r swarm.Resources) map[string]int64 {
	out := map[string]int64{"CPU time": r.NanoCPUs, "memory": r.MemoryBytes}
	for _, g := range r.GenericResources {
		if d := g.DiscreteResourceSpec; d != nil {
			out[d.Kind] += d.Value
		}
		if d := g.NamedResourceSpec; d != nil {
			out[d.Kind]++
		}
	}
	return out
}

// hostPorts returns the ports of the host that each task of a service takes.
func hostPorts(s swarm.ServiceSpec) []string {
	var ports []string
	if s.EndpointSpec == nil {
		return nil
	}
	for _, p := range s.EndpointSpec.Ports {
		if p.PublishMode == swarm.PortConfigPublishModeHost && p.PublishedPort != 0 {
			ports = append(ports, fmt.Sprintf("%d/%s", p.PublishedPort, p.Protocol))
		}
	}
	return ports
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
