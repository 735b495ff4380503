package certificate

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/asn1"
	"encoding/base64"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/keyturn/keyturn/internal/rotation"
)

// An issuance is a certificate with the chain to its root, without the root.
type issuance struct {
	leaf   *x509.Certificate
	issuer *x509.Certificate // who signed it; nil: that is not known
	chain  []*x509.Certificate
}

const maxChain = 10

// parseChain reads certificates in PEM form, the leaf first. A root at the end is left out:
// who trusts it has it.
func parseChain(text []byte) (*issuance, error) {
	var all []*x509.Certificate
	for rest := text; ; {
		var block *pem.Block
		if block, rest = pem.Decode(rest); block == nil {
			break
		}
		if block.Type != "CERTIFICATE" {
			continue
		}
		c, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, fmt.Errorf("a certificate cannot be read: %w", err)
		}
		if all = append(all, c); len(all) > maxChain {
			return nil, fmt.Errorf("there are more than %d certificates in the chain", maxChain)
		}
	}
	if len(all) == 0 {
		return nil, errors.New("there is no certificate in it")
	}
	found := &issuance{leaf: all[0], chain: all}
	if len(all) > 1 {
		found.issuer = all[1]
	}
	if last := all[len(all)-1]; len(all) > 1 && bytes.Equal(last.RawIssuer, last.RawSubject) {
		found.chain = all[:len(all)-1]
	}
	return found, nil
}

// pem returns the chain in PEM form.
func (i *issuance) pem() []byte {
	var out []byte
	for _, c := range i.chain {
		out = append(out, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c.Raw})...)
	}
	return out
}

// on puts a certificate on the record of its version.
func (i *issuance) on(v rotation.Version) rotation.Version {
	v = v.Clone()
	if v.Public == nil {
		v.Public = map[string]string{}
	}
	hash, _ := hashOfKey(i.leaf.PublicKey) // it was read, so it can be written
	for field, value := range map[string]string{
		publicLeaf: base64.StdEncoding.EncodeToString(i.leaf.Raw), publicSerial: fmt.Sprintf("%x", i.leaf.SerialNumber), publicFingerprint: fingerprint(i.leaf),
		publicKey: hash, publicFrom: i.leaf.NotBefore.UTC().Format(time.RFC3339), publicUntil: i.leaf.NotAfter.UTC().Format(time.RFC3339),
	} {
		v.Public[field] = value
	}
	if i.issuer != nil {
		v.Public[publicIssuer] = base64.StdEncoding.EncodeToString(i.issuer.Raw)
	}
	return v
}

// issuedOf reads the certificate of a version from its record; nil if there is none.
func issuedOf(v rotation.Version) (*issuance, error) {
	if v.Public[publicLeaf] == "" {
		return nil, nil
	}
	found := &issuance{}
	for field, into := range map[string]**x509.Certificate{publicLeaf: &found.leaf, publicIssuer: &found.issuer} {
		der, err := base64.StdEncoding.DecodeString(v.Public[field])
		if err == nil && len(der) > 0 {
			*into, err = x509.ParseCertificate(der)
		}
		if err != nil {
			return nil, fmt.Errorf("certificate: the record of version %d holds a certificate that cannot be read: %w", v.Number, err)
		}
		if c := *into; c != nil {
			found.chain = append(found.chain, c)
		}
	}
	return found, nil
}

// fingerprint is the SHA-256 of a certificate.
func fingerprint(c *x509.Certificate) string {
	sum := sha256.Sum256(c.Raw)
	return hex.EncodeToString(sum[:])
}

// hashOfKey is the SHA-256 of a public key.
func hashOfKey(key crypto.PublicKey) (string, error) {
	der, err := x509.MarshalPKIXPublicKey(key)
	if err != nil {
		return "", fmt.Errorf("certificate: a public key of an unknown kind: %w", err)
	}
	sum := sha256.Sum256(der)
	return hex.EncodeToString(sum[:]), nil
}

