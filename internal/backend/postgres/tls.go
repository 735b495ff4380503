package postgres

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"slices"
)

// The names by which connections may be weakened.
const (
	tls12      = "tls-1.2"     // accept TLS 1.2
	noHostname = "no-hostname" // verify the chain, not the name
	noVerify   = "no-verify"   // encrypt without verifying anybody
	plaintext  = "plaintext"   // no TLS at all
)

var weakenings = []string{tls12, noHostname, noVerify, plaintext}

const errNoCA = localError("the certificate authority's file holds no certificate in PEM")

// tlsConfig returns what a connection to the host must fulfil, nil for plaintext.
func tlsConfig(host string, ca []byte, weaker []string, pins Pins) (*tls.Config, error) {
	if slices.Contains(weaker, plaintext) {
		return nil, nil
	}
	c := &tls.Config{ServerName: host, MinVersion: tls.VersionTLS13}
	if slices.Contains(weaker, tls12) {
		c.MinVersion = tls.VersionTLS12
	}
	if len(ca) > 0 {
		c.RootCAs = x509.NewCertPool()
		if !c.RootCAs.AppendCertsFromPEM(ca) {
			return nil, errNoCA
		}
	}
	switch {
	case slices.Contains(weaker, noVerify):
		c.InsecureSkipVerify = true
	case slices.Contains(weaker, noHostname):
		roots := c.RootCAs
		c.InsecureSkipVerify = true // the chain is verified below, only the name is not
		c.VerifyConnection = func(s tls.ConnectionState) error { return verifyChain(s, roots) }
	}
	pins.pinned(c)
	return c, nil
}

// verifyChain verifies the certificates without the name. It runs on resumed
// connections too.
func verifyChain(s tls.ConnectionState, roots *x509.CertPool) error {
	if len(s.PeerCertificates) == 0 {
		return errors.New("the server showed no certificate")
	}
	opts := x509.VerifyOptions{Roots: roots, Intermediates: x509.NewCertPool()}
	for _, c := range s.PeerCertificates[1:] {
		opts.Intermediates.AddCert(c)
	}
	_, err := s.PeerCertificates[0].Verify(opts)
	return err
}
