// Package certificate rotates certificates of servers: any number of them are valid for
// one name at the same time, so the next one is issued beside the current one, with a new
// key, and the old one is revoked once every task serves the next.
//
// The key is made here and never leaves but for where services read it: the authority
// gets a request that it signed. What the authority was asked for is on the record before
// it issues anything, so that what came of a run that was cut off is found and revoked.
package certificate

import (
	"cmp"
	"context"
	"crypto"
	"crypto/x509"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/keyturn/keyturn/internal/backend/remote"
	"github.com/keyturn/keyturn/internal/rotation"
	"github.com/keyturn/keyturn/internal/secret"
)

// Options are what a [Backend] needs beside its settings. The zero Options work. CA is the
// file that the settings name as acme.ca; Patience is how long to wait until a revocation is
// told, or for a change of an account's key that was not answered; the default of Timeout is 15 s.
type Options struct {
	Credential string           // its name
	Overlap    time.Duration    // until when after its cutover a version must be valid at least
	Stolen     bool             // who ends a version does so because its key may be known
	Now        func() time.Time // default time.Now
	Roots      []byte           // of the file that the settings name as roots
	Adopted    []byte           // of the file that they name as adopt
	remote.Options

	// Generate makes a private key; default: by what the settings say.
	Generate func() (crypto.Signer, error)
}

// A Backend rotates one certificate.
type Backend struct {
	settings Settings
	options  Options
	roots    *x509.CertPool // nil: the system's
	issuer   issuer

	mu   sync.Mutex
	seen map[string]int        // hash of a public key → the version that has it
	keys map[int]crypto.Signer // of versions that were asked for by their public key, until they are issued
	kept map[string]string     // serial → hash of the public key, of what an authority keeps
}

// The interfaces that a Backend fulfils.
var (
	_ rotation.Backend     = (*Backend)(nil)
	_ rotation.Orderer     = (*Backend)(nil)
	_ rotation.Revocable   = (*Backend)(nil)
	_ rotation.Displayed   = (*Backend)(nil)
	_ rotation.Renewer     = (*Backend)(nil)
	_ rotation.Preflighter = (*Backend)(nil)
	_ rotation.Adopter     = (*Backend)(nil)
	_ rotation.Warner      = (*Backend)(nil)
	_ rotation.Nouner      = (*Backend)(nil)
	_ rotation.Login       = Login
)

// New returns a Backend for settings that passed [Section]. It does no I/O.
func New(s Settings, o Options) (*Backend, error) {
	if err := s.check(); err != nil {
		return nil, rotation.Classify(rotation.Invalid, "", fmt.Errorf("certificate: %w", err))
	}
	b := &Backend{settings: s, options: o, seen: map[string]int{}, keys: map[int]crypto.Signer{}, kept: map[string]string{}}
	b.issuer = acmeIssuer{b}
	switch {
	case s.Vault != nil:
		b.issuer = vaultIssuer{b}
	case s.StepCA != nil:
		b.issuer = stepIssuer{b}
	}
	var err error
	for key, content := range map[string][]byte{"ca": o.CA, "roots": o.Roots} {
		if _, bad := remote.Pool(content); bad != nil {
			return nil, rotation.Classify(rotation.Invalid, "name a PEM file with the authority's certificate", fmt.Errorf("certificate: the file under %s: %w", key, bad))
		}
	}
	if b.roots, err = remote.Pool(o.Roots); err != nil {
		return nil, err
	}
	b.options.Timeout = cmp.Or(o.Timeout, 15*time.Second)
	b.options.Options = b.options.Complete()
	if b.options.Now == nil {
		b.options.Now = time.Now
	}
	if b.options.Generate == nil {
		b.options.Generate = s.generate
	}
	return b, nil
}

// Noun implements [rotation.Nouner].
func (b *Backend) Noun() string { return "certificate" }

// Mortal implements [rotation.Revocable].
func (b *Backend) Mortal() string { return "a certificate ends by itself" }

// ShownBy implements [rotation.Displayed].
func (b *Backend) ShownBy() string { return "every task serves it" }

// The public fields of a version, beside those that are mounted.
const (
	publicReplaces    = "replaces"    // how the authority names the certificate that it follows (RFC 9773)
	publicOrder       = "order"       // the URL of the order
	publicLeaf        = "leaf"        // the certificate, DER in base64: what is needed to revoke it
	publicIssuer      = "issuer"      // that of who signed it
	publicSerial      = "serial"      // in hexadecimal digits
	publicFingerprint = "fingerprint" // SHA-256 of the certificate, in hexadecimal digits
	publicKey         = "public-key"  // SHA-256 of its public key
	publicFrom        = "not-before"  // RFC 3339
	publicUntil       = "not-after"
)

// Identify names the version, for the record: the authority's own name for it, such as the order's
// URL, is there once it was asked for.
func (b *Backend) Identify(ctx context.Context, next rotation.Version, others []rotation.Version) (rotation.Version, error) {
	next = next.Clone()
	next.Identity, next.Public = rotation.Title("keyturn "+b.options.Credential, next.Number), map[string]string{}
	var current *rotation.Version
	for i, o := range others {
		b.saw(o)
		if o.State == rotation.Current {
			current = &others[i]
		}
	}
	return next, b.issuer.identify(ctx, next, current)
}

