package consul_test

import (
	"context"
	"fmt"
	"os"
	"testing"
	"time"

	"github.com/keyturn/keyturn/internal/backend/consul"
	"github.com/keyturn/keyturn/internal/rotation/rotationtest"
	"github.com/keyturn/keyturn/internal/testserver"
)

// TestContract is what every backend must keep, on one server and on three.
func TestContract(t *testing.T) {
	for _, servers := range []int{1, 3} {
		t.Run(fmt.Sprintf("%d servers", servers), func(t *testing.T) {
			dc := testserver.NewConsul(t, servers)
			rotationtest.Contract(t, func(t *testing.T) rotationtest.Setup {
				f := newFixture(t, dc)
				most := servers/2 + 1 // of them must be there for anything to be decided
				back := func() {
					for i := range servers {
						dc.Await(t, i)
					}
				}
				setup := rotationtest.Setup{
					Backend:    f.backend(),
					Credential: f.name,
					Claims: &rotationtest.Claims{Kind: "Consul: ACL tokens", Page: "consul.md#acl-tokens",
						Dead: "no server lists it, and every server and agent that is asked says `ACL not found`"},
					Login:    consul.Login,
					Patience: time.Minute,
					Break: map[string]func(*testing.T) func(){
						"stopped": func(t *testing.T) func() {
							for i := range most {
								dc.Kill(i)
							}
							return func() {
								for i := range most {
									f.must(dc.Start(i))
								}
								back()
							}
						},
						"paused": func(t *testing.T) func() {
							for i := range most {
								f.must(dc.Pause(i))
							}
							return func() {
								for i := range most {
									f.must(dc.Continue(i))
								}
								back()
							}
						},
					},
					Changes: func(t *testing.T) string {
						var all []struct{ AccessorID, Hash string }
						f.must(dc.Call(context.Background(), "GET", "/v1/acl/tokens", nil, &all))
						return fmt.Sprint(all)
					},
				}
				if servers > 1 && os.Getenv("KEYTURN_FAULTS") != "all" {
					setup.Break = nil // it is long: make faults
				}
				return setup
			})
		})
	}
}
