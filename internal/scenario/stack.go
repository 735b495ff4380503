package scenario

import (
	"context"
	"crypto/rand"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/docker/docker/api/types/mount"
	"github.com/docker/docker/api/types/swarm"

	"github.com/keyturn/keyturn/internal/testserver"
)

const replicas = 3

// A Stack is a service of three tasks as people deploy it: one login that owns
// its tables, its password in a Swarm secret with a plain name, no labels.
type Stack struct {
	Name   string // of the stack, the login and the schema
	Secret string // name of the secret that is mounted first

	scene *Scenario
	id    string // of the service
	load  string // folder with the outcomes of the logins
	old   []held // by its tasks before each rotation
}

// Service is the name of its service.
func (k *Stack) Service() string { return k.Name + "_api" }

// Deploy makes the login and the service and waits until all tasks are healthy.
func (s *Scenario) Deploy(ctx context.Context, name string) (*Stack, error) {
	k := &Stack{Name: name, Secret: name + "_db_password", scene: s, load: filepath.Join(s.dir, "load-"+name)}
	if err := k.deploy(ctx); err != nil {
		return nil, fmt.Errorf("deploying the stack %q: %w", name, err)
	}
	return k, nil
}

func (k *Stack) deploy(ctx context.Context) error {
	password := rand.Text()
	pg, e := k.scene.postgres, k.scene.engine
	if err := pg.Exec(ctx, "postgres", fmt.Sprintf("CREATE ROLE %s LOGIN PASSWORD '%s'", k.Name, password)); err != nil {
		return err
	}
	if err := pg.Exec(ctx, database, "CREATE SCHEMA AUTHORIZATION "+k.Name,
		fmt.Sprintf("SET ROLE %s; CREATE TABLE items (id int PRIMARY KEY, name text); RESET ROLE", k.Name)); err != nil {
		return err
	}
	if err := os.Mkdir(k.load, 0o777); err != nil {
		return err
	}
	ref, err := e.CreateSecret(ctx, k.Secret, []byte(password+"\n"))
	if err != nil {
		return err
	}
	if k.id, err = e.CreateService(ctx, k.spec(ref)); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	_, err = e.WaitTasks(ctx, k.id, swarm.TaskStateRunning, replicas)
	return err
}

// spec is the service as a stack file would have it.
func (k *Stack) spec(ref *swarm.SecretReference) swarm.ServiceSpec {
	n := uint64(replicas)
	stopGrace := 5 * time.Second
	pg := k.scene.postgres
	return swarm.ServiceSpec{
		Annotations: swarm.Annotations{Name: k.Service()},
		Mode:        swarm.ServiceMode{Replicated: &swarm.ReplicatedService{Replicas: &n}},
		TaskTemplate: swarm.TaskSpec{
			ContainerSpec: &swarm.ContainerSpec{
				Image: k.scene.image,
				Env: []string{"POSTGRES_USER=" + k.Name, "POSTGRES_PASSWORD_FILE=/run/secrets/" + k.Secret,
					"POSTGRES_HOST=127.0.0.1", "POSTGRES_PORT=" + strconv.Itoa(pg.Port()), "POSTGRES_DB=" + database,
					"POSTGRES_CA_FILE=/ca.pem", "LOAD_DIR=/load", "LOAD_TASK={{.Task.Name}}", "LOAD_EVERY=" + k.scene.Every.String()},
				StopGracePeriod: &stopGrace,
				Secrets:         []*swarm.SecretReference{ref},
				Mounts: []mount.Mount{
					{Type: mount.TypeBind, Source: k.load, Target: "/load"},
					{Type: mount.TypeBind, Source: pg.CAFile(), Target: "/ca.pem", ReadOnly: true}},
			},
			Networks: []swarm.NetworkAttachmentConfig{{Target: testserver.HostNetwork}},
		},
		EndpointSpec: &swarm.EndpointSpec{Mode: swarm.ResolutionModeDNSRR},
		UpdateConfig: &swarm.UpdateConfig{Parallelism: 1, Order: swarm.UpdateOrderStartFirst,
			Delay: k.scene.Delay, Monitor: k.scene.Monitor, FailureAction: swarm.UpdateFailureActionPause},
	}
}

// Load sums the logins that the tasks of the stack have tried so far.
func (k *Stack) Load() (testserver.Totals, error) { return testserver.ReadLoad(k.load) }

// Remove takes the service down in peace, so that its outcomes are complete.
func (k *Stack) Remove(ctx context.Context) error {
	return k.scene.engine.RemoveService(ctx, k.id)
}

// Restarts says for every slot of the service how often its task was replaced
// since it was deployed: each task has left a file.
func (k *Stack) Restarts() (map[string]int, error) {
	files, err := filepath.Glob(filepath.Join(k.load, "*.jsonl"))
	if err != nil {
		return nil, fmt.Errorf("counting the tasks of %q: %w", k.Name, err)
	}
	slots := map[string]int{}
	for _, f := range files {
		parts := strings.Split(filepath.Base(f), ".") // service, slot, task, jsonl
		if len(parts) < 3 {
			return nil, fmt.Errorf("counting the tasks of %q: %q is no name of a task", k.Name, filepath.Base(f))
		}
		if n, ok := slots[parts[1]]; ok {
			slots[parts[1]] = n + 1
		} else {
			slots[parts[1]] = 0
		}
	}
	return slots, nil
}
