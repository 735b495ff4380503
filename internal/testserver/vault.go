package testserver

import (
	"cmp"
	"context"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"
)

// How many shares a [Vault] is opened with, and how many of them it takes.
const (
	vaultShares    = 3
	vaultThreshold = 2
)

// A Vault is a cluster of real Vault servers on loopback, with raft as their storage, TLS
// with certificates of their own authority, and an audit device. AppRole is at auth/approle,
// KV version 2 at secret.
type Vault struct {
	dir       string
	host      string // by which the API is reached; "": 127.0.0.1
	netns     string // that the nodes run in; "": ours
	bao       bool   // it is OpenBao
	authority *Authority
	nodes     []*vaultNode
	program   string
	sealKey   string // a file by which the servers unseal themselves; "": by Shares
	http      *http.Client

	// Shares are those of the unseal key, or of the recovery key, and Token is the root
	// token. Tests that make others write them here.
	Shares []string
	Token  string
}

type vaultNode struct {
	dir          string
	api, cluster int
	process      *process
}

// NewVault starts a cluster of so many nodes as long as the test runs.
func NewVault(t testing.TB, nodes int) *Vault {
	t.Helper()
	return newVault(t, &Vault{dir: t.TempDir()}, nodes)
}

// NewVaultIn starts one node in a network namespace, in which a name leads to it.
func NewVaultIn(t testing.TB, netns, host string) *Vault {
	t.Helper()
	return newVault(t, &Vault{dir: t.TempDir(), host: host, netns: netns}, 1)
}

func newVault(t testing.TB, v *Vault, nodes int) *Vault {
	t.Helper()
	t.Cleanup(v.stop)
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Minute) // it may be built first
	defer cancel()
	Require(t, v.start(ctx, nodes))
	return v
}

// NewAutoVault starts one server that unseals itself, as long as the test runs.
func NewAutoVault(t testing.TB) *Vault {
	t.Helper()
	dir := t.TempDir()
	v := &Vault{dir: dir, sealKey: filepath.Join(dir, "seal.key")}
	key := make([]byte, 32)
	_, _ = rand.Read(key) // it never fails
	Require(t, os.WriteFile(v.sealKey, key, 0o600))
	return newVault(t, v, 1)
}

// A SharedVault is one node for all tests of a package, as [SharedEngine] is. Tests that
// share it make roles and policies of their own, and seal nothing.
type SharedVault struct {
	// OpenBao says that it is one of OpenBao.
	OpenBao bool

	kept[Vault]
}

// Get returns the server, or ends the test as [Require] says.
func (s *SharedVault) Get(t testing.TB) *Vault {
	t.Helper()
	return s.get(t, func(dir string) (*Vault, error) {
		v := &Vault{dir: dir, bao: s.OpenBao}
		return v, v.start(context.Background(), 1)
	})
}

// Stop stops it if it was started.
func (s *SharedVault) Stop() error { return s.end((*Vault).stop) }

func (v *Vault) start(ctx context.Context, nodes int) (err error) {
	if err := v.find(ctx); err != nil {
		return err
	}
	if v.authority, err = NewAuthority(); err != nil {
		return err
	}
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(v.authority.PEM)
	transport := &http.Transport{DisableKeepAlives: true, TLSClientConfig: &tls.Config{RootCAs: pool, MinVersion: tls.VersionTLS13}}
	if v.netns != "" {
		transport.DialContext = DialIn(v.netns)
	}
	v.http = &http.Client{Timeout: 20 * time.Second, Transport: transport}
	if err := os.WriteFile(v.CAFile(), v.authority.PEM, 0o644); err != nil {
		return err
	}
	for i := range nodes {
		if err := v.add(i); err != nil {
			return err
		}
		if err := v.Start(i); err != nil {
			return err
		}
		if err := v.enter(ctx, i); err != nil {
			return fmt.Errorf("Vault: %w: %s", err, tailOf(v.LogFile(i)))
		}
	}
	if err := v.vote(ctx, nodes); err != nil {
		return err
	}
	if err := v.audited(ctx); err != nil {
		return err
	}
	for path, what := range map[string]any{
		"/v1/sys/auth/approle":  map[string]string{"type": "approle"},
		"/v1/sys/mounts/secret": map[string]any{"type": "kv", "options": map[string]string{"version": "2"}},
	} {
		if err := v.Call(ctx, http.MethodPost, path, what, nil); err != nil {
			return err
		}
	}
	return nil
}

// add makes the folder of a node.
func (v *Vault) add(i int) (err error) {
	n := &vaultNode{dir: filepath.Join(v.dir, fmt.Sprintf("node%d", i+1))}
	for _, port := range []*int{&n.api, &n.cluster} {
		if *port, err = freePort("tcp", "127.0.0.1"); err != nil {
			return err
		}
	}
	cert, key, err := v.authority.Issue(Certificate{Names: []string{cmp.Or(v.host, "127.0.0.1"), "127.0.0.1", "localhost"}})
	if err != nil {
		return err
	}
	v.nodes = append(v.nodes, n)
	return errors.Join(os.MkdirAll(n.dir, 0o700), os.WriteFile(filepath.Join(n.dir, "cert.pem"), cert, 0o600), os.WriteFile(filepath.Join(n.dir, "key.pem"), key, 0o600))
}

