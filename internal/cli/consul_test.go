package cli_test

import (
	"context"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/keyturn/keyturn/internal/testserver"
)

// A consulShop is what rotates a token of Consul.
type consulShop struct {
	*shop
	dc      *testserver.Consul
	old     testserver.ConsulToken // that was made by hand
	section string                 // of the configuration
}

// newConsulShop makes the administrator's token and one for services, by hand.
func newConsulShop(t testing.TB, dc *testserver.Consul) *consulShop {
	t.Helper()
	dir := t.TempDir()
	name := fmt.Sprintf("kv%d", serial.Add(1))
	k := &consulShop{dc: dc, shop: &shop{t: t, name: name, root: filepath.Join(dir, "credentials"), config: filepath.Join(dir, "keyturn.yml"), journal: filepath.Join(dir, "state", "journal.jsonl")}}
	may := dc.Policy(t, name, fmt.Sprintf("key_prefix %q { policy = \"write\" }", name+"/"))
	admin := dc.Put(t, "/v1/acl/token", map[string]any{"Description": "keyturn", "Policies": dc.Policy(t, name+"-admin", `acl = "write"`)})
	k.old = dc.Put(t, "/v1/acl/token", map[string]any{"Description": "by hand", "Policies": may})
	dc.Known(t, admin.SecretID)
	dc.Known(t, k.old.SecretID)
	k.secrets = []string{admin.SecretID, k.old.SecretID}
	k.env = append(os.Environ(), "KEYTURN_CONSUL_TOKEN="+admin.SecretID, "CI=")
	k.section = fmt.Sprintf(`consul: {servers: ["%s"], ca: %s, token: {from-env: KEYTURN_CONSUL_TOKEN}, adopt: %s}`,
		strings.Join(dc.URLs(), `", "`), dc.CAFile(), k.old.AccessorID)
	return k
}

// onSwarm deploys a service that writes to Consul and reads from it all the time. More is a
// line of the credential in the configuration, or "".
func (c *consulShop) onSwarm(more string, options ...stackOption) *stack {
	c.t.Helper()
	engine := stackEngine(c.t)
	k := &stack{shop: c.shop, engine: engine, client: engine.Client(), service: c.name + "_app", secret: c.name + "_consul_token", load: filepath.Join(filepath.Dir(c.config), "load")}
	k.must(os.Mkdir(k.load, 0o777))
	k.must(os.WriteFile(k.config, []byte(fmt.Sprintf(`version: 1
journal: file:%[1]s
swarm: {host: "%[2]s", image: "%[3]s"}
credentials:
  %[4]s:
    %[5]s
    services:
      %[4]s_app: {file: {CONSUL_HTTP_TOKEN_FILE: token}, env: {CONSUL_HTTP_ADDR: address}}
    secrets: {token: %[4]s_consul_token}
    minimum-age: 0s
    overlap: 1s
    rollout: {monitor: 2s, health-timeout: 60s, timeout: 240s}
    %[6]s
`, k.journal, engine.Host(), probeImage, k.name, c.section, more)), 0o600))
	ref, err := engine.CreateSecret(c.t.Context(), k.secret, []byte(c.old.SecretID+"\n"))
	k.must(err)
	ref.File.Name, ref.File.Mode = "consul_token", 0o400
	spec := k.specOf(ref, c.dc.CAFile(), "CONSUL_HTTP_ADDR="+c.dc.URLs()[0], "CONSUL_HTTP_TOKEN_FILE=/run/secrets/consul_token", "CONSUL_CACERT=/ca.pem",
		"LOAD_KV_PREFIX="+k.name+"/", "LOAD_EVERY=500ms")
	for _, o := range options {
		o(&spec)
	}
	k.serve(spec)
	return k
}

// inDirectory lets a service read the token from a directory.
func (c *consulShop) inDirectory() {
	c.t.Helper()
	home := filepath.Join(c.root, c.name, "initial")
	c.must(os.MkdirAll(home, 0o755))
	c.must(os.WriteFile(filepath.Join(home, "token"), []byte(c.old.SecretID), 0o400))
	c.must(os.Symlink("initial", filepath.Join(c.root, c.name, "current")))
	c.must(os.WriteFile(c.config, []byte(fmt.Sprintf(`version: 1
journal: file:%s
directory: {path: %s}
credentials:
  %s:
    %s
    services:
      kv: {path: {/run/secrets/consul_token: token}}
    minimum-age: 0s
    overlap: 1s
`, c.journal, c.root, c.name, c.section)), 0o600))
}

// uses writes to Consul with what the directory holds, again and again, until it is told to
// stop; it returns how often, and what failed.
func (c *consulShop) uses() (stop func() (tried int, failures []string)) {
	tried := 0
	return again(50*time.Millisecond, func() (bool, error) {
		tried++
		return true, c.inOverlap(func(dir string) error {
			token, err := os.ReadFile(filepath.Join(dir, "token"))
			if err != nil {
				return err
			}
			return c.dc.CallAs(context.Background(), string(token), http.MethodPut, "/v1/kv/"+c.name+"/key", tried, nil)
		})
	})
}

