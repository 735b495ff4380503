package consul_test

import (
	"context"
	"encoding/base64"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/keyturn/keyturn/internal/backend/consul"
	"github.com/keyturn/keyturn/internal/backend/remote"
	"github.com/keyturn/keyturn/internal/rotation"
	"github.com/keyturn/keyturn/internal/rotation/rotationtest"
	"github.com/keyturn/keyturn/internal/secret"
	"github.com/keyturn/keyturn/internal/testserver"
)

// A gossiping fixture is a datacenter whose gossip key is rotated.
type gossiping struct{ *fixture }

func newGossiping(t testing.TB, dc *testserver.Consul) *gossiping {
	t.Helper()
	f := &fixture{t: t, dc: dc, name: fmt.Sprintf("gossip%d", serial.Add(1))}
	f.admin = f.token(map[string]any{"Description": "keyturn's own", "Policies": dc.Policy(t, f.name+"-admin", `keyring = "write" node_prefix "" { policy = "read" }`)}).SecretID
	dc.Known(t, f.admin)
	return &gossiping{f}
}

func (g *gossiping) backend() *consul.Gossip { return g.within(12 * time.Second) }

// within returns a backend whose requests have so much time.
func (g *gossiping) within(timeout time.Duration) *consul.Gossip {
	g.t.Helper()
	s := consul.Settings{Servers: g.dc.URLs(), Token: secret.Source{Env: tokenVariable}, CA: "ca.pem", GossipKey: &consul.GossipKey{Probe: g.dc.Serf()}}
	b, err := consul.NewGossip(s, consul.Options{Credential: g.name, Options: remote.Options{CA: g.dc.CA(), Patience: 20 * time.Second, Timeout: timeout, Getenv: func(string) string { return g.admin }}})
	g.must(err)
	return b
}

// settled waits until every member takes part.
func (g *gossiping) settled() {
	g.t.Helper()
	for end := time.Now().Add(time.Minute); ; time.Sleep(100 * time.Millisecond) {
		_, err := g.backend().Examine(context.Background())
		if err == nil {
			return
		}
		if time.Now().After(end) {
			g.t.Fatal(err)
		}
	}
}

// keys returns the keys that some member has.
func (g *gossiping) keys() []string {
	g.t.Helper()
	all, err := g.dc.Keyring()
	g.must(err)
	found := map[string]int{}
	for _, r := range all {
		maps.Copy(found, r.Keys)
	}
	return slices.Sorted(maps.Keys(found))
}

// TestGossipContract is what every backend must keep, on one server and on three.
func TestGossipContract(t *testing.T) {
	for _, servers := range []int{1, 3} {
		t.Run(fmt.Sprintf("%d servers", servers), func(t *testing.T) {
			if servers > 1 && os.Getenv("KEYTURN_FAULTS") != "all" {
				t.Skip("it is long: make faults")
			}
			rotationtest.Contract(t, func(t *testing.T) rotationtest.Setup {
				dc := testserver.NewConsul(t, servers)
				g := newGossiping(t, dc)
				g.settled()
				broken := func(breaks, repairs func(int) error) func(*testing.T) func() {
					return func(*testing.T) func() {
						for i := range servers {
							g.must(breaks(i))
						}
						return func() {
							for i := range servers {
								g.must(repairs(i))
							}
							for i := range servers {
								dc.Await(t, i)
							}
							g.settled()
						}
					}
				}
				setup := rotationtest.Setup{
					Backend: g.within(2 * time.Second), Credential: g.name, Login: consul.Login, Patience: time.Minute,
					Claims: &rotationtest.Claims{Kind: "Consul: gossip key", Page: "consul.md#the-gossip-key",
						Dead: "no member of any pool has it, and every agent that is asked cannot read what it encrypts"},
					Break: map[string]func(*testing.T) func(){
						"stopped": broken(func(i int) error { dc.Kill(i); return nil }, dc.Start),
						"paused":  broken(dc.Pause, dc.Continue),
					},
					Changes: func(*testing.T) string { return fmt.Sprint(g.keys()) },
				}
				if os.Getenv("KEYTURN_FAULTS") != "all" {
					setup.Break = nil // it is long: make faults
				}
				return setup
			})
		})
	}
}

// made is a version with its key.
func (g *gossiping) made(number int) (rotation.Version, rotation.Material) {
	g.t.Helper()
	b := g.backend()
	v, err := b.Identify(g.t.Context(), g.version(number, rotation.Pending), nil)
	g.must(err)
	m, err := b.Draft(v)
	g.must(err)
	v, err = b.Recognize(v, m)
	g.must(err)
	return v, m
}

