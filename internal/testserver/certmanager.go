package testserver

import (
	"crypto"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"sync"
	"testing"
	"time"
)

// A CertManager is the API of a Kubernetes with one Certificate in it, a cert-manager that
// issues it, and servers that serve what is issued. Everything is in memory. The API keeps
// to what Kubernetes has of resource versions, of the subresource status, and of lists in
// pages; what it was not told of is a fault of the test, above all the reading of a Secret.
type CertManager struct {
	Namespace, Name, Token string

	t         testing.TB
	api       *httptest.Server
	authority *Authority // of what is issued
	own       *Authority // of the API server

	mu       sync.Mutex
	version  int            // of the resource, and of the whole store
	uid      int            // how many there were
	object   map[string]any // the Certificate
	requests []issuedOnce   // what issuers made, the latest last
	secret   *tls.Certificate
	due      time.Time // when an issuance that is under way ends; zero: none is
	servers  []*certServer
	calls    []Call
	manager  Behaviour
	renewed  int // how often an issuance was triggered by hand
}

// A Behaviour says what the cert-manager, and the API, do next.
type Behaviour struct {
	Fails     string            // the message of a failure; "": it issues
	Names     []string          // for which it issues; nil: those of the spec
	SameKey   bool              // and with the key of the one before
	Takes     time.Duration     // until it has issued; negative: for ever
	NotReady  bool              // what was issued is not ready
	Holds     bool              // servers do not read the Secret again
	Rivals    int               // how many updates somebody else is faster than
	Loses     bool              // the next update is applied, and its answer lost
	Forbidden map[string]string // verb → resource, which the role does not have
	Down      bool              // the API answers nothing but 503
	Forgets   bool              // no CertificateRequest is kept
}

// A Call is what the API was asked for.
type Call struct {
	Method, Path string
	Body         []byte
}

// issuedOnce is what an issuer made for a revision.
type issuedOnce struct {
	uid      string // of the Certificate
	revision int
	pem      []byte
	pair     tls.Certificate
}

// certServer serves the certificate that it read last.
type certServer struct {
	address string
	stop    func()
	reads   *tls.Certificate
}

// NewCertManager starts one, whose Certificate for the names is issued and served by as many
// servers.
func NewCertManager(t testing.TB, servers int, names ...string) *CertManager {
	t.Helper()
	c := &CertManager{t: t, Namespace: "shop", Name: "orders-tls", Token: "token-canary-5f2b8c", version: 100}
	var err error
	if c.authority, err = NewAuthority(); err == nil {
		c.own, err = NewAuthority()
	}
	if err != nil {
		t.Fatal(err)
	}
	c.Make(names...)
	c.mu.Lock()
	c.begin("Renewing")
	c.due = time.Now()
	c.advance()
	c.mu.Unlock()
	if err := c.serve(servers); err != nil {
		t.Fatal(err)
	}
	return c
}

// serve starts the API and the servers.
func (c *CertManager) serve(servers int) error {
	cert, key, err := c.own.Issue(Certificate{Names: []string{"127.0.0.1"}})
	if err != nil {
		return err
	}
	pair, err := tls.X509KeyPair(cert, key)
	if err != nil {
		return err
	}
	c.api = httptest.NewUnstartedServer(http.HandlerFunc(c.answer))
	c.api.TLS = &tls.Config{Certificates: []tls.Certificate{pair}, MinVersion: tls.VersionTLS12}
	c.api.StartTLS()
	c.t.Cleanup(c.api.Close)
	for range servers {
		s := &certServer{reads: c.secret, address: "127.0.0.1:0"}
		if err := c.listen(s); err != nil {
			return err
		}
		c.servers = append(c.servers, s)
		c.t.Cleanup(func() { s.stop() })
	}
	return nil
}

// listen has a server listen, at the address that it had.
func (c *CertManager) listen(s *certServer) error {
	config := &tls.Config{MinVersion: tls.VersionTLS13, GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return c.served(s), nil }}
	listener, err := tls.Listen("tcp", s.address, config)
	if err != nil {
		return err
	}
	s.address, s.stop = listener.Addr().String(), accept(listener)
	return nil
}

// accept makes handshakes, and nothing more, until it is stopped.
func accept(listener net.Listener) (stop func()) {
	var all sync.WaitGroup
	all.Go(func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			all.Go(func() {
				_ = conn.SetDeadline(time.Now().Add(5 * time.Second))
				_ = conn.(*tls.Conn).Handshake() // whoever asks looks at the certificate alone
				_ = conn.Close()
			})
		}
	})
	return func() {
		_ = listener.Close()
		all.Wait()
	}
}

// served is what a server shows now: what it read, unless it reads the Secret again.
func (c *CertManager) served(s *certServer) *tls.Certificate {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.advance()
	if !c.manager.Holds {
		s.reads = c.secret
	}
	return s.reads
}

