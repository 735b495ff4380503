package connect_test

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/docker/docker/api/types/container"
	"github.com/docker/docker/api/types/events"
	"github.com/docker/docker/pkg/stdcopy"

	"github.com/keyturn/keyturn/internal/secret"
	"github.com/keyturn/keyturn/internal/target/swarm/connect"
	"github.com/keyturn/keyturn/internal/testserver"
)

var servers struct{ engine testserver.SharedEngine }

func TestMain(m *testing.M) {
	servers.engine.Options = testserver.EngineOptions{TLS: true, NoSwarm: true}
	os.Exit(testserver.Main(m, &servers.engine))
}

// A place is an engine, an ssh server that forwards to it, and what is needed to
// reach it by both ways.
type place struct {
	t      testing.TB
	engine *testserver.Engine
	sshd   *testserver.SSHD
	dir    string
	env    map[string]string
}

// newPlace makes a place; the ssh server has further lines of configuration.
func newPlace(t testing.TB, more ...string) *place {
	t.Helper()
	p := &place{t: t, engine: servers.engine.Get(t), dir: t.TempDir(), env: map[string]string{}}
	line, private, err := testserver.NewSSHKey()
	p.must(err)
	p.env["SSH_KEY"] = string(private)
	p.sshd = testserver.NewSSHD(t, testserver.SSHDOptions{Authorized: []string{line}, Config: more,
		Socket: strings.TrimPrefix(p.engine.Host(), "unix://")})
	p.must(os.Chown(strings.TrimPrefix(p.engine.Host(), "unix://"), -1, testserver.SSHGroup))
	p.write("known_hosts", p.sshd.KnownHosts())
	cert, key, err := p.engine.Authority().Issue(testserver.Certificate{Client: true})
	p.must(err)
	p.write("ca.pem", string(p.engine.Authority().PEM))
	p.write("cert.pem", string(cert))
	p.env["TLS_KEY"] = string(key)
	return p
}

func (p *place) must(err error) {
	p.t.Helper()
	if err != nil {
		p.t.Fatal(err)
	}
}

func (p *place) path(name string) string { return filepath.Join(p.dir, name) }

func (p *place) write(name, text string) {
	p.t.Helper()
	p.must(os.WriteFile(p.path(name), []byte(text), 0o600))
}

// settings are those of a way that works.
func (p *place) settings(host string) connect.Settings {
	return connect.Settings{Host: host, Getenv: func(name string) string { return p.env[name] },
		SSH: connect.SSH{Key: secret.Source{Env: "SSH_KEY"}, KnownHosts: p.path("known_hosts")},
		TLS: connect.TLS{CA: p.path("ca.pem"), Cert: p.path("cert.pem"), Key: secret.Source{Env: "TLS_KEY"}}}
}

func (p *place) open(s connect.Settings) *connect.Engine {
	p.t.Helper()
	e, err := connect.Open(s)
	p.must(err)
	p.t.Cleanup(func() { _ = e.Close() }) // some tests close it themselves
	return e
}

// ways are the addresses of the one engine.
func (p *place) ways() map[string]string {
	return map[string]string{"unix": p.engine.Host(), "ssh": p.sshd.URL(""),
		"ssh with a path": p.sshd.URL(strings.TrimPrefix(p.engine.Host(), "unix://")), "tls": p.engine.TLSHost()}
}

var echo struct {
	sync.Once
	err error
}

const echoImage = "keyturn-connect:echo"

// echoContainer returns a container in which the program echo can be run.
func (p *place) echoContainer() string {
	p.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	echo.Do(func() {
		program, err := testserver.BuildGo(ctx, "./internal/target/swarm/connect/testdata/echo")
		if err == nil {
			_, err = p.engine.BuildScratch(ctx, echoImage, map[string]string{"/echo": program}, testserver.ImageConfig{Entrypoint: []string{"/echo"}})
		}
		echo.err = err
	})
	p.must(echo.err)
	c := p.engine.Client()
	made, err := c.ContainerCreate(ctx, &container.Config{Image: echoImage, Cmd: []string{"wait"}}, &container.HostConfig{NetworkMode: "none"}, nil, nil, "")
	p.must(err)
	p.t.Cleanup(func() {
		_ = c.ContainerRemove(context.Background(), made.ID, container.RemoveOptions{Force: true}) // the engine goes as a whole
	})
	p.must(c.ContainerStart(ctx, made.ID, container.StartOptions{}))
	return made.ID
}

