package config

import (
	"regexp"
	"strings"

	"github.com/keyturn/keyturn/internal/secret"
)

// GitHub says which repository the journal, the proposals and the approvals are
// in, and as whom GitHub is asked. What is left out comes from the workflow's run.
type GitHub struct {
	Repository string        `yaml:"repository"` // owner/name
	Branch     string        `yaml:"branch"`     // of the journal
	Authors    []string      `yaml:"authors"`    // logins of those who write for Keyturn; none: who began the journal
	App        *App          `yaml:"app"`
	Token      secret.Source `yaml:"token"`
}

// App is a GitHub App, in whose name GitHub is asked.
type App struct {
	ID  uint64        `yaml:"id"`
	Key secret.Source `yaml:"key"` // PEM
}

// DefaultBranch is where a journal on GitHub is kept.
const DefaultBranch = "keyturn-journal"

var (
	repositoryName = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9-]*/[A-Za-z0-9._-]+$`)
	branchName     = regexp.MustCompile(`^[A-Za-z0-9._-]+$`)
)

const (
	repositoryHint = "write: github: {repository: acme/orders}"
	appHint        = "write: github: {app: {id: 123456, key: {from-env: KEYTURN_APP_KEY}}}"
)

// github checks the section github.
func (p *parser) github(g *GitHub) {
	if g == nil {
		return
	}
	n := at(p.doc, "github")
	if g.Repository != "" && !repositoryName.MatchString(g.Repository) && !p.faults.touch("github.repository") {
		p.fault(at(n, "repository"), "github.repository", repositoryHint, "want OWNER/NAME")
	}
	switch {
	case p.faults.touch("github.branch"):
	case g.Branch == "":
		g.Branch = DefaultBranch
	case !branchName.MatchString(g.Branch), strings.Contains(g.Branch, ".."), strings.HasSuffix(g.Branch, ".lock"):
		p.fault(at(n, "branch"), "github.branch", "write: branch: "+DefaultBranch, "the name of a branch has letters, digits and . _ - here")
	}
	if g.App == nil {
		return
	}
	if !g.Token.IsZero() {
		p.fault(at(n, "token"), "github.token", "keep one of them", "GitHub is asked by an App or with a token, not both")
	}
	p.needed(at(n, "app"), "github.app", "id", appHint, g.App.ID == 0, "there is no number of the App")
	p.needed(at(n, "app"), "github.app", "key", appHint, g.App.Key.IsZero(), "there is no key of the App")
}
