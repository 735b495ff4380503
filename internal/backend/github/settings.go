package github

import (
	"errors"
	"fmt"
	"net/url"
	"regexp"
	"strings"
	"time"

	"github.com/keyturn/keyturn/internal/rotation"
	"github.com/keyturn/keyturn/internal/secret"
)

// Settings is the section "github" of a credential in the configuration: what is
// rotated, and as whom GitHub is asked.
type Settings struct {
	// DeployKey is a key of a repository.
	DeployKey *DeployKey `yaml:"deploy-key"`

	// InstallationToken is a token of the App for services.
	InstallationToken *InstallationToken `yaml:"installation-token"`

	// Webhook is the secret that deliveries of a webhook are signed with.
	Webhook *Webhook `yaml:"webhook"`

	// App and Token say as whom GitHub is asked for this credential. Default: as
	// whom the whole run asks.
	App   *App          `yaml:"app"`
	Token secret.Source `yaml:"token"`
}

// DeployKey says which key is rotated.
type DeployKey struct {
	// Repository is owner/name.
	Repository string `yaml:"repository"`

	// Title is what GitHub shows; the version follows it. Default: keyturn and the
	// name of the credential.
	Title string `yaml:"title"`

	// ReadOnly is whether the key may not push. Default: true.
	ReadOnly *bool `yaml:"read-only"`

	// Adopt is the fingerprint of the key that services use today, SHA256:….
	Adopt string `yaml:"adopt"`

	// Probe holds the URLs by which services clone: ssh://git@host[:port]/owner/name.git.
	// Default: the one of the server that is asked.
	Probe []string `yaml:"probe"`

	// KnownHosts is the path of a file of known hosts. Default: the keys of github.com.
	KnownHosts string `yaml:"known-hosts"`
}

// InstallationToken says what a token is for.
type InstallationToken struct {
	// Repositories are those that it may use, owner/name, of one owner.
	Repositories []string `yaml:"repositories"`

	// Permissions are what it may do there, as contents: read.
	Permissions map[string]string `yaml:"permissions"`
}

// Webhook says whose secret is rotated.
type Webhook struct {
	// Repository is owner/name.
	Repository string `yaml:"repository"`

	// Organization is whose webhook it is, instead of a repository's.
	Organization string `yaml:"organization"`

	// URL is the one that GitHub shows of the webhook of today.
	URL string `yaml:"url"`

	// Probe holds the URLs of the receivers, as services reach them. Default: URL.
	Probe []string `yaml:"probe"`
}

// App is a GitHub App.
type App struct {
	ID  uint64        `yaml:"id"`
	Key secret.Source `yaml:"key"` // PEM
}

// Section decodes and checks the section. Its error joins what the decoder says and
// a [rotation.Fault] for every problem of what was decoded all the same. No fault
// repeats a value: somebody may have written a secret in its place.
func Section(decode func(any) error) (any, error) {
	var s Settings
	err := decode(&s)
	s = s.withDefaults()
	return s, errors.Join(err, s.check())
}

// Fields returns the names of the fields of every version.
func (s Settings) Fields() []string {
	switch {
	case s.InstallationToken != nil:
		return []string{fieldExpires, fieldToken}
	case s.Webhook != nil:
		return []string{fieldSecret}
	}
	return []string{fieldFingerprint, fieldKey, fieldPublicKey, fieldURL}
}

// PublicFields returns the names of the fields that are no secret.
func (s Settings) PublicFields() []string {
	switch {
	case s.InstallationToken != nil:
		return []string{fieldExpires}
	case s.Webhook != nil:
		return nil
	}
	return []string{fieldFingerprint, fieldPublicKey, fieldURL}
}

// DerivedFields returns the names of the public fields that the services of today may
// not have: whoever has the key could tell them.
func (s Settings) DerivedFields() []string { return s.PublicFields() }

// The fields of a deploy key.
const (
	fieldKey         = "key"         // private, as ssh-keygen writes it
	fieldPublicKey   = "public-key"  // a line of authorized_keys, without a comment
	fieldFingerprint = "fingerprint" // SHA256:…
	fieldURL         = "url"         // that services clone
)

// Pace returns how often the credential is rotated, and how long two of them are
// valid, unless the configuration says otherwise.
func (s Settings) Pace() (every, overlap time.Duration) {
	switch {
	case s.InstallationToken != nil:
		return 30 * time.Minute, 20 * time.Minute
	case s.Webhook != nil:
		return 90 * 24 * time.Hour, time.Hour
	}
	return 30 * 24 * time.Hour, 2 * time.Hour
}

