package swarm_test

import (
	"context"
	"flag"
	"fmt"
	"log/slog"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/docker/docker/api/types/filters"
	engineapi "github.com/docker/docker/api/types/swarm"
	"github.com/docker/docker/client"

	"github.com/keyturn/keyturn/internal/rotation"
	"github.com/keyturn/keyturn/internal/secret"
	"github.com/keyturn/keyturn/internal/target/swarm"
	"github.com/keyturn/keyturn/internal/testserver"
)

var shared testserver.SharedEngine

// TestMain lets many tests wait for the Swarm at the same time.
func TestMain(m *testing.M) {
	flag.Parse()
	if err := flag.Set("test.parallel", "6"); err != nil {
		panic(err)
	}
	os.Exit(testserver.Main(m, &shared))
}

const (
	imagePlain  = "keyturn-task:plain"  // without a health check
	imageHealth = "keyturn-task:health" // with one, twice a second
	imageOther  = "keyturn-task:other"  // another release of the same
	imageAlien  = "keyturn-task:alien"  // ends well whatever it is asked
	imageUser   = "keyturn-task:user"   // runs as a user of its own
)

var images sync.Once

// swarmClient returns a client of the shared Swarm, with the images there.
func swarmClient(t *testing.T) *client.Client {
	t.Helper()
	engine := shared.Get(t)
	images.Do(func() {
		program, err := testserver.BuildGo(t.Context(), "./internal/target/swarm/testdata/task")
		if err != nil {
			t.Fatal(err)
		}
		health := &testserver.Healthcheck{Cmd: []string{"/task", "check"}, Interval: time.Second, Timeout: 10 * time.Second, Retries: 3}
		for tag, check := range map[string]*testserver.Healthcheck{imagePlain: nil, imageHealth: health, imageOther: health} {
			if _, err := engine.BuildScratch(t.Context(), tag, map[string]string{"/task": program},
				testserver.ImageConfig{Entrypoint: []string{"/task"}, Env: map[string]string{"TAG": tag}, Healthcheck: check}); err != nil {
				t.Fatal(err)
			}
		}
		for tag, config := range map[string]testserver.ImageConfig{
			imageAlien: {Entrypoint: []string{"/task", "once"}},
			imageUser:  {Entrypoint: []string{"/task"}, User: "65532:65532"},
		} {
			if _, err := engine.BuildScratch(t.Context(), tag, map[string]string{"/task": program}, config); err != nil {
				t.Fatal(err)
			}
		}
	})
	return engine.Client()
}

// A stage is one service that reads one credential, for one test.
type stage struct {
	*testing.T
	client     *client.Client
	target     *swarm.Target
	credential string
	placement  rotation.Placement
	layout     swarm.Layout
}

// newStage returns a stage whose names no other test uses. What was made is
// removed at the end of the test.
func newStage(t *testing.T) *stage {
	t.Helper()
	t.Parallel()
	s := &stage{T: t, client: swarmClient(t)}
	name := strings.ToLower(strings.NewReplacer("Test", "", "/", "-", "_", "-").Replace(t.Name()))
	s.credential = name
	s.placement = rotation.Placement{
		Credential: s.credential, Service: name + "_app",
		File:    map[string]string{"PASSWORD_FILE": "password"},
		Env:     map[string]string{"APP_USER": "username"},
		Mounts:  rotation.Switch,
		Rollout: rotation.Rollout{Order: "start-first", Parallelism: 1, Monitor: time.Second, HealthTimeout: time.Minute, Timeout: 3 * time.Minute},
	}
	s.retarget()
	t.Cleanup(s.clean)
	return s
}

// retarget makes the target anew, from the placement as it is now.
func (s *stage) retarget() {
	s.layout.Secrets, s.layout.Placements = map[string]string{"password": s.base()}, []rotation.Placement{s.placement}
	s.target = swarm.New(s.client, swarm.Options{
		Layouts: map[string]swarm.Layout{s.credential: s.layout}, ProbeImage: imagePlain,
		Logger: slog.New(slog.NewTextHandler(s.Output(), &slog.HandlerOptions{Level: slog.LevelDebug})),
	})
}

func (s *stage) base() string { return strings.ReplaceAll(s.credential, "-", "_") + "_password" }

func (s *stage) clean() {
	ctx := context.WithoutCancel(s.Context())
	services, err := s.client.ServiceList(ctx, engineapi.ServiceListOptions{})
	s.must(err)
	for _, service := range services {
		if strings.HasPrefix(service.Spec.Name, s.credential+"_") {
			s.must(s.client.ServiceRemove(ctx, service.ID))
		}
	}
}

func (s *stage) must(err error) {
	s.Helper()
	if err != nil {
		s.Fatal(err)
	}
}

// ctx carries a rotation's id.
func (s *stage) ctx() context.Context { return rotation.WithRotation(s.Context(), "01JTEST") }

// put stores a version whose password is value.
func (s *stage) put(number int, value string) rotation.Version {
	s.Helper()
	v, err := s.target.Put(s.ctx(), rotation.Version{Credential: s.credential, Number: number,
		Public: map[string]string{"username": fmt.Sprintf("user_%d", number)}}, material(value))
	s.must(err)
	return v
}

func material(value string) rotation.Material {
	return rotation.Material{"username": secret.FromString("ignored"), "password": secret.FromString(value)}
}

// option changes a service before it is made.
type option func(*engineapi.ServiceSpec)

