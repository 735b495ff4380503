package testserver

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

// PebbleOptions say how a Pebble is started.
type PebbleOptions struct {
	// Status is the address on which the certificates say that their status is told;
	// default: loopback. Tasks on overlay networks need [Engine.GatewayIP].
	Status string
	// Life is how long certificates are valid; default: a day.
	Life time.Duration
	// Forget makes it ask for a challenge every time; else it does so half of the time, of
	// a name that was shown before.
	Forget bool
	// Customers are the names and keys (base64url) of those for whom alone it makes accounts.
	// Default: it does so for everybody.
	Customers map[string]string
}

// A Pebble is a real ACME server on loopback, which refuses one nonce in five. Beside it
// stand what it needs to look whose a name is (a DNS server that says loopback of every
// name, a web server for HTTP-01), and the OCSP responder that its certificates name and
// that it does not have itself: it says what Pebble says on its port for management. What
// Pebble keeps is gone when it ends.
type Pebble struct {
	dir               string
	program           string
	authority         *Authority
	acme, manage, web int
	process           *process
	dns               net.PacketConn
	dnsStream         net.Listener
	servers           []*http.Server
	status            net.Listener
	mute              atomic.Bool
	http              *http.Client
	signer            crypto.Signer
	issuer            *x509.Certificate
	roots             []byte
	life              time.Duration
}

// NewPebble starts one as long as the test runs.
func NewPebble(t testing.TB, o PebbleOptions) *Pebble {
	t.Helper()
	p := &Pebble{dir: t.TempDir()}
	t.Cleanup(p.stop)
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Minute) // it may be built first
	defer cancel()
	Require(t, p.start(ctx, o))
	return p
}

// A SharedPebble is one for all tests of a package, as [SharedEngine] is. Tests that
// share it have accounts and names of their own.
type SharedPebble struct {
	once   sync.Once
	pebble *Pebble
	err    error
}

// Get returns it, or ends the test as [Require] says.
func (s *SharedPebble) Get(t testing.TB) *Pebble {
	t.Helper()
	s.once.Do(func() {
		s.pebble = &Pebble{}
		if s.pebble.dir, s.err = os.MkdirTemp("", "keyturn-pebble-"); s.err == nil {
			s.err = s.pebble.start(context.Background(), PebbleOptions{})
		}
	})
	Require(t, s.err)
	return s.pebble
}

// Stop stops it if it was started.
func (s *SharedPebble) Stop() error {
	s.once.Do(func() { s.err = errors.New("the shared server was stopped") })
	if s.pebble == nil {
		return nil
	}
	s.pebble.stop()
	return os.RemoveAll(s.pebble.dir)
}

func (p *Pebble) start(ctx context.Context, o PebbleOptions) (err error) {
	if p.program, err = BuildTool(ctx, "tools/pebble", "github.com/letsencrypt/pebble/v2/cmd/pebble"); err != nil {
		return err
	}
	if p.life = o.Life; p.life == 0 {
		p.life = 24 * time.Hour
	}
	if o.Status == "" {
		o.Status = "127.0.0.1"
	}
	if p.authority, err = NewAuthority(); err != nil {
		return err
	}
	for _, folder := range []string{p.Challenges(), p.Records()} {
		if err := os.MkdirAll(folder, 0o755); err != nil {
			return err
		}
	}
	for _, port := range []*int{&p.acme, &p.manage, &p.web} {
		if *port, err = freePort("tcp", "127.0.0.1"); err != nil {
			return err
		}
	}
	if err := p.serve(o.Status); err != nil {
		return err
	}
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(p.authority.PEM)
	p.http = &http.Client{Timeout: 5 * time.Second, Transport: &http.Transport{DisableKeepAlives: true, TLSClientConfig: &tls.Config{RootCAs: pool, MinVersion: tls.VersionTLS13}}}
	if err := p.run(o); err != nil {
		return err
	}
	return p.await(ctx)
}

// listen takes one port for the DNS server, by TCP and UDP: what is free of one kind may be taken of
// the other.
func (p *Pebble) listen() (err error) {
	for range 20 {
		port, err1 := freePort("udp", "127.0.0.1")
		if err1 != nil {
			return err1
		}
		if p.dnsStream, err = net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", port)); err != nil {
			continue
		}
		if p.dns, err = net.ListenPacket("udp", p.dnsStream.Addr().String()); err == nil {
			return nil
		}
		_ = p.dnsStream.Close()
	}
	return err
}

// serve starts what stands beside Pebble.
func (p *Pebble) serve(status string) (err error) {
	if err := p.listen(); err != nil {
		return err
	}
	go p.resolve()
	go p.resolveStream()
	web, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", p.web))
	if err != nil {
		return err
	}
	if p.status, err = net.Listen("tcp", net.JoinHostPort(status, "0")); err != nil {
		return errors.Join(err, web.Close())
	}
	files := http.StripPrefix("/.well-known/acme-challenge/", http.FileServer(http.Dir(p.Challenges())))
	for l, h := range map[net.Listener]http.Handler{web: files, p.status: http.HandlerFunc(p.tell)} {
		s := &http.Server{Handler: h, ReadHeaderTimeout: 10 * time.Second}
		p.servers = append(p.servers, s)
		go func() { _ = s.Serve(l) }() // until it is closed
	}
	return nil
}

