package cli_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/docker/docker/api/types/filters"
	"github.com/docker/docker/api/types/mount"
	"github.com/docker/docker/api/types/swarm"
	"github.com/docker/docker/client"

	"github.com/keyturn/keyturn/internal/testserver"
)

const (
	loadImage  = "keyturn-stack:load"  // the application, with a fast health check
	otherImage = "keyturn-stack:other" // another release of it
	probeImage = "keyturn-stack:keyturn"
)

var (
	stackImages sync.Once
	errImages   error
)

// journey leaves a whole way on a Swarm, which takes minutes, to make journeys.
func journey(t *testing.T) {
	t.Helper()
	if os.Getenv("KEYTURN_JOURNEYS") != "all" {
		t.Skip("it is long: make journeys")
	}
}

// sampled skips one of several ways to do the same, but for the one that make test goes.
func sampled(t *testing.T, way, kept string) {
	t.Helper()
	if way != kept {
		journey(t)
	}
}

// stackEngine returns the Swarm that the tests share, with the images there.
func stackEngine(t testing.TB) *testserver.Engine {
	t.Helper()
	engine := servers.engine.Get(t)
	stackImages.Do(func() { errImages = buildImages(engine) })
	if errImages != nil {
		t.Fatal(errImages)
	}
	return engine
}

func buildImages(engine *testserver.Engine) error {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Minute)
	defer cancel()
	load, err := testserver.BuildGo(ctx, "./internal/testserver/loginload")
	if err != nil {
		return err
	}
	check := &testserver.Healthcheck{Cmd: []string{"/loginload", "health"}, Interval: 3 * time.Second, Timeout: 10 * time.Second, Retries: 3}
	for _, tag := range []string{loadImage, otherImage} {
		if _, err := engine.BuildScratch(ctx, tag, map[string]string{"/loginload": load},
			testserver.ImageConfig{Entrypoint: []string{"/loginload"}, Env: map[string]string{"TAG": tag}, Healthcheck: check}); err != nil {
			return err
		}
	}
	keyturn, err := testserver.BuildGo(ctx, "./cmd/keyturn")
	if err != nil {
		return err
	}
	_, err = engine.BuildScratch(ctx, probeImage, map[string]string{"/keyturn": keyturn}, testserver.ImageConfig{Entrypoint: []string{"/keyturn"}})
	return err
}

// A stack is a shop whose application is a service on a Swarm: its tasks log in
// all the time, with what is mounted and no fallback.
type stack struct {
	*shop
	engine  *testserver.Engine
	client  *client.Client
	service string // its full name
	secret  string // the plain name of the adopted one
	load    string // where the tasks write their outcomes
}

// stackOption changes the service before it is made.
type stackOption func(*swarm.ServiceSpec)

func replicas(n uint64) stackOption {
	return func(s *swarm.ServiceSpec) { s.Mode.Replicated = &swarm.ReplicatedService{Replicas: &n} }
}

// loadEnv sets a variable of the application.
func loadEnv(entry string) stackOption {
	return func(s *swarm.ServiceSpec) {
		s.TaskTemplate.ContainerSpec.Env = append(s.TaskTemplate.ContainerSpec.Env, entry)
	}
}

// newStack makes a stack on a Swarm, deployed by hand under plain names, with
// nothing adopted. More are lines of the credential in the configuration.
func newStack(t *testing.T, pg *testserver.Postgres, more []string, options ...stackOption) *stack {
	t.Helper()
	return newStackOn(t, stackEngine(t), pg, more, options...)
}

// newStackOn is newStack on a Swarm of the test's own, with the images there.
func newStackOn(t *testing.T, engine *testserver.Engine, pg *testserver.Postgres, more []string, options ...stackOption) *stack {
	t.Helper()
	dir := t.TempDir()
	name := fmt.Sprintf("stack%d", serial.Add(1))
	k := &stack{shop: &shop{t: t, pg: pg, name: name, config: filepath.Join(dir, "keyturn.yml"), journal: filepath.Join(dir, "state", "journal.jsonl")},
		engine: engine, client: engine.Client(), service: name + "_app", secret: name + "_db_password", load: filepath.Join(dir, "load")}
	k.env = append(os.Environ(), "KEYTURN_PG_PASSWORD="+adminPassword, "CI=")
	k.must(os.Mkdir(k.load, 0o777))
	k.sql("postgres", "create database "+name,
		fmt.Sprintf("create role %s login password '%s'", name, firstPassword),
		fmt.Sprintf("create role keyturn_%s login password '%s'", name, adminPassword))
	k.sql(name, fmt.Sprintf("create schema authorization %[1]s; set role %[1]s; create table items (id int); reset role", name))
	k.configure(more...)
	sql := k.ok("setup", "postgres")
	setting.Lock()
	defer setting.Unlock()
	k.sql(name, sql)
	k.deploy(options...)
	return k
}

