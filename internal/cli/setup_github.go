package cli

import (
	"context"
	"reflect"
	"slices"

	"github.com/google/go-github/v60/github"
	"github.com/spf13/cobra"

	"github.com/keyturn/keyturn/internal/config"
	"github.com/keyturn/keyturn/internal/githubapp"
	"github.com/keyturn/keyturn/internal/mirror"
	"github.com/keyturn/keyturn/internal/protection"
	"github.com/keyturn/keyturn/internal/rotation"
)

// mayLookAround is what looking at the settings needs; mayApply what writing them does.
var (
	mayLookAround = github.InstallationPermissions{Contents: github.String("read"), Actions: github.String("read"), Issues: github.String("read")}
	mayApply      = github.InstallationPermissions{Contents: github.String("read"), Actions: github.String("read"), Issues: github.String("write"),
		Administration: github.String("write")}
)

func (a *app) setupGitHubCommand() *cobra.Command {
	var apply bool
	cmd := &cobra.Command{
		Use: "github", Short: "Say what the repository on GitHub needs, and make it with --apply: rulesets, environments, labels", Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return a.setupGitHub(cmd.Context(), apply) },
	}
	cmd.Flags().BoolVar(&apply, "apply", false, "make what is missing, and read it back; needs an administrator's token, or the App's permission")
	return cmd
}

// setupGitHub looks at the settings, or makes them. What is left is exit 6.
func (a *app) setupGitHub(ctx context.Context, apply bool) error {
	cfg, err := a.config()
	if err != nil {
		return err
	}
	h, err := a.onGitHub(cfg)
	if err != nil {
		return err
	}
	client, err := a.settingsClient(h, apply)
	if err != nil {
		return err
	}
	want := protectionOf(cfg)
	look := want.Look
	if apply {
		look = want.Apply
	}
	found, err := look(ctx, client)
	if err != nil {
		return err
	}
	a.printProtection(h.String(), found)
	if len(found) > 0 {
		return exitStatus(exitFound)
	}
	return nil
}

// settingsClient asks as the person who sits here, if that one has a token: an
// administrator sees and may change more than the App. Else the App asks.
func (a *app) settingsClient(h *hub, apply bool) (*githubapp.Client, error) {
	if a.Getenv("GITHUB_ACTIONS") != "true" {
		if own, err := a.personal(h); err == nil {
			return own, nil
		}
	}
	if apply {
		return h.Client(mayApply), nil
	}
	return h.Client(mayLookAround), nil
}

func (a *app) printProtection(place string, found []protection.Finding) {
	if a.output == "json" {
		if found == nil {
			found = []protection.Finding{}
		}
		a.json(map[string]any{"repository": place, "findings": found})
		return
	}
	if len(found) == 0 {
		a.printf("%s: rulesets, environments and labels are as they must be, and no way round the approvals was found\n", place)
		return
	}
	for _, f := range found {
		text := f.Text
		if f.Bypass {
			text = "approvals can be bypassed by " + text
		}
		a.printf("%s: %s\n", f.What, text)
		if f.Hint != "" {
			a.printf("  hint: %s\n", f.Hint)
		}
	}
}

// protectionOf is what the configuration needs of the repository.
func protectionOf(cfg *config.Config) protection.Want {
	w := protection.Want{Branch: branchName(cfg), Labels: []string{mirror.Label, mirror.AuditLabel}}
	if cfg.GitHub != nil && cfg.GitHub.App != nil {
		w.App = int64(cfg.GitHub.App.ID)
	}
	for _, s := range sources(reflect.ValueOf(cfg), nil) {
		if s.Env != "" && !slices.Contains(w.Variables, s.Env) {
			w.Variables = append(w.Variables, s.Env)
		}
	}
	for _, c := range cfg.Credentials {
		if c.Approve == nil {
			continue
		}
		for _, a := range []*config.Approval{c.Approve.Cutover, c.Approve.Rollback} {
			if a == nil {
				continue
			}
			w.Reviews = w.Reviews || a.PullRequest
			if a.Environment != "" && !slices.ContainsFunc(w.Environments, func(e protection.Environment) bool { return e.Name == a.Environment }) {
				w.Environments = append(w.Environments, protection.Environment{Name: a.Environment, By: a.By, SelfAlso: a.SelfReview, Protected: true})
			}
		}
	}
	return w
}

// usesGitHub reports whether a configuration rests on settings of a repository.
func usesGitHub(cfg *config.Config) bool {
	return cfg.JournalGitHub || slices.ContainsFunc(cfg.Credentials, func(c config.Credential) bool { return c.Approve != nil })
}

// github is the check of doctor: the App, and the repository's settings.
func (e *examination) github(ctx context.Context) ([]rotation.Remark, error) {
	h, err := e.onGitHub(e.cfg)
	if err != nil {
		return nil, err
	}
	found, err := protectionOf(e.cfg).Look(ctx, h.Client(mayLookAround))
	if err != nil {
		return nil, err
	}
	remarks := []rotation.Remark{{Level: rotation.Fine, Text: "GitHub answers for " + h.String()}}
	if ends := h.TokenEnds(); !ends.IsZero() {
		r := rotation.Remark{Level: rotation.Fine, Text: "the token that GitHub is asked with ends " + clock(ends)}
		if ends.Sub(e.Now()) < remindEarly {
			r.Level, r.Hint = rotation.Warning, "make another one, or use an App: github: {app: {id: 123456, key: {from-env: KEYTURN_APP_KEY}}}"
		}
		remarks = append(remarks, r)
	}
	for _, f := range found {
		text := f.Text
		if f.Bypass {
			text = "approvals can be bypassed by " + text
		}
		remarks = append(remarks, rotation.Remark{Level: rotation.Warning, Text: text, Hint: f.Hint})
	}
	return remarks, nil
}

// ways says, beside a plan that needs approvals, how these can be bypassed.
func (a *app) ways(ctx context.Context, w *wiring, plans []rotation.Plan) {
	needs := slices.ContainsFunc(plans, func(p rotation.Plan) bool {
		names := namesIn(p)
		return len(w.policies(rotation.Cutover, names))+len(w.policies(rotation.Rollback, names)) > 0
	})
	if !needs {
		return
	}
	client, err := a.asking(w.cfg, mayLookAround)
	var ways []string
	if err == nil {
		ways, err = protectionOf(w.cfg).Ways(ctx, client)
	}
	for _, way := range ways {
		a.notef("approvals can be bypassed by %s", way)
	}
	if err != nil {
		a.notef("whether approvals can be bypassed is not known: %v", err)
	}
}
