package connect

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"net"
	"net/url"
	"os"
	"strings"
	"time"

	"github.com/keyturn/keyturn/internal/rotation"
)

const tlsPort = "2376"

// secure is the way over TLS.
type secure struct {
	Settings
	trusts
	name   string // tcp://host:port, for messages
	addr   string
	config *tls.Config
}

func newSecure(s Settings, u *url.URL) (*secure, error) {
	w := &secure{Settings: s, name: "tcp://" + withPort(u, tlsPort), addr: withPort(u, tlsPort)}
	ca, err := os.ReadFile(s.TLS.CA)
	if err != nil {
		return nil, unread("ca", err)
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(ca) {
		return nil, rotation.Errorf(rotation.Invalid, "it begins with -----BEGIN CERTIFICATE-----", "swarm.tls.ca: %s holds no certificate", s.TLS.CA)
	}
	cert, err := certificate(s)
	if err != nil {
		return nil, err
	}
	w.config = &tls.Config{MinVersion: tls.VersionTLS13, RootCAs: roots, Certificates: []tls.Certificate{cert}, ServerName: u.Hostname(), Time: s.Now}
	return w, nil
}

func unread(key string, err error) error {
	return rotation.Classify(rotation.Invalid, "the path is relative to the working directory", fmt.Errorf("swarm.tls.%s: %w", key, err))
}

// certificate reads the certificate that we show. One that is not valid now is
// refused here: the engine would only end the connection.
func certificate(s Settings) (tls.Certificate, error) {
	chain, err := os.ReadFile(s.TLS.Cert)
	if err != nil {
		return tls.Certificate{}, unread("cert", err)
	}
	if block, _ := pem.Decode(chain); block == nil || block.Type != "CERTIFICATE" {
		return tls.Certificate{}, rotation.Errorf(rotation.Invalid, "it begins with -----BEGIN CERTIFICATE-----", "swarm.tls.cert: %s holds no certificate", s.TLS.Cert)
	}
	key, err := s.TLS.Key.Read(s.Getenv)
	if err != nil {
		return tls.Certificate{}, rotation.Classify(rotation.Invalid, "it is the private key, with its first and its last line", fmt.Errorf("swarm.tls.key: %w", err))
	}
	pair, err := tls.X509KeyPair(chain, key.Reveal())
	if err != nil { // its text may be about the key
		return pair, rotation.Errorf(rotation.Invalid, "it is the private key of that certificate, in PEM and not encrypted",
			"swarm.tls.key: %s does not hold the key of %s", s.TLS.Key, s.TLS.Cert)
	}
	switch now := s.Now(); {
	case now.After(pair.Leaf.NotAfter):
		return pair, rotation.Errorf(rotation.Invalid, "make a new one", "swarm.tls.cert: the certificate %s ended at %s", s.TLS.Cert, day(pair.Leaf.NotAfter))
	case now.Before(pair.Leaf.NotBefore):
		return pair, rotation.Errorf(rotation.Invalid, "is this machine's clock right?", "swarm.tls.cert: the certificate %s begins at %s", s.TLS.Cert, day(pair.Leaf.NotBefore))
	}
	return pair, nil
}

func day(t time.Time) string { return t.UTC().Format("2006-01-02 15:04 UTC") }

// dial implements [way]: the engine is known to be the right one when it returns.
func (w *secure) dial(ctx context.Context) (net.Conn, error) {
	within, cancel := context.WithTimeout(ctx, w.Timeout)
	defer cancel()
	d := net.Dialer{KeepAliveConfig: net.KeepAliveConfig{Enable: true, Idle: w.Keepalive, Interval: max(w.Keepalive/3, time.Second), Count: 3}}
	raw, err := d.DialContext(within, "tcp", w.addr)
	if ctx.Err() != nil && err != nil {
		return nil, ctx.Err()
	}
	if err != nil {
		return nil, unreachable(w.name, err)
	}
	impatient(raw, 2*w.Keepalive)
	conn := tls.Client(raw, w.config)
	if err := conn.HandshakeContext(within); err != nil {
		_ = raw.Close()
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		return nil, w.handshakeFault(err)
	}
	return &secureConn{Conn: conn, way: w}, nil
}

// close implements [way]: the client has closed what was idle, and who reads a
// stream closes it.
func (*secure) close() {}

// handshakeFault is the error of a TLS connection that was not made.
func (w *secure) handshakeFault(err error) error {
	var authority x509.UnknownAuthorityError
	var name x509.HostnameError
	var invalid x509.CertificateInvalidError
	var header tls.RecordHeaderError
	fault := func(class rotation.Class, hint, format string, args ...any) error {
		return rotation.Errorf(class, hint, "reaching %s: %s", w.name, fmt.Sprintf(format, args...))
	}
	switch {
	case errors.As(err, &authority):
		return fault(w.class(), "name the file that dockerd has as the authority of its --tlscert", "the certificate of the engine is not signed by %s", w.TLS.CA)
	case errors.As(err, &name):
		return fault(w.class(), "write the host as the certificate names it, or issue one that names it", "the certificate of the engine is not for %q%s", w.config.ServerName, names(name.Certificate))
	case errors.As(err, &invalid) && invalid.Reason == x509.Expired:
		if w.Now().Before(invalid.Cert.NotBefore) {
			return fault(w.class(), "is this machine's clock right?", "the certificate of the engine begins at %s", day(invalid.Cert.NotBefore))
		}
		return fault(w.class(), "renew it and start dockerd again; is this machine's clock right?", "the certificate of the engine ended at %s", day(invalid.Cert.NotAfter))
	case errors.As(err, &invalid):
		return fault(w.class(), "", "the certificate of the engine is not valid: %v", invalid)
	case errors.As(err, &header):
		return fault(w.class(), "start dockerd with --tlsverify; it is not spoken to without", "the engine does not speak TLS on this port")
	case strings.Contains(err.Error(), "protocol version"): // an alert, which has no type
		return fault(w.class(), "an engine since 19.03 does", "the engine does not speak TLS 1.3")
	case errors.Is(err, context.DeadlineExceeded), errors.Is(err, os.ErrDeadlineExceeded):
		return fault(rotation.Unknown, "is it an engine, and is it overloaded?", "it does not answer within %s", w.Timeout)
	}
	return fault(rotation.Unknown, "is it an engine? its log says why it ended the connection", "no TLS connection: %s", broken(err))
}

// names says what a certificate is for.
func names(cert *x509.Certificate) string {
	all := append([]string(nil), cert.DNSNames...)
	for _, ip := range cert.IPAddresses {
		all = append(all, ip.String())
	}
	if len(all) == 0 {
		return ""
	}
	return ", but for " + strings.Join(all, ", ")
}

// A secureConn learns from the first answer whether the engine took our
// certificate: with TLS 1.3 we have sent it when our side of the handshake is over,
// and the refusal comes later, as an alert or as a closed connection.
type secureConn struct {
	*tls.Conn
	way *secure
}

// Read implements [net.Conn].
func (c *secureConn) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	if n > 0 {
		c.way.trusted()
	}
	return n, c.told(err)
}

// Write implements [net.Conn].
func (c *secureConn) Write(b []byte) (int, error) {
	n, err := c.Conn.Write(b)
	return n, c.told(err)
}

func (c *secureConn) told(err error) error {
	var network net.Error
	if err == nil || c.way.reached.Load() || errors.Is(err, net.ErrClosed) || errors.As(err, &network) && network.Timeout() {
		return err
	}
	return rotation.Errorf(c.way.class(), "it must be signed by the authority that dockerd has under --tlscacert, for client authentication; see the engine's log",
		"reaching %s: the engine ended the connection when it had seen the certificate %s", c.way.name, c.way.TLS.Cert)
}
