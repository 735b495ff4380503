package githubfake

import (
	"cmp"
	"fmt"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/keyturn/keyturn/internal/secret"
)

// Options are those of a server.
type Options struct {
	Owner, Repo string           // of the first repository; "" is "octo" and "shop"
	Listen      string           // "" is a free port of 127.0.0.1
	Now         func() time.Time // the server's clock; nil is time.Now
	// Race is how long a request that writes a file has looked at its branch before
	// it moves it: those that come at the same time collide, as they do on GitHub.
	// Zero is 2 ms, negative is none: writers then come one after the other.
	Race time.Duration
}

// A Server is a running fake.
type Server struct {
	*Repo        // the first repository
	URL   string // base of the API, without a slash at its end

	t   testing.TB
	now func() time.Time

	description *description // nil: it could not be fetched here
	said        map[string]bool
	race        time.Duration
	mux         *router

	mu       sync.Mutex // of all that follows, and of the repositories
	lastID   int64
	git      objects
	accounts map[string]*Account // by login
	repos    map[string]*Repo    // by full name, in lower case
	teams    map[string]*team    // by "org/slug"
	tokens   map[string]*token
	apps     []*App
	faults   []*faultRule
	calls    []Call
	vaults   map[string]*vault // by owner and kind
	orgHooks map[string]*[]*webhook
	groups   []RunnerGroup

	delivering sync.WaitGroup
}

// Start starts a fake that ends with the test.
func Start(t testing.TB, o Options) *Server {
	t.Helper()
	s := newServer(t, o)
	s.describe(t)
	listener, err := net.Listen("tcp", cmp.Or(o.Listen, "127.0.0.1:0"))
	if err != nil {
		t.Fatalf("starting the fake GitHub: %v", err)
	}
	s.URL = "http://" + listener.Addr().String()
	server := &http.Server{Handler: s}
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = server.Serve(listener)
	}()
	t.Cleanup(func() {
		s.delivering.Wait()
		_ = server.Close()
		<-done
	})
	s.Repo = s.AddRepo(cmp.Or(o.Owner, "octo") + "/" + cmp.Or(o.Repo, "shop"))
	return s
}

func newServer(t testing.TB, o Options) *Server {
	s := &Server{
		t: t, now: o.Now, race: cmp.Or(o.Race, 2*time.Millisecond), lastID: 1000,
		git: newObjects(), accounts: map[string]*Account{}, repos: map[string]*Repo{}, teams: map[string]*team{},
		tokens: map[string]*token{}, said: map[string]bool{}, vaults: map[string]*vault{}, orgHooks: map[string]*[]*webhook{},
	}
	if s.now == nil {
		s.now = time.Now
	}
	s.accounts["web-flow"] = &Account{ID: 19864447, Login: "web-flow", Type: "User", Name: "GitHub", Email: "noreply@github.com"}
	s.accounts[actionsBot] = &Account{ID: 41898282, Login: actionsBot, Type: "Bot", Name: actionsBot,
		Email: "41898282+github-actions[bot]@users.noreply.github.com"}
	s.mux = s.routed()
	return s
}

// id returns a number that nothing else has. The server is locked.
func (s *Server) id() int64 {
	s.lastID++
	return s.lastID
}

// time is the server's clock, which knows whole seconds.
func (s *Server) time() time.Time { return s.now().UTC().Truncate(time.Second) }

// Token makes a token of a person, as a personal access token is: it may what the
// person may. The person is made if there is none.
func (s *Server) Token(login string) secret.Value {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.grant("ghp_", &token{account: s.account(login)})
}

// ActionsToken makes a token as a job's GITHUB_TOKEN is, of github-actions[bot],
// with the permissions given, such as {"contents": "read"}.
func (s *Server) ActionsToken(permissions map[string]string) secret.Value {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.grant("ghs_", &token{account: s.accounts[actionsBot], permissions: permissions, installation: true,
		app: &App{ID: 15368, Slug: "github-actions", s: s, account: s.accounts[actionsBot], created: s.time(), Permissions: permissions}})
}

// AddRepo makes a repository, "owner/name", with one commit on its branch main.
func (s *Server) AddRepo(fullName string) *Repo {
	s.mu.Lock()
	defer s.mu.Unlock()
	owner, name, ok := strings.Cut(fullName, "/")
	if !ok {
		panic(fmt.Sprintf("githubfake: %q is not owner/name", fullName))
	}
	if s.accounts[owner] == nil {
		s.account(owner).Type = "Organization"
	}
	r := newRepo(s, owner, name)
	s.repos[strings.ToLower(fullName)] = r
	founder := s.account("founder")
	r.roles["founder"] = "admin"
	r.commit("main", founder, "The beginning", map[string]string{"README.md": "# " + name + "\n"})
	return r
}
