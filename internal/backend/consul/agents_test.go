package consul_test

import (
	"context"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
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

const agentRules = `node_prefix "" { policy = "write" } service_prefix "" { policy = "write" } agent_prefix "" { policy = "read" }`

// An agentFixture is a server, a client agent that keeps the tokens that it is told, and one that
// does not; both were configured by hand with one token.
type agentFixture struct {
	*fixture
	old    testserver.ConsulToken
	agents []int
}

func newAgentFixture(t testing.TB) *agentFixture {
	t.Helper()
	dc := testserver.NewConsul(t, 1)
	f := &agentFixture{fixture: newFixture(t, dc)}
	f.admin = f.token(map[string]any{"Policies": dc.Policy(t, f.name+"-agents", `acl = "write" agent_prefix "" { policy = "write" } node_prefix "" { policy = "read" }`)}).SecretID
	f.old = f.token(map[string]any{"Description": "agents, by hand", "Policies": dc.Policy(t, f.name+"-agent", agentRules)})
	dc.Known(t, f.admin)
	dc.Known(t, f.old.SecretID)
	for _, name := range []string{"keeps", "forgets"} {
		f.agents = append(f.agents, dc.AddClient(t, name, dc.GossipKey(), map[string]any{"acl": map[string]any{"enabled": true, "default_policy": "deny", "token_ttl": "1s",
			"tokens": map[string]string{"agent": f.old.SecretID, "default": f.old.SecretID}, "enable_token_persistence": name == "keeps"}}))
	}
	for _, i := range f.agents {
		dc.Await(t, i)
	}
	return f
}

func (f *agentFixture) settings() consul.Settings {
	s := f.fixture.settings()
	s.Servers = s.Servers[:1]
	s.Policies, s.Roles, s.ServiceIdentities, s.NodeIdentities = []string{f.name + "-agent"}, nil, nil, nil
	s.CacheTime = "1s"
	s.AgentToken = &consul.AgentToken{Kinds: []string{"agent", "default"}}
	for _, i := range f.agents {
		s.AgentToken.Agents = append(s.AgentToken.Agents, f.dc.URLs()[i])
	}
	return s
}

func (f *agentFixture) backend(change ...func(*consul.Settings)) *consul.AgentBackend {
	f.t.Helper()
	s := f.settings()
	for _, c := range change {
		c(&s)
	}
	b, err := consul.NewAgent(s, consul.Options{Credential: f.name, Options: remote.Options{CA: f.dc.CA(), Patience: 10 * time.Second, Timeout: 4 * time.Second, Getenv: func(string) string { return f.admin }}})
	f.must(err)
	return b
}

// use checks which token every agent has of kind default, by a request without any, and has each
// enter a service in the catalog, which it does with that token.
func (f *agentFixture) use(accessor string) {
	f.t.Helper()
	for _, i := range f.agents {
		var self testserver.ConsulToken
		f.must(f.dc.CallAt(context.Background(), i, "", http.MethodGet, "/v1/acl/token/self", nil, &self))
		if self.AccessorID != accessor {
			f.t.Errorf("agent %d has token %s, want %s", i, self.AccessorID, accessor)
		}
		id := fmt.Sprintf("web%d", serial.Add(1))
		f.must(f.dc.CallAt(context.Background(), i, "", http.MethodPut, "/v1/agent/service/register", map[string]string{"Name": id}, nil))
		for end := time.Now().Add(time.Minute); ; time.Sleep(50 * time.Millisecond) {
			var found []any
			f.must(f.dc.Call(context.Background(), http.MethodGet, "/v1/catalog/service/"+id, nil, &found))
			if len(found) > 0 {
				break
			}
			if time.Now().After(end) {
				f.t.Fatalf("agent %d cannot enter a service in the catalog", i)
			}
		}
	}
}

// TestAgentTokens rotates the token of two agents twice and back: they are told it before the
// old one goes, also the one that forgets what it was told when it is started again.
func TestAgentTokens(t *testing.T) {
	f := newAgentFixture(t)
	ctx := t.Context()
	b := f.backend(func(s *consul.Settings) { s.Adopt = f.old.AccessorID })
	last, err := b.Adopt(ctx, f.version(1, rotation.Current))
	f.must(err)
	f.must(b.Preflight(ctx, rotation.Credential{}))
	warnings, err := b.Warnings(ctx, "")
	f.must(err)
	if text := strings.Join(warnings, "\n"); !strings.Contains(text, "started again, forgets would have the token of their configuration") {
		t.Errorf("the warnings do not name the agent that forgets its token: %s", text)
	}
	values := []string{f.admin, f.old.SecretID}
	for number := 2; number <= 3; number++ {
		next, err := b.Identify(ctx, f.version(number, rotation.Pending), []rotation.Version{last})
		f.must(err)
		m, err := b.Draft(next)
		f.must(err)
		values = append(values, string(m["token"].Reveal()))
		f.must(b.Arm(ctx, next, m, time.Time{}))
		if r := consul.Login(ctx, b.ProbeSpec(next), m); r.Answer != rotation.Alive || len(r.Endpoints) != 2 {
			t.Fatalf("before the cutover the token is %+v, want it to be alive at both agents", r)
		}
		for _, v := range []rotation.Version{next, last, next} { // and the way back
			f.must(b.Activate(ctx, v))
			f.use(v.Identity)
		}
		f.restart(1) // it went back to its configuration
		f.must(b.End(ctx, last, rotation.ToRetire))
		f.use(next.Identity)
		last = next
	}
	for _, i := range f.agents {
		for _, v := range values {
			log, err := os.ReadFile(f.dc.LogFile(i))
			f.must(err)
			if strings.Contains(string(log), v) {
				t.Errorf("the log of an agent holds a value")
			}
		}
	}
	kept, err := os.ReadFile(filepath.Join(filepath.Dir(f.dc.LogFile(f.agents[0])), "data", "acl-tokens.json"))
	if err != nil || !strings.Contains(string(kept), values[len(values)-1]) {
		t.Errorf("the agent that keeps its tokens has not the last one on its disk: %v", err)
	}
}

func (f *agentFixture) restart(agent int) {
	f.t.Helper()
	i := f.agents[agent]
	f.dc.Kill(i)
	f.must(f.dc.Start(i))
	f.dc.Await(f.t, i)
}

// TestAgentDown shows that an agent that does not answer stops the cutover and the cleanup
// before anything is changed.
func TestAgentDown(t *testing.T) {
	f := newAgentFixture(t)
	ctx := t.Context()
	b := f.backend(func(s *consul.Settings) { s.Adopt = f.old.AccessorID })
	last, err := b.Adopt(ctx, f.version(1, rotation.Current))
	f.must(err)
	next, err := b.Identify(ctx, f.version(2, rotation.Pending), []rotation.Version{last})
	f.must(err)
	m, err := b.Draft(next)
	f.must(err)
	f.must(b.Arm(ctx, next, m, time.Time{}))
	down := f.agents[1]
	f.dc.Kill(down)
	want := func(doing string, err error) {
		t.Helper()
		if rotation.ClassOf(err) != rotation.Unknown || err == nil || !strings.Contains(err.Error(), f.dc.URLs()[down]) || !strings.Contains(rotation.HintOf(err), "take it out of agents:") {
			t.Errorf("%s with an agent down = %v of class %d, want it unknown, with the agent's name", doing, err, rotation.ClassOf(err))
		}
	}
	want("Preflight", b.Preflight(ctx, rotation.Credential{}))
	want("Activate", b.Activate(ctx, next))
	want("End", b.End(ctx, last, rotation.ToRetire))
	if st, err := b.Observe(ctx, last); err != nil || st.Status != rotation.Armed {
		t.Errorf("the old token is %+v, %v: want it to be there", st, err)
	}
	f.must(f.dc.Start(down))
	f.dc.Await(t, down)
	f.must(b.Activate(ctx, next))
	f.must(b.End(ctx, last, rotation.ToRetire))
	f.use(next.Identity)
	as := func(rules string) error {
		was := f.admin
		defer func() { f.admin = was }()
		f.admin = f.token(map[string]any{"Policies": f.dc.Policy(t, fmt.Sprintf("few%d", serial.Add(1)), rules)}).SecretID
		f.dc.Known(t, f.admin)
		return f.backend().Preflight(ctx, rotation.Credential{})
	}
	for name, c := range map[string]struct {
		err  error
		want string
	}{
		"no agent:write": {as(`acl = "write" agent_prefix "" { policy = "read" }`), "may not tell agent"},
		"no agent:read":  {as(`acl = "write"`), "Permission denied"},
	} {
		if c.err == nil || !strings.Contains(c.err.Error(), c.want) || rotation.ClassOf(c.err) != rotation.Refused || !strings.Contains(rotation.HintOf(c.err), "agent_prefix") {
			t.Errorf("%s: %v with hint %q, want a refusal with %q", name, c.err, rotation.HintOf(c.err), c.want)
		}
	}
}

func TestAgentSettings(t *testing.T) {
	const start = "servers: [\"https://consul-1.example.com:8501\"]\ntoken: {from-env: KEYTURN_CONSUL_TOKEN}\n"
	s, err := consul.Section(rotationtest.Decoder(start + "agent-token: {agents: [\"https://node-1:8501\"], kinds: [agent, dns]}\n"))
	if err != nil {
		t.Fatalf("%v", err)
	}
	if _, err := consul.NewAgent(consul.Settings{Servers: s.(consul.Settings).Servers, Token: secret.Source{Env: "A"}}, consul.Options{}); rotation.ClassOf(err) != rotation.Invalid {
		t.Errorf("settings of another token: %v, want them to be invalid", err)
	}
	rotationtest.Refuses(t, consul.Section, canary, map[string][3]string{
		"no agent":    {start + "agent-token: {}", "agent-token.agents", "no agent is named"},
		"no URL":      {start + "agent-token: {agents: [" + canary + "]}", "agent-token.agents.0", "no URL that begins with https://"},
		"no TLS":      {start + "agent-token: {agents: [\"http://" + canary + ":8500\"]}", "agent-token.agents.0", "the URL has no TLS"},
		"a user":      {start + "agent-token: {agents: [\"https://u:" + canary + "@h:8501\"]}", "agent-token.agents.0", "has a user, a query or a fragment"},
		"twice":       {start + "agent-token: {agents: [\"https://h:8501\", \"https://h:8501\"]}", "agent-token.agents.1", "stands there twice"},
		"kind":        {start + "agent-token: {agents: [\"https://h:8501\"], kinds: [" + canary + "]}", "agent-token.kinds.0", "has no such token"},
		"both":        {start + "agent-token: {agents: [\"https://h:8501\"]}\ngossip-key: {}", "agent-token", "a gossip key is rotated"},
		"unknown key": {start + "agent-token: {token: " + canary + "}", "", "token"},
	})
}
