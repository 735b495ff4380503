package cli_test

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/docker/docker/api/types/swarm"

	"github.com/keyturn/keyturn/internal/testserver"
)

// A caShop is an application that verifies a server by a bundle in a directory, and two
// authorities: the one that signed everything, and the one that follows it.
type caShop struct {
	*shop
	old, next *testserver.Authority
	serves    atomic.Pointer[tls.Certificate]
	endpoint  string
}

func newCAShop(t *testing.T) *caShop {
	t.Helper()
	dir := t.TempDir()
	c := &caShop{shop: &shop{t: t, name: "orders-ca", root: filepath.Join(dir, "credentials"), config: filepath.Join(dir, "keyturn.yml"), journal: filepath.Join(dir, "state", "journal.jsonl")}}
	c.env = append(os.Environ(), "CI=")
	for name, a := range map[string]**testserver.Authority{"old": &c.old, "next": &c.next} {
		made, err := testserver.NewAuthority()
		c.must(err)
		*a = made
		c.must(os.WriteFile(filepath.Join(dir, name+".pem"), made.PEM, 0o644))
	}
	c.issue(c.old)
	l, err := tls.Listen("tcp", "127.0.0.1:0", &tls.Config{MinVersion: tls.VersionTLS13, GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return c.serves.Load(), nil }})
	c.must(err)
	c.endpoint = l.Addr().String()
	t.Cleanup(serveHandshakes(l))
	home := filepath.Join(c.root, c.name, "initial")
	c.must(os.MkdirAll(home, 0o755))
	c.must(os.WriteFile(filepath.Join(home, "bundle"), c.old.PEM, 0o400))
	c.must(os.Symlink("initial", filepath.Join(c.root, c.name, "current")))
	c.trust("old")
	return c
}

// serveHandshakes makes handshakes until it is stopped.
func serveHandshakes(l net.Listener) (stop func()) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			_ = conn.SetDeadline(time.Now().Add(5 * time.Second))
			_ = conn.(*tls.Conn).Handshake() // who asks looks at the certificate alone
			_ = conn.Close()
		}
	}()
	return func() {
		_ = l.Close()
		<-done
	}
}

// issue has the server serve a certificate of an authority.
func (c *caShop) issue(by *testserver.Authority) {
	c.t.Helper()
	cert, key, err := by.Issue(testserver.Certificate{Names: []string{"orders.test"}})
	c.must(err)
	pair, err := tls.X509KeyPair(cert, key)
	c.must(err)
	c.serves.Store(&pair)
}

// trust names what is to be trusted.
func (c *caShop) trust(files ...string) {
	c.t.Helper()
	dir := filepath.Dir(c.config)
	c.must(os.WriteFile(c.config, []byte(fmt.Sprintf(`version: 1
journal: file:%s
directory: {path: %s}
credentials:
  orders-ca:
    certificate:
      names: [orders.test]
      probe: ["tls://%s"]
      rotate-ca: {trust: [%s/%s.pem]}
    services:
      app: {path: {/run/secrets/ca.pem: bundle}}
    minimum-age: 0s
    overlap: 1s
`, c.journal, c.root, c.endpoint, dir, strings.Join(files, ".pem, "+dir+"/"))), 0o600))
}

// load verifies the server by what is mounted, all the time.
func (c *caShop) load() (stop func() (tried int, failures []string)) {
	return again(20*time.Millisecond, func() (bool, error) {
		served := c.serves.Load()
		bundle, err := os.ReadFile(filepath.Join(c.root, c.name, "current", "bundle"))
		if err != nil {
			return true, err
		}
		roots := x509.NewCertPool()
		roots.AppendCertsFromPEM(bundle)
		conn, err := tls.Dial("tcp", c.endpoint, &tls.Config{RootCAs: roots, ServerName: "orders.test"})
		if err != nil {
			return true, fmt.Errorf("the bundle was read, then %x served: %w", served.Certificate[0][:4], err)
		}
		return true, conn.Close()
	})
}

// holds checks which authorities the application trusts.
func (c *caShop) holds(want ...*testserver.Authority) {
	c.t.Helper()
	b, err := os.ReadFile(filepath.Join(c.root, c.name, "current", "bundle"))
	c.must(err)
	for name, a := range map[string]*testserver.Authority{"the old one": c.old, "the next one": c.next} {
		is, should := strings.Contains(string(b), string(a.PEM)), false
		for _, w := range want {
			should = should || w == a
		}
		if is != should {
			c.t.Errorf("the application trusts %s: %v, want %v", name, is, should)
		}
	}
}

