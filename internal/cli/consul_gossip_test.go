package cli_test

import (
	"context"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/keyturn/keyturn/internal/testserver"
)

// A gossipShop is what rotates the gossip key of a datacenter: new agents find it in a
// directory.
type gossipShop struct {
	*shop
	dc *testserver.Consul
}

// newGossipShop puts the key of today where new agents find it.
func newGossipShop(t *testing.T, dc *testserver.Consul, key string) *gossipShop {
	t.Helper()
	dir := t.TempDir()
	name := fmt.Sprintf("gossip%d", serial.Add(1))
	g := &gossipShop{dc: dc, shop: &shop{t: t, name: name, root: filepath.Join(dir, "credentials"), config: filepath.Join(dir, "keyturn.yml"), journal: filepath.Join(dir, "state", "journal.jsonl")}}
	admin := dc.Put(t, "/v1/acl/token", map[string]any{"Description": "keyturn", "Policies": dc.Policy(t, name+"-admin", `keyring = "write" node_prefix "" { policy = "read" }`)})
	dc.Known(t, admin.SecretID)
	g.secrets = []string{admin.SecretID, key}
	g.env = append(os.Environ(), "KEYTURN_CONSUL_TOKEN="+admin.SecretID, "CI=")
	home := filepath.Join(g.root, g.name, "initial")
	g.must(os.MkdirAll(home, 0o755))
	g.must(os.WriteFile(filepath.Join(home, "key"), []byte(key+"\n"), 0o400))
	g.must(os.Symlink("initial", filepath.Join(g.root, g.name, "current")))
	g.must(os.WriteFile(g.config, []byte(fmt.Sprintf(`version: 1
journal: file:%s
directory: {path: %s}
credentials:
  %s:
    consul: {servers: ["%s"], ca: %s, token: {from-env: KEYTURN_CONSUL_TOKEN}, gossip-key: {probe: ["%s"]}}
    services: {agents: {path: {/etc/consul.d/gossip-key: key}}}
    minimum-age: 0s
    overlap: 1s
`, g.journal, g.root, g.name, strings.Join(dc.URLs(), `", "`), dc.CAFile(), strings.Join(dc.Serf(), `", "`))), 0o600))
	g.settled()
	return g
}

// rings returns how many members of all pools have each key, and how many there are.
func (g *gossipShop) rings() (keys map[string]int, members int, err error) {
	all, err := g.dc.Keyring()
	keys = map[string]int{}
	for _, r := range all {
		members += r.NumNodes
		for key, n := range r.Keys {
			keys[key] += n
		}
	}
	return keys, members, err
}

// settled waits until every member takes part.
func (g *gossipShop) settled() {
	g.t.Helper()
	for end := time.Now().Add(time.Minute); ; time.Sleep(100 * time.Millisecond) {
		var members []struct{ Status int }
		err := g.dc.Call(context.Background(), "GET", "/v1/agent/members?wan=1", nil, &members)
		if _, n, ringsErr := g.rings(); err == nil && ringsErr == nil && n >= 2*len(members) && !slices.ContainsFunc(members, func(m struct{ Status int }) bool { return m.Status != 1 }) {
			return
		}
		if time.Now().After(end) {
			g.t.Fatalf("the members do not settle: %v, %v", members, err)
		}
	}
}

// key is what a new agent would be configured with.
func (g *gossipShop) key() string {
	g.t.Helper()
	b, err := os.ReadFile(filepath.Join(g.root, g.name, "current", "key"))
	g.must(err)
	key := strings.TrimSpace(string(b))
	g.secrets = append(g.secrets, key)
	return key
}

// usable looks again and again whether every member has the key that new agents find,
// until it is told to stop; it returns how often, and what was wrong.
func (g *gossipShop) usable() (stop func() (tried int, failures []string)) {
	return again(50*time.Millisecond, func() (bool, error) {
		text, err := os.ReadFile(filepath.Join(g.root, g.name, "current", "key"))
		if err != nil {
			return true, err
		}
		keys, members, err := g.rings()
		if err != nil {
			return false, nil // a member that is being started does not answer
		}
		if n := keys[strings.TrimSpace(string(text))]; n != members {
			err = fmt.Errorf("the key is on %d of %d", n, members)
		}
		return true, err
	})
}

// one checks that the rings have the key of the directory alone.
func (g *gossipShop) one() {
	g.t.Helper()
	keys, members, err := g.rings()
	g.must(err)
	if key := g.key(); len(keys) != 1 || keys[key] != members {
		g.t.Errorf("%d members have %d keys, and %d the one of the directory: want that one alone, on every one", members, len(keys), keys[key])
	}
}

