package githubfake

import (
	"crypto/rand"
	"encoding/base64"
	"net/http"
	"slices"
	"strings"
	"time"

	"golang.org/x/crypto/nacl/box"
)

// A vault keeps secrets that cannot be read back, sealed for its public key.
type vault struct {
	id              string
	public, private *[32]byte
	secrets         map[string]*sealedSecret
}

type sealedSecret struct {
	value            string
	created, updated time.Time
	visibility       string // of an organisation's
	selected         []int64
}

func newVault(id int64) *vault {
	public, private, err := box.GenerateKey(rand.Reader)
	if err != nil {
		panic(err)
	}
	return &vault{id: intText(id), public: public, private: private, secrets: map[string]*sealedSecret{}}
}

// The places of secrets, by the path before the name, and what each needs.
var places = []struct{ path, permission string }{
	{"/repos/{owner}/{repo}/actions/secrets", "secrets"},
	{"/repos/{owner}/{repo}/dependabot/secrets", "dependabot_secrets"},
	{"/repos/{owner}/{repo}/environments/{environment}/secrets", "environments"},
	{"/orgs/{org}/actions/secrets", "organization_secrets"},
	{"/orgs/{org}/dependabot/secrets", "organization_dependabot_secrets"},
}

func secretRoutes() []route {
	var all []route
	for _, p := range places {
		all = append(all,
			route{"GET " + p.path + "/public-key", 200, p.permission + "=read", inVault(func(c *call, v *vault) (any, error) {
				return object{"key_id": v.id, "key": base64.StdEncoding.EncodeToString(v.public[:])}, nil
			})},
			route{"GET " + p.path + "/{secret}", 200, p.permission + "=read", inVault(func(c *call, v *vault) (any, error) {
				s := v.secrets[c.value("secret")]
				if s == nil {
					return nil, notFound()
				}
				return c.showSecret(s), nil
			})},
			route{"PUT " + p.path + "/{secret}", 204, p.permission + "=write", inVault(putSecret)})
		if strings.HasPrefix(p.path, "/orgs/") {
			all = append(all, route{"GET " + p.path + "/{secret}/repositories", 200, p.permission + "=read", inVault(selectedRepos)})
		}
	}
	return all
}

// inVault finds the vault that a path names.
func inVault(do func(*call, *vault) (any, error)) func(*call) (any, error) {
	return func(c *call) (any, error) {
		kind := "actions"
		if strings.Contains(c.r.URL.Path, "/dependabot/") {
			kind = "dependabot"
		}
		if name := c.value("environment"); name != "" {
			if c.repo.environment(name) == nil {
				return nil, notFound()
			}
			kind = "environment " + name
		}
		owner := c.value("org")
		if c.repo != nil {
			owner = c.repo.FullName()
		}
		return do(c, c.s.vault(owner, kind))
	}
}

func (s *Server) vault(owner, kind string) *vault {
	name := strings.ToLower(owner) + " " + kind
	if s.vaults[name] == nil {
		s.vaults[name] = newVault(s.id())
	}
	return s.vaults[name]
}

func (c *call) showSecret(s *sealedSecret) object {
	o := object{"name": c.value("secret"), "created_at": date(s.created), "updated_at": date(s.updated)}
	if c.value("org") != "" {
		o["visibility"] = s.visibility
		if s.visibility == "selected" {
			o["selected_repositories_url"] = c.s.URL + c.r.URL.Path + "/repositories"
		}
	}
	return o
}

func putSecret(c *call, v *vault) (any, error) {
	in, err := decode[struct {
		Value      string  `json:"encrypted_value"`
		Key        string  `json:"key_id"`
		Visibility string  `json:"visibility"`
		Selected   []int64 `json:"selected_repository_ids"`
	}](c)
	if err != nil {
		return nil, err
	}
	sealed, err := base64.StdEncoding.DecodeString(in.Value)
	value, opened := box.OpenAnonymous(nil, sealed, v.public, v.private)
	if err != nil || in.Key != v.id || !opened {
		return nil, refuse(http.StatusUnprocessableEntity, "The value was not encrypted with the public key %s", v.id)
	}
	s := v.secrets[c.value("secret")]
	if s == nil {
		s, c.status = &sealedSecret{created: c.s.time()}, http.StatusCreated
		v.secrets[c.value("secret")] = s
	}
	s.value, s.updated, s.visibility, s.selected = string(value), c.s.time(), in.Visibility, in.Selected
	return object{}, nil
}

func selectedRepos(c *call, v *vault) (any, error) {
	s := v.secrets[c.value("secret")]
	if s == nil || s.visibility != "selected" {
		return nil, notFound()
	}
	var all []*Repo
	for _, r := range c.s.repos {
		if slices.Contains(s.selected, r.ID) && c.by.sees(r) {
			all = append(all, r)
		}
	}
	slices.SortFunc(all, func(a, b *Repo) int { return int(a.ID - b.ID) })
	return object{"total_count": len(all), "repositories": page(c, all, func(r *Repo) any { return r.minimal() })}, nil
}

// Secret returns the value of a secret, which nobody but a test can read, and which
// repositories may use it: kind is "actions", "dependabot" or "environment NAME", and the
// owner a repository or an organisation.
func (s *Server) Secret(owner, kind, name string) (value string, selected []int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if found := s.vault(owner, kind).secrets[name]; found != nil {
		return found.value, slices.Clone(found.selected)
	}
	return "", nil
}

// SetSecret makes a secret as people do; of an organisation, for the repositories that
// are selected, or for all.
func (s *Server) SetSecret(owner, kind, name, value string, selected ...*Repo) {
	s.mu.Lock()
	defer s.mu.Unlock()
	made := &sealedSecret{value: value, created: s.time(), updated: s.time(), visibility: "all"}
	for _, r := range selected {
		made.visibility, made.selected = "selected", append(made.selected, r.ID)
	}
	s.vault(owner, kind).secrets[name] = made
}
