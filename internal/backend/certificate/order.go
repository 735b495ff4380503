package certificate

import (
	"context"
	"crypto"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"net"
	"net/http"

	"github.com/mholt/acmez/v3/acme"

	"github.com/keyturn/keyturn/internal/rotation"
)

// identify looks up the account, and how the authority names the certificate in service, where
// it wants to know which one an order replaces.
func (b acmeIssuer) identify(ctx context.Context, next rotation.Version, current *rotation.Version) error {
	a, err := b.open(ctx)
	if err != nil {
		return err
	}
	if err := b.mayOrder(ctx, a); err != nil {
		return err
	}
	if current == nil || current.Public[publicOrder] == "" {
		return nil // what another account ordered cannot be followed
	}
	directory, err := a.client.GetDirectory(ctx)
	if err != nil {
		return wrap("reading the directory", err)
	}
	found, err := issuedOf(*current)
	if err != nil || found == nil || directory.RenewalInfo == "" {
		return err
	}
	next.Public[publicReplaces], err = acme.ARIUniqueIdentifier(found.leaf)
	return err
}

// order asks for the certificate, and makes the account if there is none. After an answer
// that was lost a second order is asked for; the first one ends by itself.
func (b acmeIssuer) order(ctx context.Context, v rotation.Version) (rotation.Version, error) {
	a, err := b.open(ctx)
	if err != nil {
		return v, err
	}
	if err := b.mayOrder(ctx, a); err != nil {
		return v, err
	}
	if err := rotation.CheckLease(ctx); err != nil {
		return v, err
	}
	if a.account.Location == "" {
		if err := b.register(ctx, a); err != nil {
			return v, err
		}
	}
	order := acme.Order{Replaces: v.Public[publicReplaces], Profile: b.settings.ACME.Profile}
	for _, n := range b.settings.Names {
		kind := "dns"
		if net.ParseIP(n) != nil {
			kind = "ip"
		}
		order.Identifiers = append(order.Identifiers, acme.Identifier{Type: kind, Value: n})
	}
	made, err := a.client.NewOrder(ctx, a.account, order)
	if is(err, acme.ProblemTypeAlreadyReplaced) { // by a version that was given up
		order.Replaces = ""
		made, err = a.client.NewOrder(ctx, a.account, order)
	}
	if err != nil {
		return v, wrap("ordering a certificate", err)
	}
	if made.Location == "" {
		return v, wrap("ordering a certificate", errors.New("the answer says nowhere where the order is"))
	}
	v.Public[publicOrder] = made.Location
	return v, nil
}

// mint shows whose the names are, makes the key, and has the certificate issued.
func (b acmeIssuer) mint(ctx context.Context, v rotation.Version) ([]byte, crypto.Signer, error) {
	a, err := b.open(ctx)
	if err != nil {
		return nil, nil, err
	}
	order, err := a.order(ctx, v)
	if err != nil {
		return nil, nil, err
	}
	if order.Status == acme.StatusPending {
		if err := b.prove(ctx, a, order); err != nil {
			return nil, nil, err
		}
	}
	key, err := b.newKey(v)
	if err != nil {
		return nil, nil, err
	}
	signed, err := b.settings.request(pkix.Name{}, key)
	if err != nil {
		return nil, nil, err
	}
	if err := rotation.CheckLease(ctx); err != nil {
		return nil, nil, err
	}
	if order, err = a.client.FinalizeOrder(ctx, a.account, order, signed); err != nil {
		return nil, nil, wrap("having the certificate issued", err)
	}
	chain, err := a.download(ctx, order)
	return chain, key, err
}

// order reads the order of a version as it stands.
func (a *acmeServer) order(ctx context.Context, v rotation.Version) (acme.Order, error) {
	if v.Public[publicOrder] == "" {
		return acme.Order{}, fmt.Errorf("certificate: version %d was not ordered", v.Number)
	}
	if err := a.login(ctx); err != nil {
		return acme.Order{}, err
	}
	order, err := a.client.GetOrder(ctx, a.account, acme.Order{Location: v.Public[publicOrder]})
	return order, wrap("reading the order", err)
}

