package cli_test

import (
	"context"
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

	"github.com/keyturn/keyturn/internal/backend/certificate"
	"github.com/keyturn/keyturn/internal/backend/remote"
	"github.com/keyturn/keyturn/internal/rotation"
	"github.com/keyturn/keyturn/internal/secret"
	"github.com/keyturn/keyturn/internal/testserver"
)

// An issuer is an authority of the tests.
type issuer interface {
	Roots() []byte
	RootsFile() string
	LogFile() string
	Serials() ([]string, error)
	Status(ctx context.Context, serial string) (status string, reason int, err error)
}

// A certificateShop is what rotates a certificate.
type certificateShop struct {
	*shop
	issuer
	pebble  *testserver.Pebble // nil: it is issued by a Vault
	host    string             // the name in the certificate
	section string             // of the configuration, without probe
	cert    []byte             // of version 1, ordered by hand
	key     []byte
	hand    *certificate.Backend // who issued it
	logs    []string             // of the authority
	network string               // that the service is on; "": one of its own
	more    string               // lines of the configuration
	stuck   atomic.Bool          // the server goes on with what it served last
	served  atomic.Pointer[tls.Certificate]
}

// newCertificateShop makes the account, and orders a certificate by hand.
func newCertificateShop(t testing.TB, p *testserver.Pebble) *certificateShop {
	t.Helper()
	c := certificateShopOf(t, p)
	c.pebble = p
	account, err := p.AccountKey()
	c.must(err)
	c.secret(account)
	c.env = append(os.Environ(), "KEYTURN_ACME_KEY="+account, "CI=")
	c.byHand(certificate.Settings{ACME: &certificate.ACME{Directory: p.Directory(), AgreeTerms: true, CA: "ca", Account: secret.Source{Env: "KEY"}, HTTP01: &certificate.HTTP01{Directory: p.Challenges()}}},
		remote.Options{CA: p.CA(), Getenv: func(string) string { return account }},
		fmt.Sprintf(`acme: {directory: "%s", ca: %s, account: {from-env: KEYTURN_ACME_KEY}, http-01: {directory: %s}}`, p.Directory(), p.CAFile(), p.Challenges()))
	return c
}

func certificateShopOf(t testing.TB, ca issuer) *certificateShop {
	t.Helper()
	dir := t.TempDir()
	name := fmt.Sprintf("tls%d", serial.Add(1))
	return &certificateShop{issuer: ca, host: name + ".test", logs: []string{ca.LogFile()},
		shop: &shop{t: t, name: name, root: filepath.Join(dir, "credentials"), config: filepath.Join(dir, "keyturn.yml"), journal: filepath.Join(dir, "state", "journal.jsonl")}}
}

// byHand has version 1 issued, and writes the section.
func (c *certificateShop) byHand(s certificate.Settings, o remote.Options, by string) {
	c.t.Helper()
	s.Names, s.Roots = []string{c.host}, "roots"
	hand, err := certificate.New(s, certificate.Options{Credential: "by hand", Roots: c.Roots(), Options: o})
	c.must(err)
	c.hand = hand
	v, err := hand.Order(c.t.Context(), rotation.Version{Credential: c.name, Number: 1})
	c.must(err)
	_, m, err := hand.Mint(c.t.Context(), v)
	c.must(err)
	c.cert, c.key = m["certificate"].Reveal(), m["key"].Reveal()
	c.secret(string(c.key))
	adopt := filepath.Join(filepath.Dir(c.config), "today.pem")
	c.must(os.WriteFile(adopt, c.cert, 0o644))
	c.section = fmt.Sprintf(`certificate:
      names: [%s]
      roots: %s
      adopt: %s
      %s
`, c.host, c.RootsFile(), adopt, by)
}

// secret remembers the lines of a key, to look for, but for the last one: it has the end of the
// public half alone, which stands in the certificate, too.
func (c *certificateShop) secret(key string) {
	var lines []string
	for _, line := range strings.Split(key, "\n") {
		if len(line) > 20 && !strings.HasPrefix(line, "-----") {
			lines = append(lines, line)
		}
	}
	c.secrets = append(c.secrets, lines[:len(lines)-1]...)
}

// issued returns the serials of what the authority issued for anybody.
func (c *certificateShop) issued() []string {
	c.t.Helper()
	serials, err := c.Serials()
	c.must(err)
	return serials
}

// serialOf is the serial of the first certificate in a PEM text.
func serialOf(t testing.TB, pair tls.Certificate) string {
	t.Helper()
	leaf, err := x509.ParseCertificate(pair.Certificate[0])
	if err != nil {
		t.Fatal(err)
	}
	return fmt.Sprintf("%x", leaf.SerialNumber)
}

