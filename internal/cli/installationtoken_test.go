package cli_test

import (
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/keyturn/keyturn/internal/cli/undertest/hooks"
	"github.com/keyturn/keyturn/internal/testserver/githubfake"
)

// A courier is a service that asks GitHub with a token of an App, from a directory.
// Keyturn's time and GitHub's go by as the test says.
type courier struct {
	*shop
	gh    *githubfake.Server
	ahead atomic.Int64
}

func newCourier(t *testing.T) *courier {
	t.Helper()
	dir := t.TempDir()
	c := &courier{shop: &shop{t: t, name: "orders-api", root: filepath.Join(dir, "credentials"),
		config: filepath.Join(dir, "keyturn.yml"), journal: filepath.Join(dir, "state", "journal.jsonl")}}
	c.gh = githubfake.Start(t, githubfake.Options{Now: func() time.Time { return time.Now().Add(time.Duration(c.ahead.Load())) }})
	c.gh.AddRepo("octo/other")
	app := c.gh.AddApp("keyturn", map[string]string{"contents": "write", "issues": "write"})
	c.must(os.MkdirAll(c.root, 0o755))
	c.must(os.WriteFile(c.config, []byte(fmt.Sprintf(`version: 1
journal: file:%s
directory: {path: %s}
github: {app: {id: %d, key: {from-env: KEYTURN_APP_KEY}}}
credentials:
  orders-api:
    github:
      installation-token: {repositories: [%s], permissions: {contents: read}}
    services:
      courier: {path: {/run/secrets/github_token: token}}
`, c.journal, c.root, app.ID, c.gh.FullName())), 0o600))
	c.env = append(os.Environ(), "CI=", "GITHUB_API_URL="+c.gh.URL, "KEYTURN_APP_KEY="+string(app.Key().Reveal()), hooks.AtOnce+"=1")
	c.secrets = []string{"ghs_", "eyJhbGciOi", strings.Split(string(app.Key().Reveal()), "\n")[3]}
	return c
}

// at moves both clocks to so long after the test's beginning.
func (c *courier) at(ahead time.Duration) {
	c.ahead.Store(int64(ahead))
	c.env = append(c.env, hooks.ClockAhead+"="+ahead.String())
}

func (c *courier) token() string {
	c.t.Helper()
	b, err := os.ReadFile(filepath.Join(c.root, c.name, "current", "token"))
	c.must(err)
	return string(b)
}

// asks is what GitHub answers to a token that reads a repository's commits.
func (c *courier) asks(token, repo string) int {
	c.t.Helper()
	req, err := http.NewRequest(http.MethodGet, c.gh.URL+"/repos/"+repo+"/commits/main", nil)
	c.must(err)
	req.Header.Set("Authorization", "Bearer "+token)
	resp, err := http.DefaultClient.Do(req)
	c.must(err)
	_ = resp.Body.Close()
	return resp.StatusCode
}

// first gives the service its first token, and lets half an hour go by.
func (c *courier) first() {
	c.t.Helper()
	c.at(0)
	c.ok("rotate", c.name)
	c.at(21 * time.Minute)
	c.ok("cleanup", c.name)
	c.at(31 * time.Minute)
}

// through goes on until nothing is left to do. Whatever waits is given time.
func (c *courier) through() {
	c.t.Helper()
	for range 30 {
		p := c.status()
		switch {
		case p.Next == "" && p.Current > 1:
			return
		case p.Next == "":
			p.Next = "prepare"
		}
		if r := c.run(p.Next, c.name); r.code == 3 {
			c.at(time.Duration(c.ahead.Load()) + 5*time.Minute)
		} else if r.code != 0 {
			c.t.Fatalf("keyturn %s: exit %d\n%s%s", p.Next, r.code, r.stdout, r.stderr)
		}
	}
	c.t.Fatalf("the rotation does not end: %+v", c.status())
}

