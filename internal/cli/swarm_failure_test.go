package cli_test

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/docker/docker/api/types/container"
	"github.com/docker/docker/api/types/network"
	"github.com/docker/docker/api/types/swarm"

	"github.com/keyturn/keyturn/internal/testserver"
)

// brokenAs makes the application call itself unhealthy as the stack's login of
// that ending, though its logins work.
func brokenAs(ending string) stackOption {
	return func(s *swarm.ServiceSpec) {
		loadEnv("LOAD_UNHEALTHY_USER=" + strings.TrimSuffix(s.Name, "_app") + ending)(s)
	}
}

// release is what somebody else ships: another image, a label and a variable.
func release(s *swarm.ServiceSpec) {
	s.TaskTemplate.ContainerSpec.Image = otherImage
	s.Labels["release"] = "42"
	loadEnv("FEATURE=on")(s)
}

// released checks that the release is still there.
func (k *stack) released() {
	k.t.Helper()
	s := k.inspect().Spec
	if c := s.TaskTemplate.ContainerSpec; c.Image != otherImage || s.Labels["release"] != "42" || !slices.Contains(c.Env, "FEATURE=on") || s.Labels["team"] != "orders" {
		k.t.Errorf("the release was reverted: image %q, labels %v, variables %q", c.Image, s.Labels, c.Env)
	}
}

// records returns what the journal says.
func (k *stack) records() []journalLine {
	k.t.Helper()
	b, err := os.ReadFile(k.journal)
	k.must(err)
	var lines []journalLine
	for text := range strings.Lines(string(b)) {
		var l journalLine
		k.must(json.Unmarshal([]byte(text), &l))
		lines = append(lines, l)
	}
	return lines
}

type journalLine struct {
	Time                time.Time
	Phase, Step, Status string
}

// back returns how long a failed move took to be undone, to the last record.
func (k *stack) back() time.Duration {
	k.t.Helper()
	lines := k.records()
	for i, l := range lines {
		if l.Phase == "cutover" && l.Step == "move" && l.Status == "failed" {
			return lines[len(lines)-1].Time.Sub(lines[i].Time)
		}
	}
	k.t.Fatalf("the journal has no failed move: %+v", lines)
	return 0
}

// canLogIn returns the logins of the credential that the server would take.
func (k *stack) canLogIn() []string {
	k.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	conn, err := k.pg.Connect(ctx, testserver.AdminUser, k.pg.AdminPassword(), "postgres")
	k.must(err)
	defer conn.Close(ctx)
	var names []string
	k.must(conn.QueryRow(ctx, `select array_agg(rolname::text order by rolname) from pg_authid
		where (rolname = $1 or rolname like $1 || '\_%') and rolcanlogin and rolpassword is not null
		and (rolvaliduntil is null or rolvaliduntil > now())`, k.name).Scan(&names))
	return names
}

// undone checks that only the adopted version is left, at work and on the Swarm.
func (k *stack) undone() {
	k.t.Helper()
	k.done(1)
	if got := k.canLogIn(); !slices.Equal(got, []string{k.name}) {
		k.t.Errorf("these can log in: %q, want only %q", got, k.name)
	}
	if user, _ := k.reads(); user != k.name {
		k.t.Errorf("the service logs in as %q, want %q", user, k.name)
	}
}

