package cli_test

import (
	"context"
	"os"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/docker/docker/api/types/swarm"

	"github.com/keyturn/keyturn/internal/testserver"
)

// A badCase is something about a stack that keeps keyturn from going on.
type badCase struct {
	name    string
	bend    func(k *stack) // makes it so
	unbend  func(k *stack)
	command []string
	code    int
	says    string // all of stderr, with NAME for the stack's name
}

// edit replaces a part of the configuration.
func edit(old, new string) func(k *stack) {
	return func(k *stack) {
		k.t.Helper()
		b, err := os.ReadFile(k.config)
		k.must(err)
		old, new := strings.ReplaceAll(old, "NAME", k.name), strings.ReplaceAll(new, "NAME", k.name)
		if !strings.Contains(string(b), old) {
			k.t.Fatalf("the configuration has no %q", old)
		}
		k.must(os.WriteFile(k.config, []byte(strings.ReplaceAll(string(b), old, new)), 0o600))
	}
}

// copyOf makes a second service of the stack that names the same secret.
func copyOf(name string, options ...stackOption) func(k *stack) {
	return func(k *stack) {
		k.t.Helper()
		spec := k.inspect().Spec
		spec.Name = k.name + "_" + name
		for _, o := range options {
			o(&spec)
		}
		_, err := k.engine.CreateService(context.Background(), spec)
		k.must(err)
	}
}

func without(name string) func(k *stack) {
	return func(k *stack) {
		k.t.Helper()
		k.must(k.engine.RemoveService(context.Background(), k.name+"_"+name))
	}
}

// hostPort publishes a port of the machine itself, which one task can have.
func hostPort(s *swarm.ServiceSpec) {
	s.EndpointSpec = &swarm.EndpointSpec{Ports: []swarm.PortConfig{{Protocol: "tcp", TargetPort: 80, PublishedPort: 45872, PublishMode: swarm.PortConfigPublishModeHost}}}
}

// withChange updates the service and waits until Swarm is done with it, which
// has not begun with it when the update returns.
func withChange(option stackOption) func(k *stack) {
	return func(k *stack) {
		k.t.Helper()
		k.change(option)
		for range 240 {
			if u := k.inspect().UpdateStatus; u != nil && u.State == swarm.UpdateStateCompleted {
				k.steady()
				return
			}
			time.Sleep(250 * time.Millisecond)
		}
		k.t.Fatalf("the update of %s does not end", k.name)
	}
}

func noPort(s *swarm.ServiceSpec) { s.EndpointSpec = nil }

// foreignSecret makes a secret that looks like the next version, by hand.
func foreignSecret(k *stack) {
	k.t.Helper()
	_, err := k.client.SecretCreate(context.Background(), swarm.SecretSpec{Data: []byte("whatever"), Annotations: swarm.Annotations{
		Name: k.secret + "_v2", Labels: map[string]string{"keyturn.credential": k.name, "keyturn.version": "2", "keyturn.rotation": "01FOREIGN"}}})
	k.must(err)
}

func removeForeignSecret(k *stack) {
	k.t.Helper()
	s, _, err := k.client.SecretInspectWithRaw(context.Background(), k.secret+"_v2")
	k.must(err)
	k.must(k.client.SecretRemove(context.Background(), s.ID))
}

// What differs from run to run: how long a step took, in the line of the
// progress, when something was logged, and who was logged in at that moment.
var (
	duration = regexp.MustCompile(`failed  [0-9.]+ s:`)
	logged   = regexp.MustCompile(`(?m)^time=\S+ `)
	// The load opens a connection, logs in, and closes it: it may be seen or not.
	clients = regexp.MustCompile(`(?m)^time=\S+ level=WARN msg="a client of the adopted login: .*\n`)
)

const long = "a_password_with_a_very_long_name_that_leaves_no_room_for_a_v1"

