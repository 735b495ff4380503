package cli_test

import (
	"context"
	"fmt"
	"os"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/docker/docker/api/types/container"
	"github.com/docker/docker/api/types/network"
	"github.com/docker/docker/api/types/swarm"

	"github.com/keyturn/keyturn/internal/testserver"
)

// overlaid is a database that only an overlay network reaches: its server listens
// in the network namespace of a task.
type overlaid struct {
	pg      *testserver.Postgres
	network string // id
	name    string // of the network
	netns   string // of the task
}

// newOverlaid makes a network and a task on it, and starts a server there.
func newOverlaid(t testing.TB, settings map[string]string) overlaid {
	t.Helper()
	o, host := newOverlay(t)
	o.pg = testserver.NewPostgres(t, testserver.PostgresOptions{Names: []string{host}, Netns: o.netns, Settings: settings})
	return o
}

// newOverlay makes a network and a task on it, for a server in the task's network
// namespace, and returns the name that leads there.
func newOverlay(t testing.TB) (o overlaid, host string) {
	t.Helper()
	k := &stack{shop: &shop{t: t, name: fmt.Sprintf("net%d", serial.Add(1))}, engine: stackEngine(t)}
	k.client = k.engine.Client()
	ctx, cancel := context.WithTimeout(context.Background(), 4*time.Minute)
	defer cancel()
	k.buildRunner(ctx)
	made := k.overlay(k.name)
	host = k.name + "-db" // Java takes no underscore in the name of a server
	id, err := k.engine.CreateService(ctx, swarm.ServiceSpec{
		Annotations: swarm.Annotations{Name: host},
		TaskTemplate: swarm.TaskSpec{
			ContainerSpec: &swarm.ContainerSpec{Image: runnerImage, Command: []string{"sleep", "100000"}},
			Networks:      []swarm.NetworkAttachmentConfig{{Target: made}},
		},
		EndpointSpec: &swarm.EndpointSpec{Mode: swarm.ResolutionModeDNSRR},
	})
	k.must(err)
	t.Cleanup(func() { k.must(k.engine.RemoveService(context.Background(), id)) })
	tasks, err := k.engine.WaitTasks(ctx, host, swarm.TaskStateRunning, 1)
	k.must(err)
	info, err := k.client.ContainerInspect(ctx, tasks[0].Status.ContainerStatus.ContainerID)
	k.must(err)
	netns := fmt.Sprintf("/proc/%d/root/proc/%d/ns/net", k.engine.Pid(), info.State.Pid)
	return overlaid{network: made, name: k.name, netns: netns}, host
}

// overlay makes an overlay network and returns its id. It is removed after the
// services that are made later.
func (k *stack) overlay(name string) string {
	k.t.Helper()
	made, err := k.client.NetworkCreate(context.Background(), name, network.CreateOptions{Driver: "overlay"})
	k.must(err)
	k.t.Cleanup(func() {
		for end := time.Now().Add(time.Minute); ; time.Sleep(100 * time.Millisecond) {
			err := k.client.NetworkRemove(context.Background(), made.ID) // its tasks are on their way out
			if err == nil || time.Now().After(end) {
				k.must(err)
				return
			}
		}
	})
	return made.ID
}

// attached puts a service on the overlay network.
func (o overlaid) attached(s *swarm.ServiceSpec) {
	s.TaskTemplate.Networks = []swarm.NetworkAttachmentConfig{{Target: o.network}}
	s.EndpointSpec = &swarm.EndpointSpec{Mode: swarm.ResolutionModeDNSRR}
}

// newStack makes a stack whose service is on the overlay network.
func (o overlaid) newStack(t *testing.T, more ...string) *stack {
	t.Helper()
	host, _, _ := strings.Cut(o.pg.Addr(), ":")
	return newStack(t, o.pg, append([]string{"through: swarm"}, more...), o.attached, func(s *swarm.ServiceSpec) {
		for i, entry := range s.TaskTemplate.ContainerSpec.Env {
			if strings.HasPrefix(entry, "POSTGRES_HOST=") {
				s.TaskTemplate.ContainerSpec.Env[i] = "POSTGRES_HOST=" + host
			}
		}
	})
}