// TestInstallationToken gives a service a token before the one that it has ends, again
// and again: the old one works until then, and is proven dead after.
func TestInstallationToken(t *testing.T) {
	t.Parallel()
	c := newCourier(t)
	due := func() string { return c.ok("plan", "--due") }
	old := ""
	for i := range 3 {
		begun := time.Duration(i) * 31 * time.Minute
		c.at(begun)
		if out := due(); !strings.Contains(out, c.name) {
			t.Errorf("after %s it is not due:\n%s", begun, out)
		}
		c.ok("prepare", c.name)
		c.ok("validate", c.name)
		c.ok("cutover", c.name)
		token := c.token()
		if token == old || c.asks(token, c.gh.FullName()) != http.StatusOK || c.asks(token, "octo/other") != http.StatusNotFound {
			t.Errorf("the token that the service reads does not do what it is for")
		}
		if old == "" {
			c.at(begun + 21*time.Minute)
			c.ok("cleanup", c.name) // nothing was before it
			old = token
			continue
		}
		if c.asks(old, c.gh.FullName()) != http.StatusOK {
			t.Errorf("the token of before ended early")
		}
		c.at(begun + 21*time.Minute) // the overlap is over, and the old token lives
		if r := c.run("cleanup", c.name); r.code != 0 && r.code != 3 || !strings.Contains(r.stdout+r.stderr, "which ends by itself") {
			t.Errorf("cleanup while the old token lives: exit %d\n%s%s", r.code, r.stdout, r.stderr)
		}
		if p := c.status(); p.Previous == 0 {
			t.Errorf("the old token lives, and status says %+v", p)
		}
		c.at(begun + 30*time.Minute + 5*time.Second)
		if c.asks(old, c.gh.FullName()) != http.StatusUnauthorized {
			t.Errorf("the token of before lives after its hour")
		}
		c.at(begun + 30*time.Minute + 58*time.Second)
		c.ok("cleanup", c.name)
		if p := c.status(); p.Previous != 0 {
			t.Errorf("after the old token's end status says %+v", p)
		}
		old = token
	}
	b, err := os.ReadFile(c.journal)
	c.must(err)
	c.clean(string(b))
	if !strings.Contains(string(b), `"code":"401"`) {
		t.Errorf("the journal has no proof that the old token was refused")
	}
	c.ok("audit", "verify")
}

// TestInstallationTokenGivenUp takes a prepared token back in another process, which
// cannot revoke it: its end waits in the queue, holds nothing up, and comes.
func TestInstallationTokenGivenUp(t *testing.T) {
	t.Parallel()
	c := newCourier(t)
	c.first()
	c.ok("prepare", c.name)
	out := c.ok("rollback", "--reason", "drill", c.name)
	if !strings.Contains(out, "queued for retirement") {
		t.Errorf("rollback says\n%s", out)
	}
	c.ok("prepare", c.name)
	c.ok("validate", c.name)
	c.ok("cutover", c.name)
	c.at(85 * time.Minute)
	if out := c.ok("cleanup", c.name); !strings.Contains(out, "still queued") && c.status().Queue != 1 {
		t.Errorf("cleanup while the token that was given up lives:\n%s\n%+v", out, c.status())
	}
	c.at(93 * time.Minute)
	out = c.ok("cleanup", "--queue")
	if again := c.ok("cleanup", "--queue"); !strings.Contains(again, "nothing is on the retirement queue") {
		t.Errorf("an empty queue: %s", again)
	}
	if strings.Contains(out, "still queued") || c.status().Previous != 0 || c.status().Queue != 0 {
		t.Errorf("cleanup when all have ended:\n%s\n%+v", out, c.status())
	}
	c.ok("audit", "verify")
}

// TestInstallationTokenCrash kills keyturn around the making of a token: nobody has the
// one that was lost, and whoever goes on makes another.
func TestInstallationTokenCrash(t *testing.T) {
	t.Parallel()
	for _, point := range []string{"before effect: prepare mint", "after effect: prepare mint", "after effect: prepare put"} {
		t.Run(point, func(t *testing.T) {
			t.Parallel()
			c := newCourier(t)
			c.first()
			c.killed(point, "rotate", c.name)
			c.through()
			if p := c.status(); p.Current < 2 || c.asks(c.token(), c.gh.FullName()) != http.StatusOK {
				t.Errorf("after %s: %+v", point, p)
			}
		})
	}
}

// TestInstallationTokenMissed lets the schedule stand still for hours, so that every
// token has ended: the next runs bring a new one all the same.
func TestInstallationTokenMissed(t *testing.T) {
	t.Parallel()
	for _, after := range []string{"cleanup", "cutover", "validate"} {
		t.Run(after, func(t *testing.T) {
			t.Parallel()
			c := newCourier(t)
			c.first()
			for _, phase := range []string{"prepare", "validate", "cutover"} {
				c.ok(phase, c.name)
				if phase == after {
					break
				}
			}
			if after == "cleanup" {
				c.at(62 * time.Minute)
				c.ok("cleanup", c.name)
			}
			c.at(5 * time.Hour)
			for range 12 {
				if c.asks(c.token(), c.gh.FullName()) == http.StatusOK {
					break
				}
				p := c.status()
				if p.Next == "" {
					p.Next = "prepare"
				}
				c.run(p.Next, c.name)
			}
			if got := c.asks(c.token(), c.gh.FullName()); got != http.StatusOK {
				t.Errorf("the service's token is answered %d: %+v", got, c.status())
			}
		})
	}
}
