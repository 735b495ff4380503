// Package githubapp asks GitHub in the name of an App, or with a plain token.
//
// An App's tokens are made when they are first needed, for the repositories and
// permissions that a part of a run asks for and no more; they are masked before
// they are used, replaced before they end, and revoked by [App.Close]. The client
// is go-github; ghinstallation signs and mints, and what it leaves open is done
// here: limits (403 and 429), lost answers, a skewed clock, a token that a replica
// of GitHub does not know yet, one that was revoked.
//
// No token or key is ever part of an error. See GitHub's pages "Authenticating as
// a GitHub App installation" and "Rate limits for the REST API".
package githubapp

import (
	"context"
	"crypto/rsa"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"time"

	"github.com/google/go-github/v60/github"

	"github.com/keyturn/keyturn/internal/secret"
)

const (
	defaultAPI     = "https://api.github.com"
	defaultBetween = time.Second
	defaultMaxWait = 2 * time.Minute
	requestTime    = time.Minute // of one request
)

// Options say whom to ask, and as whom.
type Options struct {
	API         string // base of the REST API, as $GITHUB_API_URL has it; "" is https://api.github.com
	Owner, Repo string

	Token secret.Value // a plain token; or an App:
	App   int64        // its number
	Key   secret.Value // its key: PEM, also with its newlines written as \n, or base64 of it

	Mask func(secret.Value) // is told of every token before its first use; nil: nobody is
	Warn func(text string)  // is told that something was put right, such as a clock; nil: nobody is

	Transport http.RoundTripper                          // nil is a clone of [http.DefaultTransport]
	Now       func() time.Time                           // nil is [time.Now]
	Sleep     func(context.Context, time.Duration) error // nil waits
	Between   time.Duration                              // least time between two writes; 0 is a second, less than nothing is none
	MaxWait   time.Duration                              // how long a limit may make a request wait; 0 is 2 minutes
}

// An App is GitHub as it may be used. It is safe for concurrent use.
type App struct {
	o      Options
	api    *url.URL // ends with a slash
	key    *rsa.PrivateKey
	skew   *skew
	polite *polite

	mu           sync.Mutex
	installation int64
	granted      map[string]string // to the installation; nil until it was looked for
	sessions     map[string]*session
}

// A Client asks in the name of one set of permissions.
type Client struct {
	*github.Client
	Owner, Repo string
}

// New checks the options. It asks nothing. Its errors have a Hint() string.
func New(o Options) (*App, error) {
	o = o.withDefaults()
	api, err := url.Parse(strings.TrimRight(o.API, "/") + "/")
	if err != nil || api.Host == "" || api.Scheme != "https" && api.Scheme != "http" {
		return nil, &hinted{errors.New("the address of GitHub's API is none"), "GITHUB_API_URL is such as https://api.github.com or https://ghe.acme.io/api/v3"}
	}
	a := &App{o: o, api: api, skew: &skew{}, sessions: map[string]*session{}}
	a.polite = &polite{next: o.Transport, o: o}
	if o.App == 0 {
		if o.Token.Empty() {
			return nil, &hinted{errors.New("there is neither an App nor a token to ask GitHub with"), "give the number and the key of an App, or a token"}
		}
		mask(o, o.Token)
		return a, nil
	}
	if a.key, err = parseKey(o.Key); err != nil {
		return nil, err
	}
	return a, nil
}