// Life returns how long a version can be valid at all; 0 if nothing limits it.
func (s Settings) Life() time.Duration {
	if s.InstallationToken != nil {
		return tokenLife
	}
	return 0
}

// Beside says why services must have the next version beside the current one before
// the cutover; "" if they need not.
func (s Settings) Beside() string {
	if s.Webhook != nil {
		return "GitHub signs with one secret at a time: the receivers must know both when it changes"
	}
	return ""
}

// Repository returns the owner and the name of the repository that GitHub is asked about;
// of an organisation, no name.
func (s Settings) Repository() (owner, name string) {
	full := ""
	switch {
	case s.InstallationToken != nil && len(s.InstallationToken.Repositories) > 0:
		full = s.InstallationToken.Repositories[0]
	case s.Webhook != nil && s.Webhook.Organization != "":
		full = s.Webhook.Organization
	case s.Webhook != nil:
		full = s.Webhook.Repository
	case s.DeployKey != nil:
		full = s.DeployKey.Repository
	}
	owner, name, _ = strings.Cut(full, "/")
	return owner, name
}

// KnownHosts returns the path of the file of known hosts, or "".
func (s Settings) KnownHosts() string {
	if s.DeployKey == nil {
		return ""
	}
	return s.DeployKey.KnownHosts
}

func (s Settings) withDefaults() Settings {
	if s.DeployKey != nil {
		k := *s.DeployKey
		if k.ReadOnly == nil {
			yes := true
			k.ReadOnly = &yes
		}
		s.DeployKey = &k
	}
	return s
}

type faultFunc func(path, tip, format string, args ...any)

func (s Settings) check() error {
	var faults []error
	fault := func(path, tip, format string, args ...any) {
		faults = append(faults, &rotation.Fault{Path: path, Text: fmt.Sprintf(format, args...), Tip: tip})
	}
	const one = "keep one of deploy-key, installation-token and webhook"
	switch {
	case s.DeployKey == nil && s.InstallationToken == nil && s.Webhook == nil:
		fault("", "write: github: {deploy-key: {repository: acme/orders}}", "nothing says what is rotated")
	case s.InstallationToken != nil && (s.DeployKey != nil || s.Webhook != nil):
		fault("installation-token", one, "a credential is one thing")
	case s.Webhook != nil && s.DeployKey != nil:
		fault("webhook", one, "a credential is one thing")
	}
	if s.DeployKey != nil {
		s.DeployKey.check(fault)
	}
	if s.InstallationToken != nil {
		s.InstallationToken.check(fault)
		if !s.Token.IsZero() {
			fault("token", "name an App: app: {id: 123456, key: {from-env: KEYTURN_APP_KEY}}", "a token cannot make tokens: that takes an App")
		}
	}
	if s.Webhook != nil {
		s.Webhook.check(fault)
	}
	s.checkIdentity(fault)
	return errors.Join(faults...)
}

func (s Settings) checkIdentity(fault faultFunc) {
	const hint = "write: app: {id: 123456, key: {from-env: KEYTURN_APP_KEY}}"
	switch {
	case s.App == nil:
	case !s.Token.IsZero():
		fault("token", "keep one of them", "GitHub is asked by an App or with a token, not both")
	case s.App.ID == 0:
		fault("app.id", hint, "there is no number of the App")
	case s.App.Key.IsZero():
		fault("app.key", hint, "there is no key of the App")
	}
}

var (
	repositoryName = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9-]*/[A-Za-z0-9._-]+$`)
)

func (k DeployKey) check(fault faultFunc) {
	const path = "deploy-key"
	switch {
	case k.Repository == "":
		fault(path+".repository", "write it as acme/orders", "the repository is missing")
	case !repositoryName.MatchString(k.Repository):
		fault(path+".repository", "write it as acme/orders", "want OWNER/NAME")
	}
	if k.Title != "" && !rotation.TitleForm.MatchString(k.Title) {
		fault(path+".title", "at most 100 of A-Z a-z 0-9 . _ @ / - and spaces, a letter or a digit at both ends", "the title has other characters, or too many")
	}
	if k.Adopt != "" && !fingerprintForm.MatchString(k.Adopt) {
		fault(path+".adopt", "ssh-keygen -lf FILE says it of a key: SHA256: and 43 characters", "this is no fingerprint of a key")
	}
	foreign := false
	for i, p := range k.Probe {
		at := fmt.Sprintf("%s.probe.%d", path, i)
		u, problem := parseEndpoint(p)
		if problem != "" {
			fault(at, "write ssh://git@github.com/acme/orders.git", "%s", problem)
			continue
		}
		foreign = foreign || !ofGitHub(u.Hostname())
	}
	if foreign && k.KnownHosts == "" {
		fault(path+".known-hosts", "name a file of known hosts: only the keys of github.com are built in", "the keys of the hosts under probe are not known")
	}
}

var (
	permissionName  = regexp.MustCompile(`^[a-z][a-z_]*$`)
	permissionLevel = regexp.MustCompile(`^(read|write|admin)$`)
	ownerName       = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9-]*$`)
)

