package githubfake

import (
	"cmp"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"maps"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/golang-jwt/jwt/v4"

	"github.com/keyturn/keyturn/internal/secret"
)

// An App is a GitHub App that is installed for the owner of the repository.
type App struct {
	ID           int64
	Slug         string
	Installation int64
	Permissions  map[string]string // what the installation was granted: {"contents": "write"}
	Repos        []string          // names that it was installed for; nil is all

	s         *Server
	account   *Account // of its bot
	created   time.Time
	keys      []*rsa.PrivateKey
	suspended bool
}

// AddApp makes an App, "slug", whose bot is "slug[bot]", with a key, and installs
// it for the owner of the repository, with all repositories.
func (r *Repo) AddApp(slug string, permissions map[string]string) *App {
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		panic(err)
	}
	r.s.mu.Lock()
	defer r.s.mu.Unlock()
	a := &App{ID: r.s.id(), Slug: slug, Installation: r.s.id(), Permissions: maps.Clone(permissions), s: r.s,
		account: r.s.account(slug + "[bot]"), created: r.s.time(), keys: []*rsa.PrivateKey{key}}
	r.s.apps = append(r.s.apps, a)
	return a
}

// Bot is the account that the App acts as.
func (a *App) Bot() *Account { return a.account }

// Key is the App's first private key, in PEM.
func (a *App) Key() secret.Value {
	return secret.New(pem.EncodeToMemory(&pem.Block{Type: "RSA PRIVATE KEY", Bytes: x509.MarshalPKCS1PrivateKey(a.keys[0])}))
}

// Token makes a token of the installation without asking for it: with all its
// permissions if none are given.
func (a *App) Token(permissions map[string]string) secret.Value {
	a.s.mu.Lock()
	defer a.s.mu.Unlock()
	if permissions == nil {
		permissions = a.Permissions
	}
	return a.s.grant("ghs_", &token{account: a.account, installation: true, app: a, permissions: permissions, expires: a.s.now().Add(time.Hour)})
}

// Suspend makes every call of the App fail from now on.
func (a *App) Suspend() {
	a.s.mu.Lock()
	defer a.s.mu.Unlock()
	a.suspended = true
}

func (a *App) show() any {
	if a == nil {
		return nil
	}
	return object{
		"id": a.ID, "slug": a.Slug, "node_id": node("A", a.ID), "client_id": "Iv1." + intText(a.ID), "owner": a.s.user(a.s.account("octo")), "name": a.Slug,
		"description": nil, "external_url": "https://example.com", "html_url": web + "/apps/" + a.Slug, "created_at": date(a.created),
		"updated_at": date(a.created), "permissions": a.granted(a.Permissions), "events": []any{},
	}
}

// granted adds what every installation has.
func (a *App) granted(permissions map[string]string) map[string]string {
	out := map[string]string{"metadata": "read"}
	maps.Copy(out, permissions)
	return out
}

func appRoutes() []route {
	return []route{
		{"GET /app", 200, "app", func(c *call) (any, error) { return c.app.show(), nil }},
		{"GET /repos/{owner}/{repo}/installation", 200, "app", repoInstallation},
		{"GET /orgs/{org}/installation", 200, "app", func(c *call) (any, error) { return c.app.installation(c.value("org")), nil }},
		{"GET /app/installations/{id}", 200, "app", func(c *call) (any, error) {
			if c.value("id") != intText(c.app.Installation) {
				return nil, notFound()
			}
			return c.app.installation("octo"), nil
		}},
		{"POST /app/installations/{id}/access_tokens", 201, "app", createToken},
		{"DELETE /installation/token", 204, "", func(c *call) (any, error) {
			if !c.by.installation {
				return nil, refuse(http.StatusForbidden, "You must authenticate with an installation access token in order to revoke it.")
			}
			c.by.expires = c.s.now()
			return nil, nil
		}},
		{"GET /installation/repositories", 200, "metadata=read", installationRepos},
	}
}

// signed checks a JSON web token as GitHub does: whose, and its times.
func (c *call) signed(text string) error {
	undecodable := refuse(http.StatusUnauthorized, "A JSON web token could not be decoded")
	parser := jwt.NewParser(jwt.WithValidMethods([]string{"RS256"}), jwt.WithoutClaimsValidation())
	var claims jwt.RegisteredClaims
	if _, _, err := parser.ParseUnverified(text, &claims); err != nil {
		return undecodable
	}
	i := slices.IndexFunc(c.s.apps, func(a *App) bool { return claims.Issuer == intText(a.ID) || claims.Issuer == "Iv1."+intText(a.ID) })
	if i < 0 {
		return refuse(http.StatusNotFound, "Integration not found")
	}
	known := slices.ContainsFunc(c.s.apps[i].keys, func(k *rsa.PrivateKey) bool {
		_, err := parser.Parse(text, func(*jwt.Token) (any, error) { return &k.PublicKey, nil })
		return err == nil
	})
	now := c.s.now()
	switch {
	case !known || claims.IssuedAt == nil || claims.ExpiresAt == nil:
		return undecodable
	case claims.IssuedAt.After(now.Add(5 * time.Second)):
		return refuse(http.StatusUnauthorized, "'Issued at' claim ('iat') must be an Integer representing the time that the assertion was issued.")
	case !claims.ExpiresAt.After(now):
		return refuse(http.StatusUnauthorized, "'Expiration time' claim ('exp') must be a numeric value representing the future time at which the assertion expires.")
	case claims.ExpiresAt.After(now.Add(10*time.Minute + 5*time.Second)):
		return refuse(http.StatusUnauthorized, "'Expiration time' claim ('exp') is too far in the future")
	}
	c.app = c.s.apps[i]
	return nil
}

