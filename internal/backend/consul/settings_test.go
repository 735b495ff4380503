package consul_test

import (
	"strings"
	"testing"

	"github.com/keyturn/keyturn/internal/backend/consul"
	"github.com/keyturn/keyturn/internal/backend/remote"
	"github.com/keyturn/keyturn/internal/rotation"
	"github.com/keyturn/keyturn/internal/rotation/rotationtest"
	"github.com/keyturn/keyturn/internal/secret"
)

// canary stands where somebody may have written a secret: no fault repeats it.
const canary = "canary-3b9f"

func TestSettings(t *testing.T) {
	const good = "servers: [\"https://consul-1.example.com:8501\"]\ntoken: {from-env: KEYTURN_CONSUL_TOKEN}\n"
	if _, err := consul.Section(rotationtest.Decoder(good)); err != nil {
		t.Fatalf("%v", err)
	}
	rotationtest.Refuses(t, consul.Section, canary, map[string][3]string{
		"no server":          {"token: {from-env: A}", "servers", "no server is named"},
		"no URL":             {"servers: [" + canary + "]\ntoken: {from-env: A}", "servers.0", "no URL that begins with https://"},
		"no TLS":             {"servers: [\"http://" + canary + ":8500\"]\ntoken: {from-env: A}", "servers.0", "the URL has no TLS"},
		"a user in it":       {"servers: [\"https://u:" + canary + "@consul:8501\"]\ntoken: {from-env: A}", "servers.0", "has a user, a query or a fragment"},
		"a token in it":      {"servers: [\"https://consul:8501/?token=" + canary + "\"]\ntoken: {from-env: A}", "servers.0", "has a user, a query or a fragment"},
		"named twice":        {"servers: [\"https://consul:8501\", \"https://consul:8501\"]\ntoken: {from-env: A}", "servers.1", "stands there twice"},
		"a probe without":    {good + "probe: [\"consul:8500\"]", "probe.0", "no URL that begins with https://"},
		"no token":           {"servers: [\"https://consul:8501\"]", "token", "has no place"},
		"two tokens":         {"servers: [\"https://consul:8501\"]\ntoken: {from-env: A, from-file: /b}", "token", "has two places"},
		"cache-time":         {good + "cache-time: soon", "cache-time", "no time from 0s to 1h"},
		"description":        {good + "description: \"" + canary + "\\n\"", "description", "other characters, or too many"},
		"a SecretID":         {good + "adopt: " + strings.ToUpper(canary), "adopt", "no accessor of a token"},
		"policy":             {good + "policies: [\"a b\"]", "policies.0", "cannot be a name"},
		"everything":         {good + "policies: [global-management]", "policies.0", "may do everything"},
		"service identity":   {good + "service-identities: [Orders!]", "service-identities.0", "cannot be an identity"},
		"node without place": {good + "node-identities: [db1]", "node-identities.0", "of one datacenter"},
		"weakening":          {good + "insecure-tls: [no-verify]", "insecure-tls.0", "unknown weakening"},
		"own, by variable":   {good + "own: true", "own", "no place that the cutover moves"},
		"own, elsewhere":     {strings.Replace(good, "from-env: KEYTURN_CONSUL_TOKEN", "from-file: /run/"+canary, 1) + "own: true", "own", "no place that the cutover moves"},
		"own, relative":      {strings.Replace(good, "from-env: KEYTURN_CONSUL_TOKEN", "from-file: a/current/token", 1) + "own: true", "own", "no place that the cutover moves"},
		"own gossip key":     {strings.Replace(good, "from-env: KEYTURN_CONSUL_TOKEN", "from-file: /a/current/token", 1) + "own: true\ngossip-key: {}", "own", "is for nothing else"},
		"unknown key":        {good + "polices: [a]", "", "polices"},
	})
}

func TestNew(t *testing.T) {
	s := consul.Settings{Servers: []string{"https://127.0.0.1:1"}, Token: secret.Source{Env: "A"}, CA: "ca.pem"}
	if _, err := consul.New(s, consul.Options{Options: remote.Options{CA: []byte("no certificate")}}); rotation.ClassOf(err) != rotation.Invalid {
		t.Errorf("an authority that is none: %v, want it to be invalid", err)
	}
	if _, err := consul.New(consul.Settings{}, consul.Options{}); rotation.ClassOf(err) != rotation.Invalid {
		t.Errorf("settings without anything: %v, want them to be invalid", err)
	}
	b, err := consul.New(s, consul.Options{Options: remote.Options{Getenv: func(string) string { return "" }}})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := b.Observe(t.Context(), rotation.Version{Identity: "a", Number: 1}); rotation.ClassOf(err) != rotation.Invalid {
		t.Errorf("without the administrator's token: %v, want it to be invalid", err)
	}
}
