package swarm_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/docker/docker/api/types/network"
	engineapi "github.com/docker/docker/api/types/swarm"
	"github.com/google/go-cmp/cmp"

	"github.com/keyturn/keyturn/internal/rotation"
	"github.com/keyturn/keyturn/internal/target/swarm"
)

func TestProbe(t *testing.T) {
	s := newStage(t)
	s.serve(s.put(1, "one"))
	spec := rotation.ProbeSpec{Backend: "fake", Identity: "orders_a", Endpoints: []string{"fake://db"}, CA: []byte("-----BEGIN CERTIFICATE-----\n")}
	number := 1
	for _, tt := range []struct {
		value  string
		answer rotation.Answer
		reason string
	}{
		{"good", rotation.Alive, ""},
		{"bad", rotation.Dead, "password authentication failed for orders_a"},
		{"unfit", rotation.Unfit, "without its rights"},
		{"ca", rotation.Alive, ""}, // only with the backend's CA
		{"whatever", rotation.Inconclusive, "starting up"},
		{"panic", rotation.Inconclusive, "exit code 2"},
	} {
		number++
		v := s.put(number, tt.value)
		begun := time.Now()
		r := s.target.Probe(s.ctx(), v, spec, s.placement)
		if r.Answer != tt.answer || !strings.Contains(r.Reason, tt.reason) || !strings.Contains(r.From, s.placement.Service) {
			t.Errorf("probe of a %q version = %+v, want %s because %q", tt.value, r, tt.answer, tt.reason)
		}
		t.Logf("probe: %s in %s", r.Answer, time.Since(begun))
	}
	v := s.put(20, "slow")
	ctx, cancel := context.WithTimeout(s.ctx(), 12*time.Second)
	defer cancel()
	if r := s.target.Probe(ctx, v, spec, s.placement); r.Answer != rotation.Inconclusive || !strings.Contains(r.Reason, "running") {
		t.Errorf("probe that takes too long = %+v, want unknown, running", r)
	}
	spec.Backend = "other"
	if r := s.target.Probe(s.ctx(), v, spec, s.placement); r.Answer != rotation.Inconclusive || !strings.Contains(r.Reason, `no backend "other"`) {
		t.Errorf("probe of an unknown backend = %+v", r)
	}
	s.target.ProbeImage = "keyturn-task:missing"
	if r := s.target.Probe(s.ctx(), v, spec, s.placement); r.Answer != rotation.Inconclusive || !strings.Contains(r.Reason, "keyturn-task:missing") {
		t.Errorf("probe without its image = %+v", r)
	}
	s.target.ProbeImage = imageAlien // ends well, and has tried nothing
	if r := s.target.Probe(s.ctx(), v, spec, s.placement); r.Answer != rotation.Inconclusive || !strings.Contains(r.Reason, "is \""+imageAlien+"\" the image of Keyturn?") {
		t.Errorf("probe by an image that is not ours = %+v", r)
	}
	s.nothingLeft()

	// As a user who may not read the mount: not an answer of the backend.
	s.target.ProbeImage = imagePlain
	spec.Backend = "fake"
	s.update(s.placement.Service, func(spec *engineapi.ServiceSpec) { spec.TaskTemplate.ContainerSpec.User = "70" })
	if r := s.target.Probe(s.ctx(), v, spec, s.placement); r.Answer != rotation.Inconclusive || !strings.Contains(r.Reason, "user 70") {
		t.Errorf("probe as user 70 of a mount for user 0 = %+v, want that it cannot be read", r)
	}
}