// relays returns the names of relays that are there, and how many of their containers run.
func (k *stack) relays() (services []string, running int) {
	k.t.Helper()
	list, err := k.client.ServiceList(context.Background(), swarm.ServiceListOptions{})
	k.must(err)
	for _, s := range list {
		if s.Spec.Labels["keyturn.relay"] != "" && s.Spec.Labels["keyturn.credential"] == k.name {
			services = append(services, s.Spec.Name)
		}
	}
	containers, err := k.client.ContainerList(context.Background(), container.ListOptions{})
	k.must(err)
	for _, c := range containers {
		if c.Labels["keyturn.relay"] != "" && c.Labels["keyturn.credential"] == k.name {
			running++
		}
	}
	return services, running
}

// TestThroughSwarm rotates twice where only the overlay network reaches the
// database, one of the rotations killed in the middle: no login fails, and no relay is left.
func TestThroughSwarm(t *testing.T) {
	journey(t)
	t.Parallel()
	o := newOverlaid(t, map[string]string{"log_statement": "all", "log_min_duration_statement": "0"})
	k := o.newStack(t)
	k.ok("adopt", k.name)
	if out := k.ok("plan", k.name); !strings.Contains(out, "login "+k.name+" → "+k.name+"_a") {
		t.Errorf("the plan through the Swarm says\n%s", out)
	}
	k.rotateWatched()
	k.ok("rotate", "--wait", k.name)
	k.done(k.status().Current)
	k.dieIn("after effect: prepare arm")
	services, _ := k.relays()
	if len(services) != 1 {
		t.Errorf("the run that was killed leaves the relays %q, want its own", services)
	}
	for end := time.Now().Add(time.Minute); ; time.Sleep(100 * time.Millisecond) {
		if _, running := k.relays(); running == 0 {
			break // it ended by itself
		}
		if time.Now().After(end) {
			t.Fatal("the relay of a run that was killed runs on")
		}
	}
	k.goOn()
	k.done(k.status().Current)
	k.noneFailed()
	k.oneLogin()
	k.noRelay()
}

// throughSwarm adopts and rotates, killed in the middle (with KEYTURN_FAULTS=all after a rotation
// that is not): no use of the credential fails, and no relay is left.
func (k *stack) throughSwarm() {
	k.t.Helper()
	k.ok("adopt", k.name)
	k.ok("plan", k.name)
	if os.Getenv("KEYTURN_FAULTS") == "all" {
		k.ok("rotate", "--wait", k.name)
		k.done(2)
	}
	k.dieIn("after effect: prepare arm")
	k.ok("rotate", "--wait", k.name)
	k.done(k.status().Current)
	k.noneFailed()
	k.noRelay()
}

// noRelay checks that no relay is left, and none runs but those that are ending.
func (k *stack) noRelay() {
	k.t.Helper()
	for end := time.Now().Add(time.Minute); ; time.Sleep(200 * time.Millisecond) {
		services, running := k.relays()
		if len(services)+running == 0 {
			return
		}
		if len(services) > 0 || time.Now().After(end) {
			k.t.Errorf("relays are left: %q, %d running", services, running)
			return
		}
	}
}

