package githubapp

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/bradleyfalzon/ghinstallation/v2"
	"github.com/golang-jwt/jwt/v4"
	"github.com/google/go-github/v60/github"

	"github.com/keyturn/keyturn/internal/secret"
)

const (
	// early is how long before its end a token is replaced.
	early = 5 * time.Minute
	// young is how old a token may be that a replica of GitHub does not know yet.
	young = 10 * time.Second
	// skewed is how far our clock may be from GitHub's without a word.
	skewed = 20 * time.Second
)

// A session is one set of permissions, with the token that has it.
type session struct {
	app         *App
	permissions github.InstallationPermissions
	named       map[string]string // instead: what the library has no name for
	repos       []string

	mu     sync.Mutex
	live   bool // there is a token
	token  secret.Value
	made   time.Time
	ends   time.Time
	minted []minted
	closed bool
}

type minted struct {
	token secret.Value
	ends  time.Time
}

// RoundTrip implements [http.RoundTripper].
func (s *session) RoundTrip(req *http.Request) (*http.Response, error) {
	if s.app.o.App == 0 {
		return s.app.polite.RoundTrip(authorized(req, s.app.o.Token))
	}
	token, age, err := s.current(req.Context())
	if err != nil {
		return nil, err
	}
	resp, err := s.app.polite.RoundTrip(authorized(req, token))
	for wait := time.Second; err == nil && unknownYet(req, resp, age) && wait <= 4*time.Second; wait *= 2 {
		next := again(req)
		if next == nil {
			return resp, nil
		}
		once := resp.StatusCode == http.StatusNotFound
		drain(resp)
		if err := s.app.o.Sleep(req.Context(), wait); err != nil {
			return nil, err
		}
		resp, err = s.app.polite.RoundTrip(authorized(next, token))
		if once {
			break
		}
	}
	if err != nil || resp.StatusCode != http.StatusUnauthorized {
		return resp, err
	}
	return s.renewed(req, resp, token)
}

// unknownYet reports whether a refusal may be that of a replica which does not know
// a new token yet. A 404 is believed at once of what writes, and soon of what reads.
func unknownYet(req *http.Request, resp *http.Response, age time.Duration) bool {
	if age > young {
		return false
	}
	return resp.StatusCode == http.StatusUnauthorized ||
		resp.StatusCode == http.StatusNotFound && req.Method == http.MethodGet && age < time.Second
}

// renewed sends a request that was refused once more, with a new token: a 401 says
// that it did nothing.
func (s *session) renewed(req *http.Request, refused *http.Response, token secret.Value) (*http.Response, error) {
	next := again(req)
	if next == nil {
		return refused, nil
	}
	drain(refused)
	s.forget(token)
	token, _, err := s.current(req.Context())
	if err != nil {
		return nil, err
	}
	return s.app.polite.RoundTrip(authorized(next, token))
}

func authorized(req *http.Request, token secret.Value) *http.Request {
	next := req.Clone(req.Context())
	next.Header.Set("Authorization", "Bearer "+string(token.Reveal()))
	return next
}

// forget drops a token that is refused; another may have been made meanwhile.
func (s *session) forget(token secret.Value) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if bytes.Equal(s.token.Reveal(), token.Reveal()) {
		s.live = false
	}
}

// current returns the token, and how old it is. It makes one if there is none or
// it is about to end.
func (s *session) current(ctx context.Context) (secret.Value, time.Duration, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := s.app.o.Now()
	if s.closed {
		return secret.Value{}, 0, errors.New("GitHub is not asked any more: the tokens were revoked")
	}
	if s.live && now.Before(s.ends.Add(-early)) {
		return s.token, now.Sub(s.made), nil
	}
	if err := s.mint(ctx); err != nil {
		return secret.Value{}, 0, err
	}
	return s.token, 0, nil
}