// tokens returns those that Keyturn made, and keeps their values to look for.
func (c *consulShop) tokens() []testserver.ConsulToken {
	c.t.Helper()
	made := c.dc.Tokens(c.t, "keyturn "+c.name+" v")
	for _, t := range made {
		c.secrets = append(c.secrets, t.SecretID)
	}
	return made
}

// TestConsulOnSwarm rotates a token twice, phase by phase and in one go, under load, and once
// back: no request fails, the old token is refused, and no value is seen anywhere.
func TestConsulOnSwarm(t *testing.T) {
	journey(t)
	t.Parallel()
	c := newConsulShop(t, testserver.NewConsul(t, 3))
	k := c.onSwarm("")
	k.ok("doctor")
	k.ok("adopt", k.name)
	t.Log(k.ok("plan", k.name))
	k.ok("prepare", k.name)
	if n := len(c.tokens()); n != 1 {
		t.Errorf("after prepare Consul has %d tokens of Keyturn's, want 1", n)
	}
	k.ok("validate", k.name)
	k.ok("cutover", k.name)
	k.ok("rollback", "--reason", "drill", k.name)
	if n := len(c.tokens()); n != 0 {
		t.Errorf("after the rollback Consul has %d tokens of Keyturn's, want none", n)
	}
	for version := 3; version <= 4; version++ {
		before := c.tokens()
		k.ok("-v", "rotate", k.name)
		if n := len(c.tokens()); n != len(before)+1 {
			t.Errorf("in the overlap Consul has %d tokens of Keyturn's, want %d", n, len(before)+1)
		}
		time.Sleep(time.Second) // the overlap
		k.ok("-v", "cleanup", k.name)
		if left := c.tokens(); len(left) != 1 || left[0].Description != fmt.Sprintf("keyturn %s v%d", k.name, version) {
			t.Errorf("after the cleanup Consul has %+v, want the token of version %d", left, version)
		}
		k.done(version)
	}
	k.noneFailed()
	k.ok("check")
	for i := range 3 {
		log, err := os.ReadFile(c.dc.LogFile(i))
		k.must(err)
		k.clean(string(log))
	}
}

// TestConsulThroughSwarm rotates a token where only the overlay network reaches Consul, killed
// in the middle (with KEYTURN_FAULTS=all after a rotation that is not): no request fails, and no relay
// is left.
func TestConsulThroughSwarm(t *testing.T) {
	journey(t)
	t.Parallel()
	o, host := newOverlay(t)
	c := newConsulShop(t, testserver.NewConsulIn(t, o.netns, host))
	k := c.onSwarm("through: swarm", o.attached)
	k.throughSwarm()
	current := k.status().Current
	if left := c.tokens(); len(left) != 1 || left[0].Description != fmt.Sprintf("keyturn %s v%d", c.name, current) {
		t.Errorf("Consul has %+v, want the token of version %d", left, current)
	}
	log, err := os.ReadFile(c.dc.LogFile(0))
	k.must(err)
	k.clean(string(log))
}

// TestConsulServerDown kills or stops one of three servers amid each phase of a token's
// rotation (with KEYTURN_FAULTS=all; else the cutover's): the run in hand cannot tell, and undoes nothing,
// the token of services is never refused, and the same command finishes when the server is back.
func TestConsulServerDown(t *testing.T) {
	t.Parallel()
	dc := testserver.NewConsul(t, 3)
	c := newConsulShop(t, dc)
	c.inDirectory()
	c.ok("adopt", c.name)
	stop := c.uses()
	all := os.Getenv("KEYTURN_FAULTS") == "all"
	for i, st := range []struct {
		point  string
		args   []string
		sample bool
	}{
		{"before effect: prepare arm", []string{"prepare", c.name}, false},
		{"before effect: validate probe", []string{"validate", c.name}, false},
		{"before effect: cutover lift bound", []string{"cutover", c.name}, true},
		{"before effect: cleanup end", []string{"cleanup", c.name}, false},
	} {
		if st.args[0] == "cleanup" {
			time.Sleep(overlap)
		}
		if !all && !st.sample {
			c.ok(st.args...)
			continue
		}
		back := func() { c.must(dc.Start(2)) }
		r := c.start(st.point, st.args...)
		if i%2 == 0 {
			dc.Kill(2)
		} else {
			c.must(dc.Pause(2))
			back = func() { c.must(dc.Continue(2)) }
		}
		r.goOn()
		if got := r.wait(); got.code != 4 || !strings.Contains(got.stderr, dc.URLs()[2]) && !strings.Contains(got.stderr, "cannot tell") || strings.Contains(got.stderr, "rolled back") {
			t.Errorf("%s: exit %d, want 4, with the server's name and nothing undone\n%s%s", st.point, got.code, got.stdout, got.stderr)
		}
		back()
		dc.Await(t, 2)
		c.ok(st.args...)
	}
	tried, failures := stop() // of which a write needs a leader, and the server that was killed may have been it
	if refused := slices.DeleteFunc(failures, func(text string) bool { return !strings.Contains(text, "403 Forbidden") }); tried == 0 || len(refused) > 0 {
		t.Errorf("of %d requests were refused: %q", tried, refused)
	}
	p := c.status()
	c.versions(p.Current)
	if left := c.tokens(); len(left) != 1 || left[0].Description != fmt.Sprintf("keyturn %s v%d", c.name, p.Current) {
		t.Errorf("Consul has %+v, want the token of version %d", left, p.Current)
	}
	c.ok("audit", "verify")
}

