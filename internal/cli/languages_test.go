package cli_test

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/docker/docker/api/types/mount"
	"github.com/docker/docker/api/types/swarm"
)

// The programs log in again and again, as the page says, and write a line for each
// login: who was let in, or that nobody was. Their client is psql.
var programs = map[string]struct{ interpreter, file, text string }{
	"python": {"python3", "app.py", `
import os, signal, subprocess, sys, time
sys.dont_write_bytecode = True
sys.path.insert(0, "/examples/python")
import credentials
signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
def connect(c):
    env = dict(os.environ, PGUSER=c["username"], PGPASSWORD=c["password"])
    p = subprocess.run(["psql", "-Xwqtc", "select 1"], env=env, capture_output=True, text=True)
    if "password authentication failed" in p.stderr or "not permitted to log in" in p.stderr:
        raise credentials.Refused(p.stderr)
    if p.returncode != 0:
        raise RuntimeError(p.stderr)
    return c["username"]
while True:
    try:
        said = "ok " + credentials.log_in({"POSTGRES_USER": "username", "POSTGRES_PASSWORD": "password"}, connect)
    except Exception as error:
        said = "failed " + repr(error)
    with open("/load/python.txt", "a") as f:
        f.write(said + "\n")
    time.sleep(0.1)
`},
	"node": {"node", "app.js", `
const { logIn, Refused } = require("/examples/node/credentials.js");
const { spawnSync } = require("node:child_process"), fs = require("node:fs");
process.on("SIGTERM", () => process.exit(0));
const connect = (c) => {
  const p = spawnSync("psql", ["-Xwqtc", "select 1"], { env: { ...process.env, PGUSER: c.username, PGPASSWORD: c.password }, encoding: "utf8" });
  if (/password authentication failed|not permitted to log in/.test(p.stderr)) throw new Refused(p.stderr);
  if (p.status !== 0) throw new Error(p.stderr || String(p.error));
  return c.username;
};
const once = () => logIn({ POSTGRES_USER: "username", POSTGRES_PASSWORD: "password" }, connect)
  .then((user) => "ok " + user, (error) => "failed " + error)
  .then((said) => { fs.appendFileSync("/load/node.txt", said + "\n"); setTimeout(once, 100); });
once();
`},
}

// inLanguage lets the service run a program of this machine, with its files seen
// in the container.
func inLanguage(t *testing.T, language, load string) stackOption {
	t.Helper()
	p := programs[language]
	out, err := exec.Command(p.interpreter, map[string][]string{"python": {"-c", "import sys; print(sys.executable)"},
		"node": {"-p", "process.execPath"}}[language]...).Output()
	if err != nil {
		t.Fatal(err)
	}
	interpreter, err := filepath.EvalSymlinks(strings.TrimSpace(string(out)))
	if err != nil {
		t.Fatal(err)
	}
	app := filepath.Join(load, p.file)
	if err := os.WriteFile(app, []byte(p.text), 0o644); err != nil {
		t.Fatal(err)
	}
	clients, err := filepath.Glob("/usr/lib/postgresql/*/bin/psql")
	if err != nil || len(clients) == 0 {
		t.Fatalf("no psql is below /usr/lib/postgresql (%v)", err)
	}
	examples, err := filepath.Abs(top + "docs/examples")
	if err != nil {
		t.Fatal(err)
	}
	return func(s *swarm.ServiceSpec) {
		c := s.TaskTemplate.ContainerSpec
		c.Image, c.Command = runnerImage, []string{interpreter, "/load/" + p.file}
		see := map[string]string{"/examples": examples}
		for _, dir := range []string{"/usr", "/lib", "/lib64", "/opt", "/root"} {
			if _, err := os.Stat(dir); err == nil {
				see[dir] = dir
			}
		}
		for target, source := range see {
			c.Mounts = append(c.Mounts, mount.Mount{Type: mount.TypeBind, Source: source, Target: target, ReadOnly: true})
		}
		c.Env = append(c.Env, "PATH="+filepath.Dir(clients[0])+":/usr/bin", "HOME=/tmp", "PGSSLMODE=verify-full", "PGSSLROOTCERT=/ca.pem", "PGCONNECT_TIMEOUT=10")
		for _, entry := range c.Env {
			for old, now := range map[string]string{"POSTGRES_HOST=": "PGHOST=", "POSTGRES_PORT=": "PGPORT=", "POSTGRES_DB=": "PGDATABASE="} {
				if value, ok := strings.CutPrefix(entry, old); ok {
					c.Env = append(c.Env, now+value)
				}
			}
		}
	}
}

// TestLanguagesRotate rotates credentials that programs in other languages read as
// their examples show, with both ways to mount them: twice, and no login fails.
func TestLanguagesRotate(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	(&stack{shop: &shop{t: t}, engine: stackEngine(t)}).buildRunner(ctx)
	for language, mounts := range map[string]string{"python": "dual", "node": "switch"} {
		t.Run(language, func(t *testing.T) {
			sampled(t, language, "python")
			t.Parallel()
			k := newStack(t, servers.postgres.Get(t), []string{"mounts: " + mounts}, func(s *swarm.ServiceSpec) {
				for _, m := range s.TaskTemplate.ContainerSpec.Mounts {
					if m.Target == "/load" {
						inLanguage(t, language, m.Source)(s)
					}
				}
			})
			logins := func() (users map[string]int, failed []string) {
				b, err := os.ReadFile(filepath.Join(k.load, language+".txt"))
				if err != nil && !os.IsNotExist(err) {
					t.Fatal(err)
				}
				users = map[string]int{}
				for line := range strings.Lines(string(b)) {
					user, ok := strings.CutPrefix(strings.TrimSpace(line), "ok ")
					if !ok {
						failed = append(failed, line)
						continue
					}
					users[user]++
				}
				return users, failed
			}
			await := func(user string) {
				t.Helper()
				for end := time.Now().Add(time.Minute); ; time.Sleep(100 * time.Millisecond) {
					users, failed := logins()
					if len(failed) > 0 || time.Now().After(end) {
						t.Fatalf("waiting for a login of %s: %v, failed: %q", user, users, failed)
					}
					if users[user] > 0 {
						return
					}
				}
			}
			await(k.name)
			k.ok("adopt", k.name)
			for _, login := range []string{k.name + "_a", k.name + "_b"} {
				k.ok("rotate", "--wait", k.name)
				await(login)
			}
			users, failed := logins()
			t.Logf("%s, %s: logins %v", language, mounts, users)
			if len(failed) > 0 {
				t.Errorf("%d logins failed: %q", len(failed), failed[:min(3, len(failed))])
			}
			k.oneLogin()
		})
	}
}