func (s *session) mint(ctx context.Context) error {
	if s.named != nil {
		issued, err := s.app.Issue(ctx, s.repos, s.named)
		if err != nil {
			return err
		}
		s.keep(issued.Token, issued.Ends)
		return nil
	}
	id, err := s.app.installed(ctx)
	if err != nil {
		return err
	}
	tr := ghinstallation.NewFromAppsTransport(s.app.signing(), id)
	tr.BaseURL = strings.TrimRight(s.app.api.String(), "/")
	tr.InstallationTokenOptions = &github.InstallationTokenOptions{Repositories: s.repos, Permissions: &s.permissions}
	text, err := s.app.corrected(func() (string, *http.Response, error) {
		text, err := tr.Token(ctx)
		return text, responseOf(err), err
	})
	if err != nil {
		return s.app.unminted(err, s.permissions)
	}
	token := secret.New([]byte(text))
	mask(s.app.o, token)
	ends, _, err := tr.Expiry()
	if err != nil {
		ends = s.app.o.Now().Add(time.Hour)
	}
	s.keep(token, ends)
	return nil
}

// keep takes a new token into use.
func (s *session) keep(token secret.Value, ends time.Time) {
	s.live, s.token, s.made, s.ends = true, token, s.app.o.Now(), ends
	s.minted = append(s.minted, minted{token, ends})
}

func responseOf(err error) *http.Response {
	var failed *ghinstallation.HTTPError
	if errors.As(err, &failed) {
		return failed.Response
	}
	return nil
}

// revoke ends every token of the session that lives.
func (s *session) revoke(ctx context.Context) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	var errs []error
	for _, m := range s.minted {
		if s.app.o.Now().Before(m.ends) {
			errs = append(errs, s.app.revokeOne(ctx, m.token))
		}
	}
	s.minted, s.live, s.closed = nil, false, true
	return errors.Join(errs...)
}

func (a *App) revokeOne(ctx context.Context, token secret.Value) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodDelete, a.api.String()+"installation/token", nil)
	if err != nil {
		return err
	}
	resp, err := a.polite.RoundTrip(authorized(req, token))
	if err != nil {
		return fmt.Errorf("revoking a token: %w", err)
	}
	drain(resp)
	if resp.StatusCode != http.StatusNoContent && resp.StatusCode != http.StatusUnauthorized { // 401: it is dead already
		return fmt.Errorf("revoking a token: GitHub answered %s", resp.Status)
	}
	return nil
}

// A skew is how far GitHub's clock is ahead of ours, if that matters.
type skew struct {
	mu sync.Mutex
	by time.Duration
}

// signer signs what an App says of itself, with the times that GitHub's clock has.
type signer struct {
	ghinstallation.Signer
	skew *skew
	now  func() time.Time
}

const (
	backdated = 30 * time.Second // against clocks that differ a little
	signed    = 2 * time.Minute  // how long it is good
)

// Sign implements [ghinstallation.Signer].
func (s signer) Sign(claims jwt.Claims) (string, error) {
	s.skew.mu.Lock()
	by := s.skew.by
	s.skew.mu.Unlock()
	if c, ok := claims.(*jwt.RegisteredClaims); ok {
		at := s.now().Add(by - backdated).Truncate(time.Second)
		c.IssuedAt, c.ExpiresAt = jwt.NewNumericDate(at), jwt.NewNumericDate(at.Add(signed))
	}
	return s.Signer.Sign(claims)
}

// signing is the transport of requests that the App itself signs.
func (a *App) signing() *ghinstallation.AppsTransport {
	t, err := ghinstallation.NewAppsTransportWithOptions(a.polite, a.o.App,
		ghinstallation.WithSigner(signer{ghinstallation.NewRSASigner(jwt.SigningMethodRS256, a.key), a.skew, a.o.Now}))
	if err != nil {
		panic("githubapp: " + err.Error()) // it has its signer
	}
	return t
}

// corrected does what the App signs, once more if it was refused and our clock is
// not GitHub's.
func (a *App) corrected(do func() (string, *http.Response, error)) (string, error) {
	text, resp, err := do()
	if err == nil || resp == nil || resp.StatusCode != http.StatusUnauthorized {
		return text, err
	}
	at, parseErr := http.ParseTime(resp.Header.Get("Date"))
	by := at.Sub(a.o.Now())
	if parseErr != nil || by.Abs() < skewed {
		return "", err
	}
	a.skew.mu.Lock()
	a.skew.by = by
	a.skew.mu.Unlock()
	if a.o.Warn != nil {
		a.o.Warn(fmt.Sprintf("the clock here is %s from GitHub's; set it right", by.Round(time.Second).Abs()))
	}
	text, _, err = do()
	return text, err
}
