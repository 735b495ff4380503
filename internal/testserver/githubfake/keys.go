package githubfake

import (
	"net/http"
	"slices"
	"strings"
	"time"

	"golang.org/x/crypto/ssh"
)

// A deployKey is a key of one repository.
type deployKey struct {
	id            int64
	title, key    string // the key without a comment
	readOnly      bool
	by            *Account
	created, used time.Time
}

// A DeployKey is a key as it is now.
type DeployKey struct {
	ID         int64
	Title, Key string
	ReadOnly   bool
}

func keyRoutes() []route {
	return []route{
		{"GET /repos/{owner}/{repo}/keys", 200, "administration=read", func(c *call) (any, error) {
			return page(c, c.repo.keys, c.repo.showKey), nil
		}},
		{"POST /repos/{owner}/{repo}/keys", 201, "administration=write", createKey},
		{"GET /repos/{owner}/{repo}/keys/{id}", 200, "administration=read", func(c *call) (any, error) {
			i := c.key()
			if i < 0 {
				return nil, notFound()
			}
			return c.repo.showKey(c.repo.keys[i]), nil
		}},
		{"DELETE /repos/{owner}/{repo}/keys/{id}", 204, "administration=write", func(c *call) (any, error) {
			i := c.key()
			if i < 0 {
				return nil, notFound()
			}
			c.repo.keys = slices.Delete(c.repo.keys, i, i+1)
			c.repo.tellKeys()
			return nil, nil
		}},
	}
}

func (c *call) key() int {
	return slices.IndexFunc(c.repo.keys, func(k *deployKey) bool { return c.value("id") == intText(k.id) })
}

func (r *Repo) showKey(k *deployKey) any {
	return object{"id": k.id, "key": k.key, "url": r.api() + "/keys/" + intText(k.id), "title": k.title, "verified": true, "created_at": date(k.created),
		"read_only": k.readOnly, "added_by": k.by.Login, "last_used": date(k.used), "enabled": !r.keysOff}
}

func createKey(c *call) (any, error) {
	in, err := decode[struct {
		Title    string
		Key      string
		ReadOnly bool `json:"read_only"`
	}](c)
	if err != nil {
		return nil, err
	}
	if c.repo.keysOff {
		return nil, refuse(http.StatusUnprocessableEntity, "Deploy keys are disabled for this repository")
	}
	k, err := c.repo.addKey(in.Title, in.Key, in.ReadOnly, c.by.account)
	if err != nil {
		return nil, err
	}
	return c.repo.showKey(k), nil
}

// addKey adds a key, whose text stands once on all of GitHub.
func (r *Repo) addKey(title, text string, readOnly bool, by *Account) (*deployKey, error) {
	key, _, _, _, err := ssh.ParseAuthorizedKey([]byte(text))
	if err != nil {
		return nil, invalid("PublicKey", "key", "custom", "key is invalid. You must supply a key in OpenSSH public key format")
	}
	line := strings.TrimSpace(string(ssh.MarshalAuthorizedKey(key)))
	for _, other := range r.s.repos {
		if slices.ContainsFunc(other.keys, func(k *deployKey) bool { return k.key == line }) {
			return nil, invalid("PublicKey", "key", "custom", "key is already in use")
		}
	}
	k := &deployKey{id: r.s.id(), title: title, key: line, readOnly: readOnly, by: by, created: r.s.time()}
	r.keys = append(r.keys, k)
	r.tellKeys()
	return k, nil
}

// tellKeys says which keys the repository has now. The server is locked.
func (r *Repo) tellKeys() {
	if r.keysChanged == nil {
		return
	}
	var lines []string
	for _, k := range r.keys {
		lines = append(lines, k.key)
	}
	r.keysChanged(lines)
}

// OnKeys is told the lines of the repository's keys now and at every change, before
// the change is answered. What is told must not call the server.
func (r *Repo) OnKeys(told func(lines []string)) {
	r.s.mu.Lock()
	defer r.s.mu.Unlock()
	r.keysChanged = told
	r.tellKeys()
}

// AddDeployKey adds a key as a person does, and returns its number.
func (r *Repo) AddDeployKey(login, title, line string, readOnly bool) int64 {
	r.s.mu.Lock()
	defer r.s.mu.Unlock()
	k, err := r.addKey(title, line, readOnly, r.s.account(login))
	if err != nil {
		panic(err)
	}
	return k.id
}

// DeployKeys are the repository's keys, oldest first.
func (r *Repo) DeployKeys() []DeployKey {
	r.s.mu.Lock()
	defer r.s.mu.Unlock()
	var out []DeployKey
	for _, k := range r.keys {
		out = append(out, DeployKey{k.id, k.title, k.key, k.readOnly})
	}
	return out
}

// SwitchKeysOff is what an organisation does that allows no deploy keys.
func (r *Repo) SwitchKeysOff(off bool) {
	r.s.mu.Lock()
	defer r.s.mu.Unlock()
	r.keysOff = off
}

// UseKeys notes that every key of the repository was used now.
func (r *Repo) UseKeys() {
	r.s.mu.Lock()
	defer r.s.mu.Unlock()
	for _, k := range r.keys {
		k.used = r.s.time()
	}
}
