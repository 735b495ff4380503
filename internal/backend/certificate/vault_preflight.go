package certificate

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/keyturn/keyturn/internal/backend/remote/vaultapi"
)

// A pkiRole is what the engine says of a role.
type pkiRole struct {
	TTL         int64    `json:"ttl"`     // seconds
	MaxTTL      int64    `json:"max_ttl"` // seconds
	KeyType     string   `json:"key_type"`
	KeyBits     int      `json:"key_bits"`
	NoStore     bool     `json:"no_store"`
	Lease       bool     `json:"generate_lease"`
	Server      bool     `json:"server_flag"`
	CodeSigning bool     `json:"code_signing_flag"`
	Email       bool     `json:"email_protection_flag"`
	Uses        []string `json:"ext_key_usage"`
	RequireCN   bool     `json:"require_cn"`
	AllowIPs    bool     `json:"allow_ip_sans"`
}

func (b vaultIssuer) role(ctx context.Context, c *vaultapi.Client) (role pkiRole, err error) {
	name := b.settings.Vault.Role
	found, err := c.Read(ctx, "reading role "+name, b.path("roles/"+name), &role)
	if err == nil && !found {
		err = refused("see: vault list "+b.path("roles")+"; vault secrets list", "there is no role %q at %s", name, b.settings.Vault.mount())
	}
	return role, err
}

// needs are the paths that the token must be let at, and how.
func (b vaultIssuer) needs() map[string][]string {
	name := b.settings.Vault.Role
	return map[string][]string{
		b.path("roles/" + name): {"read"},
		b.path("sign/" + name):  {"update"},
		b.path("certs"):         {"list"},
		b.path("revoke"):        {"update"},
		b.path("config/crl"):    {"read"},
	}
}

// preflight checks that every server is there and unsealed, that the token may do what is needed,
// and that what the role signs can be found, used and revoked.
func (b vaultIssuer) preflight(ctx context.Context) error {
	c, err := b.open(ctx)
	if err != nil {
		return err
	}
	defer c.Close()
	if err := c.Able(ctx, b.needs()); err != nil {
		return err
	}
	role, err := b.role(ctx, c)
	if err != nil {
		return err
	}
	if err := b.fits(role); err != nil {
		return err
	}
	told, err := b.telling(ctx, c)
	if err == nil && told.NoList && told.NoOCSP && b.settings.CRL == "" {
		err = refused("vault write "+b.path("config/crl")+" disable=false ocsp_disable=false", "the engine at %s tells nobody what it revoked", b.settings.Vault.mount())
	}
	return err
}

// telling is how the engine tells what it revoked.
type telling struct {
	NoList  bool `json:"disable"`
	NoOCSP  bool `json:"ocsp_disable"`
	Rebuild bool `json:"auto_rebuild"`
}

func (b vaultIssuer) telling(ctx context.Context, c *vaultapi.Client) (told telling, err error) {
	_, err = c.Read(ctx, "reading how it tells what was revoked", b.path("config/crl"), &told)
	return told, err
}

// fits refuses a role whose certificates would be refused, or could not be found or ended.
func (b vaultIssuer) fits(role pkiRole) error {
	v := b.settings.Vault
	set := "vault patch " + b.path("roles/"+v.Role) + " "
	names, addresses := b.settings.kinds()
	asked := v.life()
	most := time.Duration(role.MaxTTL) * time.Second
	life := cmp.Or(asked, time.Duration(role.TTL)*time.Second, most)
	kind, bits := b.settings.keyKind()
	fitting := role.KeyType == "any" || role.KeyType == kind && (role.KeyBits == 0 || role.KeyBits == bits || kind == "rsa" && bits > role.KeyBits)
	switch {
	case role.NoStore:
		return refused(set+"no_store=false", "role %q keeps nothing of what it signs: what comes of a run that is cut off could not be found, and nothing be revoked", v.Role)
	case role.Lease:
		return refused(set+"generate_lease=false", "role %q has leases: a certificate is revoked when the token ends that had it signed", v.Role)
	case !fitting:
		return refused(fmt.Sprintf("%skey_type=any key_bits=0, or write key-type: as the role has it", set), "role %q signs keys of type %s with %d bits, and the key is %s", v.Role, role.KeyType, role.KeyBits, cmp.Or(b.settings.KeyType, ecdsaP256))
	case !role.Server && !slices.ContainsFunc(role.Uses, func(u string) bool { return strings.EqualFold(u, "ServerAuth") }):
		return refused(set+"server_flag=true", "role %q signs nothing for servers", v.Role)
	case role.CodeSigning || role.Email:
		return refused(set+"code_signing_flag=false email_protection_flag=false", "role %q signs what may be used for more than connections", v.Role)
	case len(addresses) > 0 && !role.AllowIPs:
		return refused(set+"allow_ip_sans=true", "role %q signs no IP addresses", v.Role)
	case len(names) == 0 && role.RequireCN:
		return refused(set+"require_cn=false", "role %q wants a common name, and the certificate is for addresses alone", v.Role)
	case most > 0 && asked > most:
		return refused(fmt.Sprintf("%smax_ttl=%s, or a shorter ttl", set, asked), "role %q lets certificates live for %s, and ttl says %s", v.Role, vaultapi.ShowTTL(most), v.TTL)
	case life > 0 && life <= b.options.Overlap:
		return tooShort(vaultapi.ShowTTL(life), b.options.Overlap)
	}
	return nil
}

// tooShort refuses a life that an overlap does not fit into.
func tooShort(life string, overlap time.Duration) error {
	return refused("let it live for three overlaps: it is due at two thirds of its life, and has to last through the overlap after that", "a certificate would live for %s, and the overlap is %s", life, overlap)
}

// keyKind is how the engine calls the kind of key.
func (s Settings) keyKind() (kind string, bits int) {
	switch s.KeyType {
	case ecdsaP384:
		return "ec", 384
	case rsa2048:
		return "rsa", 2048
	case rsa3072:
		return "rsa", 3072
	case rsa4096:
		return "rsa", 4096
	}
	return "ec", 256
}

// warnings are what people should know of the engine.
func (b vaultIssuer) warnings(ctx context.Context) ([]string, error) {
	out := []string{"Vault takes no reason for a revocation: after a theft its list says no more than after a rotation"}
	c, err := b.open(ctx)
	if err != nil {
		return nil, err
	}
	defer c.Close()
	told, err := b.telling(ctx, c)
	if err != nil {
		return nil, err
	}
	if told.Rebuild && told.NoOCSP {
		out = append(out, "the engine at "+b.settings.Vault.mount()+" writes its list of what was revoked from time to time alone (auto_rebuild): cleanup stays open until it did")
	}
	return out, nil
}