var (
	beforeAdoption = []badCase{
		{"service missing", edit("NAME_app:", "NAME_web:"), edit("NAME_web:", "NAME_app:"), []string{"adopt"}, 2, `
keyturn: adopting "NAME": there is no service "NAME_web" in the Swarm
hint: the full name is needed: <stack>_<service>, as docker service ls shows it
`},
		{"variable missing", edit("POSTGRES_PASSWORD_FILE:", "PGPASSFILE:"), edit("PGPASSFILE:", "POSTGRES_PASSWORD_FILE:"), []string{"adopt"}, 2, `
keyturn: adopting "NAME": service "NAME_app": it has no variable "PGPASSFILE"
hint: is the variable's name right? A fixed path is declared under path:
`},
		{"no secret behind the variable", edit("{POSTGRES_PASSWORD_FILE: password}", "{LOAD_DIR: password}"), edit("{LOAD_DIR: password}", "{POSTGRES_PASSWORD_FILE: password}"), []string{"adopt"}, 2, `
keyturn: adopting "NAME": service "NAME_app": variable "LOAD_DIR": no secret is mounted at the path that it holds; secrets are at ["/run/secrets/db_password"]
hint: a file in the image, a bind mount or a config cannot be rotated: mount a secret there first
`},
		{"undeclared user", copyOf("nightly", replicas(0)), without("nightly"), []string{"adopt"}, 3, `
keyturn: adopting "NAME": a secret of "NAME" is used by undeclared services: "NAME_nightly" (0 replicas)
hint: declare it under services:, or under ignore: with a reason
`},
		{"probe image missing", edit(probeImage, "keyturn-stack:nowhere"), edit("keyturn-stack:nowhere", probeImage), []string{"adopt"}, 4, `
time=NOW level=WARN msg="the database is named like the login: a connection string without a database name would look for one named like the new login" database=NAME
keyturn: adopting "NAME": cannot tell whether what the services mount now works: the probe did not run to its end: task is rejected: No such image: keyturn-stack:nowhere (is the image "keyturn-stack:nowhere" on that node?)
hint: look at the probe endpoints and at what the services mount, then run it again
`},
		{"not adopted", nil, nil, []string{"validate"}, 3, `
keyturn: validate of "NAME": no rotation is open
hint: take over what services use: keyturn adopt NAME; or, if there is nothing yet: keyturn prepare NAME
`},
	}
	afterAdoption = []badCase{
		{"adopted twice", nil, nil, []string{"adopt"}, 3, `
keyturn: adopting "NAME": it has version 1 already
hint: a credential is adopted once, before its first rotation; see: keyturn status
`},
		{"another service declared", edit("NAME_app:", "NAME_web:"), edit("NAME_web:", "NAME_app:"), []string{"prepare"}, 3, `
  NAME v2 prepare  preflight  failed: checking the services of "NAME": a secret of "NAME" is used by undeclared services: "NAME_app"
there is no service "NAME_web" in the Swarm
keyturn: preparing "NAME": preflight: checking the services of "NAME": a secret of "NAME" is used by undeclared services: "NAME_app"
         there is no service "NAME_web" in the Swarm
hint: declare it under services:, or under ignore: with a reason
`},
		{"undeclared user at 0 replicas", copyOf("nightly", replicas(0)), without("nightly"), []string{"prepare"}, 3, `
  NAME v2 prepare  preflight  failed: checking the services of "NAME": a secret of "NAME" is used by undeclared services: "NAME_nightly" (0 replicas)
keyturn: preparing "NAME": preflight: checking the services of "NAME": a secret of "NAME" is used by undeclared services: "NAME_nightly" (0 replicas)
hint: declare it under services:, or under ignore: with a reason
`},
		{"foreign pending version", foreignSecret, removeForeignSecret, []string{"prepare"}, 3, `
  NAME v2 prepare  preflight  failed: version 2 of "NAME" stands in the target and not in this journal (rotation "01FOREIGN")
keyturn: preparing "NAME": preflight: version 2 of "NAME" stands in the target and not in this journal (rotation "01FOREIGN")
hint: if nobody else rotates it, remove the objects by hand: [NAME_db_password_v2]
`},
		{"secret name too long", edit("{password: NAME_db_password}", "{password: "+long+"}"), edit("{password: "+long+"}", "{password: NAME_db_password}"), []string{"prepare"}, 2, `
keyturn: CONFIG:15:25: credentials.NAME.secrets.password: a secret's base name has at most 56 characters, this one has 61
         hint: shorten it
`},
		{"cutover first", nil, nil, []string{"cutover"}, 3, `
keyturn: cutover of "NAME": no rotation is open
hint: keyturn prepare NAME
`},
		{"port of the host", withChange(hostPort), withChange(noPort), []string{"prepare"}, 3, `
  NAME v2 prepare  preflight  failed: checking the services of "NAME": service "NAME_app" cannot start a second task first: it publishes port 45872/tcp of the host, which is taken on the nodes that it may run on
keyturn: preparing "NAME": preflight: checking the services of "NAME": service "NAME_app" cannot start a second task first: it publishes port 45872/tcp of the host, which is taken on the nodes that it may run on
hint: set order: stop-first in its rollout: each task is then gone for a moment
`},
	}
)

