package swarm

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"

	"github.com/docker/docker/api/types/swarm"

	"github.com/keyturn/keyturn/internal/rotation"
)

// relaySpec describes the service: a job of one task, on this manager, that can do
// nothing but connect.
func (t *Target) relaySpec(ctx context.Context, credential string) (swarm.ServiceSpec, error) {
	var none swarm.ServiceSpec
	if t.ProbeImage == "" {
		return none, rotation.Errorf(rotation.Invalid, "set swarm.image", "no image is configured that holds keyturn")
	}
	node, err := t.here(ctx)
	if err != nil {
		return none, err
	}
	spec := t.probeSpec(rotation.Version{Credential: credential}, rotation.RotationID(ctx))
	delete(spec.Labels, labelProbe)
	delete(spec.Labels, labelVersion)
	spec.Labels[labelRelay] = "yes"
	spec.Name = fmt.Sprintf("keyturn-relay-%016x", rand.Uint64())
	for _, p := range t.Layouts[credential].Placements {
		place, err := t.engine.service(ctx, p.Service)
		if err != nil {
			return none, err
		}
		var one swarm.ServiceSpec
		one.TaskTemplate.ContainerSpec = &swarm.ContainerSpec{}
		standIn(&one, place.Spec)
		for _, n := range one.TaskTemplate.Networks {
			if !slices.ContainsFunc(spec.TaskTemplate.Networks, func(has swarm.NetworkAttachmentConfig) bool { return has.Target == n.Target }) {
				spec.TaskTemplate.Networks = append(spec.TaskTemplate.Networks, n)
			}
		}
		c := spec.TaskTemplate.ContainerSpec
		c.Hosts = append(c.Hosts, one.TaskTemplate.ContainerSpec.Hosts...)
		if c.DNSConfig == nil {
			c.DNSConfig = one.TaskTemplate.ContainerSpec.DNSConfig
		}
	}
	spec.TaskTemplate.Placement = &swarm.Placement{Constraints: []string{"node.id==" + node}}
	c := spec.TaskTemplate.ContainerSpec
	c.Args, c.User = RelayArgs(), "65534:65534"
	slices.Sort(c.Hosts)
	c.Hosts = slices.Compact(c.Hosts)
	return spec, nil
}

// here returns the node that we talk to, on which a relay must stand: an exec
// reaches the containers of one engine alone.
func (t *Target) here(ctx context.Context) (string, error) {
	info, err := t.engine.Info(ctx)
	if err != nil {
		return "", fault(fmt.Errorf("asking the engine for its node: %w", err))
	}
	node, _, err := t.engine.NodeInspectWithRaw(ctx, info.Swarm.NodeID)
	if err != nil {
		return "", fault(fmt.Errorf("asking the engine for its node: %w", err))
	}
	if node.Spec.Availability != swarm.NodeAvailabilityActive {
		name := node.Description.Hostname
		return "", rotation.Errorf(rotation.Invalid, "docker node update --availability active "+name+", or let swarm.host be another manager",
			"the manager %s takes no tasks: it is set to %s", name, node.Spec.Availability)
	}
	return node.ID, nil
}
