package certificate

import (
	"bytes"
	"context"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/keyturn/keyturn/internal/rotation"
	"github.com/keyturn/keyturn/internal/secret"
)

// A Trust rotates what services trust: the bundle of authorities by which they verify each
// other's certificates. An authority is followed by another one in three rotations: the new root
// comes beside the old one; the certificates are rotated; the old root goes. Before a bundle
// is used, every certificate that is served must be verified by it and by the one in service.
type Trust struct {
	settings Settings
	options  Options
	roots    []*x509.Certificate
}

// The interfaces that a Trust fulfils.
var (
	_ rotation.Proceeder   = (*Trust)(nil)
	_ rotation.Drafter     = (*Trust)(nil)
	_ rotation.Renewer     = (*Trust)(nil)
	_ rotation.Preflighter = (*Trust)(nil)
	_ rotation.Adopter     = (*Trust)(nil)
	_ rotation.Warner      = (*Trust)(nil)
	_ rotation.Nouner      = (*Trust)(nil)
	_ rotation.Displayed   = (*Trust)(nil)
)

// NewTrust returns a Trust for settings that passed [Section]; files are what stands in those
// that they name, in their order. It does no I/O.
func NewTrust(s Settings, o Options, files [][]byte) (*Trust, error) {
	b := &Trust{settings: s, options: o}
	b.options.Options = b.options.Complete()
	if b.options.Now == nil {
		b.options.Now = time.Now
	}
	for i, content := range files {
		roots, err := rootsIn(content)
		if err != nil {
			return nil, rotation.Errorf(rotation.Invalid, "name PEM files with certificates of authorities", "certificate: the file %s under rotate-ca.trust: %w", s.RotateCA.Trust[i], err)
		}
		for _, r := range roots {
			if !slices.ContainsFunc(b.roots, r.Equal) {
				b.roots = append(b.roots, r)
			}
		}
	}
	return b, nil
}

// rootsIn reads the authorities of a file.
func rootsIn(content []byte) (out []*x509.Certificate, err error) {
	for rest := content; ; {
		var block *pem.Block
		if block, rest = pem.Decode(rest); block == nil {
			break
		}
		if block.Type != "CERTIFICATE" {
			return nil, fmt.Errorf("there is something else than certificates in it")
		}
		c, err := x509.ParseCertificate(block.Bytes)
		switch {
		case err != nil:
			return nil, fmt.Errorf("a certificate cannot be read: %w", err)
		case !c.BasicConstraintsValid || !c.IsCA:
			return nil, fmt.Errorf("certificate %x is of no authority", c.SerialNumber)
		}
		out = append(out, c)
	}
	if len(out) == 0 {
		return nil, fmt.Errorf("there is no certificate in it")
	}
	return out, nil
}

// Noun implements [rotation.Nouner].
func (b *Trust) Noun() string { return "bundle of authorities" }

// ShownBy implements [rotation.Displayed].
func (b *Trust) ShownBy() string { return "certificates that it verifies are served" }

// publicRoots holds the SHA-256 of each authority of a version, sorted, with spaces between.
const publicRoots = "roots"

func printsOf(roots []*x509.Certificate) []string {
	var out []string
	for _, r := range roots {
		out = append(out, fingerprint(r))
	}
	slices.Sort(out)
	return out
}

func rootsOf(v rotation.Version) []string { return strings.Fields(v.Public[publicRoots]) }

// named is a version of which is known which authorities it has.
func (b *Trust) named(v rotation.Version) rotation.Version {
	v = v.Clone()
	prints := printsOf(b.roots)
	sum := sha256.Sum256([]byte(strings.Join(prints, " ")))
	v.Identity = rotation.Title("keyturn "+b.options.Credential, v.Number) + " " + hex.EncodeToString(sum[:4])
	if v.Public == nil {
		v.Public = map[string]string{}
	}
	v.Public[publicRoots] = strings.Join(prints, " ")
	return v
}

// Identify names the version by its number and its authorities.
func (b *Trust) Identify(_ context.Context, next rotation.Version, _ []rotation.Version) (rotation.Version, error) {
	return b.named(next), nil
}