// TestSwarmUnhealthy cuts over to a version with which the application does not
// get well: the services are back within 30 s of the failed check, and a
// release that was shipped in between stays.
func TestSwarmUnhealthy(t *testing.T) {
	t.Parallel()
	for _, mounts := range []string{"switch", "dual"} {
		t.Run(mounts, func(t *testing.T) {
			sampled(t, mounts, "switch")
			t.Parallel()
			k := newStack(t, servers.postgres.Get(t), []string{"mounts: " + mounts}, brokenAs("_a"))
			k.ok("adopt", k.name)
			k.ok("prepare", k.name)
			k.change(release)
			k.ok("validate", k.name) // it waits until the release is out
			k.steady()
			before := k.tasks()
			k.fails(1, []string{"rolled back", "unhealthy", "docker service logs"}, "cutover", k.name)
			if took := k.back(); took > 30*time.Second {
				t.Errorf("the way back took %s, want 30s at most", took)
			}
			k.undone()
			k.released()
			k.noneFailed()
			kept := slices.DeleteFunc(k.tasks(), func(id string) bool { return !slices.Contains(before, id) })
			if mounts == "switch" && len(kept) == 0 {
				// The first new task failed before an old one was stopped; in its
				// place alone Swarm may have started another.
				t.Errorf("tasks were restarted: %q became %q", before, k.tasks())
			}
		})
	}
}

// steady waits until the service is up and its update over.
func (k *stack) steady() {
	k.t.Helper()
	for end := time.Now().Add(4 * time.Minute); ; time.Sleep(50 * time.Millisecond) {
		s, u := k.inspect(), swarm.UpdateState("none")
		if s.UpdateStatus != nil {
			u = s.UpdateStatus.State
		}
		if k.runsAll(s.Spec) && u != swarm.UpdateStateUpdating && u != swarm.UpdateStateRollbackStarted {
			return
		}
		if time.Now().After(end) {
			k.t.Fatalf("the update is %q for minutes", u)
		}
	}
}

// settle changes the service as change does and waits until the change is in: a busy
// machine may fail to start a task of it, and Swarm then takes it back.
func (k *stack) settle(option stackOption) {
	k.t.Helper()
	for range 3 {
		k.change(option)
		k.steady()
		u := k.inspect().UpdateStatus
		if u == nil || u.State == swarm.UpdateStateCompleted {
			return
		}
		k.t.Logf("the test's own update of %s is %s: %s", k.service, u.State, u.Message)
	}
	k.t.Fatalf("three updates of %s were not taken", k.service)
}

// runsAll reports whether all tasks run, and with the spec as it is.
func (k *stack) runsAll(spec swarm.ServiceSpec) bool {
	k.t.Helper()
	tasks, err := k.engine.Tasks(context.Background(), k.service)
	k.must(err)
	want := *spec.Mode.Replicated.Replicas
	for _, task := range tasks {
		if task.Status.State != swarm.TaskStateRunning {
			continue
		}
		if task.DesiredState != swarm.TaskStateRunning || !reflect.DeepEqual(task.Spec.ContainerSpec, spec.TaskTemplate.ContainerSpec) {
			return false
		}
		want--
	}
	return want == 0
}

// TestSwarmValidationFails takes the new login its way in, before validate:
// switch takes nothing back that would restart a task, dual does so with one
// rolling update, and a release that was shipped in between stays.
func TestSwarmValidationFails(t *testing.T) {
	t.Parallel()
	for _, mounts := range []string{"switch", "dual"} {
		t.Run(mounts, func(t *testing.T) {
			sampled(t, mounts, "dual")
			t.Parallel()
			pg := testserver.NewPostgres(t, testserver.PostgresOptions{})
			k := newStack(t, pg, []string{"mounts: " + mounts})
			k.ok("adopt", k.name)
			k.ok("prepare", k.name)
			k.settle(release)
			before, tasks := k.tasks(), k.totals().Tasks
			k.must(pg.SetHBA("local all all scram-sha-256\nhostssl all " + k.name + "_a 0.0.0.0/0 reject\n" + testserver.DefaultHBA))
			k.fails(1, []string{"rolled back", "version 2 is", "pg_hba"}, "validate", k.name)
			k.undone()
			k.released()
			if mounts == "switch" {
				k.same("a failed validation", before)
			} else if now := k.totals().Tasks; now != tasks+2 {
				t.Errorf("a failed validation started %d tasks, want one rolling update of 2", now-tasks)
			}
			k.noneFailed()
			k.must(pg.ResetHBA())
			k.ok("rotate", "--wait", k.name)
			k.done(3) // the number 2 is burnt
			k.released()
		})
	}
}

