package cli_test

import (
	"context"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/keyturn/keyturn/internal/testserver"
)

// A vaultShop is what rotates a secret-id of Vault.
type vaultShop struct {
	*shop
	server  *testserver.Vault
	roleID  string
	old     testserver.SecretID // that was made by hand
	section string              // of the configuration
}

// newVaultShop makes a value to read, a role that may, the administrator's token, and a
// secret-id for services, by hand.
func newVaultShop(t testing.TB, server *testserver.Vault) *vaultShop {
	t.Helper()
	dir := t.TempDir()
	name := fmt.Sprintf("safe%d", serial.Add(1))
	k := &vaultShop{server: server, shop: &shop{t: t, name: name, root: filepath.Join(dir, "credentials"), config: filepath.Join(dir, "keyturn.yml"), journal: filepath.Join(dir, "state", "journal.jsonl")}}
	admin := server.Admin(t, name+"-admin", k.policy())
	server.Admin(t, name, fmt.Sprintf("path %q { capabilities = [\"read\"] }", "secret/data/"+name))
	k.call(http.MethodPost, "/v1/secret/data/"+name, map[string]any{"data": map[string]string{"value": "read me"}}, nil)
	k.call(http.MethodPost, "/v1/auth/approle/role/"+name, map[string]string{"token_policies": name, "token_ttl": "1h"}, nil)
	var role struct {
		Data struct {
			RoleID string `json:"role_id"`
		}
	}
	k.call(http.MethodGet, "/v1/auth/approle/role/"+name+"/role-id", nil, &role)
	k.roleID, k.old = role.Data.RoleID, server.SecretID(t, name, nil)
	k.secrets = []string{admin, k.old.Value}
	k.env = append(os.Environ(), "KEYTURN_VAULT_TOKEN="+admin, "CI=")
	k.section = fmt.Sprintf(`vault: {servers: ["%s"], ca: %s, token: {from-env: KEYTURN_VAULT_TOKEN}, approle: {role: %s}}`,
		strings.Join(server.URLs(), `", "`), server.CAFile(), name)
	return k
}

// policy is the administrator's, as the page has it.
func (v *vaultShop) policy() string {
	v.t.Helper()
	page, err := os.ReadFile("../../docs/backends/vault.md")
	v.must(err)
	_, text, _ := strings.Cut(string(page), "```hcl\n")
	text, _, _ = strings.Cut(text, "```")
	return strings.ReplaceAll(text, "/orders", "/"+v.name)
}

func (v *vaultShop) call(method, path string, in, out any) {
	v.t.Helper()
	v.must(v.server.Call(context.Background(), method, path, in, out))
}

// configure writes the configuration.
func (v *vaultShop) configure(target, services, more string) {
	v.t.Helper()
	v.must(os.WriteFile(v.config, []byte(fmt.Sprintf(`version: 1
journal: file:%s
%s
credentials:
  %s:
    %s
    services:
      %s
    minimum-age: 0s
    overlap: 1s
%s`, v.journal, target, v.name, v.section, services, more)), 0o600))
}

// onSwarm deploys a service that logs in and reads a value all the time. More is a line of
// the credential in the configuration, or "".
func (v *vaultShop) onSwarm(more string, options ...stackOption) *stack {
	v.t.Helper()
	engine := stackEngine(v.t)
	k := &stack{shop: v.shop, engine: engine, client: engine.Client(), service: v.name + "_app", secret: v.name + "_secret_id", load: filepath.Join(filepath.Dir(v.config), "load")}
	k.must(os.Mkdir(k.load, 0o777))
	v.configure(fmt.Sprintf(`swarm: {host: "%s", image: "%s"}`, engine.Host(), probeImage),
		k.service+": {file: {VAULT_SECRET_ID_FILE: secret_id}, env: {VAULT_ROLE_ID: role_id, VAULT_ADDR: address}}",
		fmt.Sprintf("    secrets: {secret_id: %s}\n    rollout: {monitor: 2s, health-timeout: 60s, timeout: 240s}\n    %s\n", k.secret, more))
	ref, err := engine.CreateSecret(v.t.Context(), k.secret, []byte(v.old.Value+"\n"))
	k.must(err)
	ref.File.Name, ref.File.Mode = "secret_id", 0o400
	spec := k.specOf(ref, v.server.CAFile(), "VAULT_ADDR="+v.server.URLs()[0], "VAULT_ROLE_ID="+v.roleID, "VAULT_SECRET_ID_FILE=/run/secrets/secret_id",
		"VAULT_CACERT=/ca.pem", "LOAD_VAULT_KEY=secret/data/"+k.name, "LOAD_EVERY=500ms")
	for _, o := range options {
		o(&spec)
	}
	k.serve(spec)
	return k
}

