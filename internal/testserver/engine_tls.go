package testserver

import (
	"errors"
	"fmt"
	"net"
	"os"
)

// enginePort is where an engine listens with TLS, on its own loopback address.
const enginePort = "2376"

// prepareTLS makes an authority, and the engine's certificate of it.
func (e *Engine) prepareTLS() error {
	if !e.opts.TLS {
		return nil
	}
	var err error
	if e.tls, err = NewAuthority(); err != nil {
		return err
	}
	cert, key, err := e.tls.Issue(Certificate{Names: []string{e.addr}})
	if err != nil {
		return err
	}
	if err := errors.Join(os.WriteFile(e.path("ca.pem"), e.tls.PEM, 0o644), os.WriteFile(e.path("cert.pem"), cert, 0o644),
		os.WriteFile(e.path("key.pem"), key, 0o600)); err != nil {
		return fmt.Errorf("writing the certificate of the engine: %w", err)
	}
	return nil
}

// tlsArgs are the arguments of dockerd for it.
func (e *Engine) tlsArgs() []string {
	if e.tls == nil {
		return nil
	}
	return []string{"--host", e.TLSHost(), "--tlsverify", "--tlscacert", e.path("ca.pem"), "--tlscert", e.path("cert.pem"), "--tlskey", e.path("key.pem")}
}

// TLSHost is the engine's address with TLS: tcp://, its loopback address, and a port.
func (e *Engine) TLSHost() string { return "tcp://" + net.JoinHostPort(e.addr, enginePort) }

// Authority signs the certificates of the engine's clients, and has signed its
// own. Nil without [EngineOptions.TLS].
func (e *Engine) Authority() *Authority { return e.tls }
