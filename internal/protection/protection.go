// Package protection looks at the settings of a repository on GitHub that
// Keyturn's promises rest on, and puts right what it may: the ruleset of the
// journal's branch, the environments in which people approve, the labels; and it
// finds the ways round the approvals that a repository leaves open.
//
// What was written is read again: GitHub accepts some settings and drops them.
// The calls are those of GitHub's REST API: "Rules", "Deployment environments".
package protection

import (
	"context"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"

	"github.com/google/go-github/v60/github"

	"github.com/keyturn/keyturn/internal/githubapp"
)

// A Want is what a repository is to have.
type Want struct {
	Branch       string // of the journal
	App          int64  // that alone may write there; 0: whoever has the token that is used
	Environments []Environment
	Labels       []string
	Variables    []string // names of secrets that jobs get by the environment: {from-env: …}
	Reviews      bool     // whether pull requests are a gate
}

// An Environment is one in which people approve.
type Environment struct {
	Name      string
	By        []string // logins, and teams as org/team
	SelfAlso  bool     // whoever starts a run may approve it
	Protected bool     // people approve there; else it only keeps secrets to the default branch
}

// A Finding is something that is not as it must be.
type Finding struct {
	What   string `json:"what"` // the setting
	Text   string `json:"text"`
	Hint   string `json:"hint,omitempty"`
	Bypass bool   `json:"bypass,omitempty"` // by it, approvals can be bypassed
}

// RulesetName is the name of the ruleset of the journal's branch.
const RulesetName = "keyturn journal"

// A repository is one that is looked at.
type repository struct {
	*githubapp.Client
	Want
	main         string
	organisation bool // whose repository it is
}

// Look returns what is not as it must be. What cannot be read is a finding, too.
func (w Want) Look(ctx context.Context, c *githubapp.Client) ([]Finding, error) {
	r, err := w.of(ctx, c)
	if err != nil {
		return nil, err
	}
	var all []Finding
	for _, look := range []func(context.Context) []Finding{r.lookRuleset, r.lookEnvironments, r.lookLabels, r.lookBypasses} {
		all = append(all, look(ctx)...)
	}
	return all, ctx.Err()
}

// Ways returns how approvals can be bypassed, in words. It looks at nothing else.
func (w Want) Ways(ctx context.Context, c *githubapp.Client) ([]string, error) {
	r, err := w.of(ctx, c)
	if err != nil {
		return nil, err
	}
	var out []string
	for _, f := range append(r.lookEnvironments(ctx), r.lookBypasses(ctx)...) {
		if f.Bypass {
			out = append(out, f.Text)
		}
	}
	return out, ctx.Err()
}

// of returns the repository that is looked at.
func (w Want) of(ctx context.Context, c *githubapp.Client) (*repository, error) {
	repo, _, err := c.Repositories.Get(ctx, c.Owner, c.Repo)
	if err != nil {
		return nil, fmt.Errorf("reading the repository: %w", err)
	}
	return &repository{Client: c, Want: w, main: repo.GetDefaultBranch(), organisation: repo.GetOwner().GetType() == "Organization"}, nil
}

func unread(what string, err error) Finding {
	hint := githubapp.Hint(err)
	return Finding{What: what, Text: fmt.Sprintf("%s cannot be read: %v", what, brief(err)), Hint: hint}
}

func brief(err error) string {
	if status := githubapp.StatusOf(err); status != 0 {
		return fmt.Sprintf("GitHub answered %d", status)
	}
	return err.Error()
}

// call asks what go-github has no method for, or one that means something else.
func (r *repository) call(ctx context.Context, method, path string, body, into any) error {
	req, err := r.NewRequest(method, fmt.Sprintf("repos/%s/%s/%s", r.Owner, r.Repo, path), body)
	if err != nil {
		return err
	}
	_, err = r.Do(ctx, req, into)
	return err
}

// A ruleset is one as GitHub has it.
type ruleset struct {
	ID          int64       `json:"id,omitempty"`
	Name        string      `json:"name"`
	Target      string      `json:"target"`
	Enforcement string      `json:"enforcement"`
	Bypass      []bypass    `json:"bypass_actors"`
	Conditions  *conditions `json:"conditions,omitempty"`
	Rules       []rule      `json:"rules,omitempty"`
}

