package cli_test

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/docker/docker/api/types/swarm"

	"github.com/keyturn/keyturn/internal/testserver"
)

// A workspace is a stack that is deployed from a file, by docker itself, and the
// checkout in which the file stands. Nothing is set up or adopted.
type workspace struct {
	*stack
	dir     string // the working directory of every command
	tools   string // what comes first in the PATH: keyturn
	secrets string // the stanza of the secret in the stack file
	site
}

// A site is where the services and the database are.
type site struct {
	network string   // of the services, by name
	host    string   // of the database, for them
	admin   []string // the beginning of a command by which its superuser reaches it
	init    string   // flags of keyturn init
	runner  []string // the beginning of a command that runs where keyturn does
}

// machine is the site of most tests: all on this machine's network.
func machine() site { return site{network: "host", host: "127.0.0.1"} }

// fromFile and external are how a stack file may have its secret.
const (
	fromFile = "    file: ./db_password.txt\n"
	external = "    external: true\n    name: NAME_db_password\n"
)

// newWorkspace deploys a stack of two services that read one secret.
func newWorkspace(t *testing.T, pg *testserver.Postgres, stanza string) *workspace {
	t.Helper()
	return newWorkspaceAt(t, pg, stanza, machine())
}

func newWorkspaceAt(t *testing.T, pg *testserver.Postgres, stanza string, at site) *workspace {
	t.Helper()
	engine, dir := stackEngine(t), t.TempDir()
	name := fmt.Sprintf("file%d", serial.Add(1))
	w := &workspace{site: at, dir: dir, tools: t.TempDir(), secrets: strings.ReplaceAll(stanza, "NAME", name), stack: &stack{
		shop: &shop{t: t, pg: pg, name: name, config: filepath.Join(dir, ".github", "keyturn.yml"),
			journal: filepath.Join(t.TempDir(), "state", "journal.jsonl")},
		engine: engine, client: engine.Client(), service: name + "_api", secret: name + "_db_password", load: filepath.Join(t.TempDir(), "load")}}
	w.must(os.Mkdir(w.load, 0o777))
	w.must(os.Mkdir(filepath.Join(dir, "deploy"), 0o755))
	w.must(os.WriteFile(w.file(), []byte(w.stackFile()), 0o644))
	w.must(os.WriteFile(filepath.Join(dir, "deploy", "db_password.txt"), []byte(firstPassword+"\n"), 0o600))
	ca, err := os.ReadFile(pg.CAFile())
	w.must(err)
	w.must(os.WriteFile(filepath.Join(dir, "deploy", "db-ca.pem"), ca, 0o644))
	script := fmt.Sprintf("#!/bin/sh\nexec %s %q \"$@\"\n", strings.Join(at.runner, " "), program(t))
	w.must(os.WriteFile(filepath.Join(w.tools, "keyturn"), []byte(script), 0o755))
	w.env = append(os.Environ(), "CI=", "KEYTURN_PG_PASSWORD="+adminPassword, "DOCKER_HOST="+engine.Host(),
		"DOCKER_CONFIG="+w.tools, "PATH="+w.tools+":"+os.Getenv("PATH"))
	w.sql("postgres", "create database "+name, fmt.Sprintf("create role %s login password '%s'", name, firstPassword))
	w.sql(name, fmt.Sprintf("create schema authorization %[1]s; set role %[1]s; create table items (id int); reset role", name))
	if stanza == external {
		_, err := engine.CreateSecret(context.Background(), w.secret, []byte(firstPassword+"\n"))
		w.must(err)
	}
	t.Cleanup(w.remove)
	w.sh("docker stack deploy --resolve-image never -c deploy/" + name + ".yml " + name)
	w.settled()
	return w
}

func (w *workspace) file() string { return filepath.Join(w.dir, "deploy", w.name+".yml") }

