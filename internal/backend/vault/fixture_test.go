package vault_test

import (
	"context"
	"fmt"
	"net/http"
	"os"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/keyturn/keyturn/internal/backend/remote"
	"github.com/keyturn/keyturn/internal/backend/vault"
	"github.com/keyturn/keyturn/internal/rotation"
	"github.com/keyturn/keyturn/internal/rotation/rotationtest"
	"github.com/keyturn/keyturn/internal/secret"
	"github.com/keyturn/keyturn/internal/testserver"
)

var (
	shared testserver.SharedVault
	bao    = testserver.SharedVault{OpenBao: true}
)

func TestMain(m *testing.M) { os.Exit(testserver.Main(m, &shared, &bao)) }

const tokenVariable = "KEYTURN_VAULT_TOKEN"

var serial atomic.Int64

// A fixture is a Vault or an OpenBao, and a role of the test's own.
type fixture struct {
	t      testing.TB
	server *testserver.Vault
	name   string // of the credential and the role
	admin  string // the administrator's token
}

func newFixture(t testing.TB, server *testserver.Vault) *fixture {
	t.Helper()
	f := &fixture{t: t, server: server, name: fmt.Sprintf("orders%d", serial.Add(1))}
	f.role()
	f.admin = server.Admin(t, f.name, policy(t, f.name))
	return f
}

// onBoth runs a test with a Vault, and with an OpenBao.
func onBoth(t *testing.T, test func(*testing.T, *fixture)) {
	t.Parallel()
	for name, server := range map[string]*testserver.SharedVault{"Vault": &shared, "OpenBao": &bao} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			test(t, newFixture(t, server.Get(t)))
		})
	}
}

// policy is the administrator's, as the page has it, for a role.
func policy(t testing.TB, role string) string {
	t.Helper()
	b, err := os.ReadFile("../../../docs/backends/vault.md")
	if err != nil {
		t.Fatal(err)
	}
	_, text, ok := strings.Cut(string(b), "```hcl\n")
	text, _, end := strings.Cut(text, "```")
	if !ok || !end {
		t.Fatal("the page has no policy")
	}
	return strings.ReplaceAll(text, "/orders", "/"+role)
}

func (f *fixture) must(err error) {
	f.t.Helper()
	if err != nil {
		f.t.Fatal(err)
	}
}

// call asks Vault as root.
func (f *fixture) call(method, path string, in, out any) {
	f.t.Helper()
	f.must(f.server.Call(context.Background(), method, path, in, out))
}

// role makes the role, or changes it: pairs of a parameter and its value.
func (f *fixture) role(pairs ...string) {
	f.t.Helper()
	parameters := map[string]string{"token_policies": "default"}
	for i := 0; i < len(pairs); i += 2 {
		parameters[pairs[i]] = pairs[i+1]
	}
	f.call(http.MethodPost, "/v1/auth/approle/role/"+f.name, parameters, nil)
}

// byHand makes a secret-id as people do.
func (f *fixture) byHand(parameters map[string]any) testserver.SecretID {
	f.t.Helper()
	return f.server.SecretID(f.t, f.name, parameters)
}

func (f *fixture) settings() vault.Settings {
	return vault.Settings{Servers: f.server.URLs(), Token: secret.Source{Env: tokenVariable}, CA: "ca.pem", AppRole: &vault.AppRole{Role: f.name}}
}

func (f *fixture) backend(change ...func(*vault.Settings)) *vault.Backend {
	f.t.Helper()
	s := f.settings()
	for _, c := range change {
		c(&s)
	}
	b, err := vault.New(s, vault.Options{Credential: f.name, Ripe: 500 * time.Millisecond, Options: remote.Options{CA: f.server.CA(), Patience: 10 * time.Second, Timeout: 3 * time.Second, Getenv: func(name string) string {
		if name != tokenVariable {
			return ""
		}
		return f.admin
	}}})
	f.must(err)
	return b
}

// version is one of the fixture's credential.
func (f *fixture) version(number int, state rotation.State) rotation.Version {
	return rotation.Version{Credential: f.name, Number: number, State: state}
}

// armed makes a version that is accepted.
func (f *fixture) armed(b *vault.Backend, number int, others ...rotation.Version) (rotation.Version, rotation.Material) {
	f.t.Helper()
	return rotationtest.Armed(f.t, b, f.version(number, rotation.Pending), others...)
}

// login logs in, and returns the token and whether it lives.
func (f *fixture) login(m rotation.Material) (token string, alive func() bool) {
	f.t.Helper()
	var answer struct {
		Auth struct {
			Token string `json:"client_token"`
		} `json:"auth"`
	}
	f.must(f.server.CallAs(context.Background(), "", http.MethodPost, "/v1/auth/approle/login",
		map[string]string{"role_id": string(m["role_id"].Reveal()), "secret_id": string(m["secret_id"].Reveal())}, &answer))
	token = answer.Auth.Token
	return token, func() bool {
		return f.server.CallAs(context.Background(), token, http.MethodGet, "/v1/auth/token/lookup-self", nil, nil) == nil
	}
}