// configure writes the configuration.
func (k *stack) configure(more ...string) {
	k.t.Helper()
	text := fmt.Sprintf(`version: 1
journal: file:%[1]s
swarm: {host: "%[2]s", image: "%[3]s"}
credentials:
  %[4]s:
    postgres:
      admin: postgres://keyturn_%[4]s@%[5]s/%[4]s
      admin-password: {from-env: KEYTURN_PG_PASSWORD}
      ca: %[6]s
      role: %[4]s
    services:
      %[4]s_app:
        env: {POSTGRES_USER: username}
        file: {POSTGRES_PASSWORD_FILE: password}
    secrets: {password: %[4]s_db_password}
    minimum-age: 0s
`, k.journal, k.engine.Host(), probeImage, k.name, k.pg.Addr(), k.pg.CAFile())
	text = withLines(text, more)
	if !strings.Contains(text, "overlap:") {
		text += "    overlap: 1s\n"
	}
	if !strings.Contains(text, "rollout:") {
		text += "    rollout: {monitor: 1s, health-timeout: 60s, timeout: 240s}\n"
	}
	k.must(os.WriteFile(k.config, []byte(text), 0o600))
}

// spec is the service as a stack file would have it.
func (k *stack) spec(ref *swarm.SecretReference) swarm.ServiceSpec {
	return k.specOf(ref, k.pg.CAFile(), "POSTGRES_USER="+k.name, "POSTGRES_PASSWORD_FILE=/run/secrets/db_password",
		"POSTGRES_HOST=127.0.0.1", fmt.Sprintf("POSTGRES_PORT=%d", k.pg.Port()), "POSTGRES_DB="+k.name,
		"POSTGRES_CA_FILE=/ca.pem", "LOAD_EVERY=1s")
}

// specOf is a service that reads one secret, trusts an authority, and finds the rest in its
// environment.
func (k *stack) specOf(ref *swarm.SecretReference, ca string, env ...string) swarm.ServiceSpec {
	grace, two := 5*time.Second, uint64(2)
	return swarm.ServiceSpec{
		Annotations: swarm.Annotations{Name: k.service, Labels: map[string]string{"team": "orders"}},
		Mode:        swarm.ServiceMode{Replicated: &swarm.ReplicatedService{Replicas: &two}},
		TaskTemplate: swarm.TaskSpec{
			ContainerSpec: &swarm.ContainerSpec{
				Image:           loadImage,
				Env:             append(env, "LOAD_DIR=/load", "LOAD_TASK={{.Task.Name}}"),
				StopGracePeriod: &grace,
				Secrets:         []*swarm.SecretReference{ref},
				Mounts: []mount.Mount{
					{Type: mount.TypeBind, Source: k.load, Target: "/load"},
					{Type: mount.TypeBind, Source: ca, Target: "/ca.pem", ReadOnly: true},
				},
			},
			Networks: []swarm.NetworkAttachmentConfig{{Target: testserver.HostNetwork}},
		},
		UpdateConfig: &swarm.UpdateConfig{Parallelism: 1, Order: "start-first", FailureAction: "rollback", Monitor: 2 * time.Second},
	}
}

// deploy makes the secret and the service, and waits until it is up.
func (k *stack) deploy(options ...stackOption) {
	k.t.Helper()
	spec := k.spec(k.byHand("db_password"))
	for _, o := range options {
		o(&spec)
	}
	k.serve(spec)
}

// byHand makes the secret as people did, for a file of that name.
func (k *stack) byHand(file string) *swarm.SecretReference {
	k.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 4*time.Minute)
	defer cancel()
	ref, err := k.engine.CreateSecret(ctx, k.secret, []byte(firstPassword+"\n"))
	k.must(err)
	ref.File.Name, ref.File.Mode = file, 0o400
	return ref
}

// serve makes the service, and waits until it is up.
func (k *stack) serve(spec swarm.ServiceSpec) {
	k.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 4*time.Minute)
	defer cancel()
	_, err := k.engine.CreateService(ctx, spec)
	k.must(err)
	k.t.Cleanup(k.remove)
	k.settled()
}

// remove removes every service that names the stack.
func (k *stack) remove() {
	ctx, cancel := context.WithTimeout(context.Background(), 4*time.Minute)
	defer cancel()
	list, err := k.client.ServiceList(ctx, swarm.ServiceListOptions{Filters: filters.NewArgs(filters.Arg("name", k.name+"_"))})
	if err != nil {
		k.t.Error(err)
	}
	for _, s := range list {
		if err := k.engine.RemoveService(ctx, s.ID); err != nil {
			k.t.Error(err)
		}
	}
}

