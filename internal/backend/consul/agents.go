package consul

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"

	"github.com/hashicorp/consul/api"

	"github.com/keyturn/keyturn/internal/backend/remote"
	"github.com/keyturn/keyturn/internal/rotation"
)

// AgentToken says which agents use the token themselves, and for what.
type AgentToken struct {
	// Agents holds the URL of the HTTP API of every agent that uses the token.
	Agents []string `yaml:"agents"`

	// Kinds are what they use it for: agent, default, config_file_service_registration,
	// replication, dns. Default: agent.
	Kinds []string `yaml:"kinds"`
}

// agentKinds are the tokens of an agent that its API sets.
var agentKinds = []string{"agent", "default", "config_file_service_registration", "replication", "dns"}

func (a AgentToken) kinds() []string {
	if len(a.Kinds) == 0 {
		return agentKinds[:1]
	}
	return a.Kinds
}

// An AgentBackend rotates a token that agents use themselves, each of which is told by its
// own API. Consul gives a token's value to whoever may write tokens, so that the cutover
// hands to agents what Consul has.
type AgentBackend struct{ *Backend }

var (
	_ rotation.Backend     = (*AgentBackend)(nil)
	_ rotation.Activator   = (*AgentBackend)(nil)
	_ rotation.Preflighter = (*AgentBackend)(nil)
	_ rotation.Warner      = (*AgentBackend)(nil)
)

// NewAgent returns an AgentBackend for settings that passed [Section]. It does no I/O.
func NewAgent(s Settings, o Options) (*AgentBackend, error) {
	if s.AgentToken == nil {
		return nil, rotation.Errorf(rotation.Invalid, "", "consul: the settings are of no agents' token")
	}
	b, err := New(s, o)
	return &AgentBackend{b}, err
}

// Noun implements [rotation.Nouner].
func (*AgentBackend) Noun() string { return "agents' ACL token" }

// An agent is one that was asked who it is.
type agent struct {
	server
	name       string
	persistent bool // it keeps tokens that it is told over a restart
}

// agents asks every one who it is. One that does not answer may have the token before, and is
// named.
func (b *AgentBackend) agents(ctx context.Context) (*cluster, []agent, error) {
	of := b.settings
	of.Servers = b.settings.AgentToken.Agents
	c, err := b.options.open(ctx, of)
	if err != nil {
		return nil, nil, err
	}
	var out []agent
	var errs []error
	for _, s := range c.servers {
		var self struct {
			Config      struct{ NodeName string }
			DebugConfig struct {
				ACLTokens struct{ EnablePersistence bool }
			}
		}
		err := c.once(ctx, s.api, func(ctx context.Context, _ *api.Client) error {
			return s.ask(ctx, http.MethodGet, "/v1/agent/self", nil, &self)
		})
		if err != nil {
			errs = append(errs, agentError(s, "asking the agent who it is", err))
			continue
		}
		out = append(out, agent{s, self.Config.NodeName, self.DebugConfig.ACLTokens.EnablePersistence})
	}
	return c, out, errors.Join(errs...)
}

// agentError is wrap with a hint about agents.
func agentError(s server, doing string, err error) error {
	if text, status := refusal(err); status == http.StatusForbidden && strings.Contains(text, textDenied) {
		return refused(`give the administrator's token agent_prefix "" { policy = "write" } too`, "%s: %s: Permission denied", s.url, doing)
	}
	wrapped := wrap(s.url, doing, err)
	if _, status := refusal(err); status == 0 && !errors.Is(err, errBehind) {
		return rotation.Errorf(rotation.Unknown, "bring the agent back, or take it out of agents: if it is gone for good; it may have the token of before", "%w", wrapped)
	}
	return wrapped
}

// Preflight implements [rotation.Preflighter]: every agent answers, and may be told.
func (b *AgentBackend) Preflight(ctx context.Context, cred rotation.Credential) error {
	if err := b.Backend.Preflight(ctx, cred); err != nil {
		return err
	}
	c, all, err := b.agents(ctx)
	if err != nil {
		return err
	}
	for _, a := range all {
		ask := []map[string]string{{"Resource": "agent", "Access": "write", "Segment": a.name}}
		var answers []struct{ Allow bool }
		err := c.once(ctx, a.api, func(ctx context.Context, _ *api.Client) error {
			return a.ask(ctx, http.MethodPost, "/v1/internal/acl/authorize", ask, &answers)
		})
		if err == nil && len(answers) == 1 && !answers[0].Allow {
			return refused(`give it agent_prefix "" { policy = "write" } too`, "%s: the administrator's token may not tell agent %s its tokens", a.url, a.name)
		}
	}
	return nil
}