// download returns the chain that the authority prefers, in PEM form.
func (a *acmeServer) download(ctx context.Context, order acme.Order) ([]byte, error) {
	chains, err := a.client.GetCertificateChain(ctx, a.account, order.Certificate)
	if err != nil {
		return nil, wrap("fetching the certificate", err)
	}
	if len(chains) == 0 {
		return nil, wrap("fetching the certificate", errors.New("there is none in the answer"))
	}
	return chains[0].ChainPEM, nil
}

// lost returns what came of an order that is on the record without its certificate.
func (b acmeIssuer) lost(ctx context.Context, v rotation.Version) ([]*issuance, error) {
	if v.Public[publicOrder] == "" {
		return nil, refused("put the section vault, or step-ca, back until this version has ended", "version %d was ordered from no ACME server", v.Number)
	}
	a, err := b.open(ctx)
	if err != nil {
		return nil, err
	}
	order, err := a.order(ctx, v)
	if missing(err) {
		return nil, nil // the authority forgets orders that nothing came of
	}
	if err != nil {
		return nil, err
	}
	switch order.Status {
	case acme.StatusProcessing:
		return nil, unknown("run it again", "the certificate of version %d is being issued", v.Number)
	case acme.StatusValid:
		chain, err := a.download(ctx, order)
		if err != nil {
			return nil, err
		}
		found, err := parseChain(chain)
		return []*issuance{found}, err
	}
	return nil, nil
}

// callOff makes an order worthless that was not finished, so that no request of a run that
// was cut off can finish it: what was shown for it is shown no more.
func (b acmeIssuer) callOff(ctx context.Context, v rotation.Version) error {
	a, err := b.open(ctx)
	if err != nil {
		return err
	}
	order, err := a.order(ctx, v)
	if missing(err) {
		return nil
	}
	if err != nil {
		return err
	}
	for _, url := range order.Authorizations {
		authz, err := a.client.GetAuthorization(ctx, a.account, url)
		if missing(err) {
			continue
		}
		if err != nil {
			return wrap("calling off an order", err)
		}
		if err := rotation.CheckLease(ctx); err != nil {
			return err
		}
		if c, ok := b.challengeOf(authz); ok {
			if err := b.withdraw(ctx, c); err != nil {
				return err
			}
		}
		if order.Status != acme.StatusInvalid && (authz.Status == acme.StatusPending || authz.Status == acme.StatusValid) {
			if _, err := a.client.DeactivateAuthorization(ctx, a.account, url); err != nil && !missing(err) {
				return wrap("calling off an order", err)
			}
		}
	}
	if order, err = a.order(ctx, v); err == nil && (order.Status == acme.StatusValid || order.Status == acme.StatusProcessing) {
		return unknown("run it again", "the certificate of version %d was issued while its order was called off", v.Number)
	}
	if missing(err) {
		return nil
	}
	return err
}

// revoke revokes a certificate. One that was revoked before is done.
func (b acmeIssuer) revoke(ctx context.Context, leaf *x509.Certificate, reason int) error {
	a, err := b.open(ctx)
	if err != nil {
		return err
	}
	if err := a.login(ctx); err != nil {
		return err
	}
	err = a.client.RevokeCertificate(ctx, a.account, leaf, nil, reason)
	if is(err, acme.ProblemTypeAlreadyRevoked) {
		return nil
	}
	if p, ok := problemOf(err); ok && p.Status < http.StatusInternalServerError && (p.Type == namespace+"unauthorized" || p.Status == http.StatusNotFound || p.Status == http.StatusForbidden) {
		return rotation.Classify(rotation.Failed, "revoke it where it was ordered, with the account that ordered it, then run this again",
			fmt.Errorf("certificate: revoking %x: %w", leaf.SerialNumber, err))
	}
	return wrap(fmt.Sprintf("revoking certificate %x", leaf.SerialNumber), err)
}