// onSwarm deploys a service whose tasks serve the certificate, and ask each other all the time.
func (c *certificateShop) onSwarm() *stack {
	c.t.Helper()
	engine := stackEngine(c.t)
	k := &stack{shop: c.shop, engine: engine, client: engine.Client(), service: c.name + "_web", secret: c.name + "_certificate", load: filepath.Join(filepath.Dir(c.config), "load")}
	k.must(os.Mkdir(k.load, 0o777))
	k.must(os.WriteFile(k.config, []byte(fmt.Sprintf(`version: 1
journal: file:%[1]s
swarm: {host: "%[2]s", image: "%[3]s"}
credentials:
  %[4]s:
    %[5]s      probe: ["tls://tasks.%[6]s:8443"]
    services:
      %[6]s: {file: {TLS_CERT_FILE: certificate, TLS_KEY_FILE: key}}
    secrets: {certificate: %[4]s_certificate, key: %[4]s_key}
    minimum-age: 0s
    overlap: 1s
    rollout: {monitor: 2s, health-timeout: 60s, timeout: 240s}
%[7]s`, k.journal, engine.Host(), probeImage, k.name, c.section, k.service, c.more)), 0o600))
	network := c.network
	if network == "" {
		network = k.overlay(k.name)
	}
	var refs []*swarm.SecretReference
	for field, value := range map[string][]byte{"certificate": c.cert, "key": c.key} {
		ref, err := engine.CreateSecret(c.t.Context(), k.name+"_"+field, value)
		k.must(err)
		ref.File.Name, ref.File.Mode = field+".pem", 0o400
		refs = append(refs, ref)
	}
	spec := k.specOf(refs[0], c.RootsFile(), "TLS_LISTEN=:8443", "TLS_CONNECT=tasks."+k.service+":8443", "TLS_NAME="+c.host, "TLS_ROOTS=/ca.pem",
		"TLS_CERT_FILE=/run/secrets/certificate.pem", "TLS_KEY_FILE=/run/secrets/key.pem", "LOAD_EVERY=200ms")
	spec.TaskTemplate.ContainerSpec.Secrets = refs
	spec.TaskTemplate.Networks = []swarm.NetworkAttachmentConfig{{Target: network}}
	spec.EndpointSpec = &swarm.EndpointSpec{Mode: swarm.ResolutionModeDNSRR}
	c.t.Cleanup(func() {
		if c.t.Failed() {
			totals := k.totals()
			c.t.Logf("%d handshakes worked, %d failed: %v; first: %+v", totals.OK, totals.Failed, totals.ByCode, totals.Failures[:min(3, len(totals.Failures))])
		}
	})
	k.serve(spec)
	return k
}

// doneWith checks that one version is in service, with its certificate and its key, and that
// its certificate alone is not revoked.
func (c *certificateShop) doneWith(k *stack, current int) {
	c.t.Helper()
	p := k.status()
	if p.Current != current || p.Pending != 0 || p.Previous != 0 || p.Queue != 0 {
		c.t.Errorf("status is %+v, want only version %d", p, current)
	}
	k.settled()
	want := []string{fmt.Sprintf("secret %s_certificate_v%d", k.name, current), fmt.Sprintf("secret %s_key_v%d", k.name, current), "service " + k.service}
	if got := k.objects(); !slices.Equal(got, want) {
		c.t.Errorf("on the Swarm there are %q, want %q", got, want)
	}
	k.ok("audit", "verify")
	for _, file := range append([]string{k.journal}, c.logs...) {
		b, err := os.ReadFile(file)
		k.must(err)
		k.clean(string(b))
	}
}

// states says of every certificate of this shop what its authority does.
func (c *certificateShop) states(serials []string) string {
	c.t.Helper()
	var out []string
	for _, s := range serials {
		status, reason, err := c.Status(c.t.Context(), s)
		c.must(err)
		if status == "Revoked" {
			status = fmt.Sprintf("Revoked/%d", reason)
		}
		out = append(out, status)
	}
	return strings.Join(out, " ")
}

// TestCertificateOnSwarm rotates a certificate twice and once back while the tasks of its
// service shake hands all the time: none fails, each task serves the new one, and the old
// one is revoked as superseded.
func TestCertificateOnSwarm(t *testing.T) {
	journey(t)
	t.Parallel()
	c := newCertificateShop(t, testserver.NewPebble(t, testserver.PebbleOptions{Status: stackEngine(t).GatewayIP()}))
	k := c.onSwarm()
	k.ok("doctor")
	k.ok("adopt", k.name)
	t.Log(k.ok("plan", k.name))
	k.ok("prepare", k.name)
	k.ok("validate", k.name)
	k.ok("cutover", k.name)
	k.ok("rollback", "--reason", "drill", k.name)
	if got, want := c.states(c.issued()), "Valid Revoked/5"; got != want {
		t.Errorf("after the rollback the certificates are %s, want %s", got, want)
	}
	for version := 3; version <= 4; version++ {
		k.ok("-v", "rotate", k.name)
		time.Sleep(time.Second) // the overlap
		k.ok("-v", "cleanup", k.name)
		c.doneWith(k, version)
	}
	if got, want := c.states(c.issued()), "Revoked/4 Revoked/5 Revoked/4 Valid"; got != want {
		t.Errorf("at the end the certificates are %s, want %s", got, want)
	}
	k.noneFailed()
	k.ok("check")
}

