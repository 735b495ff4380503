package consul_test

import (
	"testing"

	"github.com/keyturn/keyturn/internal/backend/consul"
	"github.com/keyturn/keyturn/internal/rotation"
	"github.com/keyturn/keyturn/internal/rotation/rotationtest"
)

func TestGossipSettings(t *testing.T) {
	const start = "servers: [\"https://consul-1.example.com:8501\"]\ntoken: {from-env: KEYTURN_CONSUL_TOKEN}\n"
	const good = start + "gossip-key: {}\n"
	s, err := consul.Section(rotationtest.Decoder(good))
	if err != nil {
		t.Fatalf("%v", err)
	}
	b, err := consul.NewGossip(s.(consul.Settings), consul.Options{Credential: "gossip"})
	if err != nil {
		t.Fatal(err)
	}
	if got := b.ProbeSpec(rotation.Version{}).Endpoints; len(got) != 1 || got[0] != "consul-1.example.com:8301" {
		t.Errorf("a key is tried at %q, want the server at Serf's own port", got)
	}
	if _, err := consul.NewGossip(consul.Settings{Servers: s.(consul.Settings).Servers, Token: s.(consul.Settings).Token}, consul.Options{}); rotation.ClassOf(err) != rotation.Invalid {
		t.Errorf("settings of a token: %v, want them to be invalid", err)
	}
	rotationtest.Refuses(t, consul.Section, canary, map[string][3]string{
		"no server":        {"token: {from-env: A}\ngossip-key: {}", "servers", "no server is named"},
		"no place":         {start + "gossip-key: {probe: [\"" + canary + "\"]}", "gossip-key.probe.0", "names no host with a port"},
		"no host":          {start + "gossip-key: {probe: [\":8301\"]}", "gossip-key.probe.0", "names no host with a port"},
		"a URL":            {start + "gossip-key: {probe: [\"https://" + canary + ":8301\"]}", "gossip-key.probe.0", "names no host with a port"},
		"a user in it":     {start + "gossip-key: {probe: [\"" + canary + "@h:8301\"]}", "gossip-key.probe.0", "names no host with a port"},
		"named twice":      {start + "gossip-key: {probe: [\"h:8301\", \"h:8301\"]}", "gossip-key.probe.1", "stands there twice"},
		"unknown key":      {start + "gossip-key: {key: " + canary + "}", "", "key"},
		"probe":            {good + "probe: [\"https://consul:8501\"]", "probe", "said of a token"},
		"cache-time":       {good + "cache-time: 1s", "cache-time", "said of a token"},
		"description":      {good + "description: gossip", "description", "said of a token"},
		"adopt":            {good + "adopt: 6a1253d2-1785-24fd-91c2-f8e78c745511", "adopt", "said of a token"},
		"policies":         {good + "policies: [a]", "policies", "said of a token"},
		"roles":            {good + "roles: [a]", "roles", "said of a token"},
		"service-identity": {good + "service-identities: [a]", "service-identities", "said of a token"},
		"node-identity":    {good + "node-identities: [a@dc1]", "node-identities", "said of a token"},
	})
}
