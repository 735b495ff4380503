package testserver_test

import (
	"context"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/docker/docker/api/types/mount"
	"github.com/docker/docker/api/types/network"
	"github.com/docker/docker/api/types/swarm"

	"github.com/keyturn/keyturn/internal/testserver"
)

// loadDir makes a folder that tasks of the engine mount.
func loadDir(t *testing.T, e *testserver.Engine, name string) string {
	t.Helper()
	dir := filepath.Join(e.Dir(), name)
	if err := os.Mkdir(dir, 0o777); err != nil {
		t.Fatal(err)
	}
	return dir
}

// loadSpec is a service of two tasks that log in to pg.
func loadSpec(image, name, dir string, pg *testserver.Postgres, host, networkName string, secret *swarm.SecretReference) swarm.ServiceSpec {
	replicas := uint64(2)
	grace := 5 * time.Second
	spec := swarm.ServiceSpec{
		Annotations: swarm.Annotations{Name: name},
		Mode:        swarm.ServiceMode{Replicated: &swarm.ReplicatedService{Replicas: &replicas}},
		TaskTemplate: swarm.TaskSpec{
			ContainerSpec: &swarm.ContainerSpec{
				Image: image,
				Env: []string{
					"POSTGRES_USER=orders", "POSTGRES_PASSWORD_FILE=/run/secrets/" + secret.SecretName,
					"POSTGRES_HOST=" + host, "POSTGRES_PORT=" + strconv.Itoa(pg.Port()), "POSTGRES_DB=postgres",
					"POSTGRES_CA_FILE=/ca.pem", "LOAD_DIR=/load", "LOAD_TASK={{.Task.Name}}",
				},
				StopGracePeriod: &grace,
				Secrets:         []*swarm.SecretReference{secret},
				Mounts: []mount.Mount{
					{Type: mount.TypeBind, Source: dir, Target: "/load"},
					{Type: mount.TypeBind, Source: pg.CAFile(), Target: "/ca.pem", ReadOnly: true},
				},
			},
			Networks: []swarm.NetworkAttachmentConfig{{Target: networkName}},
		},
		EndpointSpec: &swarm.EndpointSpec{Mode: swarm.ResolutionModeDNSRR},
	}
	return spec
}

func TestEngineRunsServices(t *testing.T) {
	e := testserver.NewEngine(t, testserver.EngineOptions{})
	pg := testserver.NewPostgres(t, testserver.PostgresOptions{ListenAddresses: []string{e.GatewayIP()}})
	ctx := limited(t, 3*time.Minute)
	if err := pg.Exec(ctx, "postgres", "CREATE ROLE orders LOGIN PASSWORD 'right-password'"); err != nil {
		t.Fatal(err)
	}
	image, err := e.LoginLoadImage(ctx)
	if err != nil {
		t.Fatal(err)
	}
	secret, err := e.CreateSecret(ctx, "orders_db_password", []byte("right-password\n"))
	if err != nil {
		t.Fatal(err)
	}
	overlay, err := e.Client().NetworkCreate(ctx, "backend", network.CreateOptions{Driver: "overlay"})
	if err != nil {
		t.Fatal(err)
	}

	t.Run("host network", func(t *testing.T) {
		t.Parallel()
		runLoad(ctx, t, e, loadSpec(image, "hosted", loadDir(t, e, "hosted"), pg, "127.0.0.1", testserver.HostNetwork, secret))
	})
	t.Run("overlay network", func(t *testing.T) {
		t.Parallel()
		runLoad(ctx, t, e, loadSpec(image, "overlaid", loadDir(t, e, "overlaid"), pg, e.GatewayIP(), overlay.ID, secret))
	})
	t.Run("unhealthy", func(t *testing.T) {
		t.Parallel()
		spec := loadSpec(image, "sick", loadDir(t, e, "sick"), pg, "127.0.0.1", testserver.HostNetwork, secret)
		spec.TaskTemplate.ContainerSpec.Env = append(spec.TaskTemplate.ContainerSpec.Env, "LOAD_UNHEALTHY_USER=orders")
		spec.TaskTemplate.RestartPolicy = &swarm.RestartPolicy{Condition: swarm.RestartPolicyConditionNone}
		id, err := e.CreateService(ctx, spec)
		if err != nil {
			t.Fatal(err)
		}
		// Swarm ends an unhealthy task with SIGTERM, and this application ends with status 0.
		if _, err := e.WaitTasks(ctx, id, swarm.TaskStateComplete, 2); err != nil {
			t.Errorf("an application that calls itself unhealthy: %v", err)
		}
	})
	t.Run("job", func(t *testing.T) {
		for want, state := range map[string]swarm.TaskState{"orders": swarm.TaskStateComplete, "nobody": swarm.TaskStateFailed} {
			task := runJob(ctx, t, e, loadSpec(image, "job-"+want, loadDir(t, e, "job-"+want), pg, "127.0.0.1", testserver.HostNetwork, secret), want, state)
			stdout, stderr, err := e.TaskOutput(ctx, task)
			if err != nil || strings.Contains(stdout+stderr, "right-password") {
				t.Errorf("output of the job as %q = %q, %q, %v", want, stdout, stderr, err)
			}
			if want == "nobody" && !strings.Contains(stderr, "28P01") {
				t.Errorf("errors of the job as %q = %q, want 28P01", want, stderr)
			}
		}
	})
}