// enter makes a new node the first of a cluster, or one more of it.
func (v *Vault) enter(ctx context.Context, i int) error {
	if err := v.answers(ctx, i, func(vaultHealth) bool { return true }); err != nil {
		return err
	}
	if i > 0 {
		join := map[string]string{"leader_api_addr": v.URLs()[0], "leader_ca_cert": string(v.authority.PEM)}
		if err := v.callAs(ctx, i, "", http.MethodPost, "/v1/sys/storage/raft/join", join, nil); err != nil {
			return err
		}
		return v.Unseal(ctx, i)
	}
	var made struct {
		Keys     []string `json:"keys_base64"`
		Recovery []string `json:"recovery_keys_base64"`
		Token    string   `json:"root_token"`
	}
	kind := "secret"
	if v.sealKey != "" {
		kind = "recovery"
	}
	if err := v.callAs(ctx, i, "", http.MethodPost, "/v1/sys/init", map[string]int{kind + "_shares": vaultShares, kind + "_threshold": vaultThreshold}, &made); err != nil {
		return err
	}
	v.Shares, v.Token = append(made.Keys, made.Recovery...), made.Token
	return v.Unseal(ctx, i)
}

// vote waits until every node may vote, which is at once instead of after ten seconds.
func (v *Vault) vote(ctx context.Context, nodes int) error {
	if nodes == 1 {
		return nil
	}
	if err := v.Call(ctx, http.MethodPost, "/v1/sys/storage/raft/autopilot/configuration", map[string]any{"server_stabilization_time": "100ms"}, nil); err != nil {
		return err
	}
	for end := time.Now().Add(time.Minute); ; time.Sleep(50 * time.Millisecond) {
		var is struct {
			Data struct {
				Config struct{ Servers []struct{ Voter bool } }
			}
		}
		err := v.Call(ctx, http.MethodGet, "/v1/sys/storage/raft/configuration", nil, &is)
		voters := 0
		for _, s := range is.Data.Config.Servers {
			if s.Voter {
				voters++
			}
		}
		if err == nil && voters == nodes {
			return nil
		}
		if time.Now().After(end) || ctx.Err() != nil {
			return errors.Join(fmt.Errorf("Vault: %d of %d nodes may vote", voters, nodes), err)
		}
	}
}

// vaultHealth is what a node says of itself.
type vaultHealth struct{ Initialized, Sealed, Standby bool }

// answers waits until a node says what is hoped for.
func (v *Vault) answers(ctx context.Context, i int, hoped func(vaultHealth) bool) error {
	for end := time.Now().Add(time.Minute); ; time.Sleep(20 * time.Millisecond) {
		var is vaultHealth
		err := v.callAs(ctx, i, "", http.MethodGet, "/v1/sys/health?sealedcode=200&uninitcode=200&standbyok=true", nil, &is)
		if err == nil && hoped(is) {
			return nil
		}
		if !v.nodes[i].process.running() || time.Now().After(end) || ctx.Err() != nil {
			return fmt.Errorf("node %d is %+v: %w", i+1, is, err)
		}
	}
}

// Start starts a node, which was stopped. It is sealed then.
func (v *Vault) Start(i int) (err error) {
	n := v.nodes[i]
	cmd, err := v.command(i)
	if err != nil {
		return err
	}
	n.process, err = startProcess(cmd, v.LogFile(i))
	return err
}

// Unseal gives nodes their shares, and waits until they take part.
func (v *Vault) Unseal(ctx context.Context, nodes ...int) error {
	for _, i := range nodes {
		if err := v.answers(ctx, i, func(is vaultHealth) bool { return is.Initialized || i > 0 }); err != nil {
			return err
		}
		if v.sealKey != "" {
			continue
		}
		for _, share := range v.Shares[:vaultThreshold] {
			if err := v.callAs(ctx, i, "", http.MethodPost, "/v1/sys/unseal", map[string]string{"key": share}, nil); err != nil {
				return err
			}
		}
	}
	for _, i := range nodes {
		if err := v.Await(ctx, i); err != nil {
			return err
		}
	}
	return nil
}

// Await waits until a node is unsealed, and answers the root token.
func (v *Vault) Await(ctx context.Context, i int) error {
	if err := v.answers(ctx, i, func(is vaultHealth) bool { return !is.Sealed }); err != nil {
		return err
	}
	for end := time.Now().Add(time.Minute); ; time.Sleep(20 * time.Millisecond) {
		err := v.callAs(ctx, i, v.Token, http.MethodGet, "/v1/auth/token/lookup-self", nil, nil)
		if err == nil || time.Now().After(end) || ctx.Err() != nil {
			return err
		}
	}
}

