package vault_test

import (
	"context"
	"fmt"
	"net/http"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/keyturn/keyturn/internal/backend/vault"
	"github.com/keyturn/keyturn/internal/rotation"
	"github.com/keyturn/keyturn/internal/rotation/rotationtest"
	"github.com/keyturn/keyturn/internal/testserver"
)

// TestContract is what every backend must keep. What breaks the server is tried on one node,
// with KEYTURN_FAULTS=all on three of them.
func TestContract(t *testing.T) {
	rotationtest.Contract(t, func(t *testing.T) rotationtest.Setup {
		if strings.HasSuffix(t.Name(), "no_answer_is_unknown") {
			return breakable(t, map[bool]int{false: 1, true: 3}[os.Getenv("KEYTURN_FAULTS") == "all"])
		}
		f := newFixture(t, shared.Get(t))
		return rotationtest.Setup{
			Backend: f.backend(), Credential: f.name, Login: vault.Login,
			Session: func(t *testing.T, _ rotation.Version, m rotation.Material) func() bool {
				_, alive := f.login(m)
				return alive
			},
			Changes: f.state,
			Claims: &rotationtest.Claims{Kind: "Vault: AppRole secret-ids", Page: "vault.md",
				Dead: "its accessor is gone, no token that was made from it is left, and every node says `invalid role or secret ID`"},
		}
	})
}

// breakable is a Vault of its own, with what keeps it from answering.
func breakable(t *testing.T, nodes int) rotationtest.Setup {
	server := testserver.NewVault(t, nodes)
	f := newFixture(t, server)
	var all []int
	for i := range nodes {
		all = append(all, i)
	}
	most := all[:nodes/2+1] // of them must be there for anything to be decided
	repair := func() { f.must(server.Unseal(context.Background(), all...)) }
	return rotationtest.Setup{
		Backend: f.backend(), Credential: f.name, Login: vault.Login, Patience: time.Minute,
		Break: map[string]func(*testing.T) func(){
			"stopped": func(t *testing.T) func() {
				for _, i := range most {
					server.Kill(i)
				}
				return func() {
					for _, i := range most {
						f.must(server.Start(i))
					}
					repair()
				}
			},
			"paused": func(t *testing.T) func() {
				for _, i := range all {
					f.must(server.Pause(i))
				}
				return func() {
					for _, i := range all {
						f.must(server.Continue(i))
					}
					repair()
				}
			},
			"sealed": func(t *testing.T) func() {
				for server.Sealed(t) < len(most) { // of three the last one cannot lead alone
					server.Seal(t)
				}
				return repair
			},
		},
	}
}

// state changes whenever the role's secret-ids or the tokens do.
func (f *fixture) state(t *testing.T) string {
	var ids, tokens map[string]any
	_ = f.server.Call(context.Background(), http.MethodGet, "/v1/auth/approle/role/"+f.name+"/secret-id?list=true", nil, &ids) // 404: there is none
	f.call(http.MethodGet, "/v1/auth/token/accessors?list=true", nil, &tokens)
	return fmt.Sprint(ids["data"], tokens["data"])
}
