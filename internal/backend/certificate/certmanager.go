package certificate

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/keyturn/keyturn/internal/backend/remote"
	"github.com/keyturn/keyturn/internal/rotation"
)

// A Managed is a certificate that cert-manager makes, and keeps with its key in a Secret of
// Kubernetes. Keyturn has it issued anew, as cmctl renew does, and sees to it that what was
// issued is as declared and is served everywhere, and what was before it nowhere. It never
// reads the Secret: neither key passes through it.
//
// A version is a revision of the Certificate. One that cert-manager issued by itself since
// the version on the record is taken over by the next rotation, which then has none issued.
type Managed struct {
	settings Settings
	manager  CertManager
	options  Options
	anew     bool
	look     *Backend // of what is issued: trust, and what its authority tells
}

// The interfaces that a Managed fulfils.
var (
	_ rotation.Placed      = (*Managed)(nil)
	_ rotation.Revocable   = (*Managed)(nil)
	_ rotation.Displayed   = (*Managed)(nil)
	_ rotation.Renewer     = (*Managed)(nil)
	_ rotation.OneWay      = (*Managed)(nil)
	_ rotation.Preflighter = (*Managed)(nil)
	_ rotation.Adopter     = (*Managed)(nil)
	_ rotation.Warner      = (*Managed)(nil)
	_ rotation.Nouner      = (*Managed)(nil)
)

// NewManaged returns a Managed for settings that passed [Section]. Anew says that what
// was issued since the version on the record does not do: its key may be known, too. It does
// no I/O.
func NewManaged(s Settings, o Options, anew bool) (*Managed, error) {
	if s.CertManager == nil {
		return nil, rotation.Errorf(rotation.Invalid, "", "certificate: nothing says which Certificate it is")
	}
	look, err := New(s, o)
	if err != nil {
		return nil, err
	}
	return &Managed{settings: s, manager: *s.CertManager, options: look.options, anew: anew, look: look}, nil
}

// Noun implements [rotation.Nouner].
func (m *Managed) Noun() string { return m.look.Noun() }

// Mortal implements [rotation.Revocable].
func (m *Managed) Mortal() string { return m.look.Mortal() }

// ShownBy implements [rotation.Displayed].
func (m *Managed) ShownBy() string { return m.look.ShownBy() }

// Gap says what must be accepted.
func (m *Managed) Gap() string { return m.settings.Gap() }

// NoWayBack implements [rotation.OneWay].
func (m *Managed) NoWayBack() string {
	return "cert-manager has overwritten the certificate before, and its key"
}

// The public fields of a version, beside those of every certificate.
const (
	publicUID      = "certificate-uid" // of the Certificate: another one begins again with revision 1
	publicRevision = "revision"        // of the Certificate
	publicSince    = "revision-before" // what is issued after it is the version
)

// A state is how the Certificate stands.
type state struct {
	*resource
	issued *issuance // of its revision; nil: none yet
}

// state asks for the Certificate, and for what is issued by it.
func (m *Managed) state(ctx context.Context) (state, error) {
	c, err := m.open()
	if err != nil {
		return state{}, err
	}
	defer c.close()
	r, err := c.certificate(ctx)
	if err != nil {
		return state{}, err
	}
	i, err := c.issued(ctx, r)
	return state{r, i}, err
}

// on puts what is issued on the record of a version.
func (s state) on(v rotation.Version) rotation.Version {
	v = s.issued.on(v)
	v.Public[publicUID], v.Public[publicRevision] = s.Metadata.UID, strconv.Itoa(s.Status.Revision)
	return v
}

// Identify names the version, for the record, and notes what was issued before it.
func (m *Managed) Identify(ctx context.Context, next rotation.Version, others []rotation.Version) (rotation.Version, error) {
	s, err := m.state(ctx)
	if err != nil {
		return next, err
	}
	next = next.Clone()
	next.Identity = rotation.Title(m.manager.name(), next.Number)
	since := s.Status.Revision
	for _, o := range others {
		revision, err := strconv.Atoi(o.Public[publicRevision])
		if o.State != rotation.Current || err != nil || o.Public[publicUID] != s.Metadata.UID || m.anew {
			continue
		}
		if since > revision {
			m.options.Logger.InfoContext(ctx, "cert-manager has issued a certificate by itself: it is taken over, and none is issued for it", "credential", m.options.Credential, "revision", since, "on record", revision)
		}
		since = min(since, revision)
	}
	next.Public = map[string]string{publicUID: s.Metadata.UID, publicSince: strconv.Itoa(since)}
	return next, nil
}