// TestRotateCA follows one authority by another: trust first, then the certificates, the old root last.
func TestRotateCA(t *testing.T) {
	t.Parallel()
	c := newCAShop(t)
	c.ok("adopt", c.name)
	stop := c.load()
	c.fails(3, []string{"there is nothing to do"}, "rotate", c.name)
	c.ok("rotate", "--due") // nothing is

	c.trust("next") // in one step: what is served could not be verified any more
	c.ok("prepare", c.name)
	c.fails(1, []string{"version 2 is unfit where the current one works", "which these authorities do not verify", "rolled back"}, "validate", c.name)
	c.holds(c.old)

	c.trust("old", "next")
	c.ok("rotate", "--wait", "--due")
	c.holds(c.old, c.next)
	c.versions(3)

	c.trust("next") // too early: a certificate of the old one is served
	c.ok("prepare", c.name)
	c.fails(1, []string{"signed by", "rolled back"}, "validate", c.name)
	c.holds(c.old, c.next)

	c.issue(c.next)
	c.ok("rotate", "--wait", c.name)
	c.holds(c.next)
	c.versions(5)
	if tried, failures := stop(); tried == 0 || len(failures) > 0 {
		t.Errorf("of %d connections failed: %q", tried, failures)
	}
	c.ok("check", c.name)
	c.ok("audit", "verify")
}

// TestRotateCAEarly serves a certificate of the next authority before it is trusted: nothing goes on.
func TestRotateCAEarly(t *testing.T) {
	t.Parallel()
	c := newCAShop(t)
	c.ok("adopt", c.name)
	c.trust("old", "next")
	c.ok("prepare", c.name)
	c.issue(c.next)
	c.fails(4, []string{"the current one does not"}, "validate", c.name)
	c.issue(c.old)
	c.goOn()
	c.holds(c.old, c.next)

	// After the cutover a way back is open while the bundle before verifies what is served.
	c.trust("old")
	for _, phase := range []string{"prepare", "validate", "cutover"} {
		c.ok(phase, c.name)
	}
	c.holds(c.old)
	c.ok("rollback", "--reason", "the application has another one built in", c.name)
	c.holds(c.old, c.next)
	c.fails(3, []string{"cannot be revoked"}, "revoke", "--mode", "immediate", "--reason", "stolen", c.name)
}

// TestRotateCACrash kills keyturn with -9 around every record and effect, while the old root goes.
func TestRotateCACrash(t *testing.T) {
	t.Parallel()
	everyCrash(t, oneOfSixteen, func(t *testing.T, at int) result {
		c := newCAShop(t)
		c.ok("adopt", c.name)
		c.trust("old", "next")
		return c.killedAt(at, c.load())
	})
}

// onSwarm deploys a service whose tasks serve a certificate and verify each other's by the bundle
// that is mounted, all the time.
func (c *caShop) onSwarm() *stack {
	c.t.Helper()
	engine := stackEngine(c.t)
	c.name = fmt.Sprintf("ca%d", serial.Add(1))
	k := &stack{shop: c.shop, engine: engine, client: engine.Client(), service: c.name + "_web", secret: c.name + "_bundle", load: filepath.Join(filepath.Dir(c.config), "load")}
	k.must(os.Mkdir(k.load, 0o777))
	c.trustOnSwarm(k, "old")
	network := k.overlay(k.name)
	bundle, err := engine.CreateSecret(c.t.Context(), k.secret, c.old.PEM)
	k.must(err)
	bundle.File.Name, bundle.File.Mode = "bundle.pem", 0o444
	spec := k.specOf(bundle, filepath.Join(filepath.Dir(c.config), "old.pem"), "TLS_LISTEN=:8443", "TLS_CONNECT=tasks."+k.service+":8443", "TLS_NAME=orders.test", "TLS_ROOTS=/run/secrets/bundle.pem",
		"TLS_CERT_FILE=/run/secrets/leaf.pem", "TLS_KEY_FILE=/run/secrets/leaf.key", "LOAD_EVERY=200ms")
	spec.TaskTemplate.ContainerSpec.Secrets = append(spec.TaskTemplate.ContainerSpec.Secrets, c.leaf(engine, c.old)...)
	spec.TaskTemplate.Networks = []swarm.NetworkAttachmentConfig{{Target: network}}
	spec.EndpointSpec = &swarm.EndpointSpec{Mode: swarm.ResolutionModeDNSRR}
	k.serve(spec)
	return k
}

