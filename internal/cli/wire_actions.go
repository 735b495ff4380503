package cli

import (
	"cmp"
	"strings"

	"github.com/keyturn/keyturn/internal/config"
	"github.com/keyturn/keyturn/internal/rotation"
	"github.com/keyturn/keyturn/internal/target/actionsecrets"
)

// wireActionsSecrets makes secrets of GitHub the target. There is no Swarm to hold a
// lease: the journal does.
func (a *app) wireActionsSecrets(w *wiring) error {
	place, err := a.placeOf(w.cfg)
	if err != nil {
		return err
	}
	github := config.GitHub{}
	if w.cfg.GitHub != nil {
		github = config.GitHub{App: w.cfg.GitHub.App, Token: w.cfg.GitHub.Token}
	}
	app, err := a.borrow(place.Owner, place.Repo, github)
	if err != nil {
		return err
	}
	o := actionsecrets.Options{Place: place, App: app, Names: map[string]map[string]string{}, Logger: a.log}
	for _, c := range w.cfg.Credentials {
		o.Names[c.Name] = c.Secrets
	}
	t, err := actionsecrets.New(o)
	if err != nil {
		return err
	}
	w.engine.Leaser = &rotation.JournalLeaser{Journal: w.journal, Now: a.Now, Kept: func() { w.kept.Store(true) }}
	for name, p := range w.procs {
		p.Target, w.adopters[name] = t, t
		p.Placements = []rotation.Placement{{Credential: name, Mounts: rotation.Switch}}
	}
	return nil
}

// placeOf says where the secrets are. An organisation's are reached by the installation
// of the App on the repository that the run belongs to.
func (a *app) placeOf(cfg *config.Config) (actionsecrets.Place, error) {
	s := *cfg.ActionsSecrets
	name := s.Repository
	if name == "" && cfg.GitHub != nil {
		name = cfg.GitHub.Repository
	}
	owner, repo, ok := strings.Cut(cmp.Or(name, a.Getenv("GITHUB_REPOSITORY")), "/")
	if !ok {
		return actionsecrets.Place{}, usagef("write: actions-secrets: {repository: acme/orders}",
			"nothing says of which repository the secrets are: neither actions-secrets.repository nor github.repository nor GITHUB_REPOSITORY")
	}
	if s.Organization != "" && !strings.EqualFold(owner, s.Organization) {
		return actionsecrets.Place{}, usagef("name a repository of the organisation, on which the App is installed: github: {repository: "+s.Organization+"/…}",
			"%s/%s is no repository of the organisation %s", owner, repo, s.Organization)
	}
	return actionsecrets.Place{Owner: owner, Repo: repo, Environment: s.Environment, Organization: s.Organization, Repositories: s.Repositories,
		Dependabot: s.For == "dependabot"}, nil
}
