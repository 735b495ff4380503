package protection

import (
	"context"
	"fmt"
	"net/http"
	"net/url"
	"strings"

	"github.com/google/go-github/v60/github"

	"github.com/keyturn/keyturn/internal/githubapp"
)

func (r *repository) lookEnvironments(ctx context.Context) []Finding {
	var all []Finding
	for _, want := range r.Environments {
		all = append(all, r.lookEnvironment(ctx, want)...)
	}
	return all
}

func (r *repository) lookEnvironment(ctx context.Context, want Environment) []Finding {
	const hint = "keyturn setup github --apply"
	env, _, err := r.Repositories.GetEnvironment(ctx, r.Owner, r.Repo, url.PathEscape(want.Name))
	if githubapp.Missing(err) {
		return []Finding{{What: "environment", Text: fmt.Sprintf("there is no environment %q: a job that names it would make it, unprotected", want.Name), Hint: hint}}
	}
	if err != nil {
		return []Finding{unread(fmt.Sprintf("the environment %q", want.Name), err)}
	}
	var all []Finding
	add := func(bad, way bool, format string, args ...any) {
		if bad {
			all = append(all, Finding{What: "environment", Bypass: way, Text: fmt.Sprintf(format, args...), Hint: hint})
		}
	}
	reviewers, self := false, true
	for _, rule := range env.ProtectionRules {
		if rule.GetType() == "required_reviewers" && len(rule.Reviewers) > 0 {
			reviewers, self = true, !rule.GetPreventSelfReview()
		}
	}
	add(!r.defaultOnly(ctx, env), true, "whoever can push a branch: the environment %q is open to it", want.Name)
	if !want.Protected {
		return all
	}
	add(!reviewers, true, "whoever starts the workflow: the environment %q asks for no reviewer", want.Name)
	add(reviewers && self && !want.SelfAlso, true, "whoever starts the workflow may approve it himself: the environment %q allows self-review", want.Name)
	add(env.CanAdminsBypass == nil || *env.CanAdminsBypass, true, "administrators: the environment %q lets them go round its rules", want.Name)
	return all
}

// defaultOnly reports whether an environment is for the default branch alone.
func (r *repository) defaultOnly(ctx context.Context, env *github.Environment) bool {
	if p := env.DeploymentBranchPolicy; p == nil || !p.GetCustomBranchPolicies() {
		return false
	}
	names, err := r.branches(ctx, env.GetName())
	return err == nil && len(names) == 1 && names[0] == r.main
}

func (r *repository) branches(ctx context.Context, env string) ([]string, error) {
	var list struct {
		Policies []struct {
			Name string `json:"name"`
		} `json:"branch_policies"`
	}
	err := r.call(ctx, http.MethodGet, "environments/"+url.PathEscape(env)+"/deployment-branch-policies?per_page=100", nil, &list)
	var names []string
	for _, p := range list.Policies {
		names = append(names, p.Name)
	}
	return names, err
}

// Apply makes what is missing, and looks again: what it returns is still not as it
// must be. Settings that only people should change are left alone.
func (w Want) Apply(ctx context.Context, c *githubapp.Client) ([]Finding, error) {
	r, err := w.of(ctx, c)
	if err != nil {
		return nil, err
	}
	if err := r.applyRulesets(ctx); err != nil {
		return nil, fmt.Errorf("writing the rulesets: %w", err)
	}
	for _, env := range w.Environments {
		if err := r.applyEnvironment(ctx, env); err != nil {
			return nil, fmt.Errorf("writing the environment %q: %w", env.Name, err)
		}
	}
	for _, name := range w.Labels {
		if _, _, err := r.Issues.GetLabel(ctx, r.Owner, r.Repo, name); !githubapp.Missing(err) {
			continue
		}
		if _, _, err := r.Issues.CreateLabel(ctx, r.Owner, r.Repo, &github.Label{Name: github.String(name), Color: github.String("0e8a16")}); err != nil {
			return nil, fmt.Errorf("making the label %q: %w", name, err)
		}
	}
	return w.Look(ctx, c)
}

func (r *repository) applyRulesets(ctx context.Context) error {
	there, err := r.found(ctx)
	if err != nil {
		return err
	}
	for _, want := range r.rulesets() {
		has, ok := there[want.Name]
		switch {
		case ok && has.holds(want):
		case ok:
			err = r.call(ctx, http.MethodPut, fmt.Sprintf("rulesets/%d", has.ID), want, nil)
		default:
			err = r.call(ctx, http.MethodPost, "rulesets", want, nil)
		}
		if err != nil {
			return fmt.Errorf("%q: %w", want.Name, err)
		}
	}
	return nil
}

// applyEnvironment writes an environment that is not as it must be. Reviewers that
// are there stay: they are added to.
func (r *repository) applyEnvironment(ctx context.Context, want Environment) error {
	if len(r.lookEnvironment(ctx, want)) == 0 {
		return nil
	}
	body := map[string]any{"deployment_branch_policy": map[string]bool{"protected_branches": false, "custom_branch_policies": true}}
	if want.Protected {
		reviewers, err := r.reviewers(ctx, want)
		if err != nil {
			return err
		}
		body["reviewers"], body["prevent_self_review"], body["can_admins_bypass"] = reviewers, !want.SelfAlso, false
	}
	path := "environments/" + url.PathEscape(want.Name)
	if err := r.call(ctx, http.MethodPut, path, body, nil); err != nil {
		return err
	}
	names, err := r.branches(ctx, want.Name)
	if err != nil {
		return err
	}
	for _, name := range names {
		if name == r.main {
			return nil
		}
	}
	return r.call(ctx, http.MethodPost, path+"/deployment-branch-policies", map[string]string{"name": r.main}, nil)
}

// maxReviewers is how many GitHub takes.
const maxReviewers = 6

// reviewers are those of an environment, by their numbers.
func (r *repository) reviewers(ctx context.Context, want Environment) ([]map[string]any, error) {
	var out []map[string]any
	for _, by := range want.By {
		org, slug, team := strings.Cut(by, "/")
		if team {
			t, _, err := r.Teams.GetTeamBySlug(ctx, org, slug)
			if err != nil {
				return nil, fmt.Errorf("the team %s: %w", by, err)
			}
			out = append(out, map[string]any{"type": "Team", "id": t.GetID()})
			continue
		}
		u, _, err := r.Users.Get(ctx, by)
		if err != nil {
			return nil, fmt.Errorf("the person %s: %w", by, err)
		}
		out = append(out, map[string]any{"type": "User", "id": u.GetID()})
	}
	if len(out) == 0 || len(out) > maxReviewers {
		return nil, fmt.Errorf("it needs 1 to %d people or teams in by:, and has %d", maxReviewers, len(out))
	}
	return out, nil
}
