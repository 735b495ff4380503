package vault

import (
	"errors"
	"fmt"
	"net/netip"
	"regexp"
	"time"

	"github.com/keyturn/keyturn/internal/backend/remote"
	"github.com/keyturn/keyturn/internal/backend/remote/vaultapi"
	"github.com/keyturn/keyturn/internal/rotation"
	"github.com/keyturn/keyturn/internal/secret"
)

// Settings is the section "vault" of a credential in the configuration: what is rotated,
// and as whom Vault is asked.
type Settings struct {
	// Servers holds the URL of the API of every node, as the administrator reaches it, or
	// of what stands before them: https://vault-1.example.com:8200. They are asked in
	// their order, until one answers.
	Servers []string `yaml:"servers"`

	// Token says where the administrator's token stands.
	Token secret.Source `yaml:"token"`

	// CA is the path of the PEM file with the authority that signs the certificates of
	// the servers and of what stands under probe. Empty means the system's.
	CA string `yaml:"ca"`

	// AppRole is a secret-id of a role.
	AppRole *AppRole `yaml:"approle"`

	// Seal are the shares of the unseal key, Recovery those of the recovery key of a Vault that
	// unseals itself, and Barrier is the key with which Vault encrypts what it stores.
	Seal     *Shares  `yaml:"seal"`
	Recovery *Shares  `yaml:"recovery"`
	Barrier  *Barrier `yaml:"barrier"`

	// InsecureTLS weakens the connections by name: "tls-1.2", "plaintext". Default: none,
	// which is verified TLS 1.3.
	InsecureTLS []string `yaml:"insecure-tls"`
}

// AppRole says which role's secret-id is rotated, and what a new one is made with.
type AppRole struct {
	// Role is the name of the role.
	Role string `yaml:"role"`

	// Mount is where AppRole is enabled. Default: approle, which is auth/approle.
	Mount string `yaml:"mount"`

	// Probe holds the URLs by which services reach Vault. Default: the servers.
	Probe []string `yaml:"probe"`

	// Adopt is the accessor of the secret-id that services use today. Default: the one
	// that there is.
	Adopt string `yaml:"adopt"`

	// TTL is how long a secret-id lives, as 120d: a net for the case that nobody rotates.
	// Default: it has no end.
	TTL string `yaml:"secret-id-ttl"`

	// Metadata, CIDRs and TokenCIDRs are those of a new secret-id. Default of each:
	// what the one in service has.
	Metadata   map[string]string `yaml:"metadata"`
	CIDRs      []string          `yaml:"cidr-list"`
	TokenCIDRs []string          `yaml:"token-bound-cidrs"`
}

// Section decodes and checks the section. Its error joins what the decoder says and
// a [rotation.Fault] for every problem of what was decoded all the same. No fault
// repeats a value: somebody may have written a secret in its place.
func Section(decode func(any) error) (any, error) {
	var s Settings
	err := decode(&s)
	return s, errors.Join(err, s.check())
}

// The fields of a version.
const (
	fieldSecretID = "secret_id"
	fieldRoleID   = "role_id" // as a user's name: it is no secret
	fieldAddress  = "address" // of the API, as the first probe has it
)

// Fields returns the names of the fields of every version.
func (s Settings) Fields() []string {
	if s.Held() {
		return nil
	}
	return []string{fieldAddress, fieldRoleID, fieldSecretID}
}

// PublicFields returns the names of the fields that are no secret.
func (s Settings) PublicFields() []string {
	if s.Held() {
		return nil
	}
	return []string{fieldAddress, fieldRoleID}
}

// DerivedFields returns the names of the public fields that the services of today may
// not have.
func (s Settings) DerivedFields() []string { return s.PublicFields() }

// Pace returns how often the credential is rotated, and how long two of them are
// valid, unless the configuration says otherwise.
func (s Settings) Pace() (every, overlap time.Duration) {
	if s.Held() {
		return 365 * 24 * time.Hour, 0
	}
	return 30 * 24 * time.Hour, 2 * time.Hour
}

// Life returns how long a version can be valid at all; 0 if nothing limits it.
func (s Settings) Life() time.Duration {
	if s.AppRole == nil {
		return 0
	}
	return s.AppRole.life()
}

func (a AppRole) life() time.Duration {
	d, err := vaultapi.ParseTTL(a.TTL)
	if err != nil {
		return 0 // it is empty, or a fault
	}
	return d
}

func (a AppRole) mount() string {
	if a.Mount == "" {
		return "approle"
	}
	return a.Mount
}

func (s Settings) probes() []string {
	if s.AppRole == nil || len(s.AppRole.Probe) == 0 {
		return s.Servers
	}
	return s.AppRole.Probe
}

func (s Settings) check() error {
	var faults []error
	fault := func(path, tip, format string, args ...any) {
		faults = append(faults, &rotation.Fault{Path: path, Text: fmt.Sprintf(format, args...), Tip: tip})
	}
	s.access().Check(fault)
	s.checkWhat(fault)
	return errors.Join(faults...)
}

// usable says what is wrong with settings and options; nil if nothing is.
func (s Settings) usable(o Options) error {
	if err := s.check(); err != nil {
		return rotation.Classify(rotation.Invalid, "", fmt.Errorf("vault: %w", err))
	}
	if _, err := remote.TLS(o.CA, s.InsecureTLS); err != nil {
		return rotation.Classify(rotation.Invalid, "name a PEM file with the authority's certificate", fmt.Errorf("vault: ca %q: %w", s.CA, err))
	}
	return nil
}

var (
	accessorForm = regexp.MustCompile(`^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$`)
	metadataForm = regexp.MustCompile(`^[A-Za-z0-9_.-]{1,64}$`)
)

func (a AppRole) check(fault vaultapi.FaultFunc) {
	switch {
	case a.Role == "":
		fault("approle.role", "write its name, which `vault list auth/approle/role` says", "the role is missing")
	case !vaultapi.RoleForm.MatchString(a.Role):
		fault("approle.role", "letters, digits and _ . @ - alone", "this cannot be the name of a role")
	}
	if a.Mount != "" && !vaultapi.MountForm.MatchString(a.Mount) {
		fault("approle.mount", "write what follows auth/, as in `vault auth list`: approle", "this cannot be a mount")
	}
	if a.Adopt != "" && !accessorForm.MatchString(a.Adopt) {
		fault("approle.adopt", "write the accessor, which `vault list auth/approle/role/ROLE/secret-id` says; never the secret-id", "this is no accessor of a secret-id")
	}
	if d, err := vaultapi.ParseTTL(a.TTL); a.TTL != "" && (err != nil || d < time.Minute || d%time.Second != 0) {
		fault("approle.secret-id-ttl", "write it as 120d, longer than every and overlap together", "this is no time of a minute or more")
	}
	for name := range a.Metadata {
		if !metadataForm.MatchString(name) || name == metaKey || name == metaRole {
			fault("approle.metadata", "1 to 64 of A-Z a-z 0-9 _ . -, and neither "+metaKey+" nor "+metaRole, "a key cannot be one of metadata")
			break
		}
	}
	for key, blocks := range map[string][]string{"cidr-list": a.CIDRs, "token-bound-cidrs": a.TokenCIDRs} {
		for i, block := range blocks {
			if _, err := netip.ParsePrefix(block); err != nil {
				fault(fmt.Sprintf("approle.%s.%d", key, i), "write it as 10.0.3.0/24", "this is no block of addresses")
			}
		}
	}
}
