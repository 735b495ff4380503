package swarm_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/docker/docker/api/types/container"
	engineapi "github.com/docker/docker/api/types/swarm"

	"github.com/keyturn/keyturn/internal/rotation"
)

// patient is a health check that goes on for long before it gives a task up.
func patient(spec *engineapi.ServiceSpec) {
	spec.TaskTemplate.ContainerSpec.Healthcheck = &container.HealthConfig{
		Test: []string{"CMD", "/task", "check"}, Interval: 300 * time.Millisecond, Timeout: 3 * time.Second, Retries: 200}
}

// starts waits until a task of the service is starting.
func (s *stage) starts() { s.Helper(); s.someTaskIs(engineapi.TaskStateStarting) }

func (s *stage) someTaskIs(state engineapi.TaskState) {
	s.Helper()
	s.eventually(func() bool {
		for _, task := range s.tasks(s.placement.Service) {
			if task.Status.State == state {
				return true
			}
		}
		return false
	})
}

// cutOff begins a move and ends it as soon as a task of the new version starts.
func (s *stage) cutOff(shifts []rotation.Shift) {
	s.Helper()
	s.cutOffWhen(engineapi.TaskStateStarting, shifts)
}

// cutOffWhen begins a move and ends it as soon as a task is in a state.
func (s *stage) cutOffWhen(state engineapi.TaskState, shifts []rotation.Shift) {
	s.Helper()
	ctx, cancel := context.WithCancel(s.ctx())
	defer cancel()
	ended := make(chan error, 1)
	go func() { ended <- errOf(s.target.Move(ctx, shifts)) }()
	s.someTaskIs(state)
	cancel()
	if err := <-ended; rotation.ClassOf(err) != rotation.Unknown {
		s.Fatalf("Move that was cut off = %v, want an error of class Unknown", err)
	}
}

// The health timeout holds for a task that a killed run started, too.
func TestMoveHealthTimeoutResumed(t *testing.T) {
	s := newStage(t)
	s.placement.Rollout.HealthTimeout = time.Second
	v1, v2 := s.put(1, "one"), s.put(2, "sick")
	s.serve(v1, patient)
	shifts := s.shift(v2, nil, s.snapshot(), v1, v2)
	s.cutOff(shifts)
	begun := time.Now()
	_, err := s.target.Move(s.ctx(), shifts)
	if took := time.Since(begun); !errors.Is(err, rotation.ErrUnhealthy) || took > 40*time.Second {
		t.Errorf("Move gone on with = %v after %s, want unhealthy within seconds", err, took)
	}
}

// A service that is ill where it is to stay says nothing against anything: it
// was not moved.
func TestMoveOfWhatWasIllBefore(t *testing.T) {
	s := newStage(t)
	s.placement.Rollout.HealthTimeout = time.Second
	v1, v2 := s.put(1, "sick"), s.put(2, "two")
	_, err := s.client.ServiceCreate(s.Context(), s.spec(s.placement.Service, v1, patient), engineapi.ServiceCreateOptions{})
	s.must(err)
	s.starts()
	_, err = s.target.Move(s.ctx(), s.shift(v1, nil, s.snapshot(), v1, v2))
	if rotation.ClassOf(err) != rotation.Unknown || errors.Is(err, rotation.ErrUnhealthy) || !strings.Contains(fmt.Sprint(err), "not healthy") {
		t.Errorf("Move of an ill service to what it reads = %v, want class Unknown and why", err)
	}
}

// A release that somebody ships in the middle and that breaks, with the same
// image, says nothing against the version: amid the move, with our fields or
// without them, and between a run that was cut off and the next.
func TestMoveMeetsABrokenRelease(t *testing.T) {
	breaks := func(spec *engineapi.ServiceSpec) { spec.TaskTemplate.ContainerSpec.Args = []string{"once"} }
	for _, when := range []string{"amid", "amid, stripped", "between"} {
		t.Run(strings.ReplaceAll(when, ", ", "-"), func(t *testing.T) {
			s := newStage(t)
			v1, v2 := s.put(1, "one"), s.put(2, "late")
			s.serve(v1, patient)
			stack := s.service(s.placement.Service).Spec
			shifts := s.shift(v2, nil, s.snapshot(), v1, v2)
			ended := make(chan error, 1)
			if when == "between" {
				s.cutOff(shifts)
				s.update(s.placement.Service, breaks)
				ended <- errOf(s.target.Move(s.ctx(), shifts))
			} else {
				go func() { ended <- errOf(s.target.Move(s.ctx(), shifts)) }()
				s.starts()
				s.update(s.placement.Service, func(spec *engineapi.ServiceSpec) {
					if when != "amid" {
						*spec = stack
					}
					breaks(spec)
				})
			}
			if err := <-ended; rotation.ClassOf(err) != rotation.Unknown || errors.Is(err, rotation.ErrUnhealthy) {
				t.Errorf("Move = %v, want an error of class Unknown", err)
			}
		})
	}
}