// TestCrashConsul kills keyturn before and after every record and every effect of a
// rotation of a token, and lets it go on: no request fails, and no token is left over.
// Without KEYTURN_CRASH=all it is a few of these points.
func TestCrashConsul(t *testing.T) {
	t.Parallel()
	dc := servers.consul.Get(t)
	run := func(t *testing.T, at int) result {
		if at > 0 {
			t.Parallel()
		}
		c := newConsulShop(t, dc)
		c.inDirectory()
		c.ok("adopt", c.name)
		stop := c.uses()
		r := c.killedAt(at, stop)
		p := c.status()
		if left := c.tokens(); len(left) != 1 || left[0].Description != fmt.Sprintf("keyturn %s v%d", c.name, p.Current) {
			t.Errorf("Consul has %+v, want the token of version %d", left, p.Current)
		}
		if err := dc.CallAs(t.Context(), c.old.SecretID, http.MethodGet, "/v1/acl/token/self", nil, nil); err == nil || !strings.Contains(err.Error(), "ACL not found") {
			t.Errorf("the old token asks, and the answer is %v", err)
		}
		return r
	}
	everyCrash(t, oneOfEight, run)
}

// TestConsulOwnToken rotates the token that Keyturn itself asks Consul with: by itself, twice,
// where its file moves with the cutover; refused where it does not.
func TestConsulOwnToken(t *testing.T) {
	t.Parallel()
	c := newConsulShop(t, servers.consul.Get(t))
	admin := c.dc.Put(t, "/v1/acl/token", map[string]any{"Description": "keyturn's own", "Policies": []map[string]string{{"Name": c.name + "-admin"}}})
	c.dc.Known(t, admin.SecretID)
	c.secrets = append(c.secrets, admin.SecretID)
	c.old = admin
	own := "own: true, token: {from-file: " + filepath.Join(c.root, c.name, "current", "token") + "}, adopt: " + admin.AccessorID
	at := strings.Index(c.section, "token: {from-env")
	variable := c.section[:at] + "token: {from-env: KEYTURN_OWN}, adopt: " + admin.AccessorID + "}"
	elsewhere := filepath.Join(t.TempDir(), "token")
	c.must(os.WriteFile(elsewhere, []byte(admin.SecretID), 0o400))
	c.env = append(c.env, "KEYTURN_OWN="+admin.SecretID)
	c.section = c.section[:at] + own + "}"
	c.inDirectory()
	configuration, err := os.ReadFile(c.config)
	c.must(err)
	otherwise := func(section string) {
		c.must(os.WriteFile(c.config, []byte(strings.Replace(string(configuration), c.section, section, 1)), 0o600))
	}
	c.ok("adopt", c.name)
	otherwise(variable)
	c.fails(3, []string{"Keyturn itself asks Consul with the token of version 1", "from-file"}, "prepare", c.name)
	otherwise(strings.Replace(c.section, filepath.Join(c.root, c.name), filepath.Join(c.root, "other"), 1))
	c.fails(2, []string{"token", "other"}, "prepare", c.name)
	c.must(os.WriteFile(c.config, configuration, 0o600))
	c.ok("rotate", c.name)
	time.Sleep(time.Second) // the overlap
	otherwise(strings.Replace(strings.Replace(c.section, "own: true, ", "", 1), filepath.Join(c.root, c.name, "current", "token"), elsewhere, 1))
	c.fails(3, []string{"Keyturn itself asks Consul with the token of version 1, which is to be deleted", "from-file"}, "cleanup", c.name)
	c.must(os.WriteFile(c.config, configuration, 0o600))
	c.ok("cleanup", c.name)
	c.ok("rotate", "--wait", c.name)
	p := c.status()
	c.versions(p.Current)
	if left := c.tokens(); len(left) != 1 || left[0].Description != fmt.Sprintf("keyturn %s v%d", c.name, p.Current) {
		t.Errorf("Consul has %+v, want the token of version %d", left, p.Current)
	}
	if err := c.dc.CallAs(t.Context(), admin.SecretID, http.MethodGet, "/v1/acl/token/self", nil, nil); err == nil || !strings.Contains(err.Error(), "ACL not found") {
		t.Errorf("Keyturn's first token asks, and the answer is %v", err)
	}
	c.ok("audit", "verify")
}
