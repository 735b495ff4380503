package cli_test

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/docker/docker/api/types/container"
	"github.com/docker/docker/api/types/swarm"
)

// A fleet is services on a Swarm that each log in with two credentials all the time.
type fleet struct {
	*stack
	services []*stack // each with its part of the names
	names    []string // of the credentials
}

const (
	fleetServices = 10
	fleetMonitor  = 5 * time.Second // Docker's own
	fleetHealth   = 10 * time.Second
)

// newFleet deploys a fleet by hand, with nothing adopted.
func newFleet(b *testing.B) *fleet {
	b.Helper()
	pg, engine, dir := servers.postgres.Get(b), stackEngine(b), b.TempDir()
	f := &fleet{stack: &stack{shop: &shop{t: b, pg: pg, name: fmt.Sprintf("fleet%d", serial.Add(1)), config: filepath.Join(dir, "keyturn.yml"),
		journal: filepath.Join(dir, "state", "journal.jsonl")}, engine: engine, client: engine.Client(), load: filepath.Join(dir, "load")}}
	f.env = append(os.Environ(), "KEYTURN_PG_PASSWORD="+adminPassword, "CI=")
	f.must(os.Mkdir(f.load, 0o777))
	text := fmt.Sprintf("version: 1\njournal: file:%s\nswarm: {host: %q, image: %q}\ncredentials:\n", f.journal, engine.Host(), probeImage)
	for i := range fleetServices {
		service := fmt.Sprintf("%s_app%d", f.name, i)
		for j, prefix := range []string{"", "SECOND_"} {
			name := fmt.Sprintf("%s%c%d", f.name, 'a'+i, j)
			f.names = append(f.names, name)
			f.sql("postgres", "create database "+name, fmt.Sprintf("create role %s login password '%s'", name, firstPassword),
				fmt.Sprintf("create role keyturn_%s login password '%s'", name, adminPassword))
			b.Cleanup(func() { _ = pg.Exec(context.Background(), "postgres", "drop database "+name+" with (force)") })
			text += fmt.Sprintf(`  %[1]s:
    postgres:
      admin: postgres://keyturn_%[1]s@%[2]s/%[1]s
      admin-password: {from-env: KEYTURN_PG_PASSWORD}
      ca: %[3]s
      role: %[1]s
    services:
      %[4]s:
        env: {%[5]sPOSTGRES_USER: username}
        file: {%[5]sPOSTGRES_PASSWORD_FILE: password}
    secrets: {password: %[1]s_password}
    overlap: 24h
    rollout: {monitor: %[6]s, health-timeout: 60s, timeout: 5m}
`, name, pg.Addr(), pg.CAFile(), service, prefix, fleetMonitor)
		}
	}
	f.must(os.WriteFile(f.config, []byte(text), 0o600))
	for _, name := range f.names {
		sql := f.ok("setup", "postgres", name)
		f.sql(name, sql)
	}
	for i := range fleetServices {
		f.deploy(i)
	}
	for _, s := range f.services {
		s.settled()
	}
	return f
}

// deploy makes a service of the fleet.
func (f *fleet) deploy(i int) {
	f.t.Helper()
	one := &stack{shop: f.shop, engine: f.engine, client: f.client, service: fmt.Sprintf("%s_app%d", f.name, i), load: f.load}
	var refs []*swarm.SecretReference
	for j := range 2 {
		ref, err := f.engine.CreateSecret(f.t.Context(), f.names[2*i+j]+"_password", []byte(firstPassword+"\n"))
		f.must(err)
		ref.File.Name, ref.File.Mode = fmt.Sprintf("password%d", j), 0o400
		refs = append(refs, ref)
	}
	spec := one.spec(refs[0])
	c := spec.TaskTemplate.ContainerSpec
	c.Secrets = refs
	c.Healthcheck = &container.HealthConfig{Interval: fleetHealth, Timeout: fleetHealth, Retries: 3}
	c.Env = []string{"POSTGRES_HOST=127.0.0.1", fmt.Sprintf("POSTGRES_PORT=%d", f.pg.Port()), "POSTGRES_CA_FILE=/ca.pem",
		"LOAD_DIR=/load", "LOAD_TASK={{.Task.Name}}", "LOAD_EVERY=1s", "LOAD_ALSO=SECOND_"}
	for j, prefix := range []string{"", "SECOND_"} {
		c.Env = append(c.Env, prefix+"POSTGRES_USER="+f.names[2*i+j], prefix+"POSTGRES_DB="+f.names[2*i+j],
			fmt.Sprintf("%sPOSTGRES_PASSWORD_FILE=/run/secrets/password%d", prefix, j))
	}
	spec.UpdateConfig.Monitor = fleetMonitor
	_, err := f.engine.CreateService(f.t.Context(), spec)
	f.must(err)
	if len(f.services) == 0 {
		f.t.Cleanup(f.remove)
	}
	f.services = append(f.services, one)
}