// Active is the number of the node that leads.
func (v *Vault) Active(t testing.TB) int {
	t.Helper()
	for end := time.Now().Add(time.Minute); time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
		for i, n := range v.nodes {
			var is struct {
				Self bool `json:"is_self"`
			}
			if n.process.running() && v.callAs(context.Background(), i, v.Token, http.MethodGet, "/v1/sys/leader", nil, &is) == nil && is.Self {
				return i
			}
		}
	}
	t.Fatal("no node leads")
	return 0
}

// Seal seals the node that leads.
func (v *Vault) Seal(t testing.TB) {
	t.Helper()
	i := v.Active(t)
	if err := v.callAs(context.Background(), i, v.Token, http.MethodPost, "/v1/sys/seal", nil, nil); err != nil {
		t.Fatal(err)
	}
	if err := v.answers(context.Background(), i, func(is vaultHealth) bool { return is.Sealed }); err != nil {
		t.Fatal(err)
	}
}

// Sealed is how many nodes are, whether or not one of the others leads.
func (v *Vault) Sealed(t testing.TB) (count int) {
	t.Helper()
	for i := range v.nodes {
		var is vaultHealth
		if err := v.callAs(context.Background(), i, "", http.MethodGet, "/v1/sys/health?sealedcode=200&standbyok=true&haunhealthycode=200", nil, &is); err != nil {
			t.Fatal(err)
		}
		if is.Sealed {
			count++
		}
	}
	return count
}

// Admin makes a policy, and returns a token that has it.
func (v *Vault) Admin(t testing.TB, name, policy string) string {
	t.Helper()
	var made struct {
		Auth struct {
			Token string `json:"client_token"`
		} `json:"auth"`
	}
	err := errors.Join(v.Call(context.Background(), http.MethodPut, "/v1/sys/policies/acl/"+name, map[string]string{"policy": policy}, nil),
		v.Call(context.Background(), http.MethodPost, "/v1/auth/token/create-orphan", map[string]any{"policies": []string{"default", name}}, &made))
	if err != nil {
		t.Fatal(err)
	}
	return made.Auth.Token
}

// A SecretID is one that was made by hand.
type SecretID struct {
	Value    string `json:"secret_id"`
	Accessor string `json:"secret_id_accessor"`
}

// SecretID makes one of a role.
func (v *Vault) SecretID(t testing.TB, role string, parameters map[string]any) SecretID {
	t.Helper()
	var made struct{ Data SecretID }
	if err := v.Call(context.Background(), http.MethodPost, "/v1/auth/approle/role/"+role+"/secret-id", parameters, &made); err != nil {
		t.Fatal(err)
	}
	return made.Data
}

// Kill ends a node at once.
func (v *Vault) Kill(i int) { v.nodes[i].process.kill() }

// Pause stops a node in its tracks, until Continue.
func (v *Vault) Pause(i int) error { return v.nodes[i].process.cmd.Process.Signal(syscall.SIGSTOP) }

// Continue lets a node go on.
func (v *Vault) Continue(i int) error { return v.nodes[i].process.cmd.Process.Signal(syscall.SIGCONT) }

func (v *Vault) stop() {
	for _, n := range v.nodes {
		if n.process != nil {
			n.process.kill()
		}
	}
}

// URLs are those of the nodes' API.
func (v *Vault) URLs() (out []string) {
	for _, n := range v.nodes {
		out = append(out, fmt.Sprintf("https://%s:%d", cmp.Or(v.host, "127.0.0.1"), n.api))
	}
	return out
}

// CAFile is the path of the authority's certificate.
func (v *Vault) CAFile() string { return filepath.Join(v.dir, "ca.pem") }

// CA is the authority's certificate.
func (v *Vault) CA() []byte { return v.authority.PEM }

// LogFile is the path of a node's log, at debug.
func (v *Vault) LogFile(i int) string { return filepath.Join(v.nodes[i].dir, "log") }

// AuditFile is the path of what the audit device writes.
func (v *Vault) AuditFile() string { return filepath.Join(v.dir, "audit.log") }

// Call asks the first node as root: in and out are JSON, or nil.
func (v *Vault) Call(ctx context.Context, method, path string, in, out any) error {
	return v.callAs(ctx, 0, v.Token, method, path, in, out)
}

// CallAs asks the first node with a token.
func (v *Vault) CallAs(ctx context.Context, token, method, path string, in, out any) error {
	return v.callAs(ctx, 0, token, method, path, in, out)
}

// CallAt asks a node with a token, or with none.
func (v *Vault) CallAt(ctx context.Context, i int, token, method, path string, in, out any) error {
	return v.callAs(ctx, i, token, method, path, in, out)
}

func (v *Vault) callAs(ctx context.Context, i int, token, method, path string, in, out any) error {
	header := http.Header{}
	if token != "" {
		header.Set("X-Vault-Token", token)
	}
	return askJSON(ctx, v.http, method, v.URLs()[i], path, header, in, out)
}
