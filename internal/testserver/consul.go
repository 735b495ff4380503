package testserver

import (
	"context"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/keyturn/keyturn/internal/secret"
)

// A Consul is a datacenter of real Consul servers with ACLs, on loopback. They speak TLS
// with certificates of their own authority, and gossip with a key.
type Consul struct {
	dir        string
	host       string // by which the API is reached
	netns      string // that the servers run in; "": ours
	plain      bool   // the gossip is not encrypted
	authority  *Authority
	servers    []*consulServer
	management string
	gossip     string
	program    string
	http       *http.Client
}

type consulServer struct {
	name      string
	dir       string
	https     int
	process   *process
	serf, rpc int
}

// NewConsul starts a datacenter of so many servers as long as the test runs.
func NewConsul(t testing.TB, servers int) *Consul {
	t.Helper()
	return newConsul(t, &Consul{dir: t.TempDir(), host: "127.0.0.1"}, servers)
}

// NewPlainConsul starts one server whose gossip is not encrypted.
func NewPlainConsul(t testing.TB) *Consul {
	t.Helper()
	return newConsul(t, &Consul{dir: t.TempDir(), host: "127.0.0.1", plain: true}, 1)
}

// NewConsulIn starts one server in a network namespace, in which a name leads to it.
func NewConsulIn(t testing.TB, netns, host string) *Consul {
	t.Helper()
	return newConsul(t, &Consul{dir: t.TempDir(), host: host, netns: netns}, 1)
}

func newConsul(t testing.TB, c *Consul, servers int) *Consul {
	t.Helper()
	t.Cleanup(c.stop)
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Minute) // it may be built first
	defer cancel()
	Require(t, c.start(ctx, servers))
	return c
}

// A SharedConsul is one datacenter of one server for all tests of a package, as
// [SharedEngine] is. Tests that share it make policies and tokens of their own.
type SharedConsul struct{ kept[Consul] }

// Get returns the datacenter, or ends the test as [Require] says.
func (s *SharedConsul) Get(t testing.TB) *Consul {
	t.Helper()
	return s.get(t, func(dir string) (*Consul, error) {
		c := &Consul{dir: dir, host: "127.0.0.1"}
		return c, c.start(context.Background(), 1)
	})
}

// Stop stops it if it was started.
func (s *SharedConsul) Stop() error { return s.end((*Consul).stop) }

func (c *Consul) start(ctx context.Context, servers int) (err error) {
	if c.program, err = BuildTool(ctx, "tools/consul", "github.com/hashicorp/consul"); err != nil {
		return err
	}
	if c.authority, err = NewAuthority(); err != nil {
		return err
	}
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(c.authority.PEM)
	transport := &http.Transport{DisableKeepAlives: true, TLSClientConfig: &tls.Config{RootCAs: pool, MinVersion: tls.VersionTLS13}}
	if c.netns != "" {
		transport.DialContext = DialIn(c.netns)
	}
	c.http = &http.Client{Timeout: 10 * time.Second, Transport: transport}
	if err := os.WriteFile(c.CAFile(), c.authority.PEM, 0o644); err != nil {
		return err
	}
	gossip := make([]byte, 32)
	rand.Read(gossip)
	if !c.plain {
		c.gossip = base64.StdEncoding.EncodeToString(gossip)
	}
	c.management = string(secret.GenerateUUID().Reveal())
	for i := range servers {
		if err := c.place(fmt.Sprintf("server%d", i+1)); err != nil {
			return err
		}
	}
	join := c.Serf()
	for i, s := range c.servers {
		if err := c.write(s, c.gossip, map[string]any{"server": true, "bootstrap_expect": servers, "retry_join": join}); err != nil {
			return err
		}
		if err := c.Start(i); err != nil {
			return err
		}
	}
	for i := range c.servers {
		if err := c.await(ctx, i); err != nil {
			return err
		}
	}
	return nil
}

// Start starts a server, which was stopped.
func (c *Consul) Start(i int) (err error) {
	s := c.servers[i]
	cmd := exec.Command(c.program, "agent", "-config-file", filepath.Join(s.dir, "consul.json"))
	cmd.Dir, cmd.SysProcAttr = s.dir, &syscall.SysProcAttr{}
	if c.netns != "" {
		within(cmd, c.netns)
	}
	s.process, err = startProcess(cmd, c.LogFile(i))
	return err
}

// await waits until a server knows a leader and its own token.
func (c *Consul) await(ctx context.Context, i int) error {
	for end := time.Now().Add(time.Minute); ; time.Sleep(50 * time.Millisecond) {
		var self struct{ AccessorID string }
		err := c.callAt(ctx, i, http.MethodGet, "/v1/acl/token/self", nil, &self)
		if err == nil {
			return nil
		}
		if !c.servers[i].process.running() || time.Now().After(end) || ctx.Err() != nil {
			return fmt.Errorf("Consul does not answer: %w: %s", err, tailOf(c.LogFile(i)))
		}
	}
}