func (a *App) installation(owner string) object {
	o := object{
		"id": a.Installation, "account": a.s.user(a.s.account(owner)), "repository_selection": "all", "app_id": a.ID, "app_slug": a.Slug,
		"access_tokens_url": a.s.URL + "/app/installations/" + intText(a.Installation) + "/access_tokens", "repositories_url": a.s.URL + "/installation/repositories",
		"html_url": web + "/organizations/" + owner + "/settings/installations/" + intText(a.Installation), "target_id": a.s.account(owner).ID,
		"target_type": a.s.account(owner).Type, "permissions": a.granted(a.Permissions), "events": []any{}, "created_at": date(a.created), "updated_at": date(a.created),
		"single_file_name": nil, "has_multiple_single_files": false, "single_file_paths": []any{}, "suspended_by": nil, "suspended_at": nil,
	}
	if a.Repos != nil {
		o["repository_selection"] = "selected"
	}
	if a.suspended {
		o["suspended_at"] = date(a.created)
	}
	return o
}

// has reports whether the App was installed for a repository.
func (a *App) has(r *Repo) bool { return a.Repos == nil || slices.Contains(a.Repos, r.Name) }

func repoInstallation(c *call) (any, error) {
	r := c.s.repos[strings.ToLower(c.value("owner")+"/"+c.value("repo"))]
	if r == nil || !c.app.has(r) {
		return nil, notFound()
	}
	return c.app.installation(r.Owner), nil
}

func createToken(c *call) (any, error) {
	in, err := decode[struct {
		Repositories []string
		IDs          []int64 `json:"repository_ids"`
		Permissions  map[string]string
	}](c)
	switch {
	case err != nil:
		return nil, err
	case c.value("id") != intText(c.app.Installation):
		return nil, notFound()
	case c.app.suspended:
		return nil, refuse(http.StatusForbidden, "This installation has been suspended")
	}
	t := &token{account: c.app.account, installation: true, app: c.app, permissions: in.Permissions, expires: c.s.now().Add(time.Hour).Truncate(time.Second)}
	if in.Permissions == nil {
		t.permissions = c.app.granted(c.app.Permissions)
	}
	for name, level := range t.permissions {
		if !grants(c.app.granted(c.app.Permissions)[name], level) {
			return nil, refuse(422, "The permissions requested are not granted to this installation.")
		}
	}
	if t.repos, err = c.narrowed(in.Repositories, in.IDs); err != nil {
		return nil, err
	}
	value := c.s.grant("ghs_", t)
	o := object{"token": string(value.Reveal()), "expires_at": date(t.expires), "permissions": c.app.granted(t.permissions), "repository_selection": "all"}
	if t.repos != nil {
		shown := []any{}
		for _, r := range t.repos {
			shown = append(shown, r.full(t))
		}
		o["repository_selection"], o["repositories"] = "selected", shown
	}
	return o, nil
}

// narrowed finds the repositories that a token is asked for.
func (c *call) narrowed(names []string, ids []int64) ([]*Repo, error) {
	var out []*Repo
	for _, r := range c.s.repos {
		if slices.Contains(ids, r.ID) || slices.ContainsFunc(names, func(n string) bool { return strings.EqualFold(n, r.Name) }) {
			out = append(out, r)
		} else if len(names)+len(ids) == 0 && c.app.Repos != nil && c.app.has(r) {
			out = append(out, r)
			continue
		} else {
			continue
		}
		if !c.app.has(r) {
			out = nil
			break
		}
	}
	if len(out) < len(names)+len(ids) {
		return nil, refuse(422, "There is at least one repository that does not exist or is not accessible to the parent installation.")
	}
	slices.SortFunc(out, func(a, b *Repo) int { return cmp.Compare(a.ID, b.ID) })
	return out, nil
}

func installationRepos(c *call) (any, error) {
	if !c.by.installation {
		return nil, inaccessible("")
	}
	var all []*Repo
	for _, r := range c.s.repos {
		if c.by.sees(r) && (c.by.app == nil || c.by.app.has(r)) {
			all = append(all, r)
		}
	}
	slices.SortFunc(all, func(a, b *Repo) int { return cmp.Compare(a.ID, b.ID) })
	return object{"total_count": len(all), "repositories": page(c, all, func(r *Repo) any { return r.full(c.by) })}, nil
}