// sinceOf reads what was issued before a version.
func sinceOf(v rotation.Version) (int, error) {
	since, err := strconv.Atoi(v.Public[publicSince])
	if err != nil {
		return 0, fmt.Errorf("certificate: the record of version %d does not say what was issued before it", v.Number)
	}
	return since, nil
}

// Observe says of a certificate whether it is the one that cert-manager keeps. Of one
// that it replaced cert-manager has nothing any more.
func (m *Managed) Observe(ctx context.Context, v rotation.Version) (rotation.Standing, error) {
	found, err := issuedOf(v)
	if err != nil {
		return rotation.Standing{}, err
	}
	if found == nil {
		return rotation.Standing{Status: rotation.Absent, Detail: "no certificate was issued"}, nil
	}
	s, err := m.state(ctx)
	if err != nil {
		return rotation.Standing{}, err
	}
	if !s.is(found) {
		return rotation.Standing{Status: rotation.Absent, Until: found.leaf.NotAfter.UTC(), Detail: s.instead()}, nil
	}
	dead, err := m.ended(ctx, found)
	if err != nil {
		return rotation.Standing{}, err
	}
	if dead != "" {
		return rotation.Standing{Status: rotation.Ended, Detail: dead}, nil
	}
	return rotation.Standing{Status: rotation.Expiring, Until: found.leaf.NotAfter.UTC(), Detail: fmt.Sprintf("certificate %x, revision %d", found.leaf.SerialNumber, s.Status.Revision)}, nil
}

// is reports whether a certificate is the one that is issued.
func (s state) is(i *issuance) bool {
	return s.issued != nil && fingerprint(s.issued.leaf) == fingerprint(i.leaf)
}

// instead says what has taken a certificate's place.
func (s state) instead() string {
	return fmt.Sprintf("cert-manager has revision %d in its place", s.Status.Revision)
}

// ended says why a certificate is dead by itself, or "": its time is over, or its authority
// says that it is revoked. Where nobody tells that, its time alone counts.
func (m *Managed) ended(ctx context.Context, i *issuance) (dead string, err error) {
	if m.options.Now().After(i.leaf.NotAfter) {
		return "it is out of date since " + i.leaf.NotAfter.UTC().Format(time.RFC3339), nil
	}
	if !m.told(i) {
		return "", nil
	}
	t, err := m.look.lookup().status(ctx, i.leaf, i.issuer)
	if err != nil || !t.revoked {
		return "", err
	}
	return "its authority says that it is revoked: " + t.reason(), nil
}

// told reports whether somebody tells if a certificate is revoked.
func (m *Managed) told(i *issuance) bool {
	return i.issuer != nil && (m.settings.CRL != "" || tells(i.leaf))
}

// Arm implements [rotation.Backend].
func (m *Managed) Arm(context.Context, rotation.Version, rotation.Material, time.Time) error {
	return errors.New("certificate: cert-manager issues it, and nothing is armed")
}

// End looks that cert-manager keeps a version no more: it ends none in another way.
func (m *Managed) End(ctx context.Context, v rotation.Version, why rotation.Why) error {
	standing, err := m.Observe(ctx, v)
	if err != nil || standing.Status != rotation.Expiring {
		return err
	}
	hint := "bring the next one: keyturn rotate " + m.options.Credential
	if why == rotation.ToRevoke {
		hint = "have it revoked where it was issued, and bring the next one: keyturn revoke --mode fast --reason … " + m.options.Credential
	}
	return refused(hint, "certificate %s of version %d is the one that cert-manager keeps, and cert-manager revokes none", v.Public[publicSerial], v.Number)
}

// RenewAt implements [rotation.Renewer]: at once if cert-manager has issued one by itself,
// which is to come on the record; else before it would.
func (m *Managed) RenewAt(ctx context.Context, v rotation.Version) (time.Time, error) {
	s, err := m.state(ctx)
	found, bad := issuedOf(v)
	if err = cmp.Or(err, bad); err != nil || found == nil || s.issued == nil {
		return time.Time{}, err
	}
	if !s.is(found) {
		return s.issued.leaf.NotBefore.UTC(), nil
	}
	if s.Status.RenewalTime.IsZero() {
		return time.Time{}, nil
	}
	return s.Status.RenewalTime.Add(-found.leaf.NotAfter.Sub(found.leaf.NotBefore) / 20).UTC(), nil
}

