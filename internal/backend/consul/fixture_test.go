package consul_test

import (
	"fmt"
	"net"
	"os"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/keyturn/keyturn/internal/backend/consul"
	"github.com/keyturn/keyturn/internal/backend/remote"
	"github.com/keyturn/keyturn/internal/rotation"
	"github.com/keyturn/keyturn/internal/rotation/rotationtest"
	"github.com/keyturn/keyturn/internal/secret"
	"github.com/keyturn/keyturn/internal/testserver"
)

var shared testserver.SharedConsul

func TestMain(m *testing.M) { os.Exit(testserver.Main(m, &shared)) }

const tokenVariable = "KEYTURN_CONSUL_TOKEN"

var serial atomic.Int64

// A fixture is a datacenter, and a policy and a role of the test's own.
type fixture struct {
	t            testing.TB
	dc           *testserver.Consul
	name         string // of the credential, the policy and the role
	admin        string // SecretID of the administrator's token
	policy, role string
}

func newFixture(t testing.TB, dc *testserver.Consul) *fixture {
	t.Helper()
	f := &fixture{t: t, dc: dc, name: fmt.Sprintf("orders%d", serial.Add(1))}
	f.policy, f.role = f.name+"-kv", f.name+"-role"
	dc.Policy(t, f.policy, fmt.Sprintf("key_prefix %q { policy = \"write\" }", f.name+"/"))
	dc.Put(t, "/v1/acl/role", map[string]any{"Name": f.role, "Policies": links(f.policy)})
	f.admin = f.token(map[string]any{"Description": "keyturn's own", "Policies": dc.Policy(t, f.name+"-admin", `acl = "write"`)}).SecretID
	dc.Known(t, f.admin)
	return f
}

func links(names ...string) (out []map[string]string) {
	for _, n := range names {
		out = append(out, map[string]string{"Name": n})
	}
	return out
}

func (f *fixture) must(err error) {
	f.t.Helper()
	if err != nil {
		f.t.Fatal(err)
	}
}

// token makes a token.
func (f *fixture) token(of map[string]any) testserver.ConsulToken {
	f.t.Helper()
	return f.dc.Put(f.t, "/v1/acl/token", of)
}

func (f *fixture) settings() consul.Settings {
	return consul.Settings{Servers: f.dc.URLs(), Token: secret.Source{Env: tokenVariable}, CA: "ca.pem",
		Policies: []string{f.policy}, Roles: []string{f.role}, ServiceIdentities: []string{f.name}, NodeIdentities: []string{f.name + "@dc1"}}
}

func (f *fixture) backend(change ...func(*consul.Settings)) *consul.Backend {
	f.t.Helper()
	s := f.settings()
	for _, c := range change {
		c(&s)
	}
	b, err := consul.New(s, consul.Options{Credential: f.name, Options: remote.Options{CA: f.dc.CA(), Patience: 10 * time.Second, Timeout: 4 * time.Second, Getenv: func(name string) string {
		if name != tokenVariable {
			return ""
		}
		return f.admin
	}}})
	f.must(err)
	return b
}

// version is one of the fixture's credential.
func (f *fixture) version(number int, state rotation.State) rotation.Version {
	return rotation.Version{Credential: f.name, Number: number, State: state}
}

// armed is a version that was brought to be accepted.
func (f *fixture) armed(b *consul.Backend, number int) (rotation.Version, rotation.Material) {
	f.t.Helper()
	return rotationtest.Armed(f.t, b, f.version(number, rotation.Pending))
}

// clean fails if a file holds one of the values.
func (f *fixture) clean(path string, values ...string) {
	f.t.Helper()
	text, err := os.ReadFile(path)
	f.must(err)
	for _, v := range values {
		if strings.Contains(string(text), v) {
			f.t.Errorf("%s holds a value", path)
		}
	}
}

// listen answers every connection with a text, and closes it.
func listen(t testing.TB, text string) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			_, _ = conn.Write([]byte(text)) // whoever asks may be gone
			_ = conn.Close()
		}
	}()
	t.Cleanup(func() { _ = l.Close(); <-done })
	return l.Addr().String()
}
