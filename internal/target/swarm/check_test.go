package swarm_test

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	engineapi "github.com/docker/docker/api/types/swarm"
	"github.com/docker/docker/client"
	"github.com/google/go-cmp/cmp"

	"github.com/keyturn/keyturn/internal/rotation"
	"github.com/keyturn/keyturn/internal/target/swarm"
	"github.com/keyturn/keyturn/internal/testserver"
)

// refusal is what a check must say.
func (s *stage) refusal(what string, err error, class rotation.Class, words ...string) {
	s.Helper()
	if err == nil {
		s.Errorf("%s: no error", what)
		return
	}
	text := err.Error() + " hint: " + rotation.HintOf(err)
	if rotation.ClassOf(err) != class {
		s.Errorf("%s: class %d, want %d: %s", what, rotation.ClassOf(err), class, text)
	}
	for _, w := range words {
		if !strings.Contains(text, w) {
			s.Errorf("%s: %q is not in: %s", what, w, text)
		}
	}
}

func (s *stage) record(versions ...rotation.Version) rotation.Credential {
	return rotation.Credential{Name: s.credential, Versions: versions, Burnt: len(versions)}
}

func TestPreflight(t *testing.T) {
	s := newStage(t)
	v1 := s.put(1, "one")
	c := s.record(v1)
	s.refusal("missing service", s.target.Preflight(s.ctx(), c), rotation.Invalid, s.placement.Service, "docker service ls")
	s.serve(v1)
	s.must(s.target.Preflight(s.ctx(), c))

	// Somebody uses the secret at 0 replicas. Hard problem 52.
	other := s.credential + "_nightly"
	_, err := s.client.ServiceCreate(s.Context(), s.spec(other, v1, withReplicas(0)), engineapi.ServiceCreateOptions{})
	s.must(err)
	s.refusal("undeclared", s.target.Preflight(s.ctx(), c), rotation.Refused, other, "0 replicas", "ignore:")
	s.layout.Ignore = []swarm.Ignored{{Service: other}}
	s.retarget()
	s.refusal("ignored without a reason", s.target.Preflight(s.ctx(), c), rotation.Refused, other)
	s.layout.Ignore = []swarm.Ignored{{Service: other, Reason: "reads it at night only"}}
	s.retarget()
	s.must(s.target.Preflight(s.ctx(), c))

	// An update that cannot go on.
	s.update(s.placement.Service, func(spec *engineapi.ServiceSpec) {
		spec.UpdateConfig.FailureAction, spec.UpdateConfig.Order = "pause", "start-first"
		spec.TaskTemplate.ContainerSpec.Args = []string{"once"}
	})
	s.eventually(func() bool {
		state := s.service(s.placement.Service).UpdateStatus
		return state != nil && state.State == engineapi.UpdateStatePaused
	})
	s.refusal("paused", s.target.Preflight(s.ctx(), c), rotation.Refused, "paused", s.placement.Service)

	// The same, left by a prepare of ours that was killed: no reason to stop here.
	v2 := s.put(2, "two")
	s.update(s.placement.Service, func(spec *engineapi.ServiceSpec) { point(spec, v2) })
	s.eventually(func() bool {
		state := s.service(s.placement.Service).UpdateStatus
		return state != nil && state.State == engineapi.UpdateStatePaused
	})
	c = s.record(v1, v2)
	s.refusal("paused, not ours", s.target.Preflight(s.ctx(), c), rotation.Refused, "paused")
	c.Open = &rotation.Rotation{ID: "01JTEST", From: 1, To: 2, Phase: rotation.Prepare}
	s.must(s.target.Preflight(s.ctx(), c))
}