// Adopt takes over what cert-manager has issued today.
func (m *Managed) Adopt(ctx context.Context, v rotation.Version) (rotation.Version, error) {
	s, err := m.state(ctx)
	if err != nil {
		return v, err
	}
	if s.issued == nil {
		return v, refused("let it be the first version: keyturn prepare "+m.options.Credential, "cert-manager has issued nothing by Certificate %s yet", m.manager.name())
	}
	v.Identity = rotation.Title(m.manager.name(), v.Number)
	return s.on(v), nil
}

// Warnings implements [rotation.Warner].
func (m *Managed) Warnings(context.Context, string) ([]string, error) {
	return []string{"cert-manager revokes nothing: whoever has the key of the certificate before can use it until its time is over, unless it is revoked where it was issued"}, nil
}

// Preflight checks that the Certificate can be told to be issued, and that what comes of it
// will be as declared.
func (m *Managed) Preflight(ctx context.Context, _ rotation.Credential) error {
	c, err := m.open()
	if err != nil {
		return err
	}
	defer c.close()
	r, err := c.certificate(ctx)
	if err != nil {
		return err
	}
	if err := m.declared(r); err != nil {
		return err
	}
	if err := c.mayUpdate(ctx); err != nil {
		return err
	}
	i, err := c.issued(ctx, r)
	if err == nil && i != nil && !m.options.Now().After(i.leaf.NotAfter) {
		if bad := i.fits(m.ofItsKey(i), i.leaf.PublicKey); bad != nil {
			err = refused("correct the Certificate, or names:, and let cert-manager issue it again; servers need the usages digital signature and server auth", "what cert-manager has issued today is not as declared: %v", bad)
		}
	}
	return err
}

// ofItsKey are the settings with the kind of key that a certificate has: cert-manager decides that.
func (m *Managed) ofItsKey(i *issuance) Settings {
	s := m.settings
	s.KeyType = kindOf(i.leaf.PublicKey)
	return s
}

// declared holds the Certificate against the settings.
func (m *Managed) declared(r *resource) error {
	at := "Certificate " + m.manager.name()
	got := slices.Sorted(slices.Values(slices.Concat(r.Spec.DNSNames, r.Spec.IPAddresses)))
	want := slices.Sorted(slices.Values(m.settings.Names))
	switch {
	case r.Metadata.Deleted != "":
		return refused("wait until it is gone, and make it again", "%s is being deleted", at)
	case r.Spec.PrivateKey.RotationPolicy != "Always":
		return refused("set spec.privateKey.rotationPolicy: Always: before cert-manager 1.18 the same key is used again where it is not set", "%s does not say that each certificate has a new key", at)
	case r.Spec.IsCA:
		return refused("a certificate of an authority has a rotation of its own, which is not built yet", "%s is of an authority", at)
	case len(r.Spec.URIs)+len(r.Spec.EmailAddresses)+len(r.Spec.OtherNames) > 0:
		return refused("leave uris, emailAddresses and otherNames out", "%s has names of other kinds, too", at)
	case r.Spec.CommonName != "" && !slices.Contains(got, r.Spec.CommonName):
		return refused("put commonName under dnsNames and names:, too", "the common name of %s is none of its names", at)
	case !slices.Equal(got, want):
		return refused("write the same under names: and under dnsNames and ipAddresses", "%s is for %s, and not for %s", at, strings.Join(got, ", "), strings.Join(want, ", "))
	}
	return nil
}

// wait is how long cert-manager, and then services, may take.
func (m *Managed) wait() time.Duration { return m.manager.patience() }

// every is how long it is waited between two looks.
const every = 2 * time.Second

// until looks again and again, until it is done or the time is over. The last look's error is told.
func (m *Managed) until(ctx context.Context, limit time.Duration, look func(context.Context) (done bool, err error)) error {
	for end := time.Now().Add(limit); ; {
		done, err := look(ctx)
		switch {
		case done:
			return err
		case ctx.Err() != nil:
			return context.Cause(ctx)
		case !time.Now().Before(end):
			return err
		}
		if err := remote.Pause(ctx, min(every, time.Until(end)+time.Millisecond)); err != nil {
			return err
		}
	}
}