// inDirectory lets a service read the secret-id from a directory.
func (v *vaultShop) inDirectory() {
	v.t.Helper()
	home := filepath.Join(v.root, v.name, "initial")
	v.must(os.MkdirAll(home, 0o755))
	for field, value := range map[string]string{"secret_id": v.old.Value, "role_id": v.roleID} {
		v.must(os.WriteFile(filepath.Join(home, field), []byte(value), 0o400))
	}
	v.must(os.Symlink("initial", filepath.Join(v.root, v.name, "current")))
	v.configure("directory: {path: "+v.root+"}", "safe: {path: {/run/secrets/secret_id: secret_id, /run/secrets/role_id: role_id}}", "    grace: 1s\n")
}

// login logs in with a secret-id, reads the value, and gives the token back unless it is to
// be kept.
func (v *vaultShop) login(secretID string, keep bool) error {
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	var made struct {
		Auth struct {
			Token string `json:"client_token"`
		} `json:"auth"`
	}
	if err := v.server.CallAs(ctx, "", http.MethodPost, "/v1/auth/approle/login", map[string]string{"role_id": v.roleID, "secret_id": secretID}, &made); err != nil {
		return err
	}
	if err := v.server.CallAs(ctx, made.Auth.Token, http.MethodGet, "/v1/secret/data/"+v.name, nil, nil); err != nil || keep {
		return err
	}
	err := v.server.CallAs(ctx, made.Auth.Token, http.MethodPost, "/v1/auth/token/revoke-self", nil, nil)
	if err != nil && strings.Contains(err.Error(), "invalid token") {
		return nil // with its secret-id it was ended just now, after it was used
	}
	return err
}

// uses logs in with what the directory holds, again and again, until it is told to stop; it
// returns how often, what failed, and the secret-ids that it met.
func (v *vaultShop) uses() (stop func() (tried int, failures, met []string)) {
	var met []string
	ended := again(50*time.Millisecond, func() (bool, error) {
		return true, v.inOverlap(func(dir string) error {
			b, err := os.ReadFile(filepath.Join(dir, "secret_id"))
			if err != nil {
				return err
			}
			value := string(b)
			fresh := len(met) == 0 || met[len(met)-1] != value
			if fresh {
				met = append(met, value)
			}
			return v.login(value, fresh)
		})
	})
	return func() (int, []string, []string) {
		tried, failures := ended()
		return tried, failures, met
	}
}

// titles are those of the role's secret-ids, and of the tokens that were made from any.
func (v *vaultShop) titles() (ids, tokens []string) { return v.marked("keyturn") }

// marked is what the metadata of the role's secret-ids and of their tokens say under a key.
func (v *vaultShop) marked(key string) (ids, tokens []string) {
	v.t.Helper()
	type listed struct{ Data struct{ Keys []string } }
	var list listed
	v.call(http.MethodGet, "/v1/auth/approle/role/"+v.name+"/secret-id?list=true", nil, &list)
	for _, accessor := range list.Data.Keys {
		var s struct {
			Data struct{ Metadata map[string]string }
		}
		v.call(http.MethodPost, "/v1/auth/approle/role/"+v.name+"/secret-id-accessor/lookup", map[string]string{"secret_id_accessor": accessor}, &s)
		ids = append(ids, s.Data.Metadata[key])
	}
	list = listed{}
	v.call(http.MethodGet, "/v1/auth/token/accessors?list=true", nil, &list)
	for _, accessor := range list.Data.Keys {
		var t struct {
			Data struct {
				Meta map[string]string
				Uses int `json:"num_uses"`
			}
		}
		err := v.server.Call(context.Background(), http.MethodPost, "/v1/auth/token/lookup-accessor", map[string]string{"accessor": accessor}, &t)
		if err == nil && t.Data.Meta["role_name"] == v.name && t.Data.Uses >= 0 { // below: Vault is ending it
			tokens = append(tokens, t.Data.Meta[key])
		}
	}
	return ids, tokens
}