// TestThroughSwarmErrors meets what can be in the way of a relay, and cancels runs
// that hold one, the second while the database does not answer: they end soon, no
// relay is left, and the next run goes on.
func TestThroughSwarmErrors(t *testing.T) {
	journey(t)
	t.Parallel()
	o := newOverlaid(t, nil)
	aside := (&stack{shop: &shop{t: t}, client: stackEngine(t).Client()}).overlay(o.name + "-aside")
	k := o.newStack(t, "overlap: 1h")
	k.ok("adopt", k.name)
	b, err := os.ReadFile(k.config)
	k.must(err)
	host, port, _ := strings.Cut(k.pg.Addr(), ":")
	for name, c := range map[string]struct {
		old, new string
		code     int
		words    []string
	}{
		"direct": {"through: swarm", "through: direct", 4, []string{host, "no such host", "through: swarm"}},
		"unknown": {"@" + host + ":", "@nowhere.invalid:", 4, []string{"nowhere.invalid", "lookup nowhere.invalid", "from a relay on the network of the services",
			"hint: is the database on a network of the services (" + o.name + "), and is this its name there?"}},
		"refused": {"@" + host + ":" + port, "@" + host + ":1", 4, []string{host + ":1", "connection refused", "from a relay on the network of the services",
			"hint: is the server running there, at this port?"}},
		"image gone": {probeImage, "keyturn-stack:nowhere", 4, []string{"starting a relay", "No such image: keyturn-stack:nowhere", `hint: is the image "keyturn-stack:nowhere" on that node, and is it of Keyturn?`}},
		"not ours":   {probeImage, loadImage, 4, []string{"starting a relay", "its task is failed", `is the image "keyturn-stack:load" on that node, and is it of Keyturn?`}},
	} {
		t.Run(name, func(t *testing.T) {
			here := *k
			here.shop = &shop{}
			*here.shop = *k.shop
			here.t, here.config = t, k.beside(strings.ReplaceAll(name, " ", "-")+".yml", strings.Replace(string(b), c.old, c.new, 1))
			here.fails(c.code, c.words, "prepare", k.name)
			here.noRelay()
		})
	}
	k.start("after effect: prepare put", "prepare", k.name).cancelled(syscall.SIGINT)
	k.noRelay()
	k.ok("prepare", k.name)
	r := k.start("before effect: validate rights", "validate", k.name)
	k.must(o.pg.Pause())
	r.goOn()
	time.Sleep(700 * time.Millisecond) // it waits for an answer
	r.cancelled(syscall.SIGTERM)
	k.must(o.pg.Resume())
	k.noRelay()
	k.ok("validate", k.name)
	k.noneFailed()
	k.change(func(s *swarm.ServiceSpec) { s.TaskTemplate.Networks = []swarm.NetworkAttachmentConfig{{Target: aside}} })
	k.fails(4, []string{"lookup " + host, "from a relay on the network of the services",
		"hint: is the database on a network of the services (" + o.name + "-aside), and is this its name there?"}, "cutover", k.name)
	k.noRelay()
}

// rotateWatched rotates, and looks for values in all that the engine and the server
// know of relays.
func (k *stack) rotateWatched() {
	t := k.t
	t.Helper()
	places := map[string]string{}
	w := startWitness()
	done := make(chan struct{})
	go func() {
		defer close(done)
		for i := 0; ; i++ {
			select {
			case <-w.stop:
				return
			case <-time.After(200 * time.Millisecond):
			}
			list, err := k.client.ContainerList(context.Background(), container.ListOptions{All: true})
			if err != nil {
				continue
			}
			for _, c := range list {
				if _, raw, err := k.client.ContainerInspectWithRaw(context.Background(), c.ID, false); err == nil && c.Labels["keyturn.relay"] != "" {
					places["relay "+c.ID] = string(raw)
				}
			}
		}
	}()
	k.ok("-v", "rotate", k.name)
	close(w.stop)
	w.ended.Wait()
	<-done
	if len(places) == 0 {
		t.Error("no relay was seen")
	}
	for what, text := range k.inspected() {
		places[what] = text
	}
	for line := range w.seen {
		places["arguments of a process: "+line] = line
	}
	var err error
	places["PostgreSQL's log"], err = k.pg.LogText()
	k.must(err)
	values := slices.DeleteFunc(k.values(), func(v string) bool { return v == firstPassword })
	if len(values) == 0 {
		t.Fatal("no new value was found where tasks read it")
	}
	for _, v := range values {
		for where, text := range places {
			if strings.Contains(text, v) {
				t.Errorf("a value stands in %s", strings.ReplaceAll(where, v, "…"))
			}
		}
	}
}
