package githubapp

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"time"

	"github.com/keyturn/keyturn/internal/secret"
)

// An Installation is what GitHub says of the App on the repository.
type Installation struct {
	ID          int64             `json:"id"`
	Permissions map[string]string `json:"permissions"` // as {"contents": "write"}
	SuspendedAt string            `json:"suspended_at"`
}

// Granted returns what the installation of the App on the repository may do, as
// {"contents": "write"}; nil of a plain token, of which nothing is known.
func (a *App) Granted(ctx context.Context) (map[string]string, error) {
	if a.o.App == 0 {
		return nil, nil
	}
	if _, err := a.installed(ctx); err != nil {
		return nil, err
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	return maps.Clone(a.granted), nil
}

// installed returns the App's installation on the repository, as it was found first.
func (a *App) installed(ctx context.Context) (int64, error) {
	a.mu.Lock()
	id := a.installation
	a.mu.Unlock()
	if id != 0 {
		return id, nil
	}
	found, err := a.Installation(ctx)
	return found.ID, err
}

// Installation asks for the App's installation on the repository as it is now.
func (a *App) Installation(ctx context.Context) (Installation, error) {
	var found Installation
	err := a.signed(ctx, http.MethodGet, fmt.Sprintf("repos/%s/%s/installation", a.o.Owner, a.o.Repo), nil, &found)
	if err != nil {
		return found, a.uninstalled(err)
	}
	if found.ID == 0 {
		return found, errors.New("GitHub named no installation of the App")
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	a.installation, a.granted = found.ID, found.Permissions
	return found, nil
}

// An Issued token is one for somebody else than this process.
type Issued struct {
	Token       secret.Value
	Ends        time.Time
	Permissions map[string]string
}

// Issue makes a token for repositories of the owner, by name (none: all that the App is
// installed on), with permissions, as {"contents": "read"}. It is masked, and [App.Close] leaves it alone. After an answer
// that was lost another one is made: what nobody has ends by itself within an hour.
func (a *App) Issue(ctx context.Context, repositories []string, permissions map[string]string) (Issued, error) {
	if a.o.App == 0 {
		return Issued{}, hintf("give the number and the key of an App", "a token is made in the name of an App, and there is none")
	}
	id, err := a.installed(ctx)
	if err != nil {
		return Issued{}, err
	}
	var made struct {
		Token       string            `json:"token"`
		ExpiresAt   time.Time         `json:"expires_at"`
		Permissions map[string]string `json:"permissions"`
	}
	asked := map[string]any{"permissions": permissions}
	if len(repositories) > 0 {
		asked["repositories"] = repositories
	}
	err = a.signed(ctx, http.MethodPost, fmt.Sprintf("app/installations/%d/access_tokens", id), asked, &made)
	if err != nil {
		return Issued{}, a.unmintedWith(err, words(permissions))
	}
	issued := Issued{Token: secret.FromString(made.Token), Ends: made.ExpiresAt.UTC(), Permissions: made.Permissions}
	mask(a.o, issued.Token)
	return issued, nil
}

// Revoke ends a token of [App.Issue]. One that is dead already is success.
func (a *App) Revoke(ctx context.Context, token secret.Value) error { return a.revokeOne(ctx, token) }

// signed sends a request in the name of the App itself, with a body if there is one.
func (a *App) signed(ctx context.Context, method, path string, body, into any) error {
	var sent []byte
	if body != nil {
		var err error
		if sent, err = json.Marshal(body); err != nil {
			return err
		}
	}
	_, err := a.corrected(func() (string, *http.Response, error) {
		var reader io.Reader
		if sent != nil {
			reader = bytes.NewReader(sent)
		}
		req, err := http.NewRequestWithContext(ctx, method, a.api.String()+path, reader)
		if err != nil {
			return "", nil, err
		}
		if sent != nil {
			req.Header.Set("Content-Type", "application/json")
		}
		resp, err := a.signing().RoundTrip(req)
		if err != nil {
			return "", nil, err
		}
		defer drain(resp)
		if resp.StatusCode >= http.StatusMultipleChoices {
			return "", resp, refusal(resp)
		}
		return "", resp, json.Unmarshal([]byte(peek(resp)), into)
	})
	return err
}