// trustOnSwarm names what is to be trusted.
func (c *caShop) trustOnSwarm(k *stack, files ...string) {
	c.t.Helper()
	dir := filepath.Dir(c.config)
	k.must(os.WriteFile(k.config, []byte(fmt.Sprintf(`version: 1
journal: file:%[1]s
swarm: {host: "%[2]s", image: "%[3]s"}
credentials:
  %[4]s:
    certificate:
      names: [orders.test]
      probe: ["tls://tasks.%[5]s:8443"]
      rotate-ca: {trust: [%[6]s/%[7]s.pem]}
    services:
      %[5]s: {file: {TLS_ROOTS: bundle}}
    secrets: {bundle: %[4]s_bundle}
    minimum-age: 0s
    overlap: 1s
    rollout: {monitor: 2s, health-timeout: 60s, timeout: 240s}
`, k.journal, k.engine.Host(), probeImage, k.name, k.service, dir, strings.Join(files, ".pem, "+dir+"/"))), 0o600))
}

// leaf makes the secrets of a certificate that an authority signs.
func (c *caShop) leaf(engine *testserver.Engine, by *testserver.Authority) (refs []*swarm.SecretReference) {
	c.t.Helper()
	cert, key, err := by.Issue(testserver.Certificate{Names: []string{"orders.test"}})
	c.must(err)
	for file, value := range map[string][]byte{"leaf.pem": cert, "leaf.key": key} {
		ref, err := engine.CreateSecret(c.t.Context(), fmt.Sprintf("%s-%s-%d", c.name, strings.ReplaceAll(file, ".", "-"), serial.Add(1)), value)
		c.must(err)
		ref.File.Name, ref.File.Mode = file, 0o400
		refs = append(refs, ref)
	}
	return refs
}

// TestRotateCAOnSwarm follows one authority by another while the tasks of a service verify each
// other all the time: none fails.
func TestRotateCAOnSwarm(t *testing.T) {
	journey(t)
	t.Parallel()
	c := newCAShop(t)
	k := c.onSwarm()
	k.ok("adopt", k.name)
	k.ok("doctor")

	c.trustOnSwarm(k, "old", "next")
	t.Log(k.ok("plan", k.name))
	k.ok("rotate", "--wait", k.name)
	c.doneOnSwarm(k, 2)

	c.trustOnSwarm(k, "next") // too early
	k.ok("prepare", k.name)
	before := k.tasks()
	k.fails(1, []string{"signed by", "rolled back"}, "validate", k.name)
	if !slices.Equal(before, k.tasks()) {
		t.Error("tasks were replaced though nothing was cut over")
	}
	c.doneOnSwarm(k, 2)

	leaves := c.leaf(k.engine, c.next) // somebody rotates the certificate
	begun := time.Now()
	k.change(func(spec *swarm.ServiceSpec) {
		all := &spec.TaskTemplate.ContainerSpec.Secrets
		*all = append(slices.DeleteFunc(*all, func(r *swarm.SecretReference) bool { return strings.HasPrefix(r.File.Name, "leaf.") }), leaves...)
	})
	for end := begun.Add(4 * time.Minute); ; time.Sleep(time.Second) {
		if s := k.inspect().UpdateStatus; s != nil && s.State == swarm.UpdateStateCompleted && s.CompletedAt != nil && s.CompletedAt.After(begun) {
			break
		}
		if time.Now().After(end) {
			t.Fatalf("the update does not end: %+v", k.inspect().UpdateStatus)
		}
	}
	k.ok("rotate", "--wait", k.name)
	k.noneFailed()
	k.ok("check")
	c.doneOnSwarm(k, 4)
}

// doneOnSwarm checks that one version is in service, and nothing is left of the others.
func (c *caShop) doneOnSwarm(k *stack, current int) {
	c.t.Helper()
	if p := k.status(); p.Current != current || p.Pending != 0 || p.Previous != 0 || p.Queue != 0 {
		c.t.Errorf("status is %+v, want only version %d", p, current)
	}
	k.settled()
	if got, want := k.objects(), []string{fmt.Sprintf("secret %s_v%d", k.secret, current), "service " + k.service}; !slices.Equal(got, want) {
		c.t.Errorf("on the Swarm there are %q, want %q", got, want)
	}
	k.ok("audit", "verify")
}
