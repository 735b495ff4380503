package swarm_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	engineapi "github.com/docker/docker/api/types/swarm"
	"github.com/google/go-cmp/cmp"

	"github.com/keyturn/keyturn/internal/rotation"
	"github.com/keyturn/keyturn/internal/target/swarm"
)

// A move and the way back in switch: three tasks, each replaced once, foreign
// fields and the update settings as they were.
func TestMoveSwitch(t *testing.T) {
	s := newStage(t)
	v1, v2 := s.put(1, "one"), s.put(2, "two")
	s.serve(v1, withReplicas(3))
	was := s.service(s.placement.Service).Spec
	before := s.snapshot()

	report, err := s.target.Move(s.ctx(), s.shift(v2, nil, before, v1, v2))
	s.must(err)
	r := report.Services[0]
	if !r.Updated || r.Tasks != 3 || r.Restarts != 3 || r.Millis == 0 || r.SlowestHealth == 0 || r.Unhealthy != "" {
		t.Errorf("report = %+v, want an update of 3 tasks", r)
	}
	now := s.service(s.placement.Service)
	if diff := cmp.Diff(map[string]string{"A": "1", "Z": "1", "APP_USER": "user_2", "PASSWORD_FILE": "/run/secrets/pw",
		"@pw": s.base() + "_v2 0:0 400"}, reads(now.Spec)); diff != "" {
		t.Errorf("spec (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff(was.UpdateConfig, now.Spec.UpdateConfig); diff != "" {
		t.Errorf("update settings (-before +after):\n%s", diff)
	}
	if now.Spec.Labels["team"] != "orders" || now.Spec.TaskTemplate.ForceUpdate != 0 {
		t.Errorf("labels %v, ForceUpdate %d: want what was there", now.Spec.Labels, now.Spec.TaskTemplate.ForceUpdate)
	}

	// Again: nothing is touched, not a task, not the version index.
	tasks := s.running(s.placement.Service)
	report, err = s.target.Move(s.ctx(), s.shift(v2, nil, before, v1, v2))
	s.must(err)
	if again := s.service(s.placement.Service); report.Services[0].Updated || again.Version != now.Version {
		t.Errorf("a second move updated the service: %+v", report.Services[0])
	}

	s.must(errOf(s.target.Move(s.ctx(), s.shift(v1, nil, before, v1, v2))))
	back := s.service(s.placement.Service).Spec
	if diff := cmp.Diff(was, back); diff != "" {
		t.Errorf("the spec after moving back (-before +after):\n%s", diff)
	}
	for _, id := range s.running(s.placement.Service) {
		if slices.Contains(tasks, id) {
			t.Errorf("task %s still runs after moving back", id)
		}
	}
}

func errOf[T any](_ T, err error) error { return err }

func TestMoveDual(t *testing.T) {
	s := newStage(t)
	s.placement.Mounts = rotation.Dual
	s.retarget()
	v1, v2 := s.put(1, "one"), s.put(2, "two")
	s.serve(v1)
	was := s.service(s.placement.Service).Spec
	before := s.snapshot()
	s.must(errOf(s.target.Move(s.ctx(), s.shift(v1, &v2, before, v1, v2))))
	if diff := cmp.Diff(map[string]string{"A": "1", "Z": "1",
		"APP_USER": "user_1", "APP_USER_NEW": "user_2",
		"PASSWORD_FILE": "/run/secrets/pw", "PASSWORD_FILE_NEW": "/run/secrets/pw_new",
		"@pw": s.base() + "_v1 0:0 400", "@pw_new": s.base() + "_v2 0:0 400"},
		reads(s.service(s.placement.Service).Spec)); diff != "" {
		t.Errorf("after prepare (-want +got):\n%s", diff)
	}
	s.must(errOf(s.target.Move(s.ctx(), s.shift(v2, nil, before, v1, v2))))
	if diff := cmp.Diff(map[string]string{"A": "1", "Z": "1", "APP_USER": "user_2", "PASSWORD_FILE": "/run/secrets/pw",
		"@pw": s.base() + "_v2 0:0 400"}, reads(s.service(s.placement.Service).Spec)); diff != "" {
		t.Errorf("after cutover (-want +got):\n%s", diff)
	}
	s.must(errOf(s.target.Move(s.ctx(), s.shift(v1, nil, before, v1, v2))))
	back := s.service(s.placement.Service).Spec
	if diff := cmp.Diff(was, back); diff != "" {
		t.Errorf("the spec after moving back (-before +after):\n%s", diff)
	}
}

// New tasks that are unhealthy stop the move; moving back keeps the tasks that
// still ran with the old version. Hard problem 8.
func TestMoveUnhealthy(t *testing.T) {
	for _, value := range []string{"sick", "crash"} {
		t.Run(value, func(t *testing.T) {
			s := newStage(t)
			v1, v2 := s.put(1, "one"), s.put(2, value)
			s.serve(v1, withReplicas(2))
			was, before := s.service(s.placement.Service).Spec, s.snapshot()
			old := s.running(s.placement.Service)

			report, err := s.target.Move(s.ctx(), s.shift(v2, nil, before, v1, v2))
			if !errors.Is(err, rotation.ErrUnhealthy) || rotation.ClassOf(err) != rotation.Failed {
				t.Fatalf("Move to a version that makes tasks fail: %v, want one that wraps ErrUnhealthy", err)
			}
			if report.Services[0].Unhealthy == "" {
				t.Errorf("report = %+v, want the reason in it", report.Services[0])
			}
			begun := time.Now()
			s.must(errOf(s.target.Move(s.ctx(), s.shift(v1, nil, before, v1, v2))))
			if took := time.Since(begun); took > 45*time.Second {
				t.Errorf("moving back took %s", took)
			}
			now := s.service(s.placement.Service).Spec
			if diff := cmp.Diff(was, now); diff != "" {
				t.Errorf("the spec after moving back (-before +after):\n%s", diff)
			}
			// In the place of the one that failed, Swarm may have started another.
			left := s.running(s.placement.Service)
			kept := slices.DeleteFunc(slices.Clone(left), func(id string) bool { return !slices.Contains(old, id) })
			if len(left) != 2 || len(kept) == 0 {
				t.Errorf("of the tasks %q that ran all the time %q are left", old, left)
			}
		})
	}
}

// A task that never gets healthy is given up at its health timeout.
func TestMoveHealthTimeout(t *testing.T) {
	s := newStage(t)
	s.placement.Rollout.HealthTimeout = time.Second
	s.retarget()
	v1, v2 := s.put(1, "one"), s.put(2, "late")
	s.serve(v1)
	before := s.snapshot()
	_, err := s.target.Move(s.ctx(), s.shift(v2, nil, before, v1, v2))
	if !errors.Is(err, rotation.ErrUnhealthy) {
		t.Fatalf("Move = %v, want unhealthy after 1 s", err)
	}
}

// Releases that somebody ships between our reading and our writing, three times
// in a row, are all kept. Hard problems 16, 49.
func TestMoveBesideRelease(t *testing.T) {
	s := newStage(t)
	v1, v2 := s.put(1, "one"), s.put(2, "two")
	s.serve(v1)
	before := s.snapshot()
	releases := 0
	s.target = swarm.New(s.through(func(r *http.Request, next http.RoundTripper) (*http.Response, error) {
		if strings.HasSuffix(r.URL.Path, "/update") && releases < 3 {
			releases++
			s.update(s.placement.Service, func(spec *engineapi.ServiceSpec) {
				spec.Labels["release"] = strconv.Itoa(releases)
				spec.TaskTemplate.ContainerSpec.Image = imageOther
			})
		}
		return next.RoundTrip(r)
	}), swarm.Options{Layouts: map[string]swarm.Layout{s.credential: s.layout}})
	s.must(errOf(s.target.Move(s.ctx(), s.shift(v2, nil, before, v1, v2))))
	if releases != 3 {
		t.Fatalf("%d releases were shipped, want 3", releases)
	}
	check := func(number int) {
		t.Helper()
		now := s.service(s.placement.Service).Spec
		if now.Labels["release"] != "3" || now.TaskTemplate.ContainerSpec.Image != imageOther {
			t.Errorf("release %q with image %q, want 3 with %q", now.Labels["release"], now.TaskTemplate.ContainerSpec.Image, imageOther)
		}
		if got, want := reads(now)["@pw"], fmt.Sprintf("%s_v%d 0:0 400", s.base(), number); got != want {
			t.Errorf("mounted is %q, want %q", got, want)
		}
	}
	check(2)
	s.must(errOf(s.target.Move(s.ctx(), s.shift(v1, nil, before, v1, v2))))
	check(1)
}

// A deployment that strips our fields in the middle is noticed. Hard problem 48.
func TestMoveStripped(t *testing.T) {
	s := newStage(t)
	s.placement.Rollout.Monitor = 4 * time.Second
	s.retarget()
	v1, v2 := s.put(1, "one"), s.put(2, "two")
	s.serve(v1, withImage(imagePlain)) // no health check: the move takes 4 s
	before, stack := s.snapshot(), s.service(s.placement.Service).Spec
	var wg sync.WaitGroup
	wg.Go(func() {
		time.Sleep(2 * time.Second)
		s.update(s.placement.Service, func(spec *engineapi.ServiceSpec) {
			*spec = stack
			spec.Labels = map[string]string{"release": "2"}
		})
	})
	s.must(errOf(s.target.Move(s.ctx(), s.shift(v2, nil, before, v1, v2))))
	wg.Wait()
	now := s.service(s.placement.Service).Spec
	if got := reads(now)["@pw"]; got != s.base()+"_v2 0:0 400" || now.Labels["release"] != "2" {
		t.Errorf("mounted is %q in release %q, want version 2 in release 2", got, now.Labels["release"])
	}
}

// A move that was cut off is gone on with, by whoever calls it again.
func TestMoveResumed(t *testing.T) {
	s := newStage(t)
	v1, v2 := s.put(1, "one"), s.put(2, "two")
	s.serve(v1, withReplicas(2))
	was, before := s.service(s.placement.Service).Spec, s.snapshot()
	ctx, cancel := context.WithTimeout(s.ctx(), 700*time.Millisecond)
	defer cancel()
	if _, err := s.target.Move(ctx, s.shift(v2, nil, before, v1, v2)); rotation.ClassOf(err) != rotation.Unknown {
		t.Fatalf("Move that was cut off = %v, want an error of class Unknown", err)
	}
	s.must(errOf(s.target.Move(s.ctx(), s.shift(v2, nil, before, v1, v2))))
	now := s.service(s.placement.Service).Spec
	if diff := cmp.Diff(was.UpdateConfig, now.UpdateConfig); diff != "" {
		t.Errorf("update settings (-before +after):\n%s", diff)
	}
	if len(s.running(s.placement.Service)) != 2 || reads(now)["@pw"] != s.base()+"_v2 0:0 400" {
		t.Errorf("%d tasks, spec %v: want 2 of version 2", len(s.running(s.placement.Service)), reads(now))
	}
}

// No task, no node that fits: what a move says of each.
func TestMoveWithoutTasks(t *testing.T) {
	s := newStage(t)
	v1, v2 := s.put(1, "one"), s.put(2, "two")
	s.serve(v1, withReplicas(0))
	before := s.snapshot()
	report, err := s.target.Move(s.ctx(), s.shift(v2, nil, before, v1, v2))
	s.must(err)
	if r := report.Services[0]; !r.Updated || r.Tasks != 0 || r.Restarts != 0 {
		t.Errorf("report = %+v, want an update without tasks", r)
	}
	s.update(s.placement.Service, func(spec *engineapi.ServiceSpec) {
		*spec.Mode.Replicated.Replicas = 1
		spec.TaskTemplate.Placement = &engineapi.Placement{Constraints: []string{"node.labels.disk==ssd"}}
	})
	s.placement.Rollout.Timeout = 2 * time.Second
	_, err = s.target.Move(s.ctx(), s.shift(v1, nil, before, v1, v2))
	if rotation.ClassOf(err) != rotation.Unknown || errors.Is(err, rotation.ErrUnhealthy) {
		t.Errorf("Move with no node that fits = %v, want class Unknown", err)
	}
	s.placement.Rollout.Timeout = 0
	ctx, cancel := context.WithTimeout(s.ctx(), 2*time.Second)
	defer cancel()
	_, err = s.target.Move(ctx, s.shift(v1, nil, before, v1, v2))
	if err == nil || !strings.Contains(err.Error(), "not converged after 2s") {
		t.Errorf("Move without a timeout of its own = %v, want how long it was tried", err)
	}
}