func (p *Pebble) run(o PebbleOptions) (err error) {
	cert, key, err := p.authority.Issue(Certificate{Names: []string{"127.0.0.1", "localhost"}})
	if err != nil {
		return err
	}
	config, err := json.Marshal(map[string]any{"pebble": map[string]any{
		"listenAddress": fmt.Sprintf("127.0.0.1:%d", p.acme), "managementListenAddress": fmt.Sprintf("127.0.0.1:%d", p.manage),
		"certificate": filepath.Join(p.dir, "cert.pem"), "privateKey": filepath.Join(p.dir, "key.pem"), "httpPort": p.web, "tlsPort": p.web,
		"ocspResponderURL": "http://" + p.status.Addr().String(), "retryAfter": map[string]int{"authz": 0, "order": 0},
		"domainBlocklist": []string{"blocked.test"}, "externalAccountBindingRequired": len(o.Customers) > 0, "externalAccountMACKeys": o.Customers,
		"profiles": map[string]any{"default": map[string]any{"description": "of tests", "validityPeriod": int(p.life.Seconds())}},
	}})
	if err != nil {
		return err
	}
	err = errors.Join(os.WriteFile(filepath.Join(p.dir, "cert.pem"), cert, 0o600), os.WriteFile(filepath.Join(p.dir, "key.pem"), key, 0o600),
		os.WriteFile(filepath.Join(p.dir, "pebble.json"), config, 0o600), os.WriteFile(p.CAFile(), p.authority.PEM, 0o644))
	if err != nil {
		return err
	}
	cmd := exec.Command(p.program, "-strict", "-config", filepath.Join(p.dir, "pebble.json"), "-dnsserver", p.dns.LocalAddr().String())
	cmd.Dir = p.dir
	cmd.Env = append(os.Environ(), "PEBBLE_VA_NOSLEEP=1", "PEBBLE_WFE_NONCEREJECT=20")
	if o.Forget {
		cmd.Env = append(cmd.Env, "PEBBLE_AUTHZREUSE=0")
	}
	p.process, err = startProcess(cmd, p.LogFile())
	return err
}

// await waits until Pebble answers, and reads what it signs with.
func (p *Pebble) await(ctx context.Context) error {
	for end := time.Now().Add(time.Minute); ; time.Sleep(20 * time.Millisecond) {
		root, err := p.management(ctx, "/roots/0")
		if err == nil {
			p.roots = root
			break
		}
		if !p.process.running() || time.Now().After(end) || ctx.Err() != nil {
			return fmt.Errorf("Pebble does not answer: %w: %s", err, tailOf(p.LogFile()))
		}
	}
	if err := os.WriteFile(p.RootsFile(), p.roots, 0o644); err != nil {
		return err
	}
	key, err1 := p.management(ctx, "/intermediate-keys/0")
	cert, err2 := p.management(ctx, "/intermediates/0")
	if err := errors.Join(err1, err2); err != nil {
		return err
	}
	keyBlock, _ := pem.Decode(key)
	certBlock, _ := pem.Decode(cert)
	if keyBlock == nil || certBlock == nil {
		return errors.New("Pebble tells no intermediate certificate")
	}
	signer, err := x509.ParsePKCS1PrivateKey(keyBlock.Bytes)
	if err != nil {
		return err
	}
	p.signer = signer
	p.issuer, err = x509.ParseCertificate(certBlock.Bytes)
	return err
}

// Pause stops Pebble in its tracks, until Continue.
func (p *Pebble) Pause() error { return p.process.cmd.Process.Signal(syscall.SIGSTOP) }

// Continue lets Pebble go on.
func (p *Pebble) Continue() error { return p.process.cmd.Process.Signal(syscall.SIGCONT) }

// Mute makes the responder answer nothing, or answer again.
func (p *Pebble) Mute(mute bool) { p.mute.Store(mute) }

func (p *Pebble) stop() {
	if p.process != nil {
		_ = p.Continue() // it fails only if it has ended
		p.process.kill()
	}
	if p.dnsStream != nil {
		_ = p.dnsStream.Close()
	}
	if p.dns != nil {
		_ = p.dns.Close()
	}
	for _, s := range p.servers {
		_ = s.Close()
	}
}

// Directory is the URL of the ACME server's directory.
func (p *Pebble) Directory() string { return fmt.Sprintf("https://127.0.0.1:%d/dir", p.acme) }

// Addr is the address of the ACME server.
func (p *Pebble) Addr() string { return fmt.Sprintf("127.0.0.1:%d", p.acme) }

// CAFile is the path of the authority of the ACME server's own certificate.
func (p *Pebble) CAFile() string { return filepath.Join(p.dir, "ca.pem") }

// CA is that authority's certificate.
func (p *Pebble) CA() []byte { return p.authority.PEM }

// RootsFile is the path of the root of the certificates that it issues.
func (p *Pebble) RootsFile() string { return filepath.Join(p.dir, "roots.pem") }

// Roots is that root's certificate.
func (p *Pebble) Roots() []byte { return p.roots }

// Challenges is the folder that is served for HTTP-01, on every name.
func (p *Pebble) Challenges() string { return filepath.Join(p.dir, "challenges") }

// Records is the folder with a file for each TXT record, by its name.
func (p *Pebble) Records() string { return filepath.Join(p.dir, "records") }

// LogFile is the path of Pebble's log.
func (p *Pebble) LogFile() string { return filepath.Join(p.dir, "log") }

// AccountKey makes the key of an account, in PEM form.
func (p *Pebble) AccountKey() (string, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return "", err
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	return string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})), err
}
