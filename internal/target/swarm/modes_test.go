package swarm_test

import (
	"errors"
	"testing"

	engineapi "github.com/docker/docker/api/types/swarm"

	"github.com/keyturn/keyturn/internal/rotation"
)

// asJob makes a service one that runs to its end, once.
func asJob(s *engineapi.ServiceSpec) {
	one := uint64(1)
	s.Mode = engineapi.ServiceMode{ReplicatedJob: &engineapi.ReplicatedJob{MaxConcurrent: &one, TotalCompletions: &one}}
	s.TaskTemplate.RestartPolicy = &engineapi.RestartPolicy{Condition: engineapi.RestartPolicyConditionNone}
	s.TaskTemplate.ContainerSpec.Image = imagePlain
	s.TaskTemplate.ContainerSpec.Args = []string{"once"}
	s.UpdateConfig = nil
}

func asGlobal(s *engineapi.ServiceSpec) {
	s.Mode = engineapi.ServiceMode{Global: &engineapi.GlobalService{}}
}

// start makes the service and waits until its one task is in one of the states.
func (s *stage) start(v rotation.Version, mode option, states ...engineapi.TaskState) {
	s.Helper()
	_, err := s.client.ServiceCreate(s.Context(), s.spec(s.placement.Service, v, mode), engineapi.ServiceCreateOptions{})
	s.must(err)
	s.eventually(func() bool {
		tasks := s.tasks(s.placement.Service)
		for _, state := range states {
			if len(tasks) == 1 && tasks[0].Status.State == state {
				return true
			}
		}
		return false
	})
}

func TestMoveModes(t *testing.T) {
	for name, mode := range map[string]option{"job": asJob, "global": asGlobal} {
		t.Run(name, func(t *testing.T) {
			s := newStage(t)
			v1, v2 := s.put(1, "one"), s.put(2, "two")
			s.start(v1, mode, engineapi.TaskStateRunning, engineapi.TaskStateComplete)
			report, err := s.target.Move(s.ctx(), s.shift(v2, nil, s.snapshot(), v1, v2))
			s.must(err)
			if r := report.Services[0]; !r.Updated || r.Tasks != 1 || r.Restarts != 1 {
				t.Errorf("report = %+v, want one task replaced", r)
			}
		})
	}
}

// The run that a job had before says nothing of what it is moved to: one that
// failed with the version that it is to read leaves nothing to do.
func TestMoveJobThatFailedBefore(t *testing.T) {
	s := newStage(t)
	v1, v2 := s.put(1, "crash"), s.put(2, "two")
	s.start(v1, asJob, engineapi.TaskStateFailed)
	version := s.service(s.placement.Service).Version
	report, err := s.target.Move(s.ctx(), s.shift(v1, nil, s.snapshot(), v1, v2))
	s.must(err)
	if now := s.service(s.placement.Service).Version; now != version || report.Services[0].Updated {
		t.Errorf("moving a job to what it reads updated it: %+v", report.Services[0])
	}
	s.must(errOf(s.target.Move(s.ctx(), s.shift(v2, nil, s.snapshot(), v1, v2))))
}

// A job that a killed run moved is waited for by the next one, which also sees
// how it ended.
func TestMoveJobResumed(t *testing.T) {
	for value, fails := range map[string]bool{"late": false, "late crash": true} {
		name := "well"
		if fails {
			name = "badly"
		}
		t.Run(name, func(t *testing.T) {
			s := newStage(t)
			v1, v2 := s.put(1, "one"), s.put(2, value)
			s.start(v1, asJob, engineapi.TaskStateComplete)
			before := s.snapshot()
			s.cutOffWhen(engineapi.TaskStateRunning, s.shift(v2, nil, before, v1, v2))
			_, err := s.target.Move(s.ctx(), s.shift(v2, nil, before, v1, v2))
			if errors.Is(err, rotation.ErrUnhealthy) != fails || !fails && err != nil {
				t.Fatalf("Move gone on with = %v, want unhealthy = %v", err, fails)
			}
			for _, task := range s.tasks(s.placement.Service) {
				if task.Status.State == engineapi.TaskStateRunning || task.Status.State == engineapi.TaskStateStarting {
					t.Errorf("task %s is %s still", task.ID, task.Status.State)
				}
			}
		})
	}
}
