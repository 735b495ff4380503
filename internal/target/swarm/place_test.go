package swarm_test

import (
	"strings"
	"testing"

	engineapi "github.com/docker/docker/api/types/swarm"

	"github.com/keyturn/keyturn/internal/rotation"
	"github.com/keyturn/keyturn/internal/target/swarm"
)

// A floor is a Swarm on paper: nodes of 4 CPUs, 4 GB and 2 GPUs.
type floor struct {
	nodes    []engineapi.Node
	services []engineapi.Service
	tasks    []engineapi.Task
}

func (f *floor) node(id string) {
	n := engineapi.Node{ID: id}
	n.Spec.Availability, n.Status.State = engineapi.NodeAvailabilityActive, engineapi.NodeStateReady
	gpu := func(name string) engineapi.GenericResource {
		return engineapi.GenericResource{NamedResourceSpec: &engineapi.NamedGenericResource{Kind: "gpu", Value: name}}
	}
	n.Description.Resources = engineapi.Resources{NanoCPUs: 4e9, MemoryBytes: 4e9, GenericResources: []engineapi.GenericResource{gpu("a"), gpu("b")}}
	f.nodes = append(f.nodes, n)
}

// runs puts tasks of a service on nodes.
func (f *floor) runs(s engineapi.Service, nodes ...string) {
	f.services = append(f.services, s)
	for _, n := range nodes {
		t := engineapi.Task{ServiceID: s.ID, NodeID: n, Spec: s.Spec.TaskTemplate, DesiredState: engineapi.TaskStateRunning}
		t.Status.State = engineapi.TaskStateRunning
		f.tasks = append(f.tasks, t)
	}
}

func onPaper(id string, options ...option) engineapi.Service {
	s := engineapi.Service{ID: id}
	n := uint64(2)
	s.Spec.Mode.Replicated = &engineapi.ReplicatedService{Replicas: &n}
	s.Spec.TaskTemplate.ContainerSpec = &engineapi.ContainerSpec{}
	for _, o := range options {
		o(&s.Spec)
	}
	return s
}

func reserves(r engineapi.Resources) option {
	return func(s *engineapi.ServiceSpec) {
		s.TaskTemplate.Resources = &engineapi.ResourceRequirements{Reservations: &r}
	}
}

func reservesGPUs(n int64) option {
	return reserves(engineapi.Resources{GenericResources: []engineapi.GenericResource{{DiscreteResourceSpec: &engineapi.DiscreteGenericResource{Kind: "gpu", Value: n}}}})
}

func publishes(port uint32) option {
	return func(s *engineapi.ServiceSpec) {
		s.EndpointSpec = &engineapi.EndpointSpec{Ports: []engineapi.PortConfig{{Protocol: "tcp", PublishedPort: port, PublishMode: "host"}}}
	}
}

func perNode(n uint64) option {
	return func(s *engineapi.ServiceSpec) { s.TaskTemplate.Placement = &engineapi.Placement{MaxReplicas: n} }
}

// Where a second task finds a place, and where none does. Hard problem 51.
func TestPlace(t *testing.T) {
	half, most := engineapi.Resources{NanoCPUs: 2e9}, engineapi.Resources{NanoCPUs: 3e9}
	for _, tt := range []struct {
		name        string
		s           engineapi.Service
		on          []string // its tasks
		other       engineapi.Service
		otherOn     []string
		parallelism uint64
		want        string // "" fits
	}{
		{name: "nothing asked for", s: onPaper("app"), on: []string{"1", "2"}},
		{name: "half of a node", s: onPaper("app", reserves(half)), on: []string{"1", "2"}},
		{name: "most of a node", s: onPaper("app", reserves(most)), on: []string{"1", "2"},
			other: onPaper("db", reserves(half)), otherOn: []string{"3"}, want: "CPU time"},
		{name: "most of a node, a third node", s: onPaper("app", reserves(most)), on: []string{"1", "3"}},
		{name: "half of a node, two at once, one gap", s: onPaper("app", reserves(half)), on: []string{"1", "2"},
			other: onPaper("db", reserves(half)), otherOn: []string{"1", "3", "3"}, parallelism: 2, want: "CPU time"},
		{name: "global, one node full", s: onPaper("app", asGlobal, reserves(half)), on: []string{"1", "2", "3"},
			other: onPaper("db", reserves(half)), otherOn: []string{"2"}, want: "CPU time"},
		{name: "global, room everywhere", s: onPaper("app", asGlobal, reserves(half)), on: []string{"1", "2", "3"}},
		{name: "a GPU each", s: onPaper("app", reservesGPUs(1)), on: []string{"1", "2"}},
		{name: "no GPU left", s: onPaper("app", reservesGPUs(2)), on: []string{"1", "2"},
			other: onPaper("ml", reservesGPUs(1)), otherOn: []string{"3"}, want: "gpu"},
		{name: "a port, a free node", s: onPaper("app", publishes(80)), on: []string{"1", "2"}},
		{name: "a port, the free node has it of another", s: onPaper("app", publishes(80)), on: []string{"1", "2"},
			other: onPaper("web", publishes(80)), otherOn: []string{"3"}, want: "port 80/tcp of the host"},
		{name: "a port, another has another", s: onPaper("app", publishes(80)), on: []string{"1", "2"},
			other: onPaper("web", publishes(81)), otherOn: []string{"3"}},
		{name: "a port, global", s: onPaper("app", asGlobal, publishes(80)), on: []string{"1", "2", "3"}, want: "port 80/tcp of the host"},
		{name: "one per node, a free node", s: onPaper("app", perNode(1)), on: []string{"1", "2"}},
		{name: "one per node, two at once", s: onPaper("app", perNode(1)), on: []string{"1", "2"}, parallelism: 2, want: "limit of replicas per node"},
		{name: "no node", s: onPaper("app", func(s *engineapi.ServiceSpec) {
			s.TaskTemplate.Placement = &engineapi.Placement{Constraints: []string{"node.id==9"}}
		}), want: "no ready node"},
	} {
		f := &floor{}
		for _, id := range []string{"1", "2", "3"} {
			f.node(id)
		}
		f.runs(tt.s, tt.on...)
		f.runs(tt.other, tt.otherOn...)
		got := swarm.Place(tt.s, rotation.Rollout{Parallelism: max(tt.parallelism, 1)}, f.nodes, f.services, f.tasks)
		if (got == "") != (tt.want == "") || !strings.Contains(got, tt.want) {
			t.Errorf("%s: Place = %q, want %q", tt.name, got, tt.want)
		}
	}
}