// Draft makes the bundle. Its first line says which version it is.
func (b *Trust) Draft(v rotation.Version) (rotation.Material, error) {
	var out bytes.Buffer
	fmt.Fprintf(&out, "# %s\n", v.Identity)
	for _, r := range b.roots {
		fmt.Fprintf(&out, "# %s\n", strings.Map(printable, r.Subject.String()))
		if err := pem.Encode(&out, &pem.Block{Type: "CERTIFICATE", Bytes: r.Raw}); err != nil {
			return nil, fmt.Errorf("certificate: making the bundle: %w", err)
		}
	}
	return rotation.Material{fieldBundle: secret.New(out.Bytes())}, nil
}

// printable keeps a name on its line.
func printable(r rune) rune {
	if r < ' ' || r > '~' {
		return '?'
	}
	return r
}

// Observe says of a bundle that it can be used for as long as it is of any use to somebody:
// no system accepts or refuses one.
func (b *Trust) Observe(_ context.Context, v rotation.Version) (rotation.Standing, error) {
	if v.State == rotation.Retired || v.State == rotation.Discarded || v.Public[publicRoots] == "" {
		return rotation.Standing{Status: rotation.Absent}, nil
	}
	return rotation.Standing{Status: rotation.Armed, Detail: fmt.Sprintf("%d authorities", len(rootsOf(v)))}, nil
}

// Arm implements [rotation.Backend]: a bundle needs nobody's leave.
func (b *Trust) Arm(context.Context, rotation.Version, rotation.Material, time.Time) error {
	return nil
}

// End implements [rotation.Backend]: nobody reads it any more, and that is all.
func (b *Trust) End(_ context.Context, v rotation.Version, why rotation.Why) error {
	if why == rotation.ToRevoke {
		return refused("take the authority out of rotate-ca.trust once its certificates are replaced: keyturn rotate "+b.options.Credential,
			"a bundle cannot be revoked: whoever mounts version %d trusts its authorities", v.Number)
	}
	return nil
}

// RenewAt implements [rotation.Renewer]: at once, if other authorities are named than
// those of the version in service.
func (b *Trust) RenewAt(_ context.Context, v rotation.Version) (time.Time, error) {
	if slices.Equal(rootsOf(v), printsOf(b.roots)) {
		return time.Time{}, nil
	}
	return b.options.Now().Add(-time.Second).UTC(), nil
}

// Adopt takes over the bundle that services mount today: that it has the authorities that
// the settings name, and verifies what is served, the probe of an adoption proves.
func (b *Trust) Adopt(_ context.Context, v rotation.Version) (rotation.Version, error) {
	return b.named(v), nil
}

// Preflight checks that there is something to do, and that no authority's time is over.
func (b *Trust) Preflight(_ context.Context, c rotation.Credential) error {
	now := b.options.Now()
	for _, r := range b.roots {
		if now.After(r.NotAfter) || now.Before(r.NotBefore) {
			return refused("take it out of rotate-ca.trust", "authority %q (%x) is not valid now, but from %s to %s", r.Subject, r.SerialNumber, r.NotBefore.UTC().Format(time.DateOnly), r.NotAfter.UTC().Format(time.DateOnly))
		}
	}
	current, ok := c.In(rotation.Current)
	if ok && c.Open != nil && c.Open.Phase == rotation.Prepare && slices.Equal(rootsOf(current), printsOf(b.roots)) {
		return refused("name other authorities under rotate-ca.trust: first the new one beside the old one", "there is nothing to do: version %d has the authorities that are named", current.Number)
	}
	return nil
}

// Warnings implements [rotation.Warner].
func (b *Trust) Warnings(context.Context, string) ([]string, error) {
	var out []string
	for _, r := range b.roots {
		if left := r.NotAfter.Sub(b.options.Now()); left < 90*24*time.Hour {
			out = append(out, fmt.Sprintf("authority %q ends %s: put the one that follows it beside it", r.Subject, r.NotAfter.UTC().Format(time.DateOnly)))
		}
	}
	return out, nil
}

// ProbeSpec says how to try a bundle: by what is served.
func (b *Trust) ProbeSpec(v rotation.Version) rotation.ProbeSpec {
	settings, _ := json.Marshal(loginSettings{Names: b.settings.Names, State: v.State, Trust: rootsOf(v)}) // of texts: it always has JSON
	return rotation.ProbeSpec{Backend: "certificate", Identity: v.Identity, Endpoints: b.settings.Probe, Settings: settings}
}
