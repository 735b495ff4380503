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
	contract(t, testserver.NewVault, &rotationtest.Claims{Kind: "Vault: AppRole secret-ids", Page: "vault.md",
		Dead: "its accessor is gone, no token that was made from it is left, and every node says `invalid role or secret ID`"})
}

// TestContractOnOpenBao keeps it with OpenBao; what breaks that is tried with KEYTURN_FAULTS=all alone.
func TestContractOnOpenBao(t *testing.T) { contract(t, testserver.NewOpenBao, nil) }

func contract(t *testing.T, start func(testing.TB, int) *testserver.Vault, claims *rotationtest.Claims) {
	t.Parallel()
	server, all := start(t, 1), os.Getenv("KEYTURN_FAULTS") == "all"
	rotationtest.Contract(t, func(t *testing.T) rotationtest.Setup {
		switch breaks := strings.HasSuffix(t.Name(), "no_answer_is_unknown"); {
		case breaks && all:
			return breakable(t, start(t, 3))
		case breaks && claims != nil:
			return breakable(t, server)
		}
		f := newFixture(t, server)
		return rotationtest.Setup{
			Backend: f.backend(), Credential: f.name, Login: vault.Login, Claims: claims,
			Session: func(t *testing.T, _ rotation.Version, m rotation.Material) func() bool {
				_, alive := f.login(m)
				return alive
			},
			Changes: f.state,
		}
	})
}

// breakable is a cluster of the test's own, with what keeps it from answering.
func breakable(t *testing.T, server *testserver.Vault) rotationtest.Setup {
	f := newFixture(t, server)
	var all []int
	for i := range server.URLs() {
		all = append(all, i)
	}
	most := all[:len(all)/2+1] // of them must be there for anything to be decided
	repair := func() {
		f.must(server.Unseal(context.Background(), all...))
		server.Active(t)
	}
	return rotationtest.Setup{
		Backend: f.backend(), Credential: f.name, Login: vault.Login, Patience: time.Minute,
		Break: map[string]func(*testing.T) func(){
			"stopped": func(t *testing.T) func() {
				for _, i := range most {
					server.Kill(i)
				}
				f.unled()
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
				f.unled()
				return repair
			},
		},
	}
}

// unled waits until no node takes itself for the leader: OpenBao's last one does for a while.
func (f *fixture) unled() {
	f.t.Helper()
	leads := func(i int) bool {
		var is struct {
			Self bool `json:"is_self"`
		}
		return f.server.CallAt(context.Background(), i, "", http.MethodGet, "/v1/sys/leader", nil, &is) == nil && is.Self
	}
	for i := range f.server.URLs() {
		for end := time.Now().Add(time.Minute); leads(i); time.Sleep(100 * time.Millisecond) {
			if time.Now().After(end) {
				f.t.Fatalf("node %d leads without any other", i+1)
			}
		}
	}
}

// state changes whenever the role's secret-ids or the tokens do.
func (f *fixture) state(t *testing.T) string {
	var ids, tokens map[string]any
	_ = f.server.Call(context.Background(), http.MethodGet, "/v1/auth/approle/role/"+f.name+"/secret-id?list=true", nil, &ids) // 404: there is none
	f.call(http.MethodGet, "/v1/auth/token/accessors?list=true", nil, &tokens)
	return fmt.Sprint(ids["data"], tokens["data"])
}