func withReplicas(n uint64) option {
	return func(s *engineapi.ServiceSpec) { s.Mode.Replicated = &engineapi.ReplicatedService{Replicas: &n} }
}

func withImage(image string) option {
	return func(s *engineapi.ServiceSpec) { s.TaskTemplate.ContainerSpec.Image = image }
}

// spec is a service of our own user with a version mounted under the name "pw".
func (s *stage) spec(name string, v rotation.Version, options ...option) engineapi.ServiceSpec {
	n := uint64(1)
	spec := engineapi.ServiceSpec{
		Annotations: engineapi.Annotations{Name: name, Labels: map[string]string{"team": "orders"}},
		Mode:        engineapi.ServiceMode{Replicated: &engineapi.ReplicatedService{Replicas: &n}},
		TaskTemplate: engineapi.TaskSpec{
			ContainerSpec: &engineapi.ContainerSpec{
				Image: imageHealth,
				Env:   []string{"A=1", "PASSWORD_FILE=/run/secrets/pw", "APP_USER=" + v.Public["username"], "Z=1"},
				Secrets: []*engineapi.SecretReference{{SecretID: v.Objects["password"].ID, SecretName: v.Objects["password"].Name,
					File: &engineapi.SecretReferenceFileTarget{Name: "pw", UID: "0", GID: "0", Mode: 0o400}}},
			},
			Networks: []engineapi.NetworkAttachmentConfig{{Target: testserver.HostNetwork}},
		},
		UpdateConfig: &engineapi.UpdateConfig{Parallelism: 2, Order: "stop-first", FailureAction: "rollback", Monitor: 7 * time.Second, Delay: time.Second, MaxFailureRatio: 0.5},
	}
	for _, o := range options {
		o(&spec)
	}
	return spec
}

// serve makes the service that the placement declares and waits until it is up.
func (s *stage) serve(v rotation.Version, options ...option) {
	s.Helper()
	_, err := s.client.ServiceCreate(s.Context(), s.spec(s.placement.Service, v, options...), engineapi.ServiceCreateOptions{})
	s.must(err)
	s.settled(s.placement.Service)
}

// settled waits until as many tasks run as shall.
func (s *stage) settled(name string) {
	s.Helper()
	s.eventually(func() bool {
		want := uint64(1)
		if r := s.service(name).Spec.Mode.Replicated; r != nil {
			want = *r.Replicas
		}
		return uint64(len(s.running(name))) == want
	})
}

func (s *stage) eventually(ok func() bool) {
	s.Helper()
	for end := time.Now().Add(time.Minute); !ok(); time.Sleep(50 * time.Millisecond) {
		if time.Now().After(end) {
			s.Fatal("waited a minute in vain")
		}
	}
}

func (s *stage) service(name string) engineapi.Service {
	s.Helper()
	found, _, err := s.client.ServiceInspectWithRaw(s.Context(), name, engineapi.ServiceInspectOptions{})
	s.must(err)
	return found
}

// running returns the ids of the tasks that run, sorted.
func (s *stage) running(name string) []string {
	s.Helper()
	var ids []string
	for _, task := range s.tasks(name) {
		if task.Status.State == engineapi.TaskStateRunning {
			ids = append(ids, task.ID)
		}
	}
	slices.Sort(ids)
	return ids
}

func (s *stage) tasks(name string) []engineapi.Task {
	s.Helper()
	tasks, err := s.client.TaskList(s.Context(), engineapi.TaskListOptions{Filters: filters.NewArgs(filters.Arg("service", name))})
	s.must(err)
	return tasks
}

// update changes the spec of a service as somebody else would: again, if anybody
// else was faster.
func (s *stage) update(name string, change option) {
	s.Helper()
	for {
		now := s.service(name)
		change(&now.Spec)
		_, err := s.client.ServiceUpdate(s.Context(), now.ID, now.Version, now.Spec, engineapi.ServiceUpdateOptions{})
		if err != nil && strings.Contains(err.Error(), "update out of sequence") {
			continue
		}
		s.must(err)
		return
	}
}

// shift is what the engine of a rotation asks for.
func (s *stage) shift(main rotation.Version, beside *rotation.Version, before map[string][]byte, known ...rotation.Version) []rotation.Shift {
	return []rotation.Shift{{Placement: s.placement, Main: main, Beside: beside, Known: known, Before: before[s.placement.Service], Rotation: "01JTEST"}}
}

func (s *stage) snapshot() map[string][]byte {
	s.Helper()
	found, err := s.target.Snapshot(s.ctx(), []rotation.Placement{s.placement})
	s.must(err)
	out := map[string][]byte{}
	for k, v := range found {
		out[k] = v
	}
	return out
}

// reads says what the spec of a service names: variables, and secrets by path.
func reads(spec engineapi.ServiceSpec) map[string]string {
	out := map[string]string{}
	for _, entry := range spec.TaskTemplate.ContainerSpec.Env {
		k, v, _ := strings.Cut(entry, "=")
		out[k] = v
	}
	for _, ref := range spec.TaskTemplate.ContainerSpec.Secrets {
		out["@"+ref.File.Name] = fmt.Sprintf("%s %s:%s %o", ref.SecretName, ref.File.UID, ref.File.GID, ref.File.Mode)
	}
	return out
}

// objectsOf returns the ids of what a version has.
func objectsOf(v rotation.Version) []string {
	var names []string
	for _, o := range v.Objects {
		names = append(names, o.Name)
	}
	return slices.Sorted(slices.Values(names))
}