// maxRepositories is how many of them one token can be for, and one answer names.
const maxRepositories = 100

func (t InstallationToken) check(fault faultFunc) {
	const path = "installation-token"
	if len(t.Repositories) == 0 {
		fault(path+".repositories", "write them as [acme/orders]: a token for all is not made", "no repository is named")
	}
	if len(t.Repositories) > maxRepositories {
		fault(path+".repositories", "make credentials of several Apps", "there are more than %d repositories", maxRepositories)
	}
	owner := ""
	for i, r := range t.Repositories {
		at := fmt.Sprintf("%s.repositories.%d", path, i)
		if !repositoryName.MatchString(r) {
			fault(at, "write it as acme/orders", "want OWNER/NAME")
			continue
		}
		of, _, _ := strings.Cut(r, "/")
		if owner != "" && !strings.EqualFold(of, owner) {
			fault(at, "make a credential for each owner", "a token is for repositories of one owner")
		}
		owner = of
	}
	if len(t.Permissions) == 0 {
		fault(path+".permissions", "write: permissions: {contents: read}", "nothing says what the token may do")
	}
	for name, level := range t.Permissions {
		if !permissionName.MatchString(name) || !permissionLevel.MatchString(level) {
			fault(path+".permissions", "write: permissions: {contents: read}", "want names of permissions, each with read, write or admin")
			break
		}
	}
}

func (w Webhook) check(fault faultFunc) {
	const path = "webhook"
	switch {
	case w.Repository != "" && w.Organization != "":
		fault(path+".organization", "keep one of them", "a webhook is of a repository or of an organisation, not both")
	case w.Organization != "":
		if !ownerName.MatchString(w.Organization) {
			fault(path+".organization", "write it as acme", "want the name of an organisation")
		}
	case w.Repository == "":
		fault(path+".repository", "write it as acme/orders", "the repository is missing")
	case !repositoryName.MatchString(w.Repository):
		fault(path+".repository", "write it as acme/orders", "want OWNER/NAME")
	}
	const hint = "write it as https://hooks.acme.io/github"
	if w.URL == "" {
		fault(path+".url", "write the one that GitHub shows of the webhook: https://hooks.acme.io/github", "the URL is missing")
	} else if problem := receiverProblem(w.URL); problem != "" {
		fault(path+".url", hint, "%s", problem)
	}
	for i, p := range w.Probe {
		if problem := receiverProblem(p); problem != "" {
			fault(fmt.Sprintf("%s.probe.%d", path, i), hint, "%s", problem)
		}
	}
}

// receiverProblem says what is wrong with the URL of a receiver, and repeats nothing of it.
func receiverProblem(text string) string {
	u, err := url.Parse(text)
	switch {
	case err != nil || u.Scheme != "https" && u.Scheme != "http" || u.Hostname() == "":
		return "this is no URL that begins with https:// and names a host"
	case u.User != nil || u.Fragment != "":
		return "the URL has a user, a password or a fragment"
	case u.Query().Has(versionParameter):
		return "the parameter keyturn of the URL is Keyturn's own"
	}
	return ""
}

// parseEndpoint reads the URL of a repository. The problem repeats nothing of it.
func parseEndpoint(text string) (_ *url.URL, problem string) {
	u, err := url.Parse(text)
	if err != nil || u.Scheme != "ssh" || u.Hostname() == "" {
		return nil, "this is no URL that begins with ssh:// and names a host"
	}
	if _, has := u.User.Password(); has || u.RawQuery != "" || u.Fragment != "" {
		return nil, "the URL has a password, a query or a fragment"
	}
	if u.User.Username() == "" {
		return nil, "the URL names no user: on GitHub it is git"
	}
	if !repositoryPath.MatchString(u.Path) {
		return nil, "the URL names no repository"
	}
	return u, ""
}

// repositoryPath is what git is asked for, in quotes: what would end them is not taken.
var repositoryPath = regexp.MustCompile(`^(/[A-Za-z0-9._~-]+)+$`)