// Order implements [rotation.Orderer].
func (b *Backend) Order(ctx context.Context, v rotation.Version) (rotation.Version, error) {
	v = v.Clone()
	if v.Public == nil {
		v.Public = map[string]string{}
	}
	return b.issuer.order(ctx, v)
}

// Mint has the certificate issued. What is issued is handed on only if it is what was asked
// for, and works.
func (b *Backend) Mint(ctx context.Context, v rotation.Version) (rotation.Version, rotation.Material, error) {
	chain, key, err := b.issuer.mint(ctx, v)
	if err != nil {
		return v, nil, err
	}
	found, err := b.examine(chain, key.Public())
	if err != nil {
		return v, nil, err
	}
	value, err := encode(key)
	if err != nil {
		return v, nil, err
	}
	return found.on(v), rotation.Material{fieldCertificate: secret.New(found.pem()), fieldKey: value}, nil
}

// issued returns the certificates of a version: the one on the record, or, where a run was cut
// off, what came of what it asked for.
func (b *Backend) issued(ctx context.Context, v rotation.Version) ([]*issuance, error) {
	found, err := issuedOf(v)
	switch {
	case err != nil:
		return nil, err
	case found != nil:
		return []*issuance{found}, nil
	case v.Public[publicOrder] == "" && v.Public[publicKey] == "":
		return nil, nil
	}
	return b.issuer.lost(ctx, v)
}

// Observe says of a certificate what its time and its authority say. Of one that was
// never issued the authority tells, by what is on the record of what it was asked for.
func (b *Backend) Observe(ctx context.Context, v rotation.Version) (rotation.Standing, error) {
	issued, err := b.issued(ctx, v)
	if err != nil {
		return rotation.Standing{}, err
	}
	st := rotation.Standing{Status: rotation.Absent, Detail: "no certificate was issued"}
	for _, i := range issued {
		if st, err = b.standing(ctx, i); err != nil || st.Status == rotation.Expiring {
			break
		}
	}
	return st, err
}

func (b *Backend) standing(ctx context.Context, i *issuance) (rotation.Standing, error) {
	until := i.leaf.NotAfter.UTC()
	st := rotation.Standing{Status: rotation.Ended, Until: until, Detail: fmt.Sprintf("certificate %x, valid until %s", i.leaf.SerialNumber, until.Format(time.RFC3339))}
	if b.options.Now().After(until) {
		return st, nil
	}
	if sees, ok := b.issuer.(viewer); ok {
		text, err := sees.view(ctx, i.leaf)
		if err != nil {
			return rotation.Standing{}, err
		}
		st.Detail += text
	}
	told, err := b.lookup().status(ctx, i.leaf, i.issuer)
	if err != nil {
		return rotation.Standing{}, err
	}
	if !told.revoked {
		st.Status = rotation.Expiring
		return st, nil
	}
	return rotation.Standing{Status: rotation.Ended, Detail: st.Detail + ", revoked: " + told.reason()}, nil
}

// Arm implements [rotation.Backend]: a certificate is valid from its birth on.
func (b *Backend) Arm(context.Context, rotation.Version, rotation.Material, time.Time) error {
	return errors.New("certificate: it is issued, not armed")
}

// The reasons for a revocation (RFC 5280, section 5.3.1).
var reasons = map[rotation.Why]int{rotation.ToRetire: 4, rotation.ToDiscard: 5, rotation.ToRevoke: 1}

// End revokes a certificate, and waits until its authority tells everybody so. What was
// asked for and not issued is called off.
func (b *Backend) End(ctx context.Context, v rotation.Version, why rotation.Why) error {
	issued, err := b.issued(ctx, v)
	if err != nil {
		return err
	}
	if len(issued) == 0 && v.Public[publicOrder]+v.Public[publicKey] != "" {
		return b.issuer.callOff(ctx, v)
	}
	if why == rotation.ToRetire && b.options.Stolen {
		why = rotation.ToRevoke
	}
	for _, i := range issued {
		if err := b.end(ctx, v, i, why); err != nil {
			return err
		}
	}
	return nil
}

// end revokes one certificate of a version.
func (b *Backend) end(ctx context.Context, v rotation.Version, i *issuance, why rotation.Why) error {
	if b.options.Now().After(i.leaf.NotAfter) {
		return nil
	}
	told, err := b.lookup().status(ctx, i.leaf, i.issuer)
	if err != nil || told.revoked {
		return err
	}
	if err := rotation.CheckLease(ctx); err != nil {
		return err
	}
	b.options.Logger.InfoContext(ctx, "revoking a certificate", "serial", fmt.Sprintf("%x", i.leaf.SerialNumber), "version", v.Number, "reason", reasonText(reasons[why]))
	if err := b.issuer.revoke(ctx, i.leaf, reasons[why]); err != nil {
		return err
	}
	for end := time.Now().Add(b.options.Patience); ; {
		told, err := b.lookup().status(ctx, i.leaf, i.issuer)
		if err == nil && told.revoked {
			return nil
		}
		if time.Now().After(end) || remote.Pause(ctx, time.Second) != nil {
			return errors.Join(unknown("run it again when it does: an authority may publish its list once in some hours",
				"certificate %x of version %d is revoked, and its authority does not tell that to everybody yet", i.leaf.SerialNumber, v.Number), err)
		}
	}
}
