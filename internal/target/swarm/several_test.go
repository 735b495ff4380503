package swarm_test

import (
	"strings"
	"testing"

	engineapi "github.com/docker/docker/api/types/swarm"
	"github.com/google/go-cmp/cmp"

	"github.com/keyturn/keyturn/internal/rotation"
)

// beside adds a shift for a second service that is declared as the first is.
func (s *stage) beside(shifts []rotation.Shift, service string) []rotation.Shift {
	other := shifts[0]
	other.Placement.Service, other.Before = service, nil
	return append(shifts, other)
}

// Two services in one move: what is in the way of the second is found before
// the first is touched, and each is updated once. Hard problem 9.
func TestMoveSeveral(t *testing.T) {
	s := newStage(t)
	v1, v2 := s.put(1, "one"), s.put(2, "two")
	theirs := rotation.Version{Objects: map[string]rotation.Object{"password": s.secret("theirs")}}
	s.serve(v1)
	worker := s.credential + "_worker"
	_, err := s.client.ServiceCreate(s.Context(), s.spec(worker, theirs), engineapi.ServiceCreateOptions{})
	s.must(err)
	s.settled(worker)
	shifts := s.beside(s.shift(v2, nil, s.snapshot(), v1, v2), worker)
	was := s.service(s.placement.Service)

	_, err = s.target.Move(s.ctx(), shifts)
	s.refusal("a foreign secret in the second service", err, rotation.Refused, worker, "no service was touched", `at "/run/secrets/pw"`)
	if now := s.service(s.placement.Service); now.Version != was.Version {
		t.Error("the first service was updated, though the second cannot be")
	}
	// The way back is open: there is nothing to take back.
	s.must(errOf(s.target.Move(s.ctx(), s.beside(s.shift(v1, nil, s.snapshot(), v1, v2), worker))))

	s.update(worker, func(spec *engineapi.ServiceSpec) { point(spec, v1) })
	s.eventually(func() bool {
		tasks := s.running(worker)
		for _, task := range s.tasks(worker) {
			if len(tasks) == 1 && task.ID == tasks[0] && task.Spec.ContainerSpec.Secrets[0].SecretID == v1.Objects["password"].ID {
				return true
			}
		}
		return false
	})
	report, err := s.target.Move(s.ctx(), shifts)
	s.must(err)
	var moved []string
	for _, r := range report.Services {
		if r.Updated && r.Tasks == 1 && r.Restarts == 1 {
			moved = append(moved, r.Service)
		}
	}
	if diff := cmp.Diff([]string{s.placement.Service, worker}, moved); diff != "" {
		t.Errorf("moved services (-want +got):\n%s\n%+v", diff, report)
	}
	for _, name := range []string{s.placement.Service, worker} {
		if got := reads(s.service(name).Spec)["@pw"]; !strings.HasPrefix(got, s.base()+"_v2") {
			t.Errorf("service %q reads %q, want version 2", name, got)
		}
	}
}

// secret makes a secret that is nobody's.
func (s *stage) secret(name string) rotation.Object {
	s.Helper()
	made, err := s.client.SecretCreate(s.Context(), engineapi.SecretSpec{Annotations: engineapi.Annotations{Name: s.credential + "_" + name}, Data: []byte(name)})
	s.must(err)
	return rotation.Object{ID: made.ID, Name: s.credential + "_" + name}
}

// A service that was removed and made again under its name is another one: what
// was noted of the first says nothing of it.
func TestMoveOfAServiceMadeAgain(t *testing.T) {
	s := newStage(t)
	v1, v2 := s.put(1, "one"), s.put(2, "two")
	s.serve(v1)
	before := s.snapshot()
	s.must(s.client.ServiceRemove(s.Context(), s.service(s.placement.Service).ID))
	s.serve(v1, func(spec *engineapi.ServiceSpec) {
		c := spec.TaskTemplate.ContainerSpec
		c.Secrets[0].File.Name, c.Env[1] = "elsewhere", "PASSWORD_FILE=/run/secrets/elsewhere"
	})
	was := s.service(s.placement.Service).Spec
	s.must(errOf(s.target.Move(s.ctx(), s.shift(v2, nil, before, v1, v2))))
	s.like(was, v2)
	s.must(errOf(s.target.Move(s.ctx(), s.shift(v1, nil, before, v1, v2))))
	if diff := cmp.Diff(was, s.service(s.placement.Service).Spec); diff != "" {
		t.Errorf("the spec after moving back (-before +after):\n%s", diff)
	}
}