// TestSwarmWrongNetwork validates where the services cannot reach the database,
// though the administrator can: that is rolled back, and no task is restarted.
func TestSwarmWrongNetwork(t *testing.T) {
	journey(t)
	t.Parallel()
	k := newStack(t, servers.postgres.Get(t), []string{"rollout: {monitor: 1s, health-timeout: 40s, timeout: 90s}"})
	k.ok("adopt", k.name)
	k.ok("prepare", k.name)
	right := k.inspect().Spec
	k.settle(k.onNetworkOfItsOwn())
	before := k.tasks()
	k.fails(1, []string{"rolled back", "neither version can be tried from where the services are", "networks of the services"}, "validate", k.name)
	k.same("a validation from the wrong network", before)
	k.undone()

	k.settle(k.oldStackFile(right))
	k.configure() // a busy machine needs more than five seconds
	k.ok("rotate", "--wait", k.name)
	k.done(3) // the number 2 is burnt
}

// onNetworkOfItsOwn makes a network that reaches nothing of the machine, and
// the change that puts the service there and nowhere else.
func (k *stack) onNetworkOfItsOwn() stackOption {
	k.t.Helper()
	ctx := context.Background()
	made, err := k.client.NetworkCreate(ctx, k.name+"_lonely", network.CreateOptions{Driver: "overlay", Attachable: true, Internal: true})
	k.must(err)
	k.t.Cleanup(func() {
		k.remove()
		for end := time.Now().Add(time.Minute); k.client.NetworkRemove(ctx, made.ID) != nil; time.Sleep(100 * time.Millisecond) {
			if time.Now().After(end) {
				k.t.Errorf("the network of %s is left", k.name)
				return
			}
		}
	})
	return func(s *swarm.ServiceSpec) {
		s.TaskTemplate.Networks = []swarm.NetworkAttachmentConfig{{Target: made.ID}}
		s.TaskTemplate.ContainerSpec.Healthcheck = &container.HealthConfig{Test: []string{"NONE"}}
	}
}

// TestSwarmUnanswered lets PostgreSQL fall silent and go away in the middle:
// that says nothing about a credential, nothing is touched, and the next run
// goes on.
func TestSwarmUnanswered(t *testing.T) {
	journey(t)
	t.Parallel()
	pg := testserver.NewPostgres(t, testserver.PostgresOptions{})
	// The application's own check would have Swarm restart it.
	unchecked := func(s *swarm.ServiceSpec) {
		s.TaskTemplate.ContainerSpec.Healthcheck = &container.HealthConfig{Test: []string{"NONE"}}
	}
	k := newStack(t, pg, nil, unchecked)
	k.ok("adopt", k.name)
	k.ok("prepare", k.name)
	before, held := k.tasks(), k.objects()
	nothing := func(when string) {
		t.Helper()
		k.same(when, before)
		if got := k.objects(); !slices.Equal(got, held) {
			t.Errorf("%s: on the Swarm there are %q, want %q", when, got, held)
		}
	}

	const hasty = "rollout: {monitor: 1s, health-timeout: 5s, timeout: 90s}"
	k.configure(hasty)
	k.must(pg.Pause())
	k.fails(4, []string{"connecting as administrator"}, "validate", k.name)
	nothing("validate against a silent server")
	k.must(pg.Resume())
	k.configure()
	k.ok("validate", k.name)
	k.configure(hasty)

	k.must(pg.Stop(context.Background()))
	k.fails(4, []string{"connecting as administrator"}, "cutover", k.name)
	nothing("cutover against a server that is gone")
	k.must(pg.Start(context.Background()))
	k.configure()
	k.goOn()
	k.done(2)
	for code := range k.totals().ByCode {
		if !slices.Contains([]string{"timeout", "connect", "57P01", "57P03"}, code) {
			t.Errorf("a login failed with %q, want only those that met no server: %v", code, fmt.Sprint(k.totals().ByCode))
		}
	}
}
