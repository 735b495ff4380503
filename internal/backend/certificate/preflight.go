package certificate

import (
	"context"
	"crypto/x509"
	"errors"
	"os"
	"slices"
	"time"

	"github.com/mholt/acmez/v3/acme"

	"github.com/keyturn/keyturn/internal/rotation"
)

// Preflight checks that a certificate can be had. Of every version on the record it remembers
// the public key.
func (b *Backend) Preflight(ctx context.Context, c rotation.Credential) error {
	for _, v := range c.Versions {
		b.saw(v)
	}
	return b.issuer.preflight(ctx)
}

// preflight checks that one can be ordered: the directory, the account, what answers challenges.
func (b acmeIssuer) preflight(ctx context.Context) error {
	if err := b.settings.ACME.answerable(); err != nil {
		return err
	}
	a, err := b.open(ctx)
	if err != nil {
		return err
	}
	directory, err := a.client.GetDirectory(ctx)
	if err != nil {
		return wrap("reading the directory", err)
	}
	if p := b.settings.ACME.Profile; p != "" {
		if directory.Meta == nil || directory.Meta.Profiles[p] == "" {
			return refused("leave acme.profile out, or write one that the authority's page lists", "the authority has no profile %q", p)
		}
	}
	there, err := a.known(ctx)
	if err != nil || there {
		return err
	}
	return b.mayRegister(directory)
}

// mayRegister checks that an account may be made.
func (b acmeIssuer) mayRegister(directory acme.Directory) error {
	if e := b.settings.ACME.ExternalAccount; e != nil {
		key, err := e.key(b.options.Getenv)
		if err != nil {
			return err
		}
		key.Wipe()
	} else if directory.Meta != nil && directory.Meta.ExternalAccountRequired {
		return refused("write acme: {external-account: {id: …, key: {from-env: NAME}}}, which the authority gives its customers, or name the key of an account that is there",
			"the authority makes accounts for its customers alone")
	}
	return b.agreed()
}

// answerable checks what answers challenges.
func (a ACME) answerable() error {
	var argv []string
	if a.DNS01 != nil {
		argv = a.DNS01.Hook
	} else if argv = a.HTTP01.Hook; len(argv) == 0 {
		info, err := os.Stat(a.HTTP01.Directory)
		if err == nil && !info.IsDir() {
			err = errors.New("it is no folder")
		}
		if err != nil {
			return refused("make it, and let a web server serve it below /.well-known/acme-challenge/ at port 80 of every name", "the folder for challenges: %v", err)
		}
		return nil
	}
	info, err := os.Stat(argv[0])
	if err == nil && (info.IsDir() || info.Mode()&0o111 == 0) {
		err = errors.New("it is no program")
	}
	if err != nil {
		return refused("write the whole path of the program that answers challenges", "the hook: %v", err)
	}
	return nil
}

// Warnings implements [rotation.Warner].
func (b *Backend) Warnings(ctx context.Context, _ string) ([]string, error) {
	out := []string{"most clients do not ask whether a certificate was revoked: one that was stolen works for its thief until its time is over"}
	if len(b.settings.Probe) == 0 {
		out = append(out, "no probe: is given: whether every task serves the new certificate, and none the old one, is not looked at")
	}
	if w, ok := b.issuer.(warner); ok {
		more, err := w.warnings(ctx)
		return append(out, more...), err
	}
	return out, nil
}

// RenewAt implements [rotation.Renewer] by what the authority suggests.
func (b *Backend) RenewAt(ctx context.Context, v rotation.Version) (time.Time, error) {
	found, err := issuedOf(v)
	suggests, ok := b.issuer.(suggester)
	if found == nil || err != nil || !ok {
		return time.Time{}, err
	}
	return suggests.renewAt(ctx, found.leaf)
}

// Adopt takes over the certificate of the file that the settings name. That services serve
// it, and that the key they mount is its key, the probe of an adoption proves.
func (b *Backend) Adopt(ctx context.Context, v rotation.Version) (rotation.Version, error) {
	if b.settings.Adopt == "" {
		return v, refused("name the PEM file with it and its chain: certificate: {adopt: …}", "nothing says which certificate services serve today")
	}
	found, err := parseChain(b.options.Adopted)
	if err != nil {
		return v, refused("name a PEM file with the certificate and its chain", "the certificate under adopt: %v", err)
	}
	if got := namesOf(found.leaf); !slices.Equal(got, slices.Sorted(slices.Values(b.settings.Names))) {
		b.options.Logger.InfoContext(ctx, "the next certificate is for other names", "today", got, "next", b.settings.Names)
	}
	if b.options.Now().After(found.leaf.NotAfter) {
		return v, refused("let it be the first version: leave adopt out, and run keyturn prepare", "certificate %x under adopt is out of date since %s", found.leaf.SerialNumber, found.leaf.NotAfter.UTC().Format(time.RFC3339))
	}
	told, err := b.lookup().status(ctx, found.leaf, found.issuer)
	if err != nil {
		return v, err
	}
	if told.revoked {
		return v, refused("give services another one first", "certificate %x under adopt is revoked: %s", found.leaf.SerialNumber, told.reason())
	}
	v = found.on(v)
	v.Identity = rotation.Title("keyturn "+b.options.Credential, v.Number)
	return v, nil
}

// renewAt is what the authority suggests (RFC 9773): a time in its window that hangs on the
// certificate alone, so that every run finds the same. A window that is over means at once.
func (b acmeIssuer) renewAt(ctx context.Context, leaf *x509.Certificate) (time.Time, error) {
	a, err := b.open(ctx)
	if err != nil {
		return time.Time{}, err
	}
	info, err := a.client.GetRenewalInfo(ctx, leaf)
	if errors.Is(err, acme.ErrUnsupported) || missing(err) {
		return time.Time{}, nil
	}
	if err != nil {
		return time.Time{}, wrap("asking when to renew", err)
	}
	start, end := info.SuggestedWindow.Start, info.SuggestedWindow.End
	if info.ExplanationURL != "" {
		b.options.Logger.InfoContext(ctx, "the authority says why it suggests that time", "url", info.ExplanationURL)
	}
	part := time.Duration(leaf.Raw[len(leaf.Raw)-1]) // of the signature: as good as random
	return start.Add(end.Sub(start) * part / 256).UTC(), nil
}
