package github

import (
	"context"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/google/go-github/v60/github"
	"golang.org/x/crypto/ssh"

	"github.com/keyturn/keyturn/internal/githubapp"
)

// A deployKey is a key as GitHub's API has it. The library does not know of
// enabled, which is false where the organisation has switched deploy keys off.
type deployKey struct {
	ID       int64  `json:"id"`
	Key      string `json:"key"`
	Title    string `json:"title"`
	ReadOnly bool   `json:"read_only"`
	AddedBy  string `json:"added_by"`
	LastUsed string `json:"last_used"`
	Enabled  *bool  `json:"enabled"`
}

func (k deployKey) fingerprint() string {
	key, _, _, _, err := ssh.ParseAuthorizedKey([]byte(k.Key))
	if err != nil {
		return ""
	}
	return ssh.FingerprintSHA256(key)
}

// describe says of a key what people may want to know.
func (k deployKey) describe() string {
	parts := []string{fmt.Sprintf("deploy key %d %q", k.ID, k.Title), "read-only"}
	if !k.ReadOnly {
		parts[1] = "may push"
	}
	parts = append(parts, k.used())
	if k.Enabled != nil && !*k.Enabled {
		parts = append(parts, "switched off by the organisation")
	}
	return strings.Join(parts, ", ")
}

// used says when the key was used last. A probe is a use, too.
func (k deployKey) used() string {
	if at, err := time.Parse(time.RFC3339, k.LastUsed); err == nil {
		return "last used " + at.UTC().Format("2006-01-02 15:04 UTC")
	}
	return "never used"
}

// keys are the keys of the repository.
type keys []deployKey

// of returns the key with a fingerprint. A version whose fingerprint is not on the
// record was never told to GitHub, whatever has its title.
func (all keys) of(fingerprint string) (deployKey, bool) {
	i := slices.IndexFunc(all, func(k deployKey) bool { return fingerprint != "" && k.fingerprint() == fingerprint })
	if i < 0 {
		return deployKey{}, false
	}
	return all[i], true
}

// list reads the keys of the repository.
func (b *KeyBackend) list(ctx context.Context, c *githubapp.Client) (keys, error) {
	all, err := githubapp.All(func(o github.ListOptions) ([]deployKey, *github.Response, error) {
		req, err := c.NewRequest(http.MethodGet, fmt.Sprintf("repos/%s/%s/keys?per_page=%d&page=%d", b.owner, b.repo, o.PerPage, max(o.Page, 1)), nil)
		if err != nil {
			return nil, nil, err
		}
		var page []deployKey
		resp, err := c.Do(ctx, req, &page)
		return page, resp, err
	})
	return all, wrap(fmt.Sprintf("listing the deploy keys of %s/%s", b.owner, b.repo), err)
}

// look lists the keys with the right to read them.
func (b *KeyBackend) look(ctx context.Context) (keys, error) {
	return b.list(ctx, b.client(toRead))
}