// TestConsulGossip rotates the key of three servers twice, phase by phase and in one go, and
// once back: the gossip never breaks, servers that are started again and agents that join
// find their way, the old key is refused, and no value is seen anywhere.
func TestConsulGossip(t *testing.T) {
	t.Parallel()
	dc := testserver.NewConsul(t, 3)
	g := newGossipShop(t, dc, dc.GossipKey())
	g.ok("adopt", g.name)
	g.ok("doctor")
	t.Log(g.ok("plan", g.name))
	stop := g.usable()
	g.ok("prepare", g.name)
	g.ok("validate", g.name)
	g.ok("cutover", g.name)
	g.ok("rollback", "--reason", "drill", g.name)
	if key := g.key(); key != dc.GossipKey() {
		t.Errorf("after the rollback new agents find another key than before")
	}
	g.one()
	g.ok("prepare", g.name)
	late := dc.AddClient(t, "late", dc.GossipKey(), nil) // with the key of today, after the next one was installed
	dc.Await(t, late)
	g.settled()
	g.ok("validate", g.name)
	g.ok("cutover", g.name)
	g.key()
	time.Sleep(time.Second) // the overlap
	g.ok("-v", "cleanup", g.name)
	g.one()
	g.versions(3)
	g.ok("-v", "rotate", "--wait", g.name)
	if tried, failures := stop(); tried < 10 || len(failures) > 0 {
		t.Errorf("of %d looks at the rings failed: %q", tried, failures)
	}
	g.one()
	g.versions(4)
	dc.Kill(2) // what it was started with is refused now; its ring is on its disk
	g.must(dc.Start(2))
	dc.Await(t, 2)
	g.settled()
	newer := dc.AddClient(t, "newer", g.key(), nil)
	dc.Await(t, newer)
	g.settled()
	g.one()
	g.ok("check")
	g.ok("audit", "verify")
	for i := range dc.URLs() {
		log, err := os.ReadFile(dc.LogFile(i))
		g.must(err)
		g.clean(string(log))
	}
	journal, err := os.ReadFile(g.journal)
	g.must(err)
	g.clean(string(journal))
}

// TestConsulGossipMemberDown kills one of three servers before and amid each phase (with
// KEYTURN_FAULTS=all; else the cutover's): nothing is changed while a member is down, it is named, and
// the same command finishes when it is back.
func TestConsulGossipMemberDown(t *testing.T) {
	t.Parallel()
	dc := testserver.NewConsul(t, 3)
	g := newGossipShop(t, dc, dc.GossipKey())
	g.ok("adopt", g.name)
	for _, st := range []struct {
		point  string
		code   int
		args   []string
		sample bool
	}{
		{"", 3, []string{"prepare", g.name}, false},
		{"before effect: prepare arm", 4, []string{"prepare", g.name}, false},
		{"before effect: cutover activate", 4, []string{"cutover", g.name}, true},
		{"before effect: cleanup end", 4, []string{"cleanup", "--force", "drill", g.name}, false},
	} {
		if st.args[0] == "cutover" {
			g.ok("validate", g.name)
		}
		if !st.sample && os.Getenv("KEYTURN_FAULTS") != "all" {
			if st.code == 4 {
				g.ok(st.args...)
			}
			continue
		}
		before, _, err := g.rings()
		g.must(err)
		if st.point == "" {
			dc.Kill(2)
			g.failed()
			g.fails(st.code, []string{"down is server3", "consul force-leave"}, st.args...)
		} else {
			r := g.start(st.point, st.args...)
			dc.Kill(2)
			g.failed()
			r.goOn()
			if got := r.wait(); got.code != st.code || !strings.Contains(got.stderr, "down is server3") || strings.Contains(got.stderr, "rolled back") {
				t.Errorf("%s: exit %d, want %d with the member's name and nothing undone\n%s%s", st.point, got.code, st.code, got.stdout, got.stderr)
			}
		}
		g.must(dc.Start(2))
		dc.Await(t, 2)
		g.settled()
		if after, _, err := g.rings(); err != nil || !maps.Equal(before, after) {
			t.Errorf("%s %q: the rings were changed while a member was down: %v", st.args[0], st.point, err)
		}
		if st.code == 4 {
			g.ok(st.args...)
		}
	}
	g.one()
	g.ok("audit", "verify")
}

// failed waits until the members hold the third server for failed.
func (g *gossipShop) failed() {
	g.t.Helper()
	for end := time.Now().Add(time.Minute); ; time.Sleep(100 * time.Millisecond) {
		var members []struct {
			Name   string
			Status int
		}
		err := g.dc.Call(context.Background(), "GET", "/v1/agent/members", nil, &members)
		for _, m := range members {
			if m.Name == "server3" && m.Status == 4 {
				return
			}
		}
		if time.Now().After(end) {
			g.t.Fatalf("server3 is not held for failed: %v, %v", members, err)
		}
	}
}

// TestCrashConsulGossip kills keyturn before and after every record and every effect of a
// rotation of the gossip key, and lets it go on: the key that new agents find is always
// that of every member, and no other is left. Without KEYTURN_CRASH=all it is a few of
// these points.
func TestCrashConsulGossip(t *testing.T) {
	t.Parallel()
	dc := testserver.NewConsul(t, 1)
	key := dc.GossipKey()
	run := func(t *testing.T, at int) result {
		g := newGossipShop(t, dc, key)
		g.ok("adopt", g.name)
		stop := g.usable()
		r := g.killedAt(at, stop)
		g.one()
		key = g.key()
		return r
	}
	everyCrash(t, func(i int) bool { return i%12 == 7 }, run)
}