// examine holds what was issued against what was asked for: before anybody else sees it.
func (b *Backend) examine(chain []byte, key crypto.PublicKey) (*issuance, error) {
	found, err := parseChain(chain)
	if err == nil {
		err = found.fits(b.settings, key)
	}
	now := b.options.Now()
	for _, at := range []time.Time{now, now.Add(b.options.Overlap)} {
		if err == nil {
			err = found.trusted(b.roots, b.settings.Names, at)
		}
	}
	if err == nil && b.settings.CRL == "" && len(b.places().Lists) == 0 && !tells(found.leaf) {
		err = errors.New("neither an OCSP responder nor a list of revoked certificates is named in it, and crl: names none: whether it is revoked, nobody could tell")
	}
	if err != nil {
		return nil, rotation.Errorf(rotation.Failed, "it is revoked, and no service gets it; look at what the authority does with requests, and at names:, roots:, key-type: and overlap:",
			"certificate: what was issued is not what was asked for: %w", err)
	}
	return found, nil
}

// mustStaple is the extension that asks servers for an answer of OCSP (RFC 7633).
var mustStaple = asn1.ObjectIdentifier{1, 3, 6, 1, 5, 5, 7, 1, 24}

// fits checks the certificate by itself: its key, its names, what it may be used for.
func (i *issuance) fits(s Settings, key crypto.PublicKey) error {
	if own, ok := i.leaf.PublicKey.(interface{ Equal(crypto.PublicKey) bool }); !ok || !own.Equal(key) {
		return errors.New("it is for another key")
	}
	if got, want := namesOf(i.leaf), slices.Sorted(slices.Values(s.Names)); !slices.Equal(got, want) {
		return fmt.Errorf("it is for %s, and not for %s", strings.Join(got, ", "), strings.Join(want, ", "))
	}
	switch {
	case len(i.leaf.EmailAddresses)+len(i.leaf.URIs) > 0:
		return errors.New("it has names of other kinds, too")
	case i.leaf.IsCA:
		return errors.New("it may sign others")
	case !slices.Contains(i.leaf.ExtKeyUsage, x509.ExtKeyUsageServerAuth) || i.leaf.KeyUsage&x509.KeyUsageDigitalSignature == 0:
		return errors.New("it may not be used by servers")
	case slices.ContainsFunc(i.leaf.ExtKeyUsage, func(u x509.ExtKeyUsage) bool {
		return u != x509.ExtKeyUsageServerAuth && u != x509.ExtKeyUsageClientAuth
	}):
		return errors.New("it may be used for more than connections")
	}
	for _, e := range i.leaf.Extensions {
		if e.Id.Equal(mustStaple) {
			return errors.New("it asks servers for an answer of OCSP, which they do not have")
		}
	}
	for n, c := range i.chain[1:] {
		if err := i.chain[n].CheckSignatureFrom(c); err != nil {
			return fmt.Errorf("the chain is not in order: %w", err)
		}
	}
	return s.fitsKey(key)
}

// fitsKey checks the kind of a key.
func (s Settings) fitsKey(key crypto.PublicKey) error {
	want := s.KeyType
	if want == "" {
		want = ecdsaP256
	}
	if kindOf(key) != want {
		return fmt.Errorf("its key is not %s", want)
	}
	return nil
}

// kindOf names the kind of a key as key-type does.
func kindOf(key crypto.PublicKey) string {
	switch k := key.(type) {
	case *ecdsa.PublicKey:
		return fmt.Sprintf("ecdsa-p%d", k.Curve.Params().BitSize)
	case *rsa.PublicKey:
		return fmt.Sprintf("rsa-%d", k.N.BitLen())
	}
	return "of another kind"
}

// namesOf returns the names of a certificate, sorted.
func namesOf(c *x509.Certificate) []string {
	out := slices.Clone(c.DNSNames)
	for _, ip := range c.IPAddresses {
		out = append(out, ip.String())
	}
	slices.Sort(out)
	return out
}

// trusted checks that a client would take the chain at a time, by each name.
func (i *issuance) trusted(roots *x509.CertPool, names []string, at time.Time) error {
	between := x509.NewCertPool()
	for _, c := range i.chain[1:] {
		between.AddCert(c)
	}
	for _, n := range names {
		if rest, wild := strings.CutPrefix(n, "*."); wild {
			n = "keyturn." + rest
		}
		_, err := i.leaf.Verify(x509.VerifyOptions{Roots: roots, Intermediates: between, DNSName: n, CurrentTime: at, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}})
		if err != nil {
			return fmt.Errorf("a client refuses it at %s: %w", at.UTC().Format(time.RFC3339), err)
		}
	}
	return nil
}
