package githubfake

import (
	"crypto/rand"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/keyturn/keyturn/internal/secret"
)

// A token is what somebody may do.
type token struct {
	account      *Account
	installation bool              // of an App, and not of a person
	app          *App              // of an installation
	permissions  map[string]string // of an installation
	repos        []*Repo           // of an installation; nil is all
	expires      time.Time         // zero is never
}

// grant keeps a token under a value of its own.
func (s *Server) grant(prefix string, t *token) secret.Value {
	value := prefix + rand.Text() + rand.Text()[:10]
	s.tokens[value] = t
	return secret.FromString(value)
}

// ExpireTokens ends every token of Apps now, as an hour does.
func (s *Server) ExpireTokens() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, t := range s.tokens {
		if t.installation {
			t.expires = s.now().Add(-time.Second)
		}
	}
}

// LiveTokens is how many tokens of Apps' installations can be used now.
func (s *Server) LiveTokens() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	n := 0
	for value, t := range s.tokens {
		if strings.HasPrefix(value, "ghs_") && t.app != nil && t.app.ID != 15368 && s.alive(t) {
			n++
		}
	}
	return n
}

func (s *Server) alive(t *token) bool { return t.expires.IsZero() || s.now().Before(t.expires) }

// allowed finds out who asks, and whether they may.
func (c *call) allowed(to route) (any, error) {
	scheme, value, _ := strings.Cut(c.r.Header.Get("Authorization"), " ")
	if to.permission == "app" {
		return nil, c.signed(value)
	}
	if !strings.EqualFold(scheme, "Bearer") && !strings.EqualFold(scheme, "token") {
		return nil, refuse(http.StatusUnauthorized, "Requires authentication")
	}
	c.by = c.s.tokens[value]
	if c.by == nil || !c.s.alive(c.by) {
		c.by = nil
		return nil, refuse(http.StatusUnauthorized, "Bad credentials")
	}
	if c.value("owner") != "" {
		c.repo = c.s.repos[strings.ToLower(c.value("owner")+"/"+c.value("repo"))]
		if c.repo == nil || !c.by.sees(c.repo) {
			return nil, notFound()
		}
	}
	return nil, c.permitted(to.permission)
}

// sees reports whether the repository is there at all for the token.
func (t *token) sees(r *Repo) bool {
	if !t.installation {
		return r.Public || r.roleOf(t.account.Login) != "none"
	}
	return t.repos == nil || slices.Contains(t.repos, r)
}

// permitted asks for one of the permissions.
func (c *call) permitted(permissions string) error {
	if permissions == "" {
		return nil
	}
	for _, p := range strings.Split(permissions, "; ") {
		name, level, _ := strings.Cut(p, "=")
		if c.by.installation && (grants(c.by.permissions[name], level) || p == "metadata=read") {
			return nil
		}
		if !c.by.installation && c.role(name, level) {
			return nil
		}
	}
	if c.by.installation {
		return inaccessible(permissions)
	}
	return refuse(http.StatusForbidden, "Must have admin rights to Repository.")
}

// role reports whether a person's role has what an App needs the permission for.
func (c *call) role(permission, level string) bool {
	if c.repo == nil {
		return true // the organisation's: the handler asks for the membership
	}
	have := slices.Index(roles, c.repo.roleOf(c.by.account.Login))
	need := "read"
	switch {
	case permission == "issues" || level == "read" && !slices.Contains(adminOnly, permission):
	case slices.Contains(adminOnly, permission):
		need = "admin"
	default:
		need = "write"
	}
	return have >= slices.Index(roles, need)
}

var (
	roles     = []string{"none", "read", "triage", "write", "maintain", "admin"}
	levels    = []string{"", "read", "write", "admin"}
	adminOnly = []string{"administration", "secrets", "dependabot_secrets", "environments", "repository_hooks"}
)

func grants(have, need string) bool { return slices.Index(levels, have) >= slices.Index(levels, need) }
