package vault_test

import (
	"context"
	"fmt"
	"net/http"
	"testing"
	"time"

	"github.com/keyturn/keyturn/internal/backend/vault"
	"github.com/keyturn/keyturn/internal/rotation"
	"github.com/keyturn/keyturn/internal/rotation/rotationtest"
	"github.com/keyturn/keyturn/internal/testserver"
)

// TestContract is what every backend must keep.
func TestContract(t *testing.T) {
	rotationtest.Contract(t, func(t *testing.T) rotationtest.Setup {
		f := newFixture(t, shared.Get(t))
		return rotationtest.Setup{
			Backend: f.backend(), Credential: f.name, Login: vault.Login,
			Session: func(t *testing.T, _ rotation.Version, m rotation.Material) func() bool {
				_, alive := f.login(m)
				return alive
			},
			Changes: f.state,
		}
	})
}

// TestContractOfCluster is the part of it that breaks the server, on a cluster of three.
func TestContractOfCluster(t *testing.T) {
	t.Parallel()
	rotationtest.Contract(t, func(t *testing.T) rotationtest.Setup {
		if t.Name() != "TestContractOfCluster/no_answer_is_unknown" {
			t.Skip("TestContract has it, on one node")
		}
		cluster := testserver.NewVault(t, 3)
		f := newFixture(t, cluster)
		all := []int{0, 1, 2}
		return rotationtest.Setup{
			Backend: f.backend(), Credential: f.name, Login: vault.Login, Patience: time.Minute,
			Break: map[string]func(*testing.T) func(){
				"no majority": func(t *testing.T) func() {
					for i := range 2 {
						cluster.Kill(i)
					}
					return func() {
						for i := range 2 {
							f.must(cluster.Start(i))
						}
						f.must(cluster.Unseal(context.Background(), all...))
					}
				},
				"paused": func(t *testing.T) func() {
					for _, i := range all {
						f.must(cluster.Pause(i))
					}
					return func() {
						for _, i := range all {
							f.must(cluster.Continue(i))
						}
						f.must(cluster.Unseal(context.Background(), all...))
					}
				},
				"sealed": func(t *testing.T) func() {
					for cluster.Sealed(t) < len(all)-1 { // the last one cannot lead alone
						cluster.Seal(t)
					}
					return func() { f.must(cluster.Unseal(context.Background(), all...)) }
				},
			},
		}
	})
}

// state changes whenever the role's secret-ids or the tokens do.
func (f *fixture) state(t *testing.T) string {
	var ids, tokens map[string]any
	_ = f.server.Call(context.Background(), http.MethodGet, "/v1/auth/approle/role/"+f.name+"/secret-id?list=true", nil, &ids) // 404: there is none
	f.call(http.MethodGet, "/v1/auth/token/accessors?list=true", nil, &tokens)
	return fmt.Sprint(ids["data"], tokens["data"])
}