// Activate tells every agent the version's token, once all of them answer.
func (b *AgentBackend) Activate(ctx context.Context, v rotation.Version) error {
	c, err := b.open(ctx)
	if err != nil {
		return err
	}
	t, err := c.find(ctx, v.Identity)
	if err != nil {
		return err
	}
	if t == nil || !of(t, v) {
		return rotation.Errorf(rotation.Failed, "start again: keyturn prepare "+v.Credential, "consul: there is no token of version %d to tell the agents", v.Number)
	}
	return b.tell(ctx, t)
}

func (b *AgentBackend) tell(ctx context.Context, t *api.ACLToken) error {
	c, all, err := b.agents(ctx)
	if err != nil {
		return err
	}
	for _, a := range all {
		for _, kind := range b.settings.AgentToken.kinds() {
			if err := rotation.CheckLease(ctx); err != nil {
				return err
			}
			err := c.once(ctx, a.api, func(ctx context.Context, client *api.Client) error {
				return a.ask(ctx, http.MethodPut, "/v1/agent/token/"+kind, map[string]string{"Token": t.SecretID}, nil)
			})
			if err != nil {
				return agentError(a.server, "telling the agent its token "+kind, err)
			}
		}
	}
	return nil
}

// End tells every agent once more the token that stays, when one is retired: an agent that was
// started again since the cutover, and keeps no tokens, went back to what its configuration
// says. Then the token is deleted.
func (b *AgentBackend) End(ctx context.Context, v rotation.Version, why rotation.Why) error {
	if why == rotation.ToRetire {
		c, err := b.open(ctx)
		if err != nil {
			return err
		}
		if stays, err := b.after(ctx, c, v); err != nil {
			return err
		} else if stays != nil {
			if err := b.tell(ctx, stays); err != nil {
				return err
			}
		}
	}
	return b.Backend.End(ctx, v, why)
}

// after returns the token of the last version after another, if there is one.
func (b *AgentBackend) after(ctx context.Context, c *cluster, v rotation.Version) (*api.ACLToken, error) {
	all, err := b.list(ctx, c)
	if err != nil {
		return nil, err
	}
	last, number := "", v.Number
	for _, t := range all {
		if title, n := rotation.ParseTitle(t.Description); title == b.title && n > number {
			last, number = t.AccessorID, n
		}
	}
	if last == "" {
		return nil, nil
	}
	return c.find(ctx, last)
}

// Warnings implements [rotation.Warner].
func (b *AgentBackend) Warnings(ctx context.Context, where string) ([]string, error) {
	out, err := b.Backend.Warnings(ctx, where)
	if err != nil {
		return out, err
	}
	_, all, err := b.agents(ctx)
	if err != nil {
		return out, err
	}
	var forget []string
	for _, a := range all {
		if !a.persistent {
			forget = append(forget, a.name)
		}
	}
	if len(forget) > 0 {
		out = append(out, fmt.Sprintf("started again, %s would have the token of their configuration, and not the one that they were told: set acl.enable_token_persistence, or put the new token there", strings.Join(forget, ", ")))
	}
	return append(out, "an agent that is not named under agents: is not told, and fails with the old token when that is deleted"), nil
}

func (s Settings) checkAgents(fault faultFunc) {
	if s.GossipKey != nil {
		fault("agent-token", "make two credentials of them", "a gossip key is rotated, and no token")
	}
	if len(s.AgentToken.Agents) == 0 {
		fault("agent-token.agents", "name the API of each: https://node-1.example.com:8501", "no agent is named")
	}
	for i, u := range s.AgentToken.Agents {
		if tip, problem := remote.Problem(u, "https://node-1.example.com:8501", s.InsecureTLS); problem != "" {
			fault(fmt.Sprintf("agent-token.agents.%d", i), tip, "%s", problem)
		} else if slices.Contains(s.AgentToken.Agents[:i], u) {
			fault(fmt.Sprintf("agent-token.agents.%d", i), "name each once", "the same URL stands there twice")
		}
	}
	for i, k := range s.AgentToken.Kinds {
		if !slices.Contains(agentKinds, k) {
			fault(fmt.Sprintf("agent-token.kinds.%d", i), "known are "+strings.Join(agentKinds, ", "), "an agent has no such token")
		}
	}
}
