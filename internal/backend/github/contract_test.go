package github_test

import (
	"fmt"
	"net/http"
	"testing"
	"time"

	"github.com/keyturn/keyturn/internal/backend/github"
	"github.com/keyturn/keyturn/internal/rotation/rotationtest"
	"github.com/keyturn/keyturn/internal/testserver/githubfake"
)

// TestContract is what every backend must keep: against the fake's API, a real ssh
// server and a real git.
func TestContract(t *testing.T) {
	rotationtest.Contract(t, func(t *testing.T) rotationtest.Setup {
		f := newFixture(t)
		broken := func(shut string, fault func(*http.Request) *githubfake.Fault) func(*testing.T) func() {
			return func(*testing.T) func() {
				f.gate.set(shut)
				back := f.gh.On(fault)
				return func() { back(); f.gate.set("") }
			}
		}
		return rotationtest.Setup{
			Backend:    f.backend(),
			Credential: credential,
			Claims: &rotationtest.Claims{Kind: "GitHub: deploy keys", Page: "github.md#deploy-keys",
				Dead: "it is not on the list of keys, and the ssh server was offered it and refused it"},
			Login: github.Login,
			Break: map[string]func(*testing.T) func(){
				"down": broken("closed", func(*http.Request) *githubfake.Fault { return &githubfake.Fault{Status: http.StatusBadGateway} }),
				"cut":  broken("closed", func(*http.Request) *githubfake.Fault { return &githubfake.Fault{Lose: true} }),
				"limited": broken("closed", func(*http.Request) *githubfake.Fault {
					return githubfake.Limited(http.StatusForbidden, time.Now().Add(time.Hour))
				}),
				"too many": broken("closed", func(*http.Request) *githubfake.Fault {
					return githubfake.Secondary(http.StatusTooManyRequests, time.Hour)
				}),
			},
			Changes: func(*testing.T) string {
				writes := 0
				for _, c := range f.gh.Calls() {
					if c.Write() && c.Path != fmt.Sprintf("/app/installations/%d/access_tokens", f.app.Installation) {
						writes++
					}
				}
				return fmt.Sprint(writes, f.gh.DeployKeys())
			},
		}
	})
}
