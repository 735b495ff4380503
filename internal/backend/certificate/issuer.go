package certificate

import (
	"context"
	"crypto"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"fmt"
	"net"
	"time"

	"github.com/keyturn/keyturn/internal/rotation"
)

// An issuer is who is asked for certificates, and to revoke them.
type issuer interface {
	// preflight checks that a certificate can be had. It reads only.
	preflight(ctx context.Context) error

	// identify notes among the public fields of the next version what is to be said when it
	// is asked for. Current may be nil. It reads only.
	identify(ctx context.Context, next rotation.Version, current *rotation.Version) error

	// order notes among the public fields of a version by what [issuer.lost] finds it: its
	// order, or its public key.
	order(ctx context.Context, v rotation.Version) (rotation.Version, error)

	// mint has the certificate of a version that was ordered issued, and returns its chain
	// (PEM), and its key.
	mint(ctx context.Context, v rotation.Version) (chain []byte, key crypto.Signer, err error)

	// lost returns what was issued for a version that was ordered and has no certificate on
	// its record.
	lost(ctx context.Context, v rotation.Version) ([]*issuance, error)

	// callOff sees to it that nothing is issued any more for a version of which nothing is lost.
	callOff(ctx context.Context, v rotation.Version) error

	// revoke revokes a certificate, for a reason of RFC 5280, section 5.3.1. One that was
	// revoked before is done.
	revoke(ctx context.Context, leaf *x509.Certificate, reason int) error
}

// A suggester is an issuer that says when a certificate is to be renewed; the zero time: it
// does not say.
type suggester interface {
	renewAt(ctx context.Context, leaf *x509.Certificate) (time.Time, error)
}

// A warner is an issuer of which people should know something, as of a [rotation.Warner].
type warner interface {
	warnings(ctx context.Context) ([]string, error)
}

// A viewer is an issuer that shows its administrator of a certificate what it does not show
// everybody: some words, or none.
type viewer interface {
	view(ctx context.Context, leaf *x509.Certificate) (string, error)
}

// request is what an issuer is given: the names, and the public key, signed by the key (DER).
func (s Settings) request(subject pkix.Name, key crypto.Signer) ([]byte, error) {
	of := &x509.CertificateRequest{Subject: subject}
	of.DNSNames, of.IPAddresses = s.kinds()
	signed, err := x509.CreateCertificateRequest(rand.Reader, of, key)
	if err != nil {
		return nil, fmt.Errorf("certificate: making the request: %w", err)
	}
	return signed, nil
}

// kinds parts the names.
func (s Settings) kinds() (names []string, addresses []net.IP) {
	for _, n := range s.Names {
		if ip := net.ParseIP(n); ip != nil {
			addresses = append(addresses, ip)
		} else {
			names = append(names, n)
		}
	}
	return names, addresses
}
