package cli_test

import (
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// TestVaultMistakes meets what is wrong with the configuration of a secret-id, or with what
// stands around it: each is said with a hint and its exit code, and nothing is changed.
func TestVaultMistakes(t *testing.T) {
	t.Parallel()
	server := servers.vault.Get(t)
	v := newVaultShop(t, server)
	v.inDirectory()
	whole, replaced := v.configuration()
	role := "approle: {role: " + v.name
	reader := server.Admin(t, v.name+"-reader", strings.ReplaceAll(strings.ReplaceAll(v.policy(), `["update"]`, `["deny"]`), `, "sudo"`, ""))
	v.secrets = append(v.secrets, reader)
	set := func(pairs map[string]any) func() {
		return func() { v.call(http.MethodPost, "/v1/auth/approle/role/"+v.name, pairs, nil) }
	}
	secretID := filepath.Join(v.root, v.name, "initial", "secret_id")
	holds := func(text string) func() {
		return func() { v.must(os.Remove(secretID)); v.must(os.WriteFile(secretID, []byte(text), 0o400)) }
	}
	before, _ := v.titles()
	v.meets(whole, map[string]shopMistake{
		"no role":                  {config: replaced(role, "approle: {mount: approle"), code: 2, words: []string{"the role is missing"}},
		"an address without TLS":   {config: replaced("https://", "http://"), code: 2, words: []string{"the URL has no TLS"}},
		"a place that is not one":  {config: replaced(role, role+", cidr-list: [nowhere]"), code: 2, words: []string{"no block of addresses"}},
		"a life that is too short": {config: replaced(role, role+", secret-id-ttl: 1h"), code: 2, words: []string{"a version lives for 1h", "are too long for it"}},
		"no token":                 {env: "KEYTURN_VAULT_TOKEN=", code: 2, words: []string{"KEYTURN_VAULT_TOKEN"}},
		"no authority":             {config: replaced(server.CAFile(), "/nowhere.pem"), code: 2, words: []string{"/nowhere.pem"}},
		"an unknown token":         {env: "KEYTURN_VAULT_TOKEN=hvs.unknown", command: "adopt", code: 3, words: []string{"permission denied"}},
		"a token that only reads":  {env: "KEYTURN_VAULT_TOKEN=" + reader, command: "adopted", code: 3, words: []string{"the administrator's token lacks", "update on auth/token/revoke-accessor"}},
		"an unknown role":          {config: replaced(role, "approle: {role: "+v.name+"x"), env: "KEYTURN_VAULT_TOKEN=" + server.Token, command: "adopt", code: 3, words: []string{"there is no role"}},
		"an unknown accessor":      {config: replaced(role, role+", adopt: 7a1c8c5e-0000-4000-8000-0123456789ab"), command: "adopt", code: 3, words: []string{"no secret-id with the accessor under adopt"}},
		"nothing answers":          {config: replaced(server.URLs()[0], "https://127.0.0.1:1"), command: "adopt", code: 4, words: []string{"is it running, and can it be reached from here?"}},
		"nothing on record":        {code: 3, words: []string{"keyturn adopt"}},
		"the target has another":   {first: holds("another"), then: holds(v.old.Value), command: "adopt", code: 3, words: []string{"what the services mount now does not work: dead: it does not know the secret-id"}},
		"a role that counts":       {first: set(map[string]any{"secret_id_num_uses": 5}), then: set(map[string]any{"secret_id_num_uses": 0}), command: "adopt", code: 3, words: []string{"used up after 5 logins"}},
		"a role of batch tokens":   {first: set(map[string]any{"token_type": "batch"}), then: set(map[string]any{"token_type": "service"}), command: "adopt", code: 3, words: []string{"which nobody can revoke"}},
	})
	if after, _ := v.titles(); !slices.Equal(after, before) {
		t.Errorf("Vault has the secret-ids %q, and had %q", after, before)
	}
}