// A container that the engine cannot start is no answer, and tried again: on a
// busy node it starts a moment later.
func TestProbeStartsAgain(t *testing.T) {
	s := newStage(t)
	v := s.put(1, "good")
	s.serve(v)
	spec := rotation.ProbeSpec{Backend: "fake", Endpoints: []string{"fake://db"}}
	made, broken := 0, 1
	s.client = s.through(func(r *http.Request, next http.RoundTripper) (*http.Response, error) {
		if strings.HasSuffix(r.URL.Path, "/services/create") {
			if made++; made <= broken {
				var asked engineapi.ServiceSpec
				s.must(json.NewDecoder(r.Body).Decode(&asked))
				asked.TaskTemplate.ContainerSpec.Command = []string{"/nowhere"}
				body, err := json.Marshal(asked)
				s.must(err)
				r.Body, r.ContentLength = io.NopCloser(bytes.NewReader(body)), int64(len(body))
			}
		}
		return next.RoundTrip(r)
	})
	s.retarget()
	if r := s.target.Probe(s.ctx(), v, spec, s.placement); r.Answer != rotation.Alive || made != 2 {
		t.Errorf("probe whose first container does not start = %+v after %d, want alive after 2", r, made)
	}
	made, broken = 0, 100
	if r := s.target.Probe(s.ctx(), v, spec, s.placement); r.Answer != rotation.Inconclusive || made != 3 || !strings.Contains(r.Reason, "/nowhere") {
		t.Errorf("probe whose container never starts = %+v after %d, want unknown after 3, naming the program", r, made)
	}
	s.nothingLeft()
}

// A Swarm that keeps no ended task keeps that of a job: a probe is one there, and nowhere
// else.
func TestProbeWithoutHistory(t *testing.T) {
	s := newStage(t)
	v := s.put(1, "good")
	s.serve(v)
	limit, jobs := 0, 0
	s.client = s.through(func(r *http.Request, next http.RoundTripper) (*http.Response, error) {
		if strings.HasSuffix(r.URL.Path, "/services/create") {
			var asked engineapi.ServiceSpec
			body, err := io.ReadAll(r.Body)
			s.must(err)
			s.must(json.Unmarshal(body, &asked))
			if asked.Mode.ReplicatedJob != nil {
				jobs++
			}
			r.Body = io.NopCloser(bytes.NewReader(body))
		}
		answer, err := next.RoundTrip(r)
		if err != nil || !strings.HasSuffix(r.URL.Path, "/info") {
			return answer, err
		}
		body, err := io.ReadAll(answer.Body)
		s.must(err)
		told := []byte(`"TaskHistoryRetentionLimit":5`)
		if !bytes.Contains(body, told) {
			t.Errorf("the engine says %s, want %s in it", body, told)
		}
		body = bytes.ReplaceAll(body, told, fmt.Appendf(nil, `"TaskHistoryRetentionLimit":%d`, limit))
		answer.Body, answer.ContentLength = io.NopCloser(bytes.NewReader(body)), int64(len(body))
		answer.Header.Del("Content-Length")
		return answer, nil
	})
	for want := range 2 { // jobs, so far
		limit = 5 - 5*want
		s.retarget() // a target asks once
		if r := s.target.Probe(s.ctx(), v, rotation.ProbeSpec{Backend: "fake", Endpoints: []string{"fake://db"}}, s.placement); r.Answer != rotation.Alive || jobs != want {
			t.Errorf("with a limit of %d: probe = %+v by %d jobs, want alive by %d", limit, r, jobs, want)
		}
	}
}

// The probe runs as whoever the service's files are for.
func TestProbeUser(t *testing.T) {
	s := newStage(t)
	uid, gid := "70", "71"
	v := s.put(1, "good")
	spec := rotation.ProbeSpec{Backend: "fake", Endpoints: []string{"fake://db"}}
	s.serve(v, withImage(imagePlain), func(spec *engineapi.ServiceSpec) {
		file := spec.TaskTemplate.ContainerSpec.Secrets[0].File
		file.UID, file.GID = uid, gid
	})
	if r := s.target.Probe(s.ctx(), v, spec, s.placement); r.Answer != rotation.Alive {
		t.Errorf("probe of a mount for user 70 = %+v", r)
	}
	// What only root may read is read as root, whoever the probe's image is for.
	s.target.ProbeImage = imageUser
	s.update(s.placement.Service, func(spec *engineapi.ServiceSpec) {
		file := spec.TaskTemplate.ContainerSpec.Secrets[0].File
		file.UID, file.GID, file.Mode = "0", "0", 0o400
	})
	if r := s.target.Probe(s.ctx(), v, spec, s.placement); r.Answer != rotation.Alive {
		t.Errorf("probe of a mount for root alone = %+v", r)
	}
	// A declared change of the owner is tried, too.
	s.placement.UID = &gid
	if r := s.target.Probe(s.ctx(), v, spec, s.placement); r.Answer != rotation.Alive {
		t.Errorf("probe of a mount that is to be for user 71 = %+v", r)
	}
}