// only checks that Vault has one secret-id, of a version, and no token of another one.
func (v *vaultShop) only(version int) {
	v.t.Helper()
	want := fmt.Sprintf("%s v%d", v.name, version)
	ids, tokens := v.titles()
	if len(ids) != 1 || ids[0] != want {
		v.t.Errorf("Vault has the secret-ids %q, want that of version %d", ids, version)
	}
	for _, title := range tokens {
		if title != want {
			v.t.Errorf("Vault has a token of %q, want none", title)
		}
	}
}

// recorded checks that no value stands in what Vault itself writes.
func (v *vaultShop) recorded() {
	v.t.Helper()
	files := []string{v.server.AuditFile()}
	for i := range v.server.URLs() {
		files = append(files, v.server.LogFile(i))
	}
	for _, file := range files {
		text, err := os.ReadFile(file)
		v.must(err)
		v.clean(string(text))
	}
}

// TestVaultOnSwarm rotates a secret-id of Vault and one of OpenBao twice, phase by phase and in
// one go, under load, and once back: no login and no request fails, the old one is refused,
// its tokens have ended, and no value is seen anywhere.
func TestVaultOnSwarm(t *testing.T) {
	journey(t)
	t.Parallel()
	for name, server := range map[string]*testserver.SharedVault{"Vault": &servers.vault, "OpenBao": &servers.bao} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			vaultOnSwarm(t, newVaultShop(t, server.Get(t)))
		})
	}
}

func vaultOnSwarm(t *testing.T, v *vaultShop) {
	k := v.onSwarm("")
	k.ok("doctor")
	k.ok("adopt", k.name)
	t.Log(k.ok("plan", k.name))
	k.ok("prepare", k.name)
	if ids, _ := v.titles(); len(ids) != 2 {
		t.Errorf("after prepare Vault has %q, want two secret-ids", ids)
	}
	k.ok("validate", k.name)
	k.ok("cutover", k.name)
	k.ok("rollback", "--reason", "drill", k.name)
	if ids, _ := v.titles(); len(ids) != 1 || ids[0] != "" {
		t.Errorf("after the rollback Vault has %q, want the one that was made by hand", ids)
	}
	for version := 3; version <= 4; version++ {
		k.ok("-v", "rotate", k.name)
		if ids, tokens := v.titles(); len(ids) != 2 || len(tokens) < 2 {
			t.Errorf("in the overlap Vault has the secret-ids %q and tokens of %q, want two, and tokens", ids, tokens)
		}
		time.Sleep(2 * time.Second) // the overlap, and the grace of the tokens
		k.ok("-v", "cleanup", k.name)
		v.only(version)
		k.done(version)
	}
	k.noneFailed()
	k.ok("check")
	v.recorded()
}

// TestVaultThroughSwarm rotates a secret-id where only the overlay network reaches Vault, killed
// in the middle (with KEYTURN_FAULTS=all after a rotation that is not): no login fails, and no relay
// is left.
func TestVaultThroughSwarm(t *testing.T) {
	journey(t)
	t.Parallel()
	o, host := newOverlay(t)
	v := newVaultShop(t, testserver.NewVaultIn(t, o.netns, host))
	k := v.onSwarm("through: swarm", o.attached)
	k.throughSwarm()
	v.only(k.status().Current)
	v.recorded()
}

// TestCrashVault kills keyturn before and after every record and every effect of a rotation
// of a secret-id, and lets it go on: no login fails, and neither a secret-id nor a token is
// left over. Without KEYTURN_CRASH=all it is a few of these points.
func TestCrashVault(t *testing.T) {
	t.Parallel()
	server := servers.vault.Get(t)
	run := func(t *testing.T, at int) result {
		if at > 0 {
			t.Parallel()
		}
		v := newVaultShop(t, server)
		v.inDirectory()
		v.ok("adopt", v.name)
		stop := v.uses()
		var met []string
		r := v.killedAt(at, func() (tried int, failures []string) {
			tried, failures, met = stop()
			return tried, failures
		})
		p := v.status()
		v.only(p.Current)
		if err := v.login(v.old.Value, false); err == nil || !strings.Contains(err.Error(), "invalid role or secret ID") {
			t.Errorf("the old secret-id logs in, and the answer is %v", err)
		}
		v.secrets = append(v.secrets, met...)
		record, err := os.ReadFile(v.journal)
		v.must(err)
		v.clean(r.stdout + r.stderr + string(record))
		v.recorded()
		return r
	}
	everyCrash(t, oneOfSixteen, run)
}