type bypass struct {
	ActorID int64  `json:"actor_id"`
	Type    string `json:"actor_type"`
	Mode    string `json:"bypass_mode"`
}

type conditions struct {
	RefName struct {
		Include []string `json:"include"`
		Exclude []string `json:"exclude"`
	} `json:"ref_name"`
}

type rule struct {
	Type string `json:"type"`
}

// rules are those of the journal's branch. The App may update it, and nobody may
// remove, force or fork it.
func (w Want) rules() []rule {
	all := []rule{{"deletion"}, {"non_fast_forward"}, {"required_linear_history"}}
	if w.App != 0 {
		all = append(all, rule{"required_signatures"})
	}
	return all
}

// rulesets are two: what nobody may do, and what the App alone may.
func (w Want) rulesets() []ruleset {
	c := &conditions{}
	c.RefName.Include, c.RefName.Exclude = []string{"refs/heads/" + w.Branch}, []string{}
	all := []ruleset{{Name: RulesetName, Target: "branch", Enforcement: "active", Bypass: []bypass{}, Conditions: c, Rules: w.rules()}}
	if w.App != 0 {
		all = append(all, ruleset{Name: RulesetName + " writer", Target: "branch", Enforcement: "active",
			Bypass: []bypass{{w.App, "Integration", "always"}}, Conditions: c, Rules: []rule{{"update"}, {"creation"}}})
	}
	return all
}

// found reads the rulesets of our names.
func (r *repository) found(ctx context.Context) (map[string]ruleset, error) {
	var list []ruleset
	if err := r.call(ctx, http.MethodGet, "rulesets?per_page=100", nil, &list); err != nil {
		return nil, err
	}
	out := map[string]ruleset{}
	for _, short := range list {
		if !slices.ContainsFunc(r.rulesets(), func(w ruleset) bool { return w.Name == short.Name }) {
			continue
		}
		var whole ruleset
		if err := r.call(ctx, http.MethodGet, fmt.Sprintf("rulesets/%d", short.ID), nil, &whole); err != nil {
			return nil, err
		}
		out[short.Name] = whole
	}
	return out, nil
}

func (r *repository) lookRuleset(ctx context.Context) []Finding {
	there, err := r.found(ctx)
	if err != nil {
		return []Finding{unread("the rulesets of the repository", err)}
	}
	var all []Finding
	for _, want := range r.rulesets() {
		has, ok := there[want.Name]
		switch {
		case !ok:
			all = append(all, Finding{What: "ruleset", Text: fmt.Sprintf("there is no ruleset %q: others may change the journal's branch", want.Name), Hint: "keyturn setup github --apply"})
		case !has.holds(want):
			all = append(all, Finding{What: "ruleset", Text: fmt.Sprintf("the ruleset %q is not as it must be", want.Name), Hint: "keyturn setup github --apply"})
		}
	}
	return all
}

// holds reports whether a ruleset is at least as strict as another.
func (r ruleset) holds(want ruleset) bool {
	if r.Enforcement != "active" || r.Target != want.Target || r.Conditions == nil ||
		!slices.Contains(r.Conditions.RefName.Include, want.Conditions.RefName.Include[0]) || len(r.Conditions.RefName.Exclude) > 0 {
		return false
	}
	for _, rule := range want.Rules {
		if !slices.Contains(r.Rules, rule) {
			return false
		}
	}
	return !slices.ContainsFunc(r.Bypass, func(b bypass) bool { return !slices.Contains(want.Bypass, b) })
}

func (r *repository) lookLabels(ctx context.Context) []Finding {
	var all []Finding
	for _, name := range r.Labels {
		_, _, err := r.Issues.GetLabel(ctx, r.Owner, r.Repo, name)
		switch {
		case githubapp.Missing(err):
			all = append(all, Finding{What: "label", Text: fmt.Sprintf("there is no label %q", name), Hint: "keyturn setup github --apply"})
		case err != nil:
			all = append(all, unread(fmt.Sprintf("the label %q", name), err))
		}
	}
	return all
}