// A probe stands where the service does: on its networks, without its names in
// them, on its nodes, with its groups and hosts, and can do nothing else.
func TestProbePlace(t *testing.T) {
	s := newStage(t)
	v := s.put(1, "good")
	overlay, err := s.client.NetworkCreate(s.Context(), s.credential+"_net", network.CreateOptions{Driver: "overlay"})
	s.must(err)
	// After the service, which a clean-up that is registered before removes.
	defer func() {
		s.clean()
		s.eventually(func() bool { return s.client.NetworkRemove(context.WithoutCancel(s.Context()), overlay.ID) == nil })
	}()
	nodes, err := s.client.NodeList(s.Context(), engineapi.NodeListOptions{})
	s.must(err)
	constraints := []string{"node.hostname==" + nodes[0].Description.Hostname}
	s.serve(v, withImage(imagePlain), func(spec *engineapi.ServiceSpec) {
		spec.TaskTemplate.Networks = []engineapi.NetworkAttachmentConfig{{Target: overlay.ID, Aliases: []string{"db"}}}
		spec.TaskTemplate.Placement = &engineapi.Placement{Constraints: constraints, MaxReplicas: 1}
		c := spec.TaskTemplate.ContainerSpec
		c.Groups, c.Hosts, c.User = []string{"70"}, []string{"192.0.2.1 db.example"}, "1000"
		c.Secrets[0].File.GID, c.Secrets[0].File.Mode = "70", 0o440
	})
	var asked engineapi.ServiceSpec
	s.client = s.through(func(r *http.Request, next http.RoundTripper) (*http.Response, error) {
		if strings.HasSuffix(r.URL.Path, "/services/create") {
			body, err := io.ReadAll(r.Body)
			s.must(err)
			s.must(json.Unmarshal(body, &asked))
			r.Body = io.NopCloser(bytes.NewReader(body))
		}
		return next.RoundTrip(r)
	})
	s.retarget()
	if r := s.target.Probe(s.ctx(), v, rotation.ProbeSpec{Backend: "fake", Endpoints: []string{"fake://db"}}, s.placement); r.Answer != rotation.Alive {
		t.Errorf("probe = %+v, want that group 70 may read the mount", r)
	}
	task := asked.TaskTemplate
	if diff := cmp.Diff([]engineapi.NetworkAttachmentConfig{{Target: overlay.ID}}, task.Networks); diff != "" {
		t.Errorf("networks (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff(&engineapi.Placement{Constraints: constraints}, task.Placement); diff != "" {
		t.Errorf("placement (-want +got):\n%s", diff)
	}
	c := task.ContainerSpec
	if !cmp.Equal(c.Groups, []string{"70"}) || !cmp.Equal(c.Hosts, []string{"192.0.2.1 db.example"}) || c.User != "1000" ||
		!c.ReadOnly || !cmp.Equal(c.CapabilityDrop, []string{"ALL"}) || task.RestartPolicy.Condition != engineapi.RestartPolicyConditionNone {
		t.Errorf("the probe runs as %+v, restarted %+v", c, task.RestartPolicy)
	}
}

// nothingLeft checks that no probe of the credential is left.
func (s *stage) nothingLeft() {
	s.Helper()
	services, err := s.client.ServiceList(s.Context(), engineapi.ServiceListOptions{})
	s.must(err)
	for _, service := range services {
		if l := service.Spec.Labels; l["keyturn.probe"] != "" && l["keyturn.credential"] == s.credential {
			s.Errorf("service %q is left", service.Spec.Name)
		}
	}
	configs, err := s.client.ConfigList(s.Context(), engineapi.ConfigListOptions{})
	s.must(err)
	for _, c := range configs {
		if l := c.Spec.Labels; l["keyturn.probe"] != "" && l["keyturn.credential"] == s.credential {
			s.Errorf("config %q is left", c.Spec.Name)
		}
	}
	// The tasks of a service that was removed go a moment later; those of a job, on
	// engines before 24, never.
	var left []string
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(200 * time.Millisecond) {
		tasks, err := s.client.TaskList(s.Context(), engineapi.TaskListOptions{})
		s.must(err)
		left = nil
		for _, task := range tasks {
			if c := task.Spec.ContainerSpec; c != nil && c.Labels["keyturn.probe"] != "" && c.Labels["keyturn.credential"] == s.credential {
				left = append(left, fmt.Sprintf("%s, which is %s and should be %s", task.ID, task.Status.State, task.DesiredState))
			}
		}
		if len(left) == 0 {
			return
		}
		if time.Now().After(deadline) {
			s.Fatalf("tasks of probes are left: %v", left)
		}
	}
}

// What a killed run left goes; the rest stays.
func TestSweep(t *testing.T) {
	s := newStage(t)
	for name, labels := range map[string]map[string]string{
		"dead":  {"keyturn.credential": s.credential, "keyturn.probe": "yes"},
		"other": {"keyturn.credential": s.credential + "-other", "keyturn.probe": "yes"},
		"none":  {"keyturn.credential": s.credential},
	} {
		_, err := s.client.ConfigCreate(s.Context(), engineapi.ConfigSpec{Data: []byte("x"),
			Annotations: engineapi.Annotations{Name: "probe-" + s.credential + "-" + name, Labels: labels}})
		s.must(err)
	}
	v := s.put(1, "slow")
	left := s.spec("probe-"+s.credential, v)
	left.Labels = map[string]string{"keyturn.credential": s.credential, "keyturn.probe": "yes"}
	_, err := s.client.ServiceCreate(s.Context(), left, engineapi.ServiceCreateOptions{})
	s.must(err)
	s.must(s.target.Sweep(s.ctx(), s.credential))
	if _, _, err := s.client.ServiceInspectWithRaw(s.Context(), left.Name, engineapi.ServiceInspectOptions{}); err == nil {
		t.Error("the dead probe is left")
	}
	for name, want := range map[string]bool{"dead": false, "other": true, "none": true} {
		_, _, err := s.client.ConfigInspectWithRaw(s.Context(), "probe-"+s.credential+"-"+name)
		if (err == nil) != want {
			t.Errorf("config %q after Sweep: %v, want it there = %v", name, err, want)
		}
	}
}

// RunProbe never says more than it knows.
func TestRunProbe(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	spec := dir + "/probe.json"
	if err := os.WriteFile(spec, []byte(`{"backend":"fake"}`), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		name, spec, dir string
		login           func(string) rotation.Login
		want            int
	}{
		{"no spec", dir + "/none", dir, nil, swarm.ExitUnknown},
		{"unknown backend", spec, dir, func(string) rotation.Login { return nil }, swarm.ExitUnknown},
		{"no fields", spec, dir + "/none", answering(rotation.Dead), swarm.ExitUnknown},
		{"alive", spec, dir, answering(rotation.Alive), swarm.ExitAlive},
		{"dead", spec, dir, answering(rotation.Dead), swarm.ExitDead},
	} {
		var out bytes.Buffer
		if got := swarm.RunProbe(t.Context(), tt.spec, tt.dir, tt.login, &out); got != tt.want {
			t.Errorf("%s: RunProbe = %d, want %d; it printed %s", tt.name, got, tt.want, out.String())
		}
	}
}

func answering(a rotation.Answer) func(string) rotation.Login {
	return func(string) rotation.Login {
		return func(context.Context, rotation.ProbeSpec, rotation.Material) rotation.ProbeResult {
			return rotation.ProbeResult{Answer: a}
		}
	}
}
