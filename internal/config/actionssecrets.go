package config

import (
	"regexp"
	"strings"

	"go.yaml.in/yaml/v3"
)

// ActionsSecrets are secrets of GitHub: of a repository, an environment or an
// organisation. Each holds one value, which nobody can read.
type ActionsSecrets struct {
	Repository   string   `yaml:"repository"`   // owner/name; "": the one of the section github, or of the run
	Environment  string   `yaml:"environment"`  // of the repository
	Organization string   `yaml:"organization"` // instead of a repository
	Repositories []string `yaml:"repositories"` // all that may read an organisation's, where they are selected
	For          string   `yaml:"for"`          // "actions" or "dependabot"
}

var (
	organizationName  = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9-]*$`)
	actionsSecretName = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]*$`)
)

// actionsSecrets checks the section actions-secrets.
func (p *parser) actionsSecrets(a *ActionsSecrets) {
	const key = "actions-secrets"
	n := at(p.doc, key)
	a.For = p.oneOf(n, key, "for", a.For, "actions", "dependabot")
	one := func(name, value string, form *regexp.Regexp, hint, want string) {
		if value != "" && !form.MatchString(value) && !p.faults.touch(join(key, name)) {
			p.fault(at(n, name), join(key, name), hint, "%s", want)
		}
	}
	one("repository", a.Repository, repositoryName, "write it as acme/orders", "want OWNER/NAME")
	one("organization", a.Organization, organizationName, "write it as acme", "want the name of an organisation")
	for i, r := range a.Repositories {
		if !repositoryName.MatchString(r) {
			p.fault(at(n, "repositories"), key+".repositories", "write them as [acme/orders, acme/billing]", "the %s of the repositories is not OWNER/NAME", ordinal(i))
		}
	}
	switch {
	case a.Organization != "" && a.Repository != "":
		p.fault(at(n, "organization"), key+".organization", "keep one of them", "secrets are of a repository or of an organisation, not both")
	case a.Organization != "" && a.Environment != "":
		p.fault(at(n, "environment"), key+".environment", "leave it out, or name the repository instead", "an organisation has no environments")
	case a.For == "dependabot" && a.Environment != "":
		p.fault(at(n, "environment"), key+".environment", "leave it out", "Dependabot reads no secrets of environments")
	case a.Organization == "" && len(a.Repositories) > 0:
		p.fault(at(n, "repositories"), key+".repositories", "leave it out", "only secrets of an organisation are read by several repositories")
	}
}

func ordinal(i int) string {
	words := []string{"first", "second", "third", "fourth", "fifth"}
	if i < len(words) {
		return words[i]
	}
	return "last"
}

// inActions checks a credential whose fields are secrets of GitHub.
func (p *parser) inActions(c *Credential, n *yaml.Node, key string) {
	if !c.AcceptGap && !p.faults.below(key+".accept-gap") {
		p.fault(n, key+".accept-gap", "accept it with accept-gap: true",
			"a secret holds one value: a job that begins between its overwriting and the arming of the new value fails, and there is no way back but forward")
	}
	if len(c.Secrets) == 0 && !p.faults.below(key+".secrets") {
		p.fault(n, key+".secrets", "write: secrets: {password: ORDERS_DB_PASSWORD}", "nothing says which secret holds which field")
	}
	if child(n, "services") != nil && !p.faults.below(key+".services") {
		p.fault(at(n, "services"), key+".services", "leave it out", "it is of a Swarm or a directory: jobs read the secrets")
	}
	if c.Mounts == "dual" && !p.faults.below(key+".mounts") {
		p.fault(at(n, "mounts"), key+".mounts", "leave it out", "a secret holds one value")
	}
}

// actionsName checks the name of a secret of GitHub.
func (p *parser) actionsName(c *Credential, n *yaml.Node, key, field, name string) {
	if !actionsSecretName.MatchString(name) || strings.HasPrefix(strings.ToUpper(name), "GITHUB_") {
		p.fault(n, key, "write it as ORDERS_DB_PASSWORD", "a secret's name has letters, digits and _ alone, no digit first, and does not begin with GITHUB_")
		return
	}
	owner, same := shown(c.Name)+", field "+shown(field), strings.ToUpper(name)
	if other, ok := p.bases[same]; ok && other != owner {
		p.fault(n, key, "give each a name of its own", "the name belongs to %s already", other)
		return
	}
	p.bases[same] = owner
}
