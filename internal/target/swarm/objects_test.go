package swarm_test

import (
	"errors"
	"strings"
	"testing"

	engineapi "github.com/docker/docker/api/types/swarm"
	"github.com/google/go-cmp/cmp"

	"github.com/keyturn/keyturn/internal/rotation"
)

func TestPut(t *testing.T) {
	s := newStage(t)
	v := s.put(3, "the value")
	name := s.base() + "_v3"
	if diff := cmp.Diff([]string{name}, objectsOf(v)); diff != "" {
		t.Fatalf("objects (-want +got):\n%s", diff)
	}
	found, _, err := s.client.SecretInspectWithRaw(s.Context(), v.Objects["password"].ID)
	s.must(err)
	want := map[string]string{"keyturn.credential": s.credential, "keyturn.version": "3", "keyturn.rotation": "01JTEST"}
	if diff := cmp.Diff(want, found.Spec.Labels); diff != "" {
		t.Errorf("labels (-want +got):\n%s", diff)
	}

	// The same again is done already; labels that a deployment replaced come back.
	bare := found.Spec
	bare.Labels = map[string]string{"com.docker.stack.namespace": "shop"}
	s.must(s.client.SecretUpdate(s.Context(), found.ID, found.Version, bare))
	if again := s.put(3, "the value"); again.Objects["password"] != v.Objects["password"] {
		t.Errorf("put again gave %v, want %v", again.Objects, v.Objects)
	}
	found, _, err = s.client.SecretInspectWithRaw(s.Context(), found.ID)
	s.must(err)
	if l := found.Spec.Labels; l["keyturn.credential"] != s.credential || l["com.docker.stack.namespace"] != "shop" {
		t.Errorf("labels = %v, want theirs and ours", l)
	}

	// Another value under the name is an error that shows neither.
	_, err = s.target.Put(s.ctx(), rotation.Version{Credential: s.credential, Number: 3}, material("canary-other"))
	if err == nil || !strings.Contains(err.Error(), "holds another value") || strings.Contains(err.Error(), "canary") {
		t.Errorf("Put of another value = %v, want a refusal without the value", err)
	}
	_, err = s.target.Put(s.ctx(), rotation.Version{Credential: s.credential, Number: 4}, rotation.Material{})
	if rotation.ClassOf(err) != rotation.Invalid {
		t.Errorf("Put without the field = %v, want class Invalid", err)
	}
	s.layout.Secrets = nil
	long := strings.Repeat("x", 60)
	s.credential = long
	s.placement.Credential = long
	s.retarget()
	if _, err = s.target.Put(s.ctx(), rotation.Version{Credential: long, Number: 4}, material("v")); rotation.ClassOf(err) != rotation.Invalid || !strings.Contains(err.Error(), "64") {
		t.Errorf("Put with a long name = %v, want class Invalid and the limit", err)
	}
}

// The life of the objects of a version: used by a spec, by a task, by a
// previous spec; then gone, without a restart. Hard problems 6, 7.
func TestRemove(t *testing.T) {
	s := newStage(t)
	v1, v2 := s.put(1, "one"), s.put(2, "two")
	s.serve(v1, withImage(imagePlain))
	before := s.snapshot()
	h, err := s.target.Observe(s.ctx(), v1)
	s.must(err)
	if kinds := kindsOf(h); !h.Complete || !cmp.Equal(kinds, map[string]int{"spec": 1, "task": 1}) {
		t.Errorf("uses of version 1 = %v, complete %v, want a spec and a task", kinds, h.Complete)
	}
	if err := s.target.Remove(s.ctx(), v1); !errors.Is(err, rotation.ErrInUse) || !strings.Contains(err.Error(), s.placement.Service) {
		t.Fatalf("Remove of what a service uses = %v, want ErrInUse and the service", err)
	}
	s.must(errOf(s.target.Move(s.ctx(), s.shift(v2, nil, before, v1, v2))))

	// As if nothing had been set back: only the previous spec names version 1.
	s.update(s.placement.Service, func(spec *engineapi.ServiceSpec) { point(spec, v1) })
	s.settleOn(v1)
	s.update(s.placement.Service, func(spec *engineapi.ServiceSpec) { point(spec, v2) })
	s.settleOn(v2)
	h, err = s.target.Observe(s.ctx(), v1)
	s.must(err)
	if kinds := kindsOf(h); !cmp.Equal(kinds, map[string]int{"previous-spec": 1}) {
		t.Fatalf("uses of version 1 = %v, want a previous spec", kinds)
	}
	tasks := s.running(s.placement.Service)
	s.eventually(func() bool {
		state := s.service(s.placement.Service).UpdateStatus
		return state == nil || state.State == engineapi.UpdateStateCompleted
	})
	s.must(s.target.Remove(s.ctx(), v1))
	s.must(s.target.Remove(s.ctx(), v1)) // gone already
	if diff := cmp.Diff(tasks, s.running(s.placement.Service)); diff != "" {
		t.Errorf("removing restarted tasks (-before +after):\n%s", diff)
	}
	if prev := s.service(s.placement.Service).PreviousSpec; reads(*prev)["@pw"] != reads(s.service(s.placement.Service).Spec)["@pw"] {
		t.Errorf("the previous spec names %q still", reads(*prev)["@pw"])
	}
	if h, err = s.target.Observe(s.ctx(), v1); err != nil || h.Complete || len(h.Objects) > 0 {
		t.Errorf("Observe of what was removed = %+v, %v", h, err)
	}
	orphans, err := s.target.Orphans(s.ctx(), s.credential)
	s.must(err)
	if len(orphans) != 1 || orphans[0].Version.Number != 2 || orphans[0].Rotation != "01JTEST" || orphans[0].Version.Objects["password"] != v2.Objects["password"] {
		t.Errorf("Orphans = %+v, want version 2", orphans)
	}
}

// point makes a spec name a version, as a person would.
func point(spec *engineapi.ServiceSpec, v rotation.Version) {
	ref := spec.TaskTemplate.ContainerSpec.Secrets[0]
	ref.SecretID, ref.SecretName = v.Objects["password"].ID, v.Objects["password"].Name
}

// settleOn waits until the one task that is there runs with a version.
func (s *stage) settleOn(v rotation.Version) {
	s.Helper()
	s.eventually(func() bool {
		ok, left := false, 0
		for _, task := range s.tasks(s.placement.Service) {
			if task.Status.State == engineapi.TaskStateRunning {
				left++
				ok = task.Spec.ContainerSpec.Secrets[0].SecretID == v.Objects["password"].ID
			}
		}
		return ok && left == 1
	})
}

func kindsOf(h rotation.Holding) map[string]int {
	kinds := map[string]int{}
	for _, u := range h.Uses {
		kinds[u.Kind]++
	}
	return kinds
}

// A version of which nothing is on record but its number is found by its names.
func TestObserveAfterCrash(t *testing.T) {
	s := newStage(t)
	made := s.put(7, "seven")
	h, err := s.target.Observe(s.ctx(), rotation.Version{Credential: s.credential, Number: 7})
	s.must(err)
	if !h.Complete || h.Objects["password"] != made.Objects["password"] {
		t.Errorf("Observe = %+v, want %v", h, made.Objects)
	}
	h, err = s.target.Observe(s.ctx(), rotation.Version{Credential: s.credential, Number: 8})
	if err != nil || h.Complete || len(h.Objects) > 0 {
		t.Errorf("Observe of a version that never was = %+v, %v", h, err)
	}
}