// What keeps a second task from starting is said before, not waited for. Hard problem 51.
func TestPreflightPlace(t *testing.T) {
	s := newStage(t)
	v1 := s.put(1, "one")
	for _, tt := range []struct {
		what   string
		option option
		words  string
	}{
		{"host port", func(spec *engineapi.ServiceSpec) {
			spec.TaskTemplate.Networks = nil
			spec.EndpointSpec = &engineapi.EndpointSpec{Ports: []engineapi.PortConfig{{Protocol: "tcp", TargetPort: 80, PublishedPort: 45871, PublishMode: "host"}}}
		}, "port of the host"},
		{"limit per node", func(spec *engineapi.ServiceSpec) { spec.TaskTemplate.Placement = &engineapi.Placement{MaxReplicas: 1} }, "limit of replicas"},
		{"reservation", func(spec *engineapi.ServiceSpec) {
			spec.TaskTemplate.Resources = &engineapi.ResourceRequirements{Reservations: &engineapi.Resources{NanoCPUs: 11e8}}
		}, "reserves"},
	} {
		s.placement.Service = s.credential + "_" + strings.ReplaceAll(tt.what, " ", "-")
		s.placement.Rollout.Order = "start-first"
		s.retarget()
		s.serve(v1, withImage(imagePlain), tt.option)
		s.refusal(tt.what, s.target.Preflight(s.ctx(), s.record(v1)), rotation.Refused, tt.words, "order: stop-first")
		s.placement.Rollout.Order = "stop-first"
		s.retarget()
		// The services before are undeclared now; only the place is of interest here.
		if err := s.target.Preflight(s.ctx(), s.record(v1)); err != nil && strings.Contains(err.Error(), tt.words) {
			t.Errorf("%s with stop-first: %v", tt.what, err)
		}
		warnings, err := s.target.Warnings(s.ctx(), s.credential)
		s.must(err)
		if len(warnings) != 2 || !strings.Contains(warnings[0], "HEALTHCHECK") || !strings.Contains(warnings[1], "rollback") {
			t.Errorf("warnings = %q, want no health check and failure_action", warnings)
		}
		now := s.service(s.placement.Service)
		s.must(s.client.ServiceRemove(s.Context(), now.ID))
	}
}

// An engine that is no manager, and one that does not answer.
func TestPreflightEngine(t *testing.T) {
	t.Parallel()
	s := &stage{T: t}
	alone := testserver.NewEngine(t, testserver.EngineOptions{NoSwarm: true})
	s.refusal("no swarm", swarm.New(alone.Client(), swarm.Options{}).Preflight(t.Context(), rotation.Credential{Name: "db"}),
		rotation.Invalid, "in no Swarm", "docker swarm init")
	_, err := swarm.New(alone.Client(), swarm.Options{}).Observe(t.Context(), rotation.Version{Credential: "db", Number: 1})
	s.refusal("no swarm", err, rotation.Invalid, "docker swarm init")

	nobody, err := client.NewClientWithOpts(client.WithHost("unix://"+t.TempDir()+"/none.sock"), client.WithAPIVersionNegotiation())
	s.must(err)
	for what, err := range map[string]error{
		"Preflight": swarm.New(nobody, swarm.Options{}).Preflight(t.Context(), rotation.Credential{Name: "db"}),
		"Remove": swarm.New(nobody, swarm.Options{}).Remove(t.Context(), rotation.Version{
			Objects: map[string]rotation.Object{"password": {Name: "x"}}}),
	} {
		s.refusal(what, err, rotation.Unknown, "is the engine running")
	}
}

// A stack with plain names is taken over without a touch.
func TestAdopt(t *testing.T) {
	s := newStage(t)
	made, err := s.client.SecretCreate(s.Context(), engineapi.SecretSpec{Annotations: engineapi.Annotations{Name: s.credential + "_plain"}, Data: []byte("old")})
	s.must(err)
	was := rotation.Version{Public: map[string]string{"username": "orders"}, Objects: map[string]rotation.Object{"password": {ID: made.ID, Name: s.credential + "_plain"}}}
	s.serve(was)
	index := s.service(s.placement.Service).Version
	v, err := s.target.Adopt(s.ctx(), s.credential)
	s.must(err)
	want := rotation.Version{Credential: s.credential, Number: 1, Public: was.Public, Objects: was.Objects}
	if diff := cmp.Diff(want, v); diff != "" {
		t.Errorf("Adopt (-want +got):\n%s", diff)
	}
	if s.service(s.placement.Service).Version != index {
		t.Error("Adopt touched the service")
	}

	// The first rotation from it is as any other.
	v2, before := s.put(2, "two"), s.snapshot()
	s.must(errOf(s.target.Move(s.ctx(), s.shift(v2, nil, before, v, v2))))
	if diff := cmp.Diff(map[string]string{"A": "1", "Z": "1", "APP_USER": "user_2", "PASSWORD_FILE": "/run/secrets/pw",
		"@pw": s.base() + "_v2 0:0 400"}, reads(s.service(s.placement.Service).Spec)); diff != "" {
		t.Errorf("after the first move (-want +got):\n%s", diff)
	}
	s.must(s.target.Remove(s.ctx(), v))
	if _, _, err := s.client.SecretInspectWithRaw(s.Context(), made.ID); err == nil {
		t.Error("the adopted secret is still there after Remove")
	}

	s.placement.File = map[string]string{"APP_USER": "password"}
	s.retarget()
	_, err = s.target.Adopt(s.ctx(), s.credential)
	s.refusal("a value in the variable", err, rotation.Invalid, `"APP_USER" holds no absolute path`)
	if strings.Contains(err.Error(), "user_2") {
		t.Errorf("the error repeats what stands in the variable: %v", err)
	}
	s.update(s.placement.Service, func(spec *engineapi.ServiceSpec) {
		spec.TaskTemplate.ContainerSpec.Env = append(spec.TaskTemplate.ContainerSpec.Env, "TOKEN=/canary-value")
	})
	s.placement.File = map[string]string{"TOKEN": "password"}
	s.retarget()
	_, err = s.target.Adopt(s.ctx(), s.credential)
	s.refusal("a value that looks like a path", err, rotation.Invalid, `variable "TOKEN"`, "no secret is mounted at the path that it holds", "/run/secrets/pw")
	if strings.Contains(err.Error(), "canary") {
		t.Errorf("the error repeats what stands in the variable: %v", err)
	}
	s.placement.File, s.placement.Path = nil, map[string]string{"/run/secrets/nothing": "password"}
	s.retarget()
	_, err = s.target.Adopt(s.ctx(), s.credential)
	s.refusal("nothing mounted", err, rotation.Invalid, "no secret is mounted", "/run/secrets/pw")
}

