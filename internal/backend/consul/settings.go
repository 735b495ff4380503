package consul

import (
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/keyturn/keyturn/internal/backend/remote"
	"github.com/keyturn/keyturn/internal/rotation"
	"github.com/keyturn/keyturn/internal/secret"
)

// Settings is the section "consul" of a credential in the configuration: an ACL token,
// and as whom Consul is asked.
type Settings struct {
	// Servers holds the URL of the HTTP API of every server of the datacenter, as the
	// administrator reaches it: https://consul-1.example.com:8501. Each is asked by itself.
	Servers []string `yaml:"servers"`

	// Token says where the administrator's token stands. It needs acl = "write".
	Token secret.Source `yaml:"token"`

	// Itself says that the credential is that very token, which is read from the folder that
	// the target writes: token: {from-file: FOLDER/current/token}.
	Itself bool `yaml:"own"`

	// CA is the path of the PEM file with the authority that signs the certificates of
	// the servers and of what stands under probe. Empty means the system's.
	CA string `yaml:"ca"`

	// Probe holds the URLs by which services reach Consul, which may be those of client
	// agents. Default: the servers.
	Probe []string `yaml:"probe"`

	// CacheTime is how long an agent under probe may believe what it knows of a token:
	// acl.token_ttl of its configuration. Default: 30 s, Consul's own.
	CacheTime string `yaml:"cache-time"`

	// Description stands at every token, before the version. Default: keyturn and the
	// name of the credential.
	Description string `yaml:"description"`

	// Adopt is the accessor of the token that services use today.
	Adopt string `yaml:"adopt"`

	// Policies, Roles, ServiceIdentities and NodeIdentities are what a new token is
	// linked with: names; of an identity, NAME or NAME@DATACENTER. Default: what the token in
	// service is linked with.
	Policies          []string `yaml:"policies"`
	Roles             []string `yaml:"roles"`
	ServiceIdentities []string `yaml:"service-identities"`
	NodeIdentities    []string `yaml:"node-identities"`

	// InsecureTLS weakens the connections by name: "tls-1.2", "plaintext". Default: none,
	// which is verified TLS 1.3.
	InsecureTLS []string `yaml:"insecure-tls"`

	// GossipKey is there if the key is rotated that agents encrypt their gossip with,
	// and no token.
	GossipKey *GossipKey `yaml:"gossip-key"`

	// AgentToken is there if agents use the token themselves.
	AgentToken *AgentToken `yaml:"agent-token"`
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
	fieldToken    = "token"    // the SecretID
	fieldAccessor = "accessor" // the AccessorID
	fieldAddress  = "address"  // of the API, as the first probe has it
)

// Fields returns the names of the fields of every version.
func (s Settings) Fields() []string {
	if s.GossipKey != nil {
		return []string{fieldFingerprint, fieldKey}
	}
	return []string{fieldAccessor, fieldAddress, fieldToken}
}

// PublicFields returns the names of the fields that are no secret.
func (s Settings) PublicFields() []string {
	if s.GossipKey != nil {
		return []string{fieldFingerprint}
	}
	return []string{fieldAccessor, fieldAddress}
}

// DerivedFields returns the names of the public fields that the services of today may
// not have: whoever has the token could tell them.
func (s Settings) DerivedFields() []string { return s.PublicFields() }

// Pace returns how often the credential is rotated, and how long two of them are
// valid, unless the configuration says otherwise.
func (s Settings) Pace() (every, overlap time.Duration) {
	if s.GossipKey != nil {
		return 90 * 24 * time.Hour, 24 * time.Hour
	}
	return 30 * 24 * time.Hour, 2 * time.Hour
}

// defaultCacheTime is Consul's own acl.token_ttl.
const defaultCacheTime = 30 * time.Second

func (s Settings) cacheTime() time.Duration {
	if d, err := time.ParseDuration(s.CacheTime); err == nil {
		return d
	}
	return defaultCacheTime
}

func (s Settings) probes() []string {
	switch {
	case len(s.Probe) > 0:
		return s.Probe
	case s.AgentToken != nil && len(s.AgentToken.Agents) > 0: // each must know a token before it is told it
		return s.AgentToken.Agents
	}
	return s.Servers
}

// declared reports whether the section says what a token may do.
func (s Settings) declared() bool {
	return len(s.Policies)+len(s.Roles)+len(s.ServiceIdentities)+len(s.NodeIdentities) > 0
}

type faultFunc func(path, tip, format string, args ...any)

