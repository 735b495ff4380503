package cli_test

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/docker/docker/api/types/swarm"
)

// TestSwarmRenderedURL rotates an application that reads a whole connection
// string at a fixed path, and nothing else.
func TestSwarmRenderedURL(t *testing.T) {
	journey(t)
	t.Parallel()
	pg := servers.postgres.Get(t)
	url := func(user, password, database string) string {
		return fmt.Sprintf("postgres://%s:%s@%s/%s", user, password, pg.Addr(), database)
	}
	k := newStack(t, pg, nil, func(s *swarm.ServiceSpec) {
		name := strings.TrimSuffix(s.Name, "_app")
		ref, err := stackEngine(t).CreateSecret(context.Background(), name+"_db_url", []byte(url(name, firstPassword, name)))
		if err != nil {
			t.Fatal(err)
		}
		ref.File.Name, ref.File.Mode = "db_url", 0o400
		s.TaskTemplate.ContainerSpec.Secrets = []*swarm.SecretReference{ref}
		loadEnv("DATABASE_URL_FILE=/run/secrets/db_url")(s)
	})
	k.must(k.client.SecretRemove(context.Background(), k.secret))
	k.secret = k.name + "_db_url"
	edit("file: {POSTGRES_PASSWORD_FILE: password}", "path: {/run/secrets/db_url: dsn}")(k)
	edit("secrets: {password: NAME_db_password}", fmt.Sprintf("secrets: {dsn: NAME_db_url}\n    render: {dsn: %q}", url("{username}", "{password}", "NAME")))(k)
	k.ok("adopt", k.name)
	for version := 2; version <= 3; version++ {
		k.ok("rotate", "--wait", k.name)
		k.done(version)
	}
	k.noneFailed()
	if got := k.totals().BySession; len(got) != 3 {
		t.Errorf("logins were made as %v, want three different ones", got)
	}
}

// worker makes a second service that reads the same credential and declares it.
func worker(k *stack) {
	k.t.Helper()
	copyOf("worker")(k)
	edit("    secrets: {password", `      NAME_worker:
        env: {POSTGRES_USER: username}
        file: {POSTGRES_PASSWORD_FILE: password}
    secrets: {password`)(k)
	_, err := k.engine.WaitTasks(context.Background(), k.name+"_worker", swarm.TaskStateRunning, 2)
	k.must(err)
}

// TestSwarmTwoServices rotates a credential that two services read: both are on
// the new version after one cutover, each task was replaced once.
func TestSwarmTwoServices(t *testing.T) {
	journey(t)
	t.Parallel()
	k := newStack(t, servers.postgres.Get(t), nil)
	worker(k)
	k.ok("adopt", k.name)
	out := k.ok("rotate", "--wait", k.name)
	for _, service := range []string{k.name + "_app", k.name + "_worker"} {
		if !strings.Contains(out, service+": 2 tasks") {
			t.Errorf("the output does not tell of the tasks of %s:\n%s", service, out)
		}
	}
	if _, secret := k.reads(); secret != k.secret+"_v2" {
		t.Errorf("the first service names %q, want version 2", secret)
	}
	k.service = k.name + "_worker"
	if _, secret := k.reads(); secret != k.secret+"_v2" {
		t.Errorf("the second service names %q, want version 2", secret)
	}
	if n := k.totals().Tasks; n != 8 {
		t.Errorf("%d tasks in all, want 4 before and 4 after", n)
	}
	k.noneFailed()
}

// alsoReads makes the service of a stack read the credential of another, whose
// own service goes, and declares both credentials in one configuration.
func (k *stack) alsoReads(other *stack) {
	k.t.Helper()
	without("app")(other)
	secret, _, err := k.client.SecretInspectWithRaw(context.Background(), other.secret)
	k.must(err)
	k.settle(func(s *swarm.ServiceSpec) {
		loadEnv("OTHER_USER=" + other.name)(s)
		loadEnv("OTHER_PASSWORD_FILE=/run/secrets/other")(s)
		c := s.TaskTemplate.ContainerSpec
		c.Secrets = append(c.Secrets, &swarm.SecretReference{SecretID: secret.ID, SecretName: other.secret,
			File: &swarm.SecretReferenceFileTarget{Name: "other", UID: "0", GID: "0", Mode: 0o400}})
	})
	text, err := os.ReadFile(k.config)
	k.must(err)
	theirs, err := os.ReadFile(other.config)
	k.must(err)
	_, section, _ := strings.Cut(string(theirs), "credentials:\n")
	section = strings.NewReplacer(other.service+":", k.service+":", "POSTGRES_USER", "OTHER_USER", "POSTGRES_PASSWORD_FILE", "OTHER_PASSWORD_FILE").Replace(section)
	k.must(os.WriteFile(k.config, append(text, section...), 0o600))
}

// TestSwarmTwoCredentials rotates two credentials of one service as one batch:
// one update replaces each task once, and both ways are taken together.
func TestSwarmTwoCredentials(t *testing.T) {
	journey(t)
	t.Parallel()
	pg := servers.postgres.Get(t)
	k, other := newStack(t, pg, []string{"overlap: 1h"}), newStack(t, pg, []string{"overlap: 1h"})
	k.alsoReads(other)
	k.ok("adopt", k.name, other.name)
	was := k.totals().Tasks
	reading := func(want ...string) {
		t.Helper()
		_, secrets := k.reads()
		got := strings.Fields(secrets)
		slices.Sort(got)
		slices.Sort(want)
		if !slices.Equal(got, want) {
			t.Errorf("the service names %q, want %q", got, want)
		}
	}
	k.ok("rotate", k.name, other.name)
	reading(k.secret+"_v2", other.secret+"_v2")
	if n := k.totals().Tasks - was; n != 2 {
		t.Errorf("%d tasks were started, want one update of 2", n)
	}
	k.ok("rollback", "--reason", "the test says so", k.name, other.name)
	reading(k.secret, other.secret)
	k.ok("rotate", k.name, other.name)
	k.ok("cleanup", "--force", "the test has no hour", k.name, other.name)
	reading(k.secret+"_v3", other.secret+"_v3")
	var all []position
	k.must(json.Unmarshal([]byte(k.ok("status", "-o", "json")), &all))
	for _, p := range all {
		if p.Current != 3 || p.Pending != 0 || p.Previous != 0 || p.Queue != 0 {
			t.Errorf("status is %+v, want only version 3", p)
		}
	}
	k.noneFailed()
}