func TestLease(t *testing.T) {
	s := newStage(t)
	ctx := s.ctx()
	holder := func(run string, left time.Duration) rotation.Holder {
		return rotation.Holder{Run: run, Attempt: 1, Phase: rotation.Prepare, Epoch: 4, Deadline: time.Now().Add(left).Truncate(time.Second).UTC()}
	}
	first, err := s.target.Acquire(ctx, s.credential, holder("a", time.Hour), nil, false)
	s.must(err)
	s.must(first.Check(ctx))
	if first.Holder().Epoch != 5 {
		t.Errorf("epoch = %d, want the one after 4", first.Holder().Epoch)
	}
	var busy *rotation.BusyError
	if _, err = s.target.Acquire(ctx, s.credential, holder("b", time.Hour), func(rotation.Holder) bool { return false }, false); !errors.As(err, &busy) || busy.Holder.Run != "a" {
		t.Fatalf("a second holder: %v, want that a holds it", err)
	}
	second, err := s.target.Acquire(ctx, s.credential, holder("b", time.Hour), func(h rotation.Holder) bool { return h.Run == "a" }, false)
	s.must(err)
	if err := first.Check(ctx); !errors.Is(err, rotation.ErrLeaseLost) {
		t.Errorf("Check of a lease that was taken over = %v", err)
	}
	s.must(first.Release(ctx)) // leaves the other's alone
	s.must(second.Check(ctx))
	third, err := s.target.Acquire(ctx, s.credential, holder("c", -time.Second), nil, true)
	s.must(err)
	fourth, err := s.target.Acquire(ctx, s.credential, holder("d", time.Hour), nil, false) // c is past its deadline
	s.must(err)
	s.must(fourth.Release(ctx))
	last, err := s.target.Acquire(ctx, s.credential, holder("e", time.Hour), nil, false)
	s.must(err)
	if e := []int64{second.Holder().Epoch, third.Holder().Epoch, fourth.Holder().Epoch, last.Holder().Epoch}; !cmp.Equal(e, []int64{6, 7, 8, 9}) {
		t.Errorf("epochs = %v, want them to grow, also after a release", e)
	}
	s.must(last.Release(ctx))
	if err := last.Check(ctx); !errors.Is(err, rotation.ErrLeaseLost) {
		t.Errorf("Check after Release = %v, want ErrLeaseLost", err)
	}

	// Of many at once, one wins.
	won := make(chan error)
	for range 5 {
		go func() {
			_, err := s.target.Acquire(context.WithoutCancel(ctx), s.credential, holder("race", time.Hour), nil, false)
			won <- err
		}()
	}
	winners := 0
	for range 5 {
		if err := <-won; err == nil {
			winners++
		} else if !errors.As(err, &busy) {
			t.Error(err)
		}
	}
	if winners != 1 {
		t.Errorf("%d of 5 hold the lease", winners)
	}
}
