package certificate

import (
	"context"
	"crypto"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/keyturn/keyturn/internal/rotation"
)

// A stepIssuer has certificates signed by step-ca's own API. The authority chooses serials itself and
// lists nothing, so what came of a request whose answer was lost is found by nobody; its key died with the
// run that asked for it.
type stepIssuer struct{ *Backend }

// identify looks whether the provisioner is there: the next version needs nothing of the one in
// service.
func (b stepIssuer) identify(ctx context.Context, _ rotation.Version, _ *rotation.Version) error {
	_, err := b.open(ctx)
	return err
}

// order makes the key.
func (b stepIssuer) order(_ context.Context, v rotation.Version) (rotation.Version, error) {
	return b.orderKey(v)
}

// preflight checks that the authority is there, has the provisioner, lets it sign for as long as is
// asked, and tells what it revoked.
func (b stepIssuer) preflight(ctx context.Context) error {
	s, err := b.open(ctx)
	if err != nil {
		return err
	}
	asked := b.settings.StepCA.life()
	if most, err := time.ParseDuration(s.provisioner.Claims.Max); err == nil && asked > most {
		return refused(fmt.Sprintf("let the provisioner have claims with a maxTLSCertDuration of %s, or write a shorter ttl", asked), "the provisioner %q lets certificates live for %s, and ttl says %s", b.settings.StepCA.Provisioner, most, b.settings.StepCA.TTL)
	}
	if asked > 0 && asked <= b.options.Overlap {
		return tooShort(b.settings.StepCA.TTL, b.options.Overlap)
	}
	if b.settings.CRL != "" {
		return nil
	}
	_, err = b.lookup().own(ctx, http.MethodGet, b.places().Lists[0])
	if a := saidBy(err); a != nil && a.Status == http.StatusNotFound {
		return refused(`write "crl": {"enabled": true, "generateOnRevoke": true} into its ca.json`, "the authority at %s tells nobody what it revoked", b.settings.StepCA.URL)
	}
	if err != nil {
		return unknown("is it running, and can it be reached from here?", "reading the list of %s: %w", b.settings.StepCA.URL, err)
	}
	return nil
}

// mint has the public key signed.
func (b stepIssuer) mint(ctx context.Context, v rotation.Version) ([]byte, crypto.Signer, error) {
	key, err := b.keyOf(v)
	if err != nil {
		return nil, nil, err
	}
	s, err := b.open(ctx)
	if err != nil {
		return nil, nil, err
	}
	der, err := b.settings.request(pkix.Name{}, key)
	if err != nil {
		return nil, nil, err
	}
	token, err := s.token("sign", claims{Subject: b.settings.Names[0], Names: b.settings.Names, Request: digestOf(der)})
	if err != nil {
		return nil, nil, err
	}
	asked := map[string]any{"csr": string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: der})), "ott": token}
	if d := b.settings.StepCA.life(); d > 0 {
		asked["notAfter"] = d.String()
	}
	if err := rotation.CheckLease(ctx); err != nil {
		return nil, nil, err
	}
	var answer struct {
		Certificate string   `json:"crt"`
		Chain       []string `json:"certChain"`
	}
	if err := s.post(ctx, "having a certificate signed", "sign", asked, &answer); err != nil {
		return nil, nil, err
	}
	if len(answer.Chain) == 0 {
		return nil, nil, unknown("run it again", "having a certificate signed: there is none in the answer")
	}
	return []byte(strings.Join(answer.Chain, "\n")), key, nil
}

// lost finds nothing: see [stepIssuer].
func (b stepIssuer) lost(ctx context.Context, v rotation.Version) ([]*issuance, error) {
	if v.Public[publicOrder] != "" {
		return nil, refused("put the section acme back until this version has ended", "version %d was ordered from an ACME server", v.Number)
	}
	_, err := b.open(ctx) // an authority that does not answer is no authority that has nothing
	return nil, err
}

// callOff says what cannot be done.
func (b stepIssuer) callOff(ctx context.Context, v rotation.Version) error {
	b.options.Logger.WarnContext(ctx, "whether a certificate was signed is not known, and step-ca lists none: its key is in nobody's hand, and its time ends it", "version", v.Number)
	return nil
}

// revoke revokes a certificate.
func (b stepIssuer) revoke(ctx context.Context, leaf *x509.Certificate, reason int) error {
	s, err := b.open(ctx)
	if err != nil {
		return err
	}
	serial := leaf.SerialNumber.String()
	token, err := s.token("revoke", claims{Subject: serial})
	if err != nil {
		return err
	}
	err = s.post(ctx, fmt.Sprintf("revoking certificate %x", leaf.SerialNumber), "revoke",
		map[string]any{"serial": serial, "ott": token, "reasonCode": reason, "reason": reasonText(reason), "passive": true}, nil)
	if a := saidBy(err); a != nil && strings.Contains(a.Message, "already revoked") {
		return nil
	}
	return err
}

// warnings are what people should know of the authority.
func (b stepIssuer) warnings(context.Context) ([]string, error) {
	return []string{"step-ca lists nothing of what it signed: what a killed run had signed, and never heard of, cannot be revoked; its key is in nobody's hand"}, nil
}