// taskCount returns how many tasks were ever made: two for each update of a service.
func (f *fleet) taskCount() int {
	f.t.Helper()
	n := 0
	for _, s := range f.services {
		tasks, err := f.engine.Tasks(f.t.Context(), s.service)
		f.must(err)
		n += len(tasks)
	}
	return n
}

// revokeByScript does what people do today, one credential after the other.
func (f *fleet) revokeByScript(b *testing.B) {
	b.Helper()
	passFile := filepath.Join(b.TempDir(), "pgpass")
	f.must(os.WriteFile(passFile, []byte("*:*:*:*:"+f.pg.AdminPassword()+"\n"), 0o600))
	host, port, _ := strings.Cut(f.pg.Addr(), ":")
	for n, name := range f.names {
		script := fmt.Sprintf(`
password=$(head -c 32 /dev/urandom | base64 | tr -d '+/=\n')
printf %%s "$password" | docker secret create %[1]s_password_2 -
echo "ALTER ROLE %[1]s PASSWORD '$password'" | psql -q
docker service update --quiet --secret-rm %[1]s_password --secret-add source=%[1]s_password_2,target=password%[2]d %[3]s
docker secret rm %[1]s_password
`, name, n%2, f.services[n/2].service)
		cmd := exec.CommandContext(b.Context(), "/bin/sh", "-euc", script)
		cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "HOME=" + b.TempDir(), "DOCKER_HOST=" + f.engine.Host(), "PGHOST=" + host, "PGPORT=" + port,
			"PGUSER=postgres", "PGDATABASE=postgres", "PGPASSFILE=" + passFile, "PGSSLMODE=verify-full", "PGSSLROOTCERT=" + f.pg.CAFile()}
		if out, err := cmd.CombinedOutput(); err != nil {
			b.Fatalf("the script: %v\n%s", err, out)
		}
	}
}

// BenchmarkRevokeAll revokes twenty credentials of ten services at once, and does the same
// with another fleet by a script, one after the other.
func BenchmarkRevokeAll(b *testing.B) {
	for b.Loop() {
		var took [2]time.Duration
		var failed [2]float64
		for i, by := range []string{"keyturn", "script"} {
			func() {
				f := newFleet(b)
				defer f.remove()
				if by == "keyturn" {
					f.ok(append([]string{"adopt"}, f.names...)...)
				}
				before, tasks := f.totals(), f.taskCount()
				began := time.Now()
				if by == "keyturn" {
					f.provenDead()
				} else {
					f.revokeByScript(b)
				}
				took[i] = time.Since(began)
				after := f.totals()
				tried := after.OK + after.Failed - before.OK - before.Failed
				failed[i] = float64(after.Failed - before.Failed)
				b.Logf("%s: %v, %d logins tried, %.0f failed, %d tasks made", by, took[i].Round(100*time.Millisecond), tried, failed[i], f.taskCount()-tasks)
				if by == "keyturn" && (failed[i] > 0 || tried == 0) {
					b.Errorf("of %d logins %.0f failed: %v", tried, failed[i], after.ByCode)
				}
				for _, s := range f.services {
					s.settled()
				}
				if made := f.taskCount() - tasks; by == "keyturn" && made != 2*fleetServices {
					b.Errorf("%d tasks were made, want %d: one update for each service", made, 2*fleetServices)
				}
			}()
		}
		b.ReportMetric(took[0].Seconds(), "keyturn-s")
		b.ReportMetric(took[1].Seconds(), "script-s")
		b.ReportMetric(took[1].Seconds()/took[0].Seconds(), "times-faster")
		b.ReportMetric(failed[1], "script-failed-logins")
	}
}

// provenDead revokes the whole fleet.
func (f *fleet) provenDead() {
	f.t.Helper()
	got := f.revokes(0, "--all")
	if len(got) != len(f.names) {
		f.t.Errorf("%d were revoked, want %d", len(got), len(f.names))
	}
	for _, r := range got {
		if r.Current != 2 || len(r.Dead) != 1 || len(r.Alive) > 0 {
			f.t.Errorf("%+v, want version 1 dead and 2 in service", r)
		}
	}
}
