package certificate

import (
	"context"
	"crypto"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/hashicorp/vault/api"

	"github.com/keyturn/keyturn/internal/backend/remote"
	"github.com/keyturn/keyturn/internal/backend/remote/vaultapi"
	"github.com/keyturn/keyturn/internal/rotation"
)

// A vaultIssuer has certificates signed by the PKI engine of a Vault. The engine knows no orders
// and chooses serials itself, so what it is asked to sign is known by its public key, which is on the
// record before.
type vaultIssuer struct{ *Backend }

func (b vaultIssuer) open(ctx context.Context) (*vaultapi.Client, error) {
	return vaultapi.Open(ctx, b.settings.Vault.access(), b.options.Options)
}

// path is one below the mount.
func (b vaultIssuer) path(below string) string { return b.settings.Vault.mount() + "/" + below }

// identify asks for the role: the next version needs nothing of the one in service.
func (b vaultIssuer) identify(ctx context.Context, _ rotation.Version, _ *rotation.Version) error {
	c, err := b.open(ctx)
	if err != nil {
		return err
	}
	defer c.Close()
	_, err = b.role(ctx, c)
	return err
}

// order makes the key, whose public half is what everything is found by.
func (b vaultIssuer) order(_ context.Context, v rotation.Version) (rotation.Version, error) {
	return b.orderKey(v)
}

// signed is what the engine answers.
type signed struct {
	Certificate string   `json:"certificate"`
	Issuer      string   `json:"issuing_ca"`
	Chain       []string `json:"ca_chain"`
}

func (s signed) pem() []byte {
	if len(s.Chain) == 0 {
		s.Chain = []string{s.Issuer}
	}
	return []byte(s.Certificate + "\n" + strings.Join(s.Chain, "\n") + "\n")
}

// mint has the public key signed. It is asked for once: a second request would be a second
// certificate.
func (b vaultIssuer) mint(ctx context.Context, v rotation.Version) ([]byte, crypto.Signer, error) {
	key, err := b.keyOf(v)
	if err != nil {
		return nil, nil, err
	}
	c, err := b.open(ctx)
	if err != nil {
		return nil, nil, err
	}
	defer c.Close()
	asked, err := b.asked(key)
	if err != nil {
		return nil, nil, err
	}
	if err := rotation.CheckLease(ctx); err != nil {
		return nil, nil, err
	}
	var answer signed
	found, err := c.AskOnce(ctx, "having a certificate signed", &answer, func(ctx context.Context, l *api.Logical) (*api.Secret, error) {
		return l.WriteWithContext(ctx, b.path("sign/"+b.settings.Vault.Role), asked)
	})
	if said := vaultapi.Answered(err); said != nil && said.Status == http.StatusBadRequest {
		return nil, nil, rotation.Classify(rotation.Failed, "what may be signed stands in the role: vault read "+b.path("roles/"+b.settings.Vault.Role), err)
	}
	if err == nil && (!found || answer.Certificate == "") {
		err = unknown("run it again", "having a certificate signed: there is none in the answer")
	}
	return answer.pem(), key, err
}

// asked is what the engine is told. Roles take the names from the request or from what stands
// beside it, so both have them.
func (b vaultIssuer) asked(key crypto.Signer) (map[string]any, error) {
	names, addresses := b.settings.kinds()
	var subject pkix.Name
	if i := slices.IndexFunc(names, func(n string) bool { return len(n) <= maxCommonName }); i >= 0 {
		subject.CommonName = names[i]
	}
	der, err := b.settings.request(subject, key)
	if err != nil {
		return nil, err
	}
	var ips []string
	for _, a := range addresses {
		ips = append(ips, a.String())
	}
	asked := map[string]any{"csr": string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: der})), "format": "pem",
		"common_name": subject.CommonName, "alt_names": strings.Join(names, ","), "ip_sans": strings.Join(ips, ","), "exclude_cn_from_sans": true}
	if d := b.settings.Vault.life(); d > 0 {
		asked["ttl"] = fmt.Sprintf("%ds", d/time.Second)
	}
	return asked, nil
}

const maxCommonName = 64 // of X.520

// stored is what the engine says of a certificate that it keeps.
type stored struct {
	Certificate string `json:"certificate"`
	Revoked     int64  `json:"revocation_time"` // Unix; 0: it was not
}

// read returns what the engine keeps under a serial; nil if it keeps nothing.
func (b vaultIssuer) read(ctx context.Context, c *vaultapi.Client, serial string) (*stored, *x509.Certificate, error) {
	var kept stored
	found, err := c.Read(ctx, "reading certificate "+serial, b.path("cert/"+serial), &kept)
	if err != nil || !found {
		return nil, nil, err
	}
	block, _ := pem.Decode([]byte(kept.Certificate))
	if block == nil {
		return nil, nil, fmt.Errorf("certificate: reading certificate %s: there is none in the answer", serial)
	}
	leaf, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		return nil, nil, fmt.Errorf("certificate: reading certificate %s: %w", serial, err)
	}
	return &kept, leaf, nil
}

