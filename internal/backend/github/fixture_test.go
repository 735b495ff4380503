package github_test

import (
	"context"
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"
	"golang.org/x/crypto/ssh/knownhosts"

	"github.com/keyturn/keyturn/internal/backend/github"
	"github.com/keyturn/keyturn/internal/githubapp"
	"github.com/keyturn/keyturn/internal/rotation"
	"github.com/keyturn/keyturn/internal/secret"
	"github.com/keyturn/keyturn/internal/testserver"
	"github.com/keyturn/keyturn/internal/testserver/githubfake"
	"github.com/keyturn/keyturn/internal/testserver/gitssh"
)

// A fixture is a GitHub: its API in memory, and Debian's ssh server with a bare
// repository that git serves, which lets in the deploy keys of the API.
type fixture struct {
	*testing.T
	gh       *githubfake.Server
	app      *githubfake.App
	sshd     *gitssh.Server
	gate     *gate
	bare     string // path of the repository
	settings github.Settings
	options  github.Options
}

const credential = "orders-git"

func newFixture(t *testing.T) *fixture {
	t.Helper()
	f := &fixture{T: t, sshd: gitssh.Start(t)}
	f.gh = githubfake.Start(t, githubfake.Options{})
	f.app = f.gh.AddApp("keyturn", map[string]string{"administration": "write"})
	f.bare = f.sshd.Repository("octo/shop.git")
	f.gate = newGate(t, f.sshd.Addr())
	f.gh.OnKeys(f.sshd.Serve)
	f.settings = github.Settings{DeployKey: &github.DeployKey{Repository: f.gh.FullName(), Probe: []string{f.url(f.bare)}, KnownHosts: "known_hosts"}}
	f.options = github.Options{Credential: credential, App: f.connect(), KnownHosts: []byte(f.knownHosts())}
	return f
}

func (f *fixture) must(err error) {
	f.Helper()
	if err != nil {
		f.Fatal(err)
	}
}

// connect returns GitHub as the App, without pauses.
func (f *fixture) connect() *githubapp.App {
	f.Helper()
	return f.connectAt(time.Now)
}

func (f *fixture) connectAt(now func() time.Time) *githubapp.App {
	f.Helper()
	app, err := githubapp.New(githubapp.Options{API: f.gh.URL, Owner: f.gh.Owner, Repo: f.gh.Name, App: f.app.ID, Key: f.app.Key(), Now: now, Between: -1,
		Sleep: func(ctx context.Context, _ time.Duration) error { return ctx.Err() }})
	f.must(err)
	return app
}

func (f *fixture) backend() *github.KeyBackend {
	f.Helper()
	b, err := github.New(f.settings, f.options)
	f.must(err)
	return b.(*github.KeyBackend)
}

func (f *fixture) url(path string) string {
	return "ssh://" + testserver.SSHUser + "@" + f.gate.addr + path
}

// knownHosts names the server by the gate's address.
func (f *fixture) knownHosts() string {
	_, port, _ := net.SplitHostPort(f.sshd.Addr())
	_, mine, _ := net.SplitHostPort(f.gate.addr)
	return strings.ReplaceAll(f.sshd.KnownHosts(), port, mine)
}

// A made is a version with its material.
type made struct {
	rotation.Version
	m rotation.Material
}

// draft brings a version as far as it is recorded.
func (f *fixture) draft(b *github.KeyBackend, number int) made {
	f.Helper()
	v, err := b.Identify(f.Context(), rotation.Version{Credential: credential, Number: number, State: rotation.Pending}, nil)
	f.must(err)
	m, err := b.Draft(v)
	f.must(err)
	v, err = b.Recognize(v, m)
	f.must(err)
	return made{v, m}
}

func (f *fixture) arm(b *github.KeyBackend, number int) made {
	f.Helper()
	x := f.draft(b, number)
	f.must(b.Arm(f.Context(), x.Version, x.m, time.Time{}))
	return x
}

func (f *fixture) login(b *github.KeyBackend, x made) rotation.ProbeResult {
	f.Helper()
	return github.Login(f.Context(), b.ProbeSpec(x.Version), x.m)
}

func (f *fixture) answers(b *github.KeyBackend, x made, want rotation.Answer, code string) {
	f.Helper()
	got := f.login(b, x)
	if got.Answer != want || got.Endpoints[0].Code != code {
		text, _ := f.sshd.LogText()
		f.Fatalf("Login of version %d = %+v, want %s %q\n%s", x.Number, got, want, code, tail(text))
	}
	for _, value := range x.m {
		if strings.Contains(fmt.Sprintf("%+v", got), string(value.Reveal())) && len(value.Reveal()) > 100 {
			f.Fatalf("the answer holds a value")
		}
	}
}

func tail(s string) string { return s[max(0, len(s)-2000):] }

// A gate is the way to the ssh server, which can be shut.
type gate struct {
	addr string
	to   string

	mu     sync.Mutex
	shut   string // "", "closed" or "silent"
	conns  []net.Conn
	ended  sync.WaitGroup
	listen net.Listener
}

func newGate(t *testing.T, to string) *gate {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	g := &gate{addr: l.Addr().String(), to: to, listen: l}
	g.ended.Go(g.serve)
	t.Cleanup(func() {
		_ = l.Close()
		g.set("closed")
		g.ended.Wait()
	})
	return g
}

func (g *gate) serve() {
	for {
		in, err := g.listen.Accept()
		if err != nil {
			return
		}
		g.mu.Lock()
		shut := g.shut
		g.conns = append(g.conns, in)
		g.mu.Unlock()
		if shut == "closed" {
			_ = in.Close()
			continue
		} else if shut == "silent" {
			continue
		}
		out, err := net.Dial("tcp", g.to)
		if err != nil {
			_ = in.Close()
			continue
		}
		g.ended.Go(func() { _, _ = io.Copy(out, in); _ = out.Close() })
		g.ended.Go(func() { _, _ = io.Copy(in, out); _ = in.Close() })
	}
}

// set shuts the gate, "closed" or "silent", or opens it. Connections that are open end.
func (g *gate) set(shut string) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.shut = shut
	for _, c := range g.conns {
		_ = c.Close()
	}
	g.conns = nil
}

func newPublicKey(t *testing.T) ssh.PublicKey {
	t.Helper()
	line, _, err := testserver.NewSSHKey()
	if err != nil {
		t.Fatal(err)
	}
	key, _, _, _, err := ssh.ParseAuthorizedKey([]byte(line))
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func portOf(addr string) string {
	_, port, _ := net.SplitHostPort(addr)
	return port
}

func pad(i int) string { return fmt.Sprintf("%06d", i) }

// plain returns GitHub as a person.
func (f *fixture) plain(login string) *githubapp.App {
	f.Helper()
	app, err := githubapp.New(githubapp.Options{API: f.gh.URL, Owner: f.gh.Owner, Repo: f.gh.Name, Token: f.gh.Token(login), Between: -1})
	f.must(err)
	return app
}

// hashed is a name as OpenSSH's HashKnownHosts writes it.
func hashed(host string) string { return knownhosts.HashHostname(host) }

func secretOf(text string) secret.Value { return secret.FromString(text) }
