package swarm_test

import (
	"testing"
	"time"

	engineapi "github.com/docker/docker/api/types/swarm"
	"github.com/google/go-cmp/cmp"

	"github.com/keyturn/keyturn/internal/rotation"
)

// like checks that a service is what it was, but for what it reads.
func (s *stage) like(was engineapi.ServiceSpec, reading rotation.Version) {
	s.Helper()
	now := s.service(s.placement.Service).Spec
	if diff := cmp.Diff(was.UpdateConfig, now.UpdateConfig); diff != "" {
		s.Errorf("update settings (-want +got):\n%s", diff)
	}
	if _, ok := now.Labels["keyturn.update"]; ok {
		s.Errorf("the mark of a move is left: %v", now.Labels)
	}
	if id := now.TaskTemplate.ContainerSpec.Secrets[0].SecretID; id != reading.Objects["password"].ID {
		s.Errorf("the service reads %q, want version %d", id, reading.Number)
	}
}

// Update settings that somebody changes after the snapshot are theirs.
func TestMoveKeepsSettingsOfARelease(t *testing.T) {
	s := newStage(t)
	v1, v2 := s.put(1, "one"), s.put(2, "two")
	s.serve(v1)
	before := s.snapshot()
	s.update(s.placement.Service, func(spec *engineapi.ServiceSpec) {
		spec.UpdateConfig.Parallelism, spec.UpdateConfig.Order, spec.UpdateConfig.Monitor = 3, "start-first", 9*time.Second
	})
	was := s.service(s.placement.Service).Spec
	s.must(errOf(s.target.Move(s.ctx(), s.shift(v2, nil, before, v1, v2))))
	s.like(was, v2)
	s.must(errOf(s.target.Move(s.ctx(), s.shift(v1, nil, before, v1, v2))))
	if diff := cmp.Diff(was, s.service(s.placement.Service).Spec); diff != "" {
		t.Errorf("the spec after moving back (-before +after):\n%s", diff)
	}
}

// A service of which there is no snapshot, with settings, without any, and
// without a label.
func TestMoveWithoutSnapshot(t *testing.T) {
	for name, settings := range map[string]*engineapi.UpdateConfig{
		"settings": {Parallelism: 2, Order: "stop-first", FailureAction: "rollback", Monitor: 7 * time.Second},
		"none":     nil,
	} {
		t.Run(name, func(t *testing.T) {
			s := newStage(t)
			v1, v2 := s.put(1, "one"), s.put(2, "two")
			s.serve(v1, func(spec *engineapi.ServiceSpec) { spec.UpdateConfig, spec.Labels = settings, nil })
			was := s.service(s.placement.Service).Spec
			s.must(errOf(s.target.Move(s.ctx(), s.shift(v2, nil, nil, v1, v2))))
			s.like(was, v2)
			s.must(errOf(s.target.Move(s.ctx(), s.shift(v1, nil, nil, v1, v2))))
			if diff := cmp.Diff(was, s.service(s.placement.Service).Spec); diff != "" {
				t.Errorf("the spec after moving back (-before +after):\n%s", diff)
			}
		})
	}
}

// An update that cannot go on gets the settings of a rollout that was put right
// since, and in the end the service has its own again, with what somebody else
// changed in between.
func TestMoveWithAnotherRollout(t *testing.T) {
	s := newStage(t)
	s.placement.Rollout.Timeout = 2 * time.Second
	v1, v2 := s.put(1, "one"), s.put(2, "two")
	s.serve(v1, func(spec *engineapi.ServiceSpec) { spec.TaskTemplate.Placement = &engineapi.Placement{MaxReplicas: 1} })
	was, before := s.service(s.placement.Service).Spec, s.snapshot()
	if _, err := s.target.Move(s.ctx(), s.shift(v2, nil, before, v1, v2)); rotation.ClassOf(err) != rotation.Unknown {
		t.Fatalf("Move where no second task fits = %v, want an error of class Unknown", err)
	}
	s.update(s.placement.Service, func(spec *engineapi.ServiceSpec) { spec.UpdateConfig.MaxFailureRatio = 0.25 })
	s.placement.Rollout.Order, s.placement.Rollout.Timeout = "stop-first", 3*time.Minute
	report, err := s.target.Move(s.ctx(), s.shift(v2, nil, before, v1, v2))
	s.must(err)
	if r := report.Services[0]; !r.Updated {
		t.Errorf("report = %+v, want an update", r)
	}
	was.UpdateConfig.MaxFailureRatio = 0.25
	s.like(was, v2)
}