func (o Options) withDefaults() Options {
	if o.API == "" {
		o.API = defaultAPI
	}
	if o.Transport == nil {
		clone := http.DefaultTransport.(*http.Transport).Clone()
		clone.ResponseHeaderTimeout = requestTime
		o.Transport = clone
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Sleep == nil {
		o.Sleep = Wait
	}
	if o.Between == 0 {
		o.Between = defaultBetween
	}
	if o.MaxWait == 0 {
		o.MaxWait = defaultMaxWait
	}
	return o
}

func mask(o Options, v secret.Value) {
	if o.Mask != nil {
		o.Mask(v)
	}
}

// Client returns a client with the given permissions, for the repository of the
// options and no other unless others are named. It asks nothing: its token is made
// when it is first needed. Of a plain token, the permissions are what they are.
func (a *App) Client(p github.InstallationPermissions, repos ...string) *Client {
	if len(repos) == 0 && a.o.Repo != "" {
		repos = []string{a.o.Repo}
	}
	return a.client(a.session(p, nil, repos))
}

// ClientNamed is [App.Client] with permissions by their names, as {"dependabot_secrets":
// "write"}: the library has no names for some. With everywhere it is [App.Wide].
func (a *App) ClientNamed(named map[string]string, everywhere bool) *Client {
	var repos []string
	if !everywhere && a.o.Repo != "" {
		repos = []string{a.o.Repo}
	}
	return a.client(a.session(github.InstallationPermissions{}, named, repos))
}

// Wide returns a client with the given permissions for every repository that the App is
// installed on: what belongs to an organisation may be seen in part with less.
func (a *App) Wide(p github.InstallationPermissions) *Client {
	return a.client(a.session(p, nil, nil))
}

func (a *App) client(s *session) *Client {
	c := github.NewClient(&http.Client{Transport: s, CheckRedirect: sameHost})
	c.BaseURL, c.UploadURL = a.api, a.api
	return &Client{c, a.o.Owner, a.o.Repo}
}

// sameHost refuses to follow a redirection to another host with our token.
func sameHost(req *http.Request, via []*http.Request) error {
	if len(via) > 3 || req.URL.Host != via[0].URL.Host {
		return http.ErrUseLastResponse
	}
	return nil
}

// session returns the one session of a set of permissions.
func (a *App) session(p github.InstallationPermissions, named map[string]string, repos []string) *session {
	name, err := json.Marshal([]any{p, named, repos})
	if err != nil {
		panic("githubapp: " + err.Error()) // permissions have a JSON form
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	s, ok := a.sessions[string(name)]
	if !ok {
		s = &session{app: a, permissions: p, named: named, repos: repos}
		a.sessions[string(name)] = s
	}
	return s
}

// Close revokes every token that was made and did not end by itself. A plain token
// is left alone. It may be called more than once.
func (a *App) Close(ctx context.Context) error {
	a.mu.Lock()
	sessions := a.sessions
	a.sessions = map[string]*session{}
	a.mu.Unlock()
	var errs []error
	for _, s := range sessions {
		errs = append(errs, s.revoke(ctx))
	}
	return errors.Join(errs...)
}

// Plain reports whether GitHub is asked with a token that was given, not as an App.
func (a *App) Plain() bool { return a.o.App == 0 }

// TokenEnds is when a plain token ends by itself, as GitHub told with an answer; zero if
// it told nothing.
func (a *App) TokenEnds() time.Time {
	a.polite.mu.Lock()
	defer a.polite.mu.Unlock()
	return a.polite.ends
}

// Server is the base of the API that is asked.
func (a *App) Server() string { return strings.TrimRight(a.api.String(), "/") }

// Calls says how many requests were sent.
type Calls struct{ Reads, Writes, Tokens int }

// Total is the number of requests of all kinds.
func (c Calls) Total() int { return c.Reads + c.Writes + c.Tokens }

// Calls returns how many requests were sent so far: those that read, those that
// write, and those about tokens.
func (a *App) Calls() Calls {
	a.polite.mu.Lock()
	defer a.polite.mu.Unlock()
	return a.polite.calls
}

// hinted is an error with a hint for the user.
type hinted struct {
	err  error
	hint string
}

func (h *hinted) Error() string { return h.err.Error() }
func (h *hinted) Unwrap() error { return h.err }

// Hint says what the user can do.
func (h *hinted) Hint() string { return h.hint }

func hintf(hint, format string, args ...any) error { return &hinted{fmt.Errorf(format, args...), hint} }
