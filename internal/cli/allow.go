package cli

import (
	"context"
	"net/http"
	"strings"
	"time"

	"github.com/google/go-github/v60/github"

	"github.com/keyturn/keyturn/internal/approval"
	"github.com/keyturn/keyturn/internal/journal"
	"github.com/keyturn/keyturn/internal/rotation"
)

// claims are what GitHub signed of this job, asked for once; nil if it did not.
func (a *app) claims(ctx context.Context) *approval.Claims {
	if a.asked || a.Getenv("ACTIONS_ID_TOKEN_REQUEST_URL") == "" {
		return a.signed
	}
	a.asked = true
	w := approval.Witness{RequestURL: a.Getenv("ACTIONS_ID_TOKEN_REQUEST_URL"), RequestToken: a.Getenv("ACTIONS_ID_TOKEN_REQUEST_TOKEN"),
		Server: a.Getenv("GITHUB_SERVER_URL"), Client: &http.Client{Timeout: 20 * time.Second}, Now: time.Now}
	c, err := w.Claims(ctx)
	switch {
	case err != nil:
		a.notef("who does this is not verified: %v", err)
	case !strings.EqualFold(c.Repository, a.Getenv("GITHUB_REPOSITORY")) || c.RunID != a.Getenv("GITHUB_RUN_ID"):
		a.notef("who does this is not verified: the token of this job is of another run")
	default:
		a.signed = &c
	}
	return a.signed
}

// verified makes of the actor of entries the one that GitHub signed, if it did.
func (a *app) verified(ctx context.Context, of *journal.Actor) {
	c := a.claims(ctx)
	if c == nil {
		return
	}
	of.Verified = true
	if c.Event != "schedule" { // its actor is nobody's act
		of.Name = c.Actor
	}
}

// actor is who does this, and from where.
func (a *app) actor(ctx context.Context) approval.Actor {
	who := approval.Actor{Login: a.starter(), InActions: a.Getenv("GITHUB_ACTIONS") == "true",
		Workflow: approval.Claims{WorkflowRef: a.Getenv("GITHUB_WORKFLOW_REF")}.Workflow()}
	if c := a.claims(ctx); c != nil {
		who.Login, who.Verified, who.Workflow, who.Environment = c.Actor, true, c.Workflow(), c.Environment
	}
	return who
}

// allowed refuses a phase to who may not do it. Whoever breaks the glass is asked
// there.
func (w *wiring) allowed(ctx context.Context, phase rotation.Phase, group []string, f phaseFlags) error {
	if f.resumed || !blank(f.glass) || !blank(f.revoking) {
		return nil
	}
	for _, name := range group {
		rule := w.credential(name).Allow.Of(string(phase))
		if rule == nil {
			continue
		}
		who := w.app.actor(ctx)
		if err := w.teams(ctx, &who, rule.By); err != nil {
			return err
		}
		v := approval.Allow{By: rule.By, Workflows: rule.Workflows, Environments: rule.Environments, Verified: rule.Verified}.Decide(who)
		if v.Approved {
			continue
		}
		var why []string
		for _, r := range v.Reasons {
			why = append(why, r.Text)
		}
		hint := "see allow: of the credential"
		if v.Has("unverified") {
			hint = "give the job permissions: id-token: write"
		}
		return rotation.Errorf(rotation.Refused, hint, "%s of %q is not allowed: %s", phase, name, strings.Join(why, "; "))
	}
	return nil
}

// teams asks which of the teams that count somebody is in.
func (w *wiring) teams(ctx context.Context, who *approval.Actor, by []string) error {
	if who.Login == "" || !who.InActions || !approval.NamesTeam(by) {
		return nil
	}
	client, err := w.app.asking(w.cfg, github.InstallationPermissions{Members: github.String("read")})
	if err != nil {
		return err
	}
	for _, team := range by {
		org, slug, ok := strings.Cut(team, "/")
		if !ok {
			continue
		}
		is, err := approval.IsMember(ctx, client, org, slug, who.Login)
		if err != nil {
			return err
		}
		if is {
			who.MemberOf = append(who.MemberOf, team)
		}
	}
	return nil
}