// lost looks at all that the engine keeps for what has the public key of a version: it knows
// no other way to ask.
func (b vaultIssuer) lost(ctx context.Context, v rotation.Version) ([]*issuance, error) {
	want := v.Public[publicKey]
	if want == "" {
		return nil, refused("put the section acme back until this version has ended", "version %d was ordered from an ACME server", v.Number)
	}
	c, err := b.open(ctx)
	if err != nil {
		return nil, err
	}
	defer c.Close()
	serials, err := c.List(ctx, "listing the certificates", b.path("certs"))
	if err == nil && len(serials) == 0 { // which is the answer of a mount that is not there, too
		_, err = b.role(ctx, c)
	}
	if err != nil {
		return nil, err
	}
	var mu sync.Mutex
	var found []*issuance
	err = c.Each(ctx, serials, func(ctx context.Context, serial string) error {
		if b.other(serial, want) {
			return nil
		}
		kept, leaf, err := b.read(ctx, c, serial)
		if err != nil || kept == nil {
			return err
		}
		hash, _ := hashOfKey(leaf.PublicKey) // "" of a kind that is not ours
		mu.Lock()
		defer mu.Unlock()
		b.learn(serial, hash)
		if hash == want {
			found = append(found, &issuance{leaf: leaf, chain: []*x509.Certificate{leaf}})
		}
		return nil
	})
	if err != nil || len(found) == 0 {
		return nil, err
	}
	return found, b.sign(ctx, c, found)
}

// other reports whether a certificate is known to have another public key.
func (b vaultIssuer) other(serial, hash string) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	known, ok := b.kept[serial]
	return ok && known != hash
}

// learn remembers the public key of a certificate, which never changes.
func (b vaultIssuer) learn(serial, hash string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.kept[serial] = hash
}

// sign finds who signed certificates, among the engine's issuers.
func (b vaultIssuer) sign(ctx context.Context, c *vaultapi.Client, found []*issuance) error {
	ids, err := c.List(ctx, "listing the issuers", b.path("issuers"))
	if err != nil {
		return err
	}
	for _, id := range ids {
		var answer signed
		if _, err := c.Read(ctx, "reading issuer "+id, b.path("issuer/"+id+"/json"), &answer); err != nil {
			return err
		}
		block, _ := pem.Decode([]byte(answer.Certificate))
		if block == nil {
			continue // a key without a certificate
		}
		cert, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return fmt.Errorf("certificate: reading issuer %s: %w", id, err)
		}
		for _, i := range found {
			if i.issuer == nil && i.leaf.CheckSignatureFrom(cert) == nil {
				i.issuer = cert
			}
		}
	}
	return nil
}

// late is how long a request that was given up may take to be answered after all.
const late = time.Second

// callOff looks once more: nothing can be called off, but a request that was on its way when its
// run was cut off may have come in since. What it made is of use to nobody: its key was in
// that run's memory alone.
func (b vaultIssuer) callOff(ctx context.Context, v rotation.Version) error {
	if err := remote.Pause(ctx, late); err != nil {
		return unknown("", "waiting: %w", err)
	}
	found, err := b.lost(ctx, v)
	if err == nil && len(found) > 0 {
		err = unknown("run it again", "a certificate of version %d was signed meanwhile", v.Number)
	}
	return err
}

// serialOf is the serial of a certificate as the engine writes it.
func serialOf(leaf *x509.Certificate) string {
	var out []string
	for _, b := range leaf.SerialNumber.Bytes() {
		out = append(out, fmt.Sprintf("%02x", b))
	}
	return strings.Join(out, ":")
}

// revoke revokes a certificate. The engine takes no reason, and says none to anybody.
func (b vaultIssuer) revoke(ctx context.Context, leaf *x509.Certificate, _ int) error {
	c, err := b.open(ctx)
	if err != nil {
		return err
	}
	defer c.Close()
	var answer struct {
		Revoked int64  `json:"revocation_time"`
		State   string `json:"state"`
	}
	_, err = c.Write(ctx, fmt.Sprintf("revoking certificate %x", leaf.SerialNumber), b.path("revoke"), map[string]any{"serial_number": serialOf(leaf)}, &answer)
	if said := vaultapi.Answered(err); said != nil && strings.Contains(said.Text, "not found") {
		return rotation.Classify(rotation.Failed, "revoke it where it was issued, then run this again", err)
	}
	if err == nil && answer.Revoked == 0 {
		err = unknown("is it on another cluster? run it again", "revoking certificate %x: %w", leaf.SerialNumber, errors.New("the engine does not say that it did"))
	}
	return err
}

// view says when the engine revoked a certificate.
func (b vaultIssuer) view(ctx context.Context, leaf *x509.Certificate) (string, error) {
	c, err := b.open(ctx)
	if err != nil {
		return "", err
	}
	defer c.Close()
	kept, _, err := b.read(ctx, c, serialOf(leaf))
	switch {
	case err != nil:
		return "", err
	case kept == nil:
		return ", which Vault does not keep", nil
	case kept.Revoked != 0:
		return ", revoked in Vault at " + time.Unix(kept.Revoked, 0).UTC().Format(time.RFC3339), nil
	}
	return "", nil
}