// settled waits until as many tasks run as shall, and no other.
func (k *stack) settled() {
	k.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 4*time.Minute)
	defer cancel()
	want := *k.inspect().Spec.Mode.Replicated.Replicas
	_, err := k.engine.WaitTasks(ctx, k.service, swarm.TaskStateRunning, int(want))
	k.must(err)
}

func (k *stack) inspect() swarm.Service {
	k.t.Helper()
	s, _, err := k.client.ServiceInspectWithRaw(context.Background(), k.service, swarm.ServiceInspectOptions{})
	k.must(err)
	return s
}

// change updates the service as somebody else would: again, if anybody else was
// faster.
func (k *stack) change(option stackOption) {
	k.t.Helper()
	for {
		now := k.inspect()
		option(&now.Spec)
		_, err := k.client.ServiceUpdate(context.Background(), now.ID, now.Version, now.Spec, swarm.ServiceUpdateOptions{})
		if err != nil && strings.Contains(err.Error(), "update out of sequence") {
			continue
		}
		k.must(err)
		return
	}
}

// tasks returns the ids of the tasks that run, sorted.
func (k *stack) tasks() []string {
	k.t.Helper()
	tasks, err := k.engine.Tasks(context.Background(), k.service)
	k.must(err)
	var ids []string
	for _, task := range tasks {
		if task.Status.State == swarm.TaskStateRunning {
			ids = append(ids, task.ID)
		}
	}
	slices.Sort(ids)
	return ids
}

// totals returns what the load has seen so far.
func (k *stack) totals() testserver.Totals {
	k.t.Helper()
	totals, err := testserver.ReadLoad(k.load)
	k.must(err)
	return totals
}

// noneFailed checks that logins were tried, and none failed.
func (k *stack) noneFailed() {
	k.t.Helper()
	if got := k.totals(); got.Failed != 0 || got.OK == 0 {
		k.t.Errorf("%d logins worked, %d failed: %v, want none; first: %+v", got.OK, got.Failed, got.ByCode, got.Failures[:min(3, len(got.Failures))])
	}
}

// reads returns the user and the secret that the service's spec names.
func (k *stack) reads() (user, secret string) {
	k.t.Helper()
	c := k.inspect().Spec.TaskTemplate.ContainerSpec
	for _, entry := range c.Env {
		if value, ok := strings.CutPrefix(entry, "POSTGRES_USER="); ok {
			user = value
		}
	}
	var names []string
	for _, ref := range c.Secrets {
		names = append(names, ref.SecretName)
	}
	return user, strings.Join(names, " ")
}

// objects returns the names of everything on the Swarm that bears the name of
// the stack or a label of its credential, except the lease.
func (k *stack) objects() []string {
	k.t.Helper()
	ctx := context.Background()
	var names []string
	ours := func(kind string, a swarm.Annotations) {
		if (strings.HasPrefix(a.Name, k.name+"_") || a.Labels["keyturn.credential"] == k.name) && a.Name != "keyturn.lock."+k.name {
			names = append(names, kind+" "+a.Name)
		}
	}
	secrets, err := k.client.SecretList(ctx, swarm.SecretListOptions{})
	k.must(err)
	for _, o := range secrets {
		ours("secret", o.Spec.Annotations)
	}
	configs, err := k.client.ConfigList(ctx, swarm.ConfigListOptions{})
	k.must(err)
	for _, o := range configs {
		ours("config", o.Spec.Annotations)
	}
	services, err := k.client.ServiceList(ctx, swarm.ServiceListOptions{})
	k.must(err)
	for _, o := range services {
		ours("service", o.Spec.Annotations)
	}
	slices.Sort(names)
	return names
}

// done checks that one version is in service, its tasks run, and everything of
// the others is gone.
func (k *stack) done(current int) {
	k.t.Helper()
	p := k.status()
	if p.Current != current || p.Pending != 0 || p.Previous != 0 || p.Queue != 0 {
		k.t.Errorf("status is %+v, want only version %d", p, current)
	}
	k.settled()
	want := []string{fmt.Sprintf("secret %s_v%d", k.secret, current), "service " + k.service}
	if current == 1 {
		want[0] = "secret " + k.secret
	}
	if got := k.objects(); !slices.Equal(got, want) {
		k.t.Errorf("on the Swarm there are %q, want %q", got, want)
	}
	if _, secret := k.reads(); "secret "+secret != want[0] {
		k.t.Errorf("the service names %q, want %q", secret, want[0])
	}
	if u := k.inspect().Spec.UpdateConfig; u == nil || u.FailureAction != "rollback" || u.Monitor != 2*time.Second {
		k.t.Errorf("the update settings are %+v, want those of the stack file", u)
	}
	k.ok("audit", "verify")
	b, err := os.ReadFile(k.journal)
	k.must(err)
	k.clean(string(b))
}
