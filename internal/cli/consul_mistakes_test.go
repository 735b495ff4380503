package cli_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/keyturn/keyturn/internal/secret"
)

// TestConsulMistakes meets what is wrong with the configuration of a gossip key, of an agents'
// token and of Keyturn's own token, or with what stands around it: each is said with a hint and
// its exit code, and nothing is changed.
func TestConsulMistakes(t *testing.T) {
	t.Parallel()
	dc := servers.consul.Get(t)
	g := newGossipShop(t, dc, dc.GossipKey())
	whole, replaced := g.configuration()
	gossip := fmt.Sprintf(`gossip-key: {probe: ["%s"]}`, dc.Serf()[0])
	as := func(rules string) string { // a token with other rights
		made := dc.Put(t, "/v1/acl/token", map[string]any{"Policies": dc.Policy(t, fmt.Sprintf("mistake%d", serial.Add(1)), rules)})
		dc.Known(t, made.SecretID)
		g.secrets = append(g.secrets, made.SecretID)
		return "KEYTURN_CONSUL_TOKEN=" + made.SecretID
	}
	key := filepath.Join(g.root, g.name, "initial", "key")
	holds := func(text string) func() {
		return func() { g.must(os.Remove(key)); g.must(os.WriteFile(key, []byte(text), 0o400)) }
	}
	before, _, err := g.rings()
	g.must(err)
	agents := func(text string) string {
		return strings.Replace(replaced(gossip, text), "gossip-key: key", "token: token", 1)
	}
	const read = `node_prefix "" { policy = "read" }`
	g.meets(whole, map[string]shopMistake{
		"a place without a port":       {config: replaced(dc.Serf()[0], "consul-1"), code: 2, words: []string{"names no host with a port"}},
		"rights of a gossip key":       {config: replaced(gossip, gossip+", policies: [a]"), code: 2, words: []string{"said of a token"}},
		"two kinds at once":            {config: replaced(gossip, gossip+`, agent-token: {agents: ["https://h:1"]}`), code: 2, words: []string{"a gossip key is rotated, and no token"}},
		"an agents' token without":     {config: agents("agent-token: {}"), code: 2, words: []string{"no agent is named"}},
		"an unknown kind":              {config: agents(`agent-token: {agents: ["https://h:1"], kinds: [master]}`), code: 2, words: []string{"an agent has no such token"}},
		"an own token that stays":      {config: agents("own: true"), code: 2, words: []string{"read from no place that the cutover moves"}},
		"no token":                     {env: "KEYTURN_CONSUL_TOKEN=", code: 2, words: []string{"KEYTURN_CONSUL_TOKEN"}},
		"no authority":                 {config: replaced(dc.CAFile(), "/nowhere.pem"), code: 2, words: []string{"/nowhere.pem"}},
		"an unknown token":             {env: "KEYTURN_CONSUL_TOKEN=" + string(secret.GenerateUUID().Reveal()), code: 3, words: []string{"Consul does not know the administrator's token"}},
		"may not list keys":            {env: as(read), code: 3, words: []string{"Permission denied"}},
		"may not change keys":          {env: as(`keyring = "read" ` + read), command: "adopted", code: 3, words: []string{"may list gossip keys, and not change any"}},
		"sees no member":               {env: as(`keyring = "write"`), code: 3, words: []string{"whether one is down cannot be told"}},
		"nothing answers":              {config: replaced(dc.URLs()[0], "https://127.0.0.1:1"), code: 4, words: []string{"is it running, and can it be reached from here?"}},
		"nothing on record":            {code: 3, words: []string{"no gossip key is on record", "keyturn adopt"}},
		"the target has another":       {first: holds("c29tZSBvdGhlciBrZXkgb2YgMzIgYnl0ZXMgaXMhISE="), then: holds(dc.GossipKey()), command: "adopt", code: 3, words: []string{"another key than the version's"}},
		"the target has no key at all": {first: holds("hunter2"), then: holds(dc.GossipKey()), command: "adopt", code: 3, words: []string{"no gossip key"}},
	})
	if after, _, err := g.rings(); err != nil || len(after) != len(before) {
		t.Errorf("there are %d gossip keys, and there were %d: %v", len(after), len(before), err)
	}
}
