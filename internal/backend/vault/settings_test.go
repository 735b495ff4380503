package vault_test

import (
	"testing"
	"time"

	"github.com/keyturn/keyturn/internal/backend/remote"
	"github.com/keyturn/keyturn/internal/backend/vault"
	"github.com/keyturn/keyturn/internal/rotation"
	"github.com/keyturn/keyturn/internal/rotation/rotationtest"
	"github.com/keyturn/keyturn/internal/secret"
)

func TestSettings(t *testing.T) {
	const (
		who   = "servers: [\"https://vault-1.example.com:8200\"]\ntoken: {from-env: KEYTURN_VAULT_TOKEN}\n"
		good  = who + "approle: {role: orders}\n"
		role  = who + "approle:\n  role: orders\n  "
		blank = "token: {from-env: A}\napprole: {role: orders}\n"
	)
	if _, err := vault.Section(rotationtest.Decoder(good)); err != nil {
		t.Fatalf("%v", err)
	}
	s, err := vault.Section(rotationtest.Decoder(role + "secret-id-ttl: 120d\n  cidr-list: [\"10.0.3.0/24\"]\n  metadata: {team: orders}"))
	if life := s.(vault.Settings).Life(); err != nil || life != 120*24*time.Hour {
		t.Errorf("a secret-id lives for %s, %v, want 120 days", life, err)
	}
	const canary = "canary-3b9f"
	rotationtest.Refuses(t, vault.Section, canary, map[string][3]string{
		"no server":        {blank, "servers", "no server is named"},
		"no URL":           {"servers: [" + canary + "]\n" + blank, "servers.0", "no URL that begins with https://"},
		"no TLS":           {"servers: [\"http://" + canary + ":8200\"]\n" + blank, "servers.0", "the URL has no TLS"},
		"a user in it":     {"servers: [\"https://u:" + canary + "@vault:8200\"]\n" + blank, "servers.0", "has a user, a query or a fragment"},
		"a token in it":    {"servers: [\"https://vault:8200/?token=" + canary + "\"]\n" + blank, "servers.0", "has a user, a query or a fragment"},
		"named twice":      {"servers: [\"https://vault:8200\", \"https://vault:8200\"]\n" + blank, "servers.1", "stands there twice"},
		"no token":         {"servers: [\"https://vault:8200\"]\napprole: {role: orders}", "token", "has no place"},
		"two tokens":       {"servers: [\"https://vault:8200\"]\ntoken: {from-env: A, from-file: /b}\napprole: {role: orders}", "token", "has two places"},
		"nothing":          {who, "", "nothing says what is rotated"},
		"no role":          {who + "approle: {mount: approle}", "approle.role", "the role is missing"},
		"role":             {who + "approle: {role: \"../" + canary + "\"}", "approle.role", "cannot be the name of a role"},
		"mount":            {role + "mount: \"/auth/" + canary + "?\"", "approle.mount", "cannot be a mount"},
		"a probe without":  {role + "probe: [\"vault:8200\"]", "approle.probe.0", "no URL that begins with https://"},
		"a secret-id":      {role + "adopt: " + canary, "approle.adopt", "no accessor of a secret-id"},
		"time to live":     {role + "secret-id-ttl: soon", "approle.secret-id-ttl", "no time of a minute or more"},
		"our own metadata": {role + "metadata: {keyturn: " + canary + "}", "approle.metadata", "cannot be one of metadata"},
		"address":          {role + "cidr-list: [" + canary + "]", "approle.cidr-list.0", "no block of addresses"},
		"token's address":  {role + "token-bound-cidrs: [10.0.0.1]", "approle.token-bound-cidrs.0", "no block of addresses"},
		"weakening":        {good + "insecure-tls: [no-verify]", "insecure-tls.0", "unknown weakening"},
		"unknown key":      {role + "namspace: a", "", "namspace"},
	})
}

func TestNew(t *testing.T) {
	s := vault.Settings{Servers: []string{"https://127.0.0.1:1"}, Token: secret.Source{Env: "A"}, CA: "ca.pem", AppRole: &vault.AppRole{Role: "orders"}}
	if _, err := vault.New(s, vault.Options{Options: remote.Options{CA: []byte("no certificate")}}); rotation.ClassOf(err) != rotation.Invalid {
		t.Errorf("an authority that is none: %v, want it to be invalid", err)
	}
	if _, err := vault.New(vault.Settings{}, vault.Options{}); rotation.ClassOf(err) != rotation.Invalid {
		t.Errorf("settings without anything: %v, want them to be invalid", err)
	}
	b, err := vault.New(s, vault.Options{Options: remote.Options{Getenv: func(string) string { return "" }}})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := b.Observe(t.Context(), rotation.Version{Identity: "a", Number: 1}); rotation.ClassOf(err) != rotation.Invalid {
		t.Errorf("without the administrator's token: %v, want it to be invalid", err)
	}
}