// TestSwarmErrors meets what can be wrong with a stack: the message says it, the
// hint says what to do, and nothing is changed.
func TestSwarmErrors(t *testing.T) {
	t.Parallel()
	k := newStack(t, servers.postgres.Get(t), nil, replicas(1))
	k.bad(beforeAdoption)
	k.ok("adopt", k.name)
	k.bad(afterAdoption)
	k.ok("rotate", "--wait", k.name) // nothing was spoilt
	k.done(2)
	k.noneFailed()
}

func (k *stack) bad(cases []badCase) {
	for _, c := range cases {
		if c.bend != nil {
			c.bend(k)
		}
		objects, spec, logins, lines := k.objects(), k.inspect().Spec, k.canLogIn(), k.written()
		r := k.run(append(c.command, k.name)...)
		got := strings.ReplaceAll(strings.ReplaceAll(r.stderr, k.config, "CONFIG"), k.name, "NAME")
		got = clients.ReplaceAllString(got, "")
		got = logged.ReplaceAllString(duration.ReplaceAllString(got, "failed:"), "time=NOW ")
		if r.code != c.code || got != strings.TrimPrefix(c.says, "\n") {
			k.t.Errorf("%s: exit %d, want %d; it says\n%s\nwant\n%s", c.name, r.code, c.code, got, c.says)
		}
		if now := k.objects(); !slices.Equal(now, objects) || !reflect.DeepEqual(k.inspect().Spec, spec) || !slices.Equal(k.canLogIn(), logins) {
			k.t.Errorf("%s: something was changed: %q became %q", c.name, objects, now)
		}
		if now := k.written(); now != lines {
			k.t.Errorf("%s: %d records became %d", c.name, lines, now)
		}
		if c.unbend != nil {
			c.unbend(k)
		}
	}
}

// written counts the records that are no note.
func (k *stack) written() int {
	k.t.Helper()
	if _, err := os.Stat(k.journal); err != nil {
		return 0
	}
	n := 0
	for _, l := range k.records() {
		if l.Status != "note" {
			n++
		}
	}
	return n
}

// TestSwarmEngines meets engines that manage no Swarm, or do not answer.
func TestSwarmEngines(t *testing.T) {
	t.Parallel()
	alone := testserver.NewEngine(t, testserver.EngineOptions{NoSwarm: true})
	k := newStack(t, servers.postgres.Get(t), nil, replicas(1))
	k.ok("adopt", k.name)
	for _, tt := range []struct {
		name, host, phase string
		code              int
		says              string
	}{
		{"no swarm", alone.Host(), "prepare", 2, `
keyturn: taking the lease of "NAME": Error response from daemon: This node is not a swarm manager. Use "docker swarm init" or "docker swarm join" to connect this node to swarm and try again.
hint: point swarm.host at a manager of the Swarm, or run: docker swarm init
`},
		{"no socket", "unix:///nowhere/docker.sock", "prepare", 4, `
keyturn: taking the lease of "NAME": Cannot connect to the Docker daemon at HOST. Is the docker daemon running?
hint: is the engine running, and may this user open its socket?
`},
	} {
		edit(k.engine.Host(), tt.host)(k)
		r := k.run(tt.phase, k.name)
		edit(tt.host, k.engine.Host())(k)
		got := strings.ReplaceAll(strings.ReplaceAll(r.stderr, k.name, "NAME"), tt.host, "HOST")
		if r.code != tt.code || got != strings.TrimPrefix(tt.says, "\n") {
			t.Errorf("%s: exit %d, want %d; it says\n%s\nwant\n%s", tt.name, r.code, tt.code, got, tt.says)
		}
	}
}