// TestEveryWay does over every way what Keyturn does: requests, many at once; the
// event stream, which ends when it is cancelled; and a connection that is taken
// over, whose writing half can be closed.
func TestEveryWay(t *testing.T) {
	t.Parallel()
	p := newPlace(t)
	id := p.echoContainer()
	for name, host := range p.ways() {
		t.Run(name, func(t *testing.T) {
			p := &place{t: t, engine: p.engine, sshd: p.sshd, dir: p.dir, env: p.env}
			e := p.open(p.settings(host))
			p.requests(e)
			p.stream(e)
			p.exec(e, id)
			if err := e.Close(); err != nil {
				t.Error(err)
			}
			if _, err := e.Info(t.Context()); err == nil && name != "unix" && name != "tls" {
				t.Error("after Close the engine answers all the same")
			}
		})
	}
}

func (p *place) requests(e *connect.Engine) {
	p.t.Helper()
	want, err := p.engine.Client().Info(p.t.Context())
	p.must(err)
	var all sync.WaitGroup
	for range 20 {
		all.Go(func() {
			got, err := e.Info(p.t.Context())
			if err != nil || got.ID != want.ID {
				p.t.Errorf("Info() = engine %q, %v, want %q", got.ID, err, want.ID)
			}
		})
	}
	all.Wait()
}

func (p *place) stream(e *connect.Engine) {
	p.t.Helper()
	ctx, cancel := context.WithTimeout(p.t.Context(), 30*time.Second)
	defer cancel()
	messages, errs := e.Events(ctx, events.ListOptions{})
	made, err := e.ContainerCreate(ctx, &container.Config{Image: echoImage}, &container.HostConfig{NetworkMode: "none"}, nil, nil, "")
	p.must(err)
	for seen := false; !seen; {
		select {
		case m := <-messages:
			seen = m.Actor.ID == made.ID && m.Action == events.ActionCreate
		case err := <-errs:
			p.t.Fatalf("the event stream ended: %v", err)
		}
	}
	cancel()
	if err := <-errs; err == nil || ctx.Err() == nil {
		p.t.Errorf("the event stream that was cancelled ended with %v", err)
	}
	p.must(e.ContainerRemove(context.Background(), made.ID, container.RemoveOptions{}))
}

func (p *place) exec(e *connect.Engine, id string) {
	p.t.Helper()
	ctx, cancel := context.WithTimeout(p.t.Context(), 30*time.Second)
	defer cancel()
	made, err := e.ContainerExecCreate(ctx, id, container.ExecOptions{Cmd: []string{"/echo"}, AttachStdin: true, AttachStdout: true, AttachStderr: true})
	p.must(err)
	attached, err := e.ContainerExecAttach(ctx, made.ID, container.ExecAttachOptions{})
	p.must(err)
	defer attached.Close()
	text := strings.Repeat("to and fro ", 100_000)
	sent := make(chan error, 1)
	go func() {
		_, err := io.WriteString(attached.Conn, text)
		if err == nil {
			err = attached.CloseWrite()
		}
		sent <- err
	}()
	var back strings.Builder
	_, err = stdcopy.StdCopy(&back, io.Discard, attached.Reader)
	p.must(err)
	p.must(<-sent)
	if want := text + fmt.Sprintf("\n%d bytes, then <nil>\n", len(text)); back.String() != want {
		p.t.Errorf("what was sent came back as %d bytes, want %d", back.Len(), len(want))
	}
}

// TestWrapIsRoundEveryWay counts requests by what is put around the transport.
func TestWrapIsRoundEveryWay(t *testing.T) {
	t.Parallel()
	p := newPlace(t)
	for name, host := range p.ways() {
		s, count := p.settings(host), 0
		s.Wrap = func(next http.RoundTripper) http.RoundTripper {
			return roundTrip(func(r *http.Request) (*http.Response, error) { count++; return next.RoundTrip(r) })
		}
		e := p.open(s)
		if _, err := e.Info(t.Context()); err != nil || count != 2 { // the first asks for the version of the API
			t.Errorf("%s: %d requests were counted, %v, want 2", name, count, err)
		}
		if _, err := e.HTTPClient().Get("http://" + hostOf(t, host) + "/_ping"); err != nil || count != 3 {
			t.Errorf("%s: a request of our own: %d were counted, %v, want 3", name, count, err)
		}
	}
}

type roundTrip func(*http.Request) (*http.Response, error)

func (r roundTrip) RoundTrip(req *http.Request) (*http.Response, error) { return r(req) }

func hostOf(t *testing.T, address string) string {
	u, err := url.Parse(address)
	if err != nil {
		t.Fatal(err)
	}
	if u.Host == "" {
		return "docker"
	}
	return u.Host
}

// TestProxyOfTheWebIsNotAsked sets the variables that name one.
func TestProxyOfTheWebIsNotAsked(t *testing.T) {
	p := newPlace(t)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	p.must(err)
	defer l.Close()
	for _, name := range []string{"HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"} {
		t.Setenv(name, "http://"+l.Addr().String())
	}
	for name, host := range p.ways() {
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		if _, err := p.open(p.settings(host)).Ping(ctx); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		cancel()
	}
}
