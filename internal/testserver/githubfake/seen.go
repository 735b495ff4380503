package githubfake

import (
	"maps"
	"slices"
	"strings"
)

// An Issue is an issue as it is now.
type Issue struct {
	Number      int
	Title, Body string
	State       string
	Labels      []string
	Comments    []Comment
}

// Issues are all of the repository that are no pull requests, oldest first.
func (r *Repo) Issues() []Issue {
	r.s.mu.Lock()
	numbers := slices.Sorted(maps.Keys(r.issues))
	var out []Issue
	for _, n := range numbers {
		i := r.issues[n]
		if i.pull != nil {
			continue
		}
		seen := Issue{Number: n, Title: i.title, Body: i.body, State: i.state}
		for _, l := range i.labels {
			seen.Labels = append(seen.Labels, l.name)
		}
		out = append(out, seen)
	}
	r.s.mu.Unlock()
	for i := range out {
		out[i].Comments = r.Comments(out[i].Number)
	}
	return out
}

// Status is the newest state of a context on a commit, "" if there is none.
func (r *Repo) Status(sha, context string) string {
	r.s.mu.Lock()
	defer r.s.mu.Unlock()
	for _, st := range slices.Backward(r.statuses) {
		if st.sha == sha && strings.EqualFold(st.context, context) {
			return st.state
		}
	}
	return ""
}

// Files are the paths at the end of a branch, sorted.
func (r *Repo) Files(branch string) []string {
	r.s.mu.Lock()
	defer r.s.mu.Unlock()
	at := r.resolve("heads/" + branch)
	if at == nil {
		return nil
	}
	return slices.Sorted(maps.Keys(r.s.git.files(at.tree)))
}

// A SeenPull is a pull request as it is now.
type SeenPull struct {
	Number       int
	Author, Body string
	Branch, Head string
	Open         bool
}

// Pulls are all pull requests of the repository, oldest first.
func (r *Repo) Pulls() []SeenPull {
	r.s.mu.Lock()
	defer r.s.mu.Unlock()
	var out []SeenPull
	for _, n := range slices.Sorted(maps.Keys(r.issues)) {
		if i := r.issues[n]; i.pull != nil {
			out = append(out, SeenPull{n, i.user.Login, i.body, i.pull.branch, i.pull.head, i.state == "open"})
		}
	}
	return out
}

// AddRuleset makes a ruleset of a branch that asks for pull requests.
func (r *Repo) AddRuleset(branch string, parameters map[string]any) {
	r.s.mu.Lock()
	defer r.s.mu.Unlock()
	whole := map[string]any{"required_approving_review_count": 0, "require_code_owner_review": false, "dismiss_stale_reviews_on_push": false,
		"require_last_push_approval": false, "required_review_thread_resolution": false}
	maps.Copy(whole, parameters)
	now := r.s.time()
	rs := &ruleset{ID: r.s.id(), Name: "reviews of " + branch, Target: "branch", Enforcement: "active", Bypass: []bypass{},
		Rules: []rule{{"pull_request", whole}}, created: now, now: now}
	rs.Conditions.RefName.Include, rs.Conditions.RefName.Exclude = []string{"refs/heads/" + branch}, []string{}
	r.rulesets = append(r.rulesets, rs)
}
