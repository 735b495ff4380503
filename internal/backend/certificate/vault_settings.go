package certificate

import (
	"cmp"
	"strings"
	"time"

	"github.com/keyturn/keyturn/internal/backend/remote/vaultapi"
	"github.com/keyturn/keyturn/internal/secret"
)

// Vault says how the PKI engine of a Vault is asked. The key is made here, and Vault signs: it
// never gets the key.
type Vault struct {
	// Servers holds the URL of the API of every node, or of what stands before them. They are
	// asked in their order, until one answers.
	Servers []string `yaml:"servers"`

	// Token says where the token stands that may have a certificate signed and revoked.
	Token secret.Source `yaml:"token"`

	// Mount is where the engine is. Default: pki.
	Mount string `yaml:"mount"`

	// Role is the name of the engine's role by which a certificate is signed.
	Role string `yaml:"role"`

	// TTL is how long a certificate lives, as 30d. Default: the role's.
	TTL string `yaml:"ttl"`

	// CA is the path of the PEM file with the authority that signs the servers' own
	// certificates. Empty means the system's.
	CA string `yaml:"ca"`

	// InsecureTLS weakens the connections by name: "tls-1.2", "plaintext". Default: none,
	// which is verified TLS 1.3.
	InsecureTLS []string `yaml:"insecure-tls"`
}

// Documented says of every key what it is.
func (Vault) Documented() map[string]string {
	return map[string]string{
		"servers":      "The URL of the API of every node, or of what stands before them: " + vaultapi.ExampleURL + ". They are asked in their order, until one answers.",
		"token":        "Where the token stands that may have a certificate signed and revoked.",
		"mount":        "Where the PKI engine is. Default: pki.",
		"role":         "The name of the engine's role by which a certificate is signed.",
		"ttl":          "How long a certificate lives, such as 30d. Default: what the role says.",
		"ca":           "The path of the PEM file with the authority of the servers' own certificates. Default: the system's.",
		"insecure-tls": "Weakens the connections by name: tls-1.2, plaintext. Default: none.",
	}
}

func (v Vault) mount() string { return cmp.Or(v.Mount, "pki") }

func (v Vault) access() vaultapi.Access {
	return vaultapi.Access{Servers: v.Servers, Token: v.Token, InsecureTLS: v.InsecureTLS,
		Words: vaultapi.Words{Name: "certificate", Page: "certificate.md", Missing: "is vault.mount right? see: vault secrets list"}}
}

// life is how long a certificate is asked to live; 0: as long as the role says.
func (v Vault) life() time.Duration {
	d, err := vaultapi.ParseTTL(v.TTL)
	if err != nil {
		return 0 // it is empty, or a fault
	}
	return d
}

func (v Vault) check(fault faultFunc) {
	v.access().Check(func(path, tip, format string, args ...any) { fault("vault."+path, tip, format, args...) })
	if v.Mount != "" && !vaultapi.MountForm.MatchString(v.Mount) {
		fault("vault.mount", "write it as `vault secrets list` does: pki", "this cannot be a mount")
	}
	switch {
	case v.Role == "":
		fault("vault.role", "write its name, which `vault list "+"pki/roles` says", "the role is missing")
	case !vaultapi.RoleForm.MatchString(v.Role):
		fault("vault.role", "letters, digits and _ . @ - alone", "this cannot be the name of a role")
	}
	checkTTL("vault.ttl", v.TTL, fault)
}

// checkTTL checks how long a certificate is to live.
func checkTTL(path, ttl string, fault faultFunc) {
	if d, err := vaultapi.ParseTTL(ttl); ttl != "" && (err != nil || d < time.Minute || d%time.Second != 0) {
		fault(path, "write it as 30d, three times as long as overlap at least", "this is no time of a minute or more")
	}
}

// places are where an authority of the team's own tells what it revoked, for certificates that say
// nothing of it.
func (b *Backend) places() places {
	switch v, s := b.settings.Vault, b.settings.StepCA; {
	case v != nil:
		at := places{CA: b.options.CA, InsecureTLS: v.InsecureTLS}
		for _, s := range v.Servers {
			at.OCSP = append(at.OCSP, strings.TrimSuffix(s, "/")+"/v1/"+v.mount()+"/ocsp")
		}
		at.Lists = []string{strings.TrimSuffix(at.OCSP[0], "ocsp") + "crl"}
		return at
	case s != nil:
		return places{CA: b.options.CA, Lists: []string{strings.TrimSuffix(s.URL, "/") + "/1.0/crl"}}
	}
	return places{}
}
