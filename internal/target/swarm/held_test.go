package swarm_test

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	engineapi "github.com/docker/docker/api/types/swarm"

	"github.com/keyturn/keyturn/internal/rotation"
)

// lostOnce is a context whose lease is lost as soon as something is so.
func (s *stage) lostOnce(so func() bool) context.Context {
	return rotation.WithLease(s.ctx(), func(context.Context) error {
		if so() {
			return rotation.Classify(rotation.Refused, "", rotation.ErrLeaseLost)
		}
		return nil
	})
}

// lost is a context without the lease.
func (s *stage) lost() context.Context { return s.lostOnce(func() bool { return true }) }

// The lease is asked before each update of a service, and nothing is done
// without it: not the first one, not one that puts our fields back, not the
// last one.
func TestMoveNeedsItsLease(t *testing.T) {
	s := newStage(t)
	s.placement.Rollout.Monitor = 3 * time.Second
	v1, v2 := s.put(1, "one"), s.put(2, "two")
	s.serve(v1, withImage(imagePlain))
	before, was := s.snapshot(), s.service(s.placement.Service)
	lost := func(what string, err error) {
		t.Helper()
		if !errors.Is(err, rotation.ErrLeaseLost) {
			t.Errorf("%s without the lease = %v, want ErrLeaseLost", what, err)
		}
	}

	lost("the update", errOf(s.target.Move(s.lost(), s.shift(v2, nil, before, v1, v2))))
	if now := s.service(s.placement.Service); now.Version != was.Version {
		t.Error("a service was updated without the lease")
	}

	var deployment sync.WaitGroup
	var deployed atomic.Bool
	deployment.Go(func() {
		time.Sleep(time.Second)
		s.update(s.placement.Service, func(spec *engineapi.ServiceSpec) { *spec = was.Spec })
		deployed.Store(true)
	})
	lost("putting our fields back", errOf(s.target.Move(s.lostOnce(deployed.Load), s.shift(v2, nil, before, v1, v2))))
	deployment.Wait()
	if now := s.service(s.placement.Service); reads(now.Spec)["@pw"] != reads(was.Spec)["@pw"] {
		t.Error("our fields were put back without the lease")
	}

	marked := func() bool { return s.service(s.placement.Service).Spec.Labels["keyturn.update"] != "" }
	lost("setting back", errOf(s.target.Move(s.lostOnce(marked), s.shift(v2, nil, before, v1, v2))))
	if now := s.service(s.placement.Service).Spec; !marked() || now.UpdateConfig.FailureAction != "pause" {
		t.Errorf("settings were set back without the lease: %v %+v", now.Labels, now.UpdateConfig)
	}

	s.must(errOf(s.target.Move(s.ctx(), s.shift(v2, nil, before, v1, v2))))
	s.like(was.Spec, v2)
	lost("removal", s.target.Remove(s.lost(), v1))
	if prev := s.service(s.placement.Service).PreviousSpec; reads(*prev)["@pw"] == "" {
		t.Error("the previous spec was lost")
	}
	if _, _, err := s.client.SecretInspectWithRaw(s.Context(), v1.Objects["password"].ID); err != nil {
		t.Errorf("a secret was removed without the lease: %v", err)
	}
}

// An update that only moves a previous spec on is an effect as well, and so is
// the removal after it.
func TestRemoveNeedsItsLease(t *testing.T) {
	s := newStage(t)
	v1, v2 := s.put(1, "one"), s.put(2, "two")
	s.serve(v1, withImage(imagePlain))
	s.update(s.placement.Service, func(spec *engineapi.ServiceSpec) { point(spec, v2) })
	s.settleOn(v2)
	s.eventually(func() bool {
		state := s.service(s.placement.Service).UpdateStatus
		return state == nil || state.State == engineapi.UpdateStateCompleted
	})
	moved := func() bool {
		return reads(*s.service(s.placement.Service).PreviousSpec)["@pw"] != s.base()+"_v1 0:0 400"
	}
	for _, tt := range []struct {
		when  string
		ctx   context.Context
		moved bool
	}{
		{"at once", s.lost(), false},
		{"after the previous spec was moved on", s.lostOnce(moved), true},
	} {
		if err := s.target.Remove(tt.ctx, v1); !errors.Is(err, rotation.ErrLeaseLost) || moved() != tt.moved {
			t.Errorf("Remove with the lease lost %s = %v, previous spec moved on: %v", tt.when, err, moved())
		}
		if _, _, err := s.client.SecretInspectWithRaw(s.Context(), v1.Objects["password"].ID); err != nil {
			t.Errorf("a secret was removed without the lease: %v", err)
		}
	}
	s.must(s.target.Remove(s.ctx(), v1))
}