// A ConsulToken is what Consul knows of one.
type ConsulToken struct{ AccessorID, SecretID, Description string }

// Put asks the first server as the management token to keep something.
func (c *Consul) Put(t testing.TB, path string, in any) (made ConsulToken) {
	t.Helper()
	if err := c.Call(context.Background(), http.MethodPut, path, in, &made); err != nil {
		t.Fatal(err)
	}
	return made
}

// Policy makes a policy, and returns what links a token with it.
func (c *Consul) Policy(t testing.TB, name, rules string) []map[string]string {
	t.Helper()
	c.Put(t, "/v1/acl/policy", map[string]string{"Name": name, "Rules": rules})
	return []map[string]string{{"Name": name}}
}

// Tokens returns those whose description begins so.
func (c *Consul) Tokens(t testing.TB, description string) (out []ConsulToken) {
	t.Helper()
	var all []ConsulToken
	if err := c.Call(context.Background(), http.MethodGet, "/v1/acl/tokens", nil, &all); err != nil {
		t.Fatal(err)
	}
	for _, token := range all {
		if strings.HasPrefix(token.Description, description) {
			out = append(out, token)
		}
	}
	return out
}

// Known waits until every server knows a token.
func (c *Consul) Known(t testing.TB, value string) {
	t.Helper()
	for i := range c.servers {
		for end := time.Now().Add(time.Minute); ; time.Sleep(20 * time.Millisecond) {
			err := c.callAs(context.Background(), i, value, http.MethodGet, "/v1/acl/token/self?stale", nil, nil)
			if err == nil {
				break
			}
			if time.Now().After(end) {
				t.Fatalf("server %d does not know a token that was made: %v", i+1, err)
			}
		}
	}
}

// Await waits until a server that was started again takes part.
func (c *Consul) Await(t testing.TB, i int) {
	t.Helper()
	if err := c.await(context.Background(), i); err != nil {
		t.Fatal(err)
	}
}

func (c *Consul) stop() {
	for _, s := range c.servers {
		if s.process != nil {
			s.process.kill()
		}
	}
}

// URLs are those of the agents' API: the servers' first, then those of clients that were added.
func (c *Consul) URLs() []string {
	var out []string
	for _, s := range c.servers {
		out = append(out, fmt.Sprintf("https://%s:%d", c.host, s.https))
	}
	return out
}

// Serf are the addresses at which the agents speak Serf, in the pool of the LAN.
func (c *Consul) Serf() []string {
	var out []string
	for _, s := range c.servers {
		out = append(out, fmt.Sprintf("127.0.0.1:%d", s.serf))
	}
	return out
}

// GossipKey is the key with which the servers were started.
func (c *Consul) GossipKey() string { return c.gossip }

// CAFile is the path of the authority's certificate.
func (c *Consul) CAFile() string { return filepath.Join(c.dir, "ca.pem") }

// CA is the authority's certificate.
func (c *Consul) CA() []byte { return c.authority.PEM }

// LogFile is the path of a server's log, at debug.
func (c *Consul) LogFile(i int) string { return filepath.Join(c.servers[i].dir, "log") }

// Call asks the first server as the management token: in and out are JSON, or nil.
func (c *Consul) Call(ctx context.Context, method, path string, in, out any) error {
	return c.callAt(ctx, 0, method, path, in, out)
}

// A Ring is what the members of one pool say of their gossip keys.
type Ring struct {
	Keys     map[string]int // on how many members each is
	NumNodes int
}

// Keyring asks every member for its keys, by the first server. What Serf asks by gossip may
// get lost: it is asked again until all have answered.
func (c *Consul) Keyring() (rings []Ring, err error) {
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	for {
		rings = nil
		if err = c.Call(ctx, "GET", "/v1/operator/keyring", nil, &rings); err == nil {
			return rings, nil
		}
		select {
		case <-ctx.Done():
			return nil, err
		case <-time.After(200 * time.Millisecond):
		}
	}
}

// CallAs asks the first server with a token.
func (c *Consul) CallAs(ctx context.Context, token, method, path string, in, out any) error {
	return c.callAs(ctx, 0, token, method, path, in, out)
}

// CallAt asks an agent with a token; with none, the agent takes its own of kind default.
func (c *Consul) CallAt(ctx context.Context, i int, token, method, path string, in, out any) error {
	return c.callAs(ctx, i, token, method, path, in, out)
}

func (c *Consul) callAt(ctx context.Context, i int, method, path string, in, out any) error {
	return c.callAs(ctx, i, c.management, method, path, in, out)
}

func (c *Consul) callAs(ctx context.Context, i int, token, method, path string, in, out any) error {
	return askJSON(ctx, c.http, method, c.URLs()[i], path, http.Header{"X-Consul-Token": {token}}, in, out)
}
