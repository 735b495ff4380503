package actionsecrets

import (
	"context"
	"crypto/rand"
	"encoding/base64"
	"errors"
	"fmt"
	"net/http"
	"net/url"

	"github.com/google/go-github/v60/github"
	"golang.org/x/crypto/nacl/box"

	"github.com/keyturn/keyturn/internal/githubapp"
	"github.com/keyturn/keyturn/internal/rotation"
	"github.com/keyturn/keyturn/internal/secret"
)

// path is that of a secret, or of the public key, in the API. The library has another
// one for environments, which GitHub does not describe any more.
func (p Place) path(name string) string {
	base, kind := fmt.Sprintf("repos/%s/%s", url.PathEscape(p.Owner), url.PathEscape(p.Repo)), "actions/secrets"
	switch {
	case p.Organization != "":
		base = "orgs/" + url.PathEscape(p.Organization)
	case p.Environment != "":
		kind = "environments/" + url.PathEscape(p.Environment) + "/secrets"
	}
	if p.Dependabot {
		kind = "dependabot/secrets"
	}
	return base + "/" + kind + "/" + name
}

// ask sends one request.
func ask(ctx context.Context, c *githubapp.Client, method, path string, body, into any) (*github.Response, error) {
	req, err := c.NewRequest(method, path, body)
	if err != nil {
		return nil, err
	}
	return c.Do(ctx, req, into)
}

// A sealer is the public key of a place.
type sealer struct {
	ID  string `json:"key_id"`
	Key string `json:"key"` // base64

	key [32]byte
}

func (t *Target) publicKey(ctx context.Context, c *githubapp.Client) (sealer, error) {
	var s sealer
	doing := "reading the public key of the " + t.Place.String()
	if _, err := ask(ctx, c, http.MethodGet, t.path("public-key"), nil, &s); err != nil {
		return s, wrap(doing, err)
	}
	raw, err := base64.StdEncoding.DecodeString(s.Key)
	if err != nil || len(raw) != len(s.key) {
		return s, fmt.Errorf("%s: it is no key of 32 bytes", doing)
	}
	copy(s.key[:], raw)
	return s, nil
}

// seal returns the value as nobody but GitHub can read it, in base64.
func (s sealer) seal(v secret.Value) (string, error) {
	sealed, err := box.SealAnonymous(nil, v.Reveal(), &s.key, rand.Reader)
	return base64.StdEncoding.EncodeToString(sealed), err
}

// A stored secret is what GitHub says of one.
type stored struct {
	UpdatedAt  string `json:"updated_at"`
	Visibility string `json:"visibility"` // of an organisation's: all, private, selected
}

// read returns what is known of a secret; not there is no error.
func (t *Target) read(ctx context.Context, c *githubapp.Client, name string) (s stored, there bool, err error) {
	_, err = ask(ctx, c, http.MethodGet, t.path(name), nil, &s)
	if notFound(err) {
		return s, false, nil
	}
	return s, err == nil, wrap(fmt.Sprintf("reading what is known of %s of the %s", name, t.Place), err)
}

// A sealed secret is the body of the request that overwrites one.
type sealed struct {
	Value      string  `json:"encrypted_value"`
	Key        string  `json:"key_id"`
	Visibility string  `json:"visibility,omitempty"`
	Selected   []int64 `json:"selected_repository_ids,omitempty"`
}

// tries is how often the same value is put before it is given up: to do it again
// changes nothing.
const tries = 3

// putOne overwrites one secret. Who may read an organisation's stays as it is.
func (t *Target) putOne(ctx context.Context, c *githubapp.Client, key sealer, name string, value secret.Value) (rotation.Object, error) {
	o := rotation.Object{Name: name}
	body := sealed{Key: key.ID}
	var err error
	if body.Value, err = key.seal(value); err != nil {
		return o, errors.New("the value cannot be sealed")
	}
	if t.Organization != "" {
		if body.Visibility, body.Selected, err = t.readers(ctx, c, name); err != nil {
			return o, err
		}
	}
	for try := 1; ; try++ {
		if _, err = ask(ctx, c, http.MethodPut, t.path(name), body, nil); err == nil {
			break
		}
		if try == tries || ctx.Err() != nil || !githubapp.Unanswered(err) {
			return o, wrap(fmt.Sprintf("overwriting %s of the %s", name, t.Place), err)
		}
	}
	if s, there, err := t.read(ctx, c, name); err == nil && there {
		o.ID = s.UpdatedAt // without it, only the name can be compared later
	}
	return o, nil
}