// runLoad runs a load for a second and checks that it reports all of its logins.
func runLoad(ctx context.Context, t *testing.T, e *testserver.Engine, spec swarm.ServiceSpec) {
	t.Helper()
	id, err := e.CreateService(ctx, spec)
	if err != nil {
		t.Fatal(err)
	}
	tasks, err := e.WaitTasks(ctx, id, swarm.TaskStateRunning, 2)
	if err != nil {
		t.Fatal(err)
	}
	for _, task := range tasks {
		if mounted, err := e.TaskFile(ctx, task, "/run/secrets/orders_db_password"); err != nil || string(mounted) != "right-password\n" {
			t.Errorf("TaskFile of the secret = %q, %v, want what it holds", mounted, err)
		}
	}
	time.Sleep(time.Second) // the load goes on
	if err := e.RemoveService(ctx, id); err != nil {
		t.Fatal(err)
	}
	totals, err := testserver.ReadLoad(spec.TaskTemplate.ContainerSpec.Mounts[0].Source)
	if err != nil {
		t.Fatal(err)
	}
	if totals.Tasks != 2 || totals.Ended != 2 || totals.Failed != 0 || totals.OK < 40 || totals.BySession["orders"] != totals.OK {
		t.Errorf("totals = %+v, want 2 tasks that ended, 40 logins or more, none failed, all as orders", totals)
	}
}

// runJob runs one login as a replicated-job and waits for its state.
func runJob(ctx context.Context, t *testing.T, e *testserver.Engine, spec swarm.ServiceSpec, user string, want swarm.TaskState) swarm.Task {
	t.Helper()
	one := uint64(1)
	spec.Mode = swarm.ServiceMode{ReplicatedJob: &swarm.ReplicatedJob{MaxConcurrent: &one, TotalCompletions: &one}}
	spec.TaskTemplate.RestartPolicy = &swarm.RestartPolicy{Condition: swarm.RestartPolicyConditionNone}
	spec.TaskTemplate.ContainerSpec.Args = []string{"once"}
	spec.TaskTemplate.ContainerSpec.Env[0] = "POSTGRES_USER=" + user
	id, err := e.CreateService(ctx, spec)
	if err != nil {
		t.Fatal(err)
	}
	tasks, err := e.WaitTasks(ctx, id, want, 1)
	if err != nil {
		t.Fatal(err)
	}
	return tasks[0]
}

// TestEngineDevices leaves no network device that an engine made and did not move to where it
// belongs when it was killed.
func TestEngineDevices(t *testing.T) {
	t.Parallel()
	e := testserver.NewEngine(t, testserver.EngineOptions{})
	info, err := e.Client().Info(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	cluster := info.Swarm.Cluster
	prefix, err := netip.ParsePrefix(cluster.DefaultAddrPool[0])
	if err != nil {
		t.Fatal(err)
	}
	ip := prefix.Addr().As4()
	name := fmt.Sprintf("ktd%d", os.Getpid())
	for _, args := range []string{
		fmt.Sprintf("link add %[1]sa type veth peer name %[1]sb", name),
		fmt.Sprintf("link set %sb address 02:42:%02x:%02x:%02x:05", name, ip[0], ip[1], ip[2]),
		fmt.Sprintf("link add %sx type vxlan id 4321 dstport %d dev lo", name, cluster.DataPathPort),
	} {
		if out, err := exec.Command("ip", strings.Fields(args)...).CombinedOutput(); err != nil {
			t.Fatalf("ip %s: %v: %s", args, err, out)
		}
	}
	if err := e.Stop(); err != nil {
		t.Error(err)
	}
	if left, _ := filepath.Glob("/sys/class/net/" + name + "*"); len(left) > 0 {
		t.Errorf("left behind: %v", left)
		for _, l := range left {
			_ = exec.Command("ip", "link", "delete", filepath.Base(l)).Run()
		}
	}
}