// stackFile is the file as people write it, for an application that logs in all
// the time.
func (w *workspace) stackFile() string {
	return strings.NewReplacer("NAME", w.name, "IMAGE", loadImage, "<port>", fmt.Sprint(w.pg.Port()), "<load>", w.load, "<ca>", w.pg.CAFile(), "<host>", w.host, "<network>", w.network).Replace(`version: "3.8"

x-app: &app
  image: IMAGE
  networks: [machine]
  volumes:
    - <load>:/load
    - <ca>:/ca.pem:ro
  stop_grace_period: 5s
  deploy:
    endpoint_mode: dnsrr
    replicas: 2
    update_config: {order: start-first, failure_action: rollback, monitor: 1s}

services:
  api:
    <<: *app
    environment:
      POSTGRES_HOST: <host>
      POSTGRES_PORT: "<port>"
      POSTGRES_DB: NAME
      POSTGRES_USER: NAME # of today
      POSTGRES_PASSWORD_FILE: /run/secrets/db_password
      POSTGRES_CA_FILE: /ca.pem
      LOAD_DIR: /load
      LOAD_TASK: '{{.Task.Name}}'
      LOAD_EVERY: 1s
    secrets: [db_password]
  worker:
    <<: *app
    environment:
      - POSTGRES_HOST=<host>
      - POSTGRES_PORT=<port>
      - POSTGRES_DB=NAME
      - POSTGRES_USER=NAME
      - POSTGRES_PASSWORD_FILE=/run/secrets/pw
      - POSTGRES_CA_FILE=/ca.pem
      - LOAD_DIR=/load
      - LOAD_TASK={{.Task.Name}}
      - LOAD_EVERY=1s
    secrets:
      - source: db_password
        target: pw
        mode: 0400

networks:
  machine: {external: true, name: <network>}

secrets:
  # what the services log in with
  db_password:
`) + w.secrets
}

// try runs a line of a shell in the workspace.
func (w *workspace) try(line string) (out string, code int) {
	w.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 3*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, "bash", "-o", "pipefail", "-c", line)
	cmd.Dir, cmd.Env = w.dir, w.env
	var said bytes.Buffer
	cmd.Stdout, cmd.Stderr = &said, &said
	_ = cmd.Run() // the code says it
	w.clean(said.String())
	return said.String(), cmd.ProcessState.ExitCode()
}

// sh runs a line that must succeed.
func (w *workspace) sh(line string) string {
	w.t.Helper()
	out, code := w.try(line)
	if code != 0 {
		w.t.Fatalf("%s: exit %d\n%s", line, code, out)
	}
	return out
}

// services are the full names of the two.
func (w *workspace) services() []string { return []string{w.name + "_api", w.name + "_worker"} }

// running returns the ids of the tasks of both services.
func (w *workspace) running() []string {
	w.t.Helper()
	var ids []string
	for _, s := range w.services() {
		_, err := w.engine.WaitTasks(context.Background(), s, swarm.TaskStateRunning, 2)
		w.must(err)
		ids = append(ids, w.of(s).tasks()...)
	}
	return ids
}

// of returns the stack as seen by one of its services.
func (w *workspace) of(service string) *stack {
	k := *w.stack
	k.service = service
	return &k
}

// unchanged deploys the stack and checks that no service gets another spec, and
// so no task is replaced.
func (w *workspace) unchanged(when string) {
	w.t.Helper()
	specs := func() (all []swarm.TaskSpec) {
		for _, s := range w.services() {
			all = append(all, w.of(s).inspect().Spec.TaskTemplate)
		}
		return all
	}
	before, was := w.running(), specs()
	w.sh("docker stack deploy --resolve-image never -c deploy/" + w.name + ".yml " + w.name)
	for i, now := range specs() {
		if !reflect.DeepEqual(now, was[i]) {
			w.t.Errorf("a deploy %s changed %s: %+v became %+v", when, w.services()[i], was[i].ContainerSpec, now.ContainerSpec)
		}
	}
	w.steadyAll()
	if now := w.running(); !reflect.DeepEqual(now, before) {
		w.t.Errorf("a deploy %s replaced tasks: %q became %q", when, before, now)
	}
}

func (w *workspace) steadyAll() {
	w.t.Helper()
	for _, s := range w.services() {
		w.of(s).steady()
	}
}

// administrator gives Keyturn's administrator its password.
func (w *workspace) administrator() {
	w.t.Helper()
	w.sql("postgres", fmt.Sprintf("alter role keyturn password '%s'", adminPassword))
}

// takeOver writes the configuration, sets the database up and adopts.
func (w *workspace) takeOver() {
	w.t.Helper()
	page := "keyturn init --from-service orders_api --ca deploy/db-ca.pem\nkeyturn setup postgres > setup.sql\npsql -X -q -v ON_ERROR_STOP=1 -d orders -f setup.sql\nkeyturn adopt orders-db\n"
	w.follow(page)
}

// deploy deploys what stands in the file now.
func (w *workspace) deploy() (out string, code int) {
	w.t.Helper()
	return w.try("docker stack deploy --resolve-image never -c deploy/" + w.name + ".yml " + w.name)
}

// refuses runs keyturn, which must end with a code and say words.
func (w *workspace) refuses(code int, line string, words ...string) {
	w.t.Helper()
	out, got := w.try(line)
	for _, word := range words {
		if !strings.Contains(out, word) {
			w.t.Errorf("%s does not say %q:\n%s", line, word, out)
		}
	}
	if got != code {
		w.t.Errorf("%s: exit %d, want %d\n%s", line, got, code, out)
	}
}

