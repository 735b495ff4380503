package github

import (
	"cmp"
	"net/url"
	"regexp"
	"strings"

	"github.com/google/go-github/v60/github"

	"github.com/keyturn/keyturn/internal/githubapp"
	"github.com/keyturn/keyturn/internal/rotation"
)

// A KeyBackend rotates one deploy key of one repository.
type KeyBackend struct {
	key         DeployKey
	options     Options
	owner, repo string
	title       string // without a version
	endpoints   []string
	knownHosts  string
}

// The interfaces that a KeyBackend fulfils.
var (
	_ rotation.Backend     = (*KeyBackend)(nil)
	_ rotation.Drafter     = (*KeyBackend)(nil)
	_ rotation.Recognizer  = (*KeyBackend)(nil)
	_ rotation.Preflighter = (*KeyBackend)(nil)
	_ rotation.Comparer    = (*KeyBackend)(nil)
	_ rotation.Warner      = (*KeyBackend)(nil)
	_ rotation.Examiner    = (*KeyBackend)(nil)
	_ rotation.Nouner      = (*KeyBackend)(nil)
)

func newKeys(s Settings, o Options) (*KeyBackend, error) {
	b := &KeyBackend{key: *s.DeployKey, options: o, title: cmp.Or(s.DeployKey.Title, "keyturn "+o.Credential)}
	b.owner, b.repo, _ = strings.Cut(s.DeployKey.Repository, "/")
	host := gitHost(o.App.Server())
	if b.endpoints = b.key.Probe; len(b.endpoints) == 0 {
		b.endpoints = []string{"ssh://git@" + host + "/" + b.key.Repository + ".git"}
	}
	b.knownHosts = string(o.KnownHosts)
	if b.key.KnownHosts == "" {
		if len(b.key.Probe) == 0 && !ofGitHub(host) {
			return nil, rotation.Errorf(rotation.Invalid, "name a file of known hosts: deploy-key: {known-hosts: .github/known_hosts}",
				"github: the keys of %s are not known: only those of github.com are built in", host)
		}
		b.knownHosts = builtIn
	}
	for _, e := range b.endpoints {
		if _, err := keysOf(b.knownHosts, e); err != nil {
			return nil, rotation.Errorf(rotation.Invalid, "add its line: ssh-keyscan HOST >> FILE, and compare it with what its administrator says",
				"github: known-hosts: %w", err)
		}
	}
	return b, nil
}

// Noun implements [rotation.Nouner].
func (b *KeyBackend) Noun() string { return "deploy key" }

// gitHost returns the host that serves Git for an API: https://api.github.com,
// https://api.acme.ghe.com, https://ghe.acme.io/api/v3.
func gitHost(api string) string {
	u, err := url.Parse(api)
	if err != nil {
		return ""
	}
	return strings.TrimPrefix(u.Hostname(), "api.")
}

var fingerprintForm = regexp.MustCompile(`^SHA256:[A-Za-z0-9+/]{43}$`)

// printOf returns the fingerprint that a version's key is known by, which is on the
// record with the version; "" if it has none, or its identity, which is the title of
// the key, is that of another version.
func printOf(v rotation.Version) string {
	_, number := rotation.ParseTitle(v.Identity)
	if v.Identity == "" || number != v.Number && !(number == 0 && v.Number == 1) { // an adopted key has any title
		return ""
	}
	return v.Public[fieldFingerprint]
}

// client returns GitHub with what is needed to read keys, or to change them.
func (b *KeyBackend) client(level string) *githubapp.Client {
	return b.options.App.Client(github.InstallationPermissions{Administration: &level})
}