// TestGossipMembers shows what comes of a member that is down, before each of the changes,
// and that the primary key is never removed.
func TestGossipMembers(t *testing.T) {
	g := newGossiping(t, testserver.NewConsul(t, 3))
	g.settled()
	b, ctx := g.backend(), t.Context()
	old, err := b.Adopt(ctx, g.version(1, rotation.Current))
	g.must(err)
	v, m := g.made(2)
	c := rotation.Credential{Name: g.name, Versions: []rotation.Version{old}}
	g.must(b.Preflight(ctx, c))
	before := g.keys()
	down := func(doing string, class rotation.Class, do func() error) {
		t.Helper()
		if doing != "Activate" && os.Getenv("KEYTURN_FAULTS") != "all" {
			return // it is long: make faults
		}
		g.dc.Kill(2)
		for end := time.Now().Add(time.Minute); ; time.Sleep(200 * time.Millisecond) {
			err := do()
			if err == nil {
				t.Fatalf("%s: it went well while a member is down", doing)
			}
			if got := rotation.ClassOf(err); got != class {
				t.Fatalf("%s with a member down = %v of class %d, want %d", doing, err, got, class)
			}
			if strings.Contains(err.Error(), "down is server3") && strings.Contains(rotation.HintOf(err), "consul force-leave NAME") {
				break
			}
			if time.Now().After(end) {
				t.Fatalf("%s: the member is not named: %v", doing, err)
			}
		}
		g.must(g.dc.Start(2))
		g.dc.Await(t, 2)
		g.settled()
	}
	down("Preflight", rotation.Refused, func() error { return b.Preflight(ctx, c) })
	down("Arm", rotation.Unknown, func() error { return b.Arm(ctx, v, m, time.Time{}) })
	if after := g.keys(); !slices.Equal(after, before) {
		t.Errorf("the rings were changed while a member was down")
	}
	g.must(b.Arm(ctx, v, m, time.Time{}))
	down("Activate", rotation.Unknown, func() error { return b.Activate(ctx, v) })
	if st, err := b.Observe(ctx, old); err != nil || !strings.Contains(st.Detail, "LAN: on 3 of 3, the primary") || !strings.Contains(st.Detail, "WAN: on 3 of 3, the primary") {
		t.Errorf("before the use the old key is %+v, %v: want it to be the primary", st, err)
	}
	if err := b.End(ctx, old, rotation.ToRevoke); rotation.ClassOf(err) != rotation.Refused || !strings.Contains(err.Error(), "is the primary") {
		t.Errorf("End of the primary = %v, want a refusal", err)
	}
	g.must(b.Activate(ctx, v))
	g.must(b.Activate(ctx, old)) // the way back
	g.must(b.Activate(ctx, v))
	c.Versions = append(c.Versions, v)
	if err := b.Preflight(ctx, rotation.Credential{Name: g.name, Versions: []rotation.Version{old}}); rotation.ClassOf(err) != rotation.Refused || !strings.Contains(err.Error(), "is not the primary") {
		t.Errorf("Preflight with another primary = %v, want a refusal", err)
	}
	down("End", rotation.Unknown, func() error { return b.End(ctx, old, rotation.ToRetire) })
	g.must(b.End(ctx, old, rotation.ToRetire))
	if left := g.keys(); len(left) != 1 || left[0] != string(m["key"].Reveal()) {
		t.Errorf("%d keys are left, want the new one alone", len(left))
	}
	// One that takes part in the LAN pool alone, as each does for a moment after its start.
	g.dc.Kill(2)
	g.must(g.dc.LeaveWAN(2))
	g.must(g.dc.Start(2))
	g.dc.Await(t, 2)
	g.must(g.dc.Call(ctx, "PUT", "/v1/agent/force-leave/server3.dc1?wan=1", nil, nil))
	for end := time.Now().Add(time.Minute); ; time.Sleep(200 * time.Millisecond) {
		_, err := b.Observe(ctx, v)
		if rotation.ClassOf(err) != rotation.Unknown {
			t.Fatalf("a server is not in the WAN pool: %v", err)
		}
		if strings.Contains(err.Error(), "of 3 servers 2 are in the WAN pool") && strings.Contains(rotation.HintOf(err), "consul members -wan") {
			break
		}
		if time.Now().After(end) {
			t.Fatalf("that a server is not in the WAN pool is not said: %v", err)
		}
	}
	for i := range 3 {
		g.clean(g.dc.LogFile(i), string(m["key"].Reveal()), g.dc.GossipKey(), g.admin)
	}
}