// TestStackDeployBetweenPhases deploys the old file between any two phases, for
// both ways to write a secret: no login fails, the rotation comes to its end, and
// no dead value lives again.
func TestStackDeployBetweenPhases(t *testing.T) {
	t.Parallel()
	for name, stanza := range map[string]string{"file": fromFile, "external": external} {
		t.Run(name, func(t *testing.T) {
			sampled(t, name, "file")
			t.Parallel()
			w := newWorkspace(t, servers.postgres.Get(t), stanza)
			w.takeOver()
			credential := w.name + "-db"
			w.unchanged("after the adoption")
			w.sh("keyturn prepare " + credential)
			w.unchanged("after prepare")
			w.refuses(0, "keyturn plan "+credential, "once that is done it must say", "+++ b/deploy/"+w.name+".yml", "+    name: "+w.secret+"_v2\n")
			w.sh("keyturn validate " + credential)
			w.unchanged("after validate")
			w.sh("keyturn cutover " + credential)
			w.stillNames("after the cutover", credential)
			w.broughtBack(credential)
			w.noneFailed()
			w.deployedAfterTheEnd(stanza, credential)
		})
	}
}

// stillNames checks that cleanup waits for the file alone, and status says so.
func (w *workspace) stillNames(when, credential string) {
	w.t.Helper()
	for end := time.Now().Add(time.Minute); time.Now().Before(end); time.Sleep(200 * time.Millisecond) {
		if out, _ := w.try("keyturn cleanup " + credential); strings.Contains(out, "the stack file") {
			break
		}
	}
	w.refuses(3, "keyturn cleanup "+credential, "would bring version 1 back", "deploy/"+w.name+".yml:", "--force REASON")
	w.refuses(0, "keyturn status "+credential, "+++ b/deploy/"+w.name+".yml")
	w.refuses(6, "keyturn doctor "+credential, "problem", "stack file")
	if logins := w.canLogIn(); len(logins) != 2 {
		w.t.Errorf("%s %q can log in, want the old login and the new one", when, logins)
	}
}

// broughtBack deploys the old file after the cutover, and then the right one.
func (w *workspace) broughtBack(credential string) {
	w.t.Helper()
	if out, code := w.deploy(); code != 0 {
		w.t.Fatalf("deploying the old file: exit %d\n%s", code, out)
	}
	w.steadyAll()
	if user, secret := w.reads(); user != w.name || secret != w.secret {
		w.t.Errorf("after a deploy of the old file the services read %s of %s", secret, user)
	}
	w.refuses(3, "keyturn cleanup "+credential, "services that still use version 1")
	w.sh("keyturn status " + credential + " | patch -p1")
	if out, code := w.deploy(); code != 0 {
		w.t.Fatalf("deploying the edited file: exit %d\n%s", code, out)
	}
	w.steadyAll()
	w.sh("keyturn cleanup " + credential)
	if got := w.canLogIn(); len(got) != 1 || got[0] != w.name+"_a" {
		w.t.Errorf("%q can log in, want the new login alone", got)
	}
	w.unchanged("after cleanup")
}

// deployedAfterTheEnd deploys the old file when its version is dead.
func (w *workspace) deployedAfterTheEnd(stanza, credential string) {
	w.t.Helper()
	right, err := os.ReadFile(w.file())
	w.must(err)
	w.must(os.WriteFile(w.file(), []byte(w.stackFile()), 0o644))
	out, code := w.deploy()
	if stanza == external {
		if code == 0 || !strings.Contains(out, "secret not found: "+w.secret) {
			w.t.Errorf("a deploy of a file whose secret is gone: exit %d\n%s", code, out)
		}
		w.must(os.WriteFile(w.file(), right, 0o644))
		w.unchanged("after one that was refused")
		return
	}
	if code != 0 {
		w.t.Fatalf("a deploy of the old file: exit %d\n%s", code, out)
	}
	if got := w.canLogIn(); len(got) != 1 || got[0] != w.name+"_a" {
		w.t.Errorf("after a deploy of the old file %q can log in, want the new login alone", got)
	}
	w.refuses(6, "keyturn doctor "+credential, "the secret "+w.secret+" of version 1, which is retired, was made again", "its login is dead")
	w.must(os.WriteFile(w.file(), right, 0o644))
	if out, code := w.deploy(); code != 0 {
		w.t.Fatalf("a deploy of the right file: exit %d\n%s", code, out)
	}
	w.steadyAll()
	w.sh("docker secret rm " + w.secret)
	w.sh("keyturn rotate " + credential)
	if user, secret := w.reads(); user != w.name+"_b" || secret != w.secret+"_v3" {
		w.t.Errorf("after another rotation the services read %s of %s", secret, user)
	}
}