// lookBypasses finds the ways round the approvals.
func (r *repository) lookBypasses(ctx context.Context) []Finding {
	all := r.lookSecrets(ctx)
	if !r.Reviews && len(r.Environments) == 0 {
		return all
	}
	return append(append(all, r.lookReviews(ctx)...), r.lookRunners(ctx)...)
}

// lookSecrets finds secrets of Keyturn that every branch's workflows can read.
func (r *repository) lookSecrets(ctx context.Context) []Finding {
	var list struct {
		Secrets []struct {
			Name string `json:"name"`
		} `json:"secrets"`
	}
	if err := r.call(ctx, http.MethodGet, "actions/secrets?per_page=100", nil, &list); err != nil {
		f := unread("the names of the repository's secrets", err)
		f.Hint = "look yourself: Keyturn's secrets belong into environments that are limited to the default branch"
		return []Finding{f}
	}
	var all []Finding
	for _, s := range list.Secrets {
		if slices.Contains(r.Variables, s.Name) {
			all = append(all, Finding{What: "secret", Bypass: true,
				Text: fmt.Sprintf("whoever can push a branch: its workflows read the repository's secret %s", s.Name),
				Hint: "move it into an environment that is limited to the default branch, also for prepare, validate and cleanup"})
		}
	}
	return all
}

// codeowners are where GitHub looks for that file.
var codeowners = []string{".github/CODEOWNERS", "CODEOWNERS", "docs/CODEOWNERS"}

// lookReviews finds whether workflows and configuration can be changed without a review.
func (r *repository) lookReviews(ctx context.Context) []Finding {
	var rules []struct {
		Type       string `json:"type"`
		Parameters struct {
			Count      int  `json:"required_approving_review_count"`
			CodeOwners bool `json:"require_code_owner_review"`
			LastPush   bool `json:"require_last_push_approval"`
			Dismiss    bool `json:"dismiss_stale_reviews_on_push"`
		} `json:"parameters"`
	}
	if err := r.call(ctx, http.MethodGet, "rules/branches/"+url.PathEscape(r.main)+"?per_page=100", nil, &rules); err != nil {
		return []Finding{unread("the rules of the default branch", err)}
	}
	reviewed, owned := false, false
	for _, one := range rules {
		if one.Type == "pull_request" {
			reviewed = reviewed || one.Parameters.Count > 0
			owned = owned || one.Parameters.CodeOwners
		}
	}
	if !reviewed {
		return []Finding{{What: "rules", Bypass: true,
			Text: fmt.Sprintf("whoever may push to %s: no review is required there, and the workflows and the policy stand on it", r.main),
			Hint: "a ruleset of that branch: require a pull request, with one approval at least, of code owners"}}
	}
	if owned && r.ownsGitHub(ctx) {
		return nil
	}
	return []Finding{{What: "CODEOWNERS", Bypass: true,
		Text: "whoever gets any review: .github/ has no owners whose review is required",
		Hint: "write a line /.github/ @org/team into .github/CODEOWNERS, and require reviews of code owners"}}
}

// ownsGitHub reports whether the folder of workflows and policy has owners.
func (r *repository) ownsGitHub(ctx context.Context) bool {
	for _, path := range codeowners {
		file, _, _, err := r.Repositories.GetContents(ctx, r.Owner, r.Repo, path, &github.RepositoryContentGetOptions{Ref: r.main})
		if err != nil || file == nil {
			continue
		}
		text, err := file.GetContent()
		return err == nil && owns(text)
	}
	return false
}

// owns reports whether the last line of a CODEOWNERS file that is about .github/ names owners.
func owns(text string) bool {
	owned := false
	for line := range strings.Lines(text) {
		line, _, _ = strings.Cut(line, "#")
		fields := strings.Fields(line)
		if len(fields) == 0 {
			continue
		}
		switch strings.Trim(fields[0], "/") {
		case "*", "**", ".github", ".github/*", ".github/**":
			owned = len(fields) > 1
		}
	}
	return owned
}