// URL is that of the API.
func (c *CertManager) URL() string { return c.api.URL }

// CA is who signed the certificate of the API.
func (c *CertManager) CA() []byte { return c.own.PEM }

// Roots is who signs what is issued.
func (c *CertManager) Roots() []byte { return c.authority.PEM }

// Probe says where what is issued is served.
func (c *CertManager) Probe() []string {
	var out []string
	for _, s := range c.servers {
		out = append(out, "tls://"+s.address)
	}
	return out
}

// Behave changes what it does from now on.
func (c *CertManager) Behave(change func(*Behaviour)) {
	c.mu.Lock()
	defer c.mu.Unlock()
	change(&c.manager)
}

// Stop ends one of the servers, until it is started again.
func (c *CertManager) Stop(server int) { c.servers[server].stop() }

// Start starts a server that was stopped.
func (c *CertManager) Start(server int) {
	if err := c.listen(c.servers[server]); err != nil {
		c.t.Error(err)
	}
}

// Reload has one of the servers read the Secret again.
func (c *CertManager) Reload(server int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.advance()
	c.servers[server].reads = c.secret
}

// Renew has cert-manager issue by itself, at once.
func (c *CertManager) Renew() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.begin("Renewing")
	c.due = time.Now()
	c.advance()
}

// Triggered is how often an issuance was begun by hand.
func (c *CertManager) Triggered() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.renewed
}

// Begin has cert-manager begin by itself to issue; Finish brings what is under way to its end.
func (c *CertManager) Begin() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.begin("Renewing")
}

// Finish brings an issuance that is under way to its end.
func (c *CertManager) Finish() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.due = time.Now()
	c.advance()
}

// GoBack has one of the servers serve what it served before, as one that is restored.
func (c *CertManager) GoBack(server int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.manager.Holds = true
	c.servers[server].reads = &c.requests[len(c.requests)-2].pair
}

// Revision is what is issued.
func (c *CertManager) Revision() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.advance()
	return c.revision()
}

// Calls are those since the last time it was asked for them.
func (c *CertManager) Calls() []Call {
	c.mu.Lock()
	defer c.mu.Unlock()
	out := c.calls
	c.calls = nil
	return out
}

// Edit changes the spec of the Certificate as its owner would; nil takes the key out.
func (c *CertManager) Edit(key string, value any) {
	c.mu.Lock()
	defer c.mu.Unlock()
	spec := c.object["spec"].(map[string]any)
	if spec[key] = value; value == nil {
		delete(spec, key)
	}
	c.bump()
	meta := c.object["metadata"].(map[string]any)
	meta["generation"] = meta["generation"].(int) + 1
}

// Keys are the private keys that were made, as the Secret has them.
func (c *CertManager) Keys() [][]byte {
	c.mu.Lock()
	defer c.mu.Unlock()
	var out [][]byte
	for _, r := range c.requests {
		der, err := x509.MarshalPKCS8PrivateKey(r.pair.PrivateKey)
		if err != nil {
			c.t.Error(err)
		}
		out = append(out, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}))
	}
	return out
}

// issue has the authority sign, with a new key.
func (c *CertManager) issue(revision int) (issuedOnce, error) {
	names := c.manager.Names
	if names == nil {
		for _, key := range []string{"dnsNames", "ipAddresses"} {
			all, _ := c.object["spec"].(map[string]any)[key].([]any)
			for _, n := range all {
				names = append(names, n.(string))
			}
		}
	}
	cert, key, err := c.authority.Issue(Certificate{Names: names})
	if err == nil && c.manager.SameKey && len(c.requests) > 0 {
		cert, key, err = c.authority.again(c.requests[len(c.requests)-1].pair, names)
	}
	if err != nil {
		return issuedOnce{}, err
	}
	pair, err := tls.X509KeyPair(cert, key)
	return issuedOnce{c.object["metadata"].(map[string]any)["uid"].(string), revision, cert, pair}, err
}

// again signs a certificate for a key that has one.
func (a *Authority) again(pair tls.Certificate, names []string) (cert, key []byte, err error) {
	der, err := x509.MarshalPKCS8PrivateKey(pair.PrivateKey)
	if err != nil {
		return nil, nil, err
	}
	fresh, _, err := a.Issue(Certificate{Names: names})
	if err != nil {
		return nil, nil, err
	}
	block, _ := pem.Decode(fresh)
	template, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		return nil, nil, err
	}
	signed, err := x509.CreateCertificate(rand.Reader, template, a.cert, pair.PrivateKey.(crypto.Signer).Public(), a.key)
	if err != nil {
		return nil, nil, fmt.Errorf("signing a key again: %w", err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: signed}), pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}), nil
}

// kept are the requests that are still there: cert-manager keeps a few.
func (c *CertManager) kept() []issuedOnce {
	if c.manager.Forgets {
		return nil
	}
	return slices.Clone(c.requests[max(0, len(c.requests)-2):])
}