var (
	// accessorForm is what an accessor looks like.
	accessorForm = regexp.MustCompile(`^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$`)

	linkForm     = regexp.MustCompile(`^[A-Za-z0-9_-]{1,128}$`)
	identityForm = regexp.MustCompile(`^[a-z0-9]([a-z0-9_-]{0,254}[a-z0-9])?(@[a-z0-9_-]+)?$`)
)

func (s Settings) check() error {
	var faults []error
	fault := func(path, tip, format string, args ...any) {
		faults = append(faults, &rotation.Fault{Path: path, Text: fmt.Sprintf(format, args...), Tip: tip})
	}
	const hint = "write them as https://consul-1.example.com:8501"
	if len(s.Servers) == 0 {
		fault("servers", hint, "no server is named")
	}
	if s.GossipKey != nil {
		s.checkGossip(fault)
	}
	if s.AgentToken != nil {
		s.checkAgents(fault)
	}
	for key, urls := range map[string][]string{"servers": s.Servers, "probe": s.Probe} {
		for i, u := range urls {
			if tip, problem := remote.Problem(u, "https://consul-1.example.com:8501", s.InsecureTLS); problem != "" {
				fault(fmt.Sprintf("%s.%d", key, i), tip, "%s", problem)
			} else if slices.Contains(urls[:i], u) {
				fault(fmt.Sprintf("%s.%d", key, i), "name each once", "the same URL stands there twice")
			}
		}
	}
	if tip, problem := s.Token.Problem(); problem != "" {
		fault("token", tip, "the administrator's token %s", problem)
	}
	if d, err := time.ParseDuration(s.CacheTime); s.CacheTime != "" && (err != nil || d < 0 || d > time.Hour) {
		fault("cache-time", "write acl.token_ttl of the agents: 30s", "this is no time from 0s to 1h")
	}
	if s.Description != "" && !rotation.TitleForm.MatchString(s.Description) {
		fault("description", "at most 100 of A-Z a-z 0-9 . _ @ / - and spaces, a letter or a digit at both ends", "the description has other characters, or too many")
	}
	if s.Adopt != "" && !accessorForm.MatchString(s.Adopt) {
		fault("adopt", "write the AccessorID, which `consul acl token read -self` says of a token; never the SecretID", "this is no accessor of a token")
	}
	s.checkLinks(fault)
	s.checkOwn(fault)
	for i, w := range s.InsecureTLS {
		if !slices.Contains(remote.Weakenings, w) {
			fault(fmt.Sprintf("insecure-tls.%d", i), "known are "+strings.Join(remote.Weakenings, ", "), "unknown weakening")
		}
	}
	return errors.Join(faults...)
}

// Own reports whether the credential is the token that Consul is asked with.
func (s Settings) Own() bool { return s.Itself }

// Place returns the key that names the folder in which a credential's target must keep
// it, and the folder; "" for any.
func (s Settings) Place() (key, folder string) {
	if !s.Itself {
		return "", ""
	}
	folder, _ = s.Token.Beside(fieldToken)
	return "token", folder
}

func (s Settings) checkOwn(fault faultFunc) {
	_, moved := s.Token.Beside(fieldToken)
	switch {
	case !s.Itself:
	case s.GossipKey != nil || s.AgentToken != nil:
		fault("own", "make a credential of its own", "Keyturn's own token is for nothing else")
	case !moved:
		fault("own", "write token: {from-file: /FOLDER/NAME/current/token}, as the directory target writes it", "the token is read from no place that the cutover moves")
	}
}

func (s Settings) checkLinks(fault faultFunc) {
	for key, names := range map[string][]string{"policies": s.Policies, "roles": s.Roles} {
		for i, n := range names {
			if !linkForm.MatchString(n) {
				fault(fmt.Sprintf("%s.%d", key, i), "1 to 128 of A-Z a-z 0-9 _ -", "this cannot be a name")
			}
			if n == managementPolicy {
				fault(fmt.Sprintf("%s.%d", key, i), "link a policy with what the services need", "a token of a service may do everything")
			}
		}
	}
	for key, names := range map[string][]string{"service-identities": s.ServiceIdentities, "node-identities": s.NodeIdentities} {
		for i, n := range names {
			if !identityForm.MatchString(n) {
				fault(fmt.Sprintf("%s.%d", key, i), "write NAME or NAME@DATACENTER", "this cannot be an identity")
			}
			if key == "node-identities" && !strings.Contains(n, "@") {
				fault(fmt.Sprintf("%s.%d", key, i), "write NAME@DATACENTER", "an identity of a node is of one datacenter")
			}
		}
	}
}

// managementPolicy may do everything.
const managementPolicy = "global-management"
