package swarm_test

import (
	"bytes"
	"log/slog"
	"path"
	"strings"
	"testing"

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
	nodes, err := s.client.NodeList(s.Context(), engineapi.NodeListOptions{})
	s.must(err)
	node := nodes[0].Description.Resources
	for _, tt := range []struct {
		what   string
		option option
		words  string
	}{
		{"host port", func(spec *engineapi.ServiceSpec) {
			spec.TaskTemplate.Networks = nil
			spec.EndpointSpec = &engineapi.EndpointSpec{Ports: []engineapi.PortConfig{{Protocol: "tcp", TargetPort: 80, PublishedPort: 45871, PublishMode: "host"}}}
		}, "port 45871/tcp of the host"},
		{"limit per node", func(spec *engineapi.ServiceSpec) { spec.TaskTemplate.Placement = &engineapi.Placement{MaxReplicas: 1} }, "limit of replicas"},
		{"reservation", func(spec *engineapi.ServiceSpec) {
			// More than half of what the node has.
			spec.TaskTemplate.Resources = &engineapi.ResourceRequirements{Reservations: &engineapi.Resources{NanoCPUs: node.NanoCPUs / 10 * 6}}
		}, "CPU time that it reserves"},
		{"global with a host port", func(spec *engineapi.ServiceSpec) {
			asGlobal(spec)
			spec.TaskTemplate.Networks = nil
			spec.EndpointSpec = &engineapi.EndpointSpec{Ports: []engineapi.PortConfig{{Protocol: "tcp", TargetPort: 80, PublishedPort: 45873, PublishMode: "host"}}}
		}, "port 45873/tcp of the host"},
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
		if len(warnings) != 3 || !strings.Contains(warnings[0], "HEALTHCHECK") || !strings.Contains(warnings[1], "its one task is gone for a moment") || !strings.Contains(warnings[2], "rollback") {
			t.Errorf("warnings = %q, want no health check, the gap of stop-first, and failure_action", warnings)
		}
		now := s.service(s.placement.Service)
		s.must(s.client.ServiceRemove(s.Context(), now.ID))
	}
}

// What a service has now and a move would stumble over is said before: a
// foreign secret at a path of ours, and a field that is mounted and not
// declared any more. Hard problem 61.
func TestPreflightTriesTheMove(t *testing.T) {
	for _, mounts := range []rotation.Mounts{rotation.Switch, rotation.Dual} {
		t.Run(string(mounts), func(t *testing.T) {
			s := newStage(t)
			s.placement.Mounts = mounts
			s.retarget()
			v1 := s.put(1, "one")
			v1.State = rotation.Current
			s.serve(v1, withReplicas(0))
			s.must(s.target.Preflight(s.ctx(), s.record(v1)))

			theirs := s.secret("theirs")
			at := "/run/secrets/dsn"
			if mounts == rotation.Dual {
				at = "/run/secrets/pw_new"
			}
			s.update(s.placement.Service, func(spec *engineapi.ServiceSpec) {
				spec.TaskTemplate.ContainerSpec.Secrets = append(spec.TaskTemplate.ContainerSpec.Secrets, &engineapi.SecretReference{SecretID: theirs.ID, SecretName: theirs.Name,
					File: &engineapi.SecretReferenceFileTarget{Name: path.Base(at), UID: "0", GID: "0", Mode: 0o444}})
			})
			if mounts == rotation.Switch {
				s.placement.Path = map[string]string{at: "dsn"}
				s.retarget()
			}
			s.refusal("a foreign secret", s.target.Preflight(s.ctx(), s.record(v1)), rotation.Refused, theirs.Name, at, "another path")
			if mounts == rotation.Dual {
				return
			}
			s.refusal("nothing adopted", s.target.Preflight(s.ctx(), s.record()), rotation.Refused, "keyturn adopt "+s.credential)

			// The same secret as a field that was declared once.
			s.placement.Path = nil
			s.retarget()
			v1.Objects["dsn"] = theirs
			s.refusal("a field dropped", s.target.Preflight(s.ctx(), s.record(v1)), rotation.Invalid, `no secret for field "dsn"`, "out of the service")
		})
	}
}

// Constraints that no node meets, and a job that nobody declared.
func TestPreflightModes(t *testing.T) {
	s := newStage(t)
	v1 := s.put(1, "one")
	s.serve(v1, asGlobal)
	s.must(s.target.Preflight(s.ctx(), s.record(v1)))
	job := s.credential + "_migrate"
	_, err := s.client.ServiceCreate(s.Context(), s.spec(job, v1, asJob), engineapi.ServiceCreateOptions{})
	s.must(err)
	s.refusal("an undeclared job", s.target.Preflight(s.ctx(), s.record(v1)), rotation.Refused, job, "(a job)")
	s.must(s.client.ServiceRemove(s.Context(), job))

	s.placement.Service = s.credential + "_picky"
	s.retarget()
	s.must(s.client.ServiceRemove(s.Context(), s.credential+"_app"))
	s.serve(v1)
	nodes, err := s.client.NodeList(s.Context(), engineapi.NodeListOptions{})
	s.must(err)
	constrain := func(constraint string) {
		t.Helper()
		s.update(s.placement.Service, func(spec *engineapi.ServiceSpec) {
			spec.TaskTemplate.Placement = &engineapi.Placement{Constraints: []string{constraint}}
		})
	}
	constrain("node.hostname==" + nodes[0].Description.Hostname)
	s.eventually(func() bool { return s.target.Preflight(s.ctx(), s.record(v1)) == nil })
	for _, c := range []string{"node.role != manager", "node.labels.disk == ssd"} {
		constrain(c)
		if err := s.target.Preflight(s.ctx(), s.record(v1)); err == nil {
			t.Errorf("Preflight with the constraint %q, which no node meets: no error", c)
		}
	}
}

// A secret of a retired version that a deployment made again is told of; it
// keeps nothing from going on.
func TestPreflightTellsOfReturnedSecrets(t *testing.T) {
	s := newStage(t)
	v1, v2 := s.put(1, "one"), s.put(2, "two")
	s.serve(v2, withReplicas(0))
	v1.State, v2.State, v1.Objects = rotation.Retired, rotation.Current, nil
	for _, queued := range []bool{false, true} {
		var told bytes.Buffer
		s.target.Logger = slog.New(slog.NewTextHandler(&told, nil))
		c := s.record(v1, v2)
		if queued {
			c.Queue = []rotation.Parked{{Version: 1}}
		}
		s.must(s.target.Preflight(s.ctx(), c))
		if got := strings.Contains(told.String(), s.base()+"_v1"); got == queued {
			t.Errorf("with version 1 in the queue %v, Preflight told of its secret: %v\n%s", queued, got, told.String())
		}
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