// inDirectory lets a server read the pair from a directory, at each handshake.
func (c *certificateShop) inDirectory() (address string) {
	c.t.Helper()
	home := filepath.Join(c.root, c.name)
	c.must(os.MkdirAll(filepath.Join(home, "initial"), 0o755))
	c.must(os.WriteFile(filepath.Join(home, "initial", "certificate"), c.cert, 0o400))
	c.must(os.WriteFile(filepath.Join(home, "initial", "key"), c.key, 0o400))
	c.must(os.Symlink("initial", filepath.Join(home, "current")))
	l, err := tls.Listen("tcp", "127.0.0.1:0", &tls.Config{MinVersion: tls.VersionTLS13, GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) {
		if last := c.served.Load(); c.stuck.Load() && last != nil {
			return last, nil
		}
		pair, err := c.pair()
		c.served.Store(&pair)
		return &pair, err
	}})
	c.must(err)
	c.t.Cleanup(func() { c.must(l.Close()) })
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				_ = conn.(*tls.Conn).Handshake() // who asked sees that it failed
				_ = conn.Close()
			}()
		}
	}()
	c.must(os.WriteFile(c.config, []byte(fmt.Sprintf(`version: 1
journal: file:%s
directory: {path: %s}
credentials:
  %s:
    %s      probe: ["tls://%s"]
    services:
      web: {path: {/run/secrets/certificate: certificate, /run/secrets/key: key}}
    minimum-age: 0s
    overlap: 1s
`, c.journal, c.root, c.name, c.section, l.Addr())), 0o600))
	return l.Addr().String()
}

// pair is what the directory holds.
func (c *certificateShop) pair() (tls.Certificate, error) {
	current, err := os.Readlink(filepath.Join(c.root, c.name, "current")) // both of one version
	if err != nil {
		return tls.Certificate{}, err
	}
	if !filepath.IsAbs(current) {
		current = filepath.Join(c.root, c.name, current)
	}
	return tls.LoadX509KeyPair(filepath.Join(current, "certificate"), filepath.Join(current, "key"))
}

// asks shakes hands with a server again and again, until it is told to stop; it returns how
// often, and what failed.
func (c *certificateShop) asks(address string) (stop func() (tried int, failures []string)) {
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(c.Roots())
	dialer := &tls.Dialer{NetDialer: &net.Dialer{Timeout: 10 * time.Second}, Config: &tls.Config{RootCAs: pool, ServerName: c.host, MinVersion: tls.VersionTLS13}}
	return again(50*time.Millisecond, func() (bool, error) {
		conn, err := dialer.DialContext(context.Background(), "tcp", address)
		if err == nil {
			_ = conn.Close()
		}
		return true, err
	})
}

// TestCrashCertificate kills keyturn before and after every record and every effect of a
// rotation of a certificate, and lets it go on: no handshake fails, and every certificate but
// the one in service is revoked, also those that nobody got. Without KEYTURN_CRASH=all it is a few
// of these points.
func TestCrashCertificate(t *testing.T) {
	t.Parallel()
	run := func(t *testing.T, at int) result {
		if at > 0 {
			t.Parallel()
		}
		c := newCertificateShop(t, testserver.NewPebble(t, testserver.PebbleOptions{}))
		r := c.crashed(at, false)
		left, err := os.ReadDir(c.pebble.Challenges())
		c.must(err)
		if len(left) > 0 {
			t.Errorf("answers to challenges are left: %v", left)
		}
		return r
	}
	everyCrash(t, oneOfEight, run)
}

// crashed is killed at a point and goes on. Then every certificate but the one in service is revoked, if
// the authority cannot find lost ones but one that was signed and that nobody heard of.
func (c *certificateShop) crashed(at int, unfound bool) result {
	c.t.Helper()
	stop := c.asks(c.inDirectory())
	c.ok("adopt", c.name)
	r := c.killedAt(at, stop)
	pair, err := c.pair()
	c.must(err)
	for _, s := range c.issued() {
		want := "Revoked"
		if s == serialOf(c.t, pair) {
			want = "Valid"
		}
		got := c.states([]string{s})
		if unfound && got == "Valid" && want == "Revoked" && at > 0 && strings.Contains(r.points[at-1], "prepare mint") {
			continue // its key died with the run
		}
		if !strings.HasPrefix(got, want) {
			c.t.Errorf("certificate %s is %s, want %s", s, got, want)
		}
	}
	b, err := os.ReadFile(c.journal)
	c.must(err)
	c.clean(string(b))
	return r
}