// TestGossipAnswers is what a probe makes of what agents say.
func TestGossipAnswers(t *testing.T) {
	g := newGossiping(t, shared.Get(t))
	g.settled()
	b := g.backend()
	v, m := g.made(2)
	other, om := g.made(3)
	old, err := b.Adopt(t.Context(), g.version(1, rotation.Current))
	g.must(err)
	g.must(b.Arm(t.Context(), v, m, time.Time{}))
	t.Cleanup(func() { g.must(b.End(context.Background(), v, rotation.ToDiscard)) })
	in := rotation.Material{"key": secret.FromString(g.dc.GossipKey())}
	at := func(spec rotation.ProbeSpec, endpoints ...string) rotation.ProbeSpec {
		spec.Endpoints = endpoints
		return spec
	}
	answers := func(text string) string { return listen(t, text) }
	silent := answers("")
	for name, c := range map[string]struct {
		spec rotation.ProbeSpec
		m    rotation.Material
		want rotation.Answer
	}{
		"the primary":         {b.ProbeSpec(old), in, rotation.Alive},
		"installed":           {b.ProbeSpec(v), m, rotation.Alive},
		"its one field":       {b.ProbeSpec(v), rotation.Material{"other": m["key"]}, rotation.Alive},
		"with a line's end":   {b.ProbeSpec(v), rotation.Material{"key": secret.FromString(string(m["key"].Reveal()) + "\n")}, rotation.Alive},
		"not installed":       {b.ProbeSpec(other), om, rotation.Dead},
		"another key":         {b.ProbeSpec(v), in, rotation.Unfit},
		"no key":              {b.ProbeSpec(v), rotation.Material{"key": secret.FromString("hunter2")}, rotation.Unfit},
		"a key that is short": {b.ProbeSpec(v), rotation.Material{"key": secret.FromString("aHVudGVyMg==")}, rotation.Unfit},
		"no field":            {b.ProbeSpec(v), rotation.Material{"a": m["key"], "b": m["key"]}, rotation.Inconclusive},
		"agent down":          {at(b.ProbeSpec(v), "127.0.0.1:1"), m, rotation.Inconclusive},
		"one of two down":     {at(b.ProbeSpec(v), "127.0.0.1:1", g.dc.Serf()[0]), m, rotation.Inconclusive},
		"not Serf, silent":    {at(b.ProbeSpec(v), silent), m, rotation.Inconclusive},
		"not Serf, speaks":    {at(b.ProbeSpec(v), answers("SSH-2.0-OpenSSH\r\n")), m, rotation.Inconclusive},
		"no such host":        {at(b.ProbeSpec(v), "consul.invalid:8301"), m, rotation.Inconclusive},
	} {
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
		got := consul.Login(ctx, c.spec, c.m)
		cancel()
		if got.Answer != c.want {
			t.Errorf("%s: %s (%s), want %s", name, got.Answer, got.Reason, c.want)
		}
		if got.Answer != rotation.Alive && got.Reason == "" {
			t.Errorf("%s: no reason is given", name)
		}
	}
	half := newGossiping(t, testserver.NewConsul(t, 1)) // that has not the key
	if got := consul.Login(t.Context(), at(b.ProbeSpec(v), g.dc.Serf()[0], half.dc.Serf()[0]), m); got.Answer != rotation.Unfit {
		t.Errorf("one of two has the key: %s (%s), want unfit", got.Answer, got.Reason)
	}
}

// TestGossipRefusals is what is refused before anything is changed.
func TestGossipRefusals(t *testing.T) {
	g := newGossiping(t, shared.Get(t))
	g.settled()
	as := func(rules string, do func(*consul.Gossip) error) error {
		was := g.admin
		defer func() { g.admin = was }()
		g.admin = g.token(map[string]any{"Policies": g.dc.Policy(t, fmt.Sprintf("less%d", serial.Add(1)), rules)}).SecretID
		return do(g.backend())
	}
	adopted, err := g.backend().Adopt(t.Context(), g.version(1, rotation.Current))
	g.must(err)
	c := rotation.Credential{Name: g.name, Versions: []rotation.Version{adopted}}
	preflight := func(b *consul.Gossip) error { return b.Preflight(t.Context(), c) }
	elsewhere := adopted.Clone()
	elsewhere.Public["fingerprint"] = "SHA256:" + base64.RawStdEncoding.EncodeToString(make([]byte, 32))
	for name, tt := range map[string]struct {
		err  error
		want string
	}{
		"nothing on record":   {g.backend().Preflight(t.Context(), rotation.Credential{Name: g.name}), "no gossip key is on record"},
		"another is in use":   {g.backend().Preflight(t.Context(), rotation.Credential{Name: g.name, Versions: []rotation.Version{elsewhere}}), "is not the primary"},
		"another was adopted": {second(g.backend().Adopt(t.Context(), elsewhere)), "another key than the primary"},
		"may list":            {as(`keyring = "read" node_prefix "" { policy = "read" }`, preflight), "may list gossip keys, and not change any"},
		"may not list":        {as(`node_prefix "" { policy = "read" }`, preflight), "Permission denied"},
		"sees no member":      {as(`keyring = "write"`, preflight), "whether one is down cannot be told"},
		"sees some":           {as(`keyring = "write" node "other" { policy = "read" }`, preflight), "shows 0 of 1 members"},
		"ends the primary":    {g.backend().End(t.Context(), adopted, rotation.ToRevoke), "is the primary"},
		"no encryption":       {newGossiping(t, testserver.NewPlainConsul(t)).backend().Preflight(t.Context(), c), "the gossip is not encrypted"},
	} {
		if tt.err == nil || !strings.Contains(tt.err.Error(), tt.want) || rotation.ClassOf(tt.err) != rotation.Refused || rotation.HintOf(tt.err) == "" {
			t.Errorf("%s: %v of class %d with hint %q, want a refusal with %q", name, tt.err, rotation.ClassOf(tt.err), rotation.HintOf(tt.err), tt.want)
		}
		if tt.err != nil && strings.Contains(tt.err.Error(), g.dc.GossipKey()) {
			t.Errorf("%s: the error holds the key", name)
		}
	}
}

func second[T any](_ T, err error) error { return err }
