package githubfake

import (
	"encoding/json"
	"maps"
	"net/http"
	"path"
	"slices"
	"strings"
	"time"
)

type ruleset struct {
	ID           int64      `json:"id"`
	Name         string     `json:"name"`
	Target       string     `json:"target"`
	Enforcement  string     `json:"enforcement"`
	Bypass       []bypass   `json:"bypass_actors"`
	Conditions   conditions `json:"conditions"`
	Rules        []rule     `json:"rules"`
	created, now time.Time
}

type bypass struct {
	ActorID   int64  `json:"actor_id"`
	ActorType string `json:"actor_type"`
	Mode      string `json:"bypass_mode"`
}

type conditions struct {
	RefName struct {
		Include []string `json:"include"`
		Exclude []string `json:"exclude"`
	} `json:"ref_name"`
}

type rule struct {
	Type       string         `json:"type"`
	Parameters map[string]any `json:"parameters,omitempty"`
}

type suite struct {
	id            int64
	actor         *Account
	before, after string
	ref, result   string
	at            time.Time
}

func ruleRoutes() []route {
	return []route{
		{"GET /repos/{owner}/{repo}/rulesets", 200, "metadata=read", func(c *call) (any, error) {
			return page(c, c.repo.rulesets, func(rs *ruleset) any {
				o := c.repo.showRuleset(rs)
				delete(o, "rules")
				delete(o, "conditions")
				delete(o, "bypass_actors")
				return o
			}), nil
		}},
		{"POST /repos/{owner}/{repo}/rulesets", 201, "administration=write", createRuleset},
		{"GET /repos/{owner}/{repo}/rulesets/{id}", 200, "metadata=read", onRuleset(func(c *call, rs *ruleset) (any, error) {
			return c.repo.showRuleset(rs), nil
		})},
		{"PUT /repos/{owner}/{repo}/rulesets/{id}", 200, "administration=write", onRuleset(updateRuleset)},
		{"DELETE /repos/{owner}/{repo}/rulesets/{id}", 204, "administration=write", onRuleset(func(c *call, rs *ruleset) (any, error) {
			c.repo.rulesets = slices.DeleteFunc(c.repo.rulesets, func(one *ruleset) bool { return one == rs })
			return nil, nil
		})},
		{"GET /repos/{owner}/{repo}/rules/branches/{branch}", 200, "metadata=read", func(c *call) (any, error) {
			return page(c, c.repo.rulesFor(c.value("branch")), func(one ruled) any { return c.repo.showRule(one) }), nil
		}},
		{"GET /repos/{owner}/{repo}/rulesets/rule-suites", 200, "administration=read", listSuites},
		{"GET /repos/{owner}/{repo}/branches/{branch}/protection", 200, "administration=read", func(c *call) (any, error) {
			if c.repo.refs["heads/"+c.value("branch")] == "" {
				return nil, refuse(404, "Branch not found")
			}
			return nil, refuse(404, "Branch not protected")
		}},
	}
}

func onRuleset(do func(*call, *ruleset) (any, error)) func(*call) (any, error) {
	return func(c *call) (any, error) {
		id, err := c.number("id")
		if err != nil {
			return nil, err
		}
		at := slices.IndexFunc(c.repo.rulesets, func(rs *ruleset) bool { return rs.ID == id })
		if at < 0 {
			return nil, notFound()
		}
		return do(c, c.repo.rulesets[at])
	}
}

func (r *Repo) showRuleset(rs *ruleset) object {
	self := r.api() + "/rulesets/" + intText(rs.ID)
	o := object{"source": r.FullName(), "source_type": "Repository", "node_id": node("RRS", rs.ID), "created_at": date(rs.created), "updated_at": date(rs.now),
		"current_user_can_bypass": "never", "_links": object{"self": href(self), "html": href(r.web() + "/rules/" + intText(rs.ID))}}
	text, err := json.Marshal(rs)
	if err == nil {
		err = json.Unmarshal(text, &o)
	}
	if err != nil {
		panic(err)
	}
	return o
}

func sentRuleset(c *call, rs *ruleset) error {
	in, err := decode[ruleset](c)
	if err != nil {
		return err
	}
	if in.Name == "" || !slices.Contains([]string{"active", "evaluate", "disabled"}, in.Enforcement) {
		return invalid("Ruleset", "enforcement", "invalid", "")
	}
	in.ID, in.created, in.now = rs.ID, rs.created, c.s.time()
	if in.Target == "" {
		in.Target = "branch"
	}
	in.Bypass, in.Rules = append([]bypass{}, in.Bypass...), append([]rule{}, in.Rules...)
	in.Conditions.RefName.Include = append([]string{}, in.Conditions.RefName.Include...)
	in.Conditions.RefName.Exclude = append([]string{}, in.Conditions.RefName.Exclude...)
	*rs = in
	return nil
}

func createRuleset(c *call) (any, error) {
	rs := &ruleset{created: c.s.time()}
	if err := sentRuleset(c, rs); err != nil {
		return nil, err
	}
	if slices.ContainsFunc(c.repo.rulesets, func(one *ruleset) bool { return one.Name == rs.Name }) {
		return nil, &failure{status: 422, message: "Validation Failed", errors: []any{"Name must be unique"}}
	}
	rs.ID = c.s.id()
	c.repo.rulesets = append(c.repo.rulesets, rs)
	return c.repo.showRuleset(rs), nil
}

func updateRuleset(c *call, rs *ruleset) (any, error) {
	if err := sentRuleset(c, rs); err != nil {
		return nil, err
	}
	return c.repo.showRuleset(rs), nil
}

// A ruled is a rule with where it comes from.
type ruled struct {
	rule
	from *ruleset
}

// rulesFor are the rules in force for a branch.
func (r *Repo) rulesFor(branch string) []ruled {
	var all []ruled
	for _, rs := range r.rulesets {
		if rs.Enforcement != "active" || rs.Target != "branch" || !r.named(rs.Conditions.RefName.Include, branch) || r.named(rs.Conditions.RefName.Exclude, branch) {
			continue
		}
		for _, one := range rs.Rules {
			all = append(all, ruled{one, rs})
		}
	}
	return all
}

func (r *Repo) named(patterns []string, branch string) bool {
	return slices.ContainsFunc(patterns, func(p string) bool {
		ok, err := path.Match(p, "refs/heads/"+branch)
		return p == "~ALL" || p == "~DEFAULT_BRANCH" && branch == r.main || err == nil && ok
	})
}

func (r *Repo) showRule(one ruled) any {
	o := object{"type": one.Type, "ruleset_source_type": "Repository", "ruleset_source": r.FullName(), "ruleset_id": one.from.ID}
	if one.Parameters != nil {
		o["parameters"] = maps.Clone(one.Parameters)
	}
	return o
}

func (r *Repo) dismissesStale(branch string) bool {
	return slices.ContainsFunc(r.rulesFor(branch), func(one ruled) bool {
		return one.Type == "pull_request" && one.Parameters["dismiss_stale_reviews_on_push"] == true
	})
}

// passes reports whether somebody need not keep the rules of a ruleset.
func (c *call) passes(rs *ruleset) bool {
	return slices.ContainsFunc(rs.Bypass, func(b bypass) bool {
		switch b.ActorType {
		case "Integration":
			return c.by.app != nil && c.by.app.ID == b.ActorID
		case "RepositoryRole":
			role := map[int64]string{1: "read", 2: "maintain", 3: "triage", 4: "write", 5: "admin"}[b.ActorID]
			return !c.by.installation && atLeast(c.repo.roleOf(c.by.account.Login), role)
		case "OrganizationAdmin":
			return !c.by.installation && c.repo.roleOf(c.by.account.Login) == "admin"
		}
		return false
	})
}

// ruled asks the rules of a branch about a change of it: "creation", "update" or
// "deletion". What they said is kept as a suite.
func (c *call) ruled(ref, sha, what string, forced bool) error {
	branch, is := strings.CutPrefix(ref, "heads/")
	if !is {
		return nil
	}
	var broken []string
	result := "pass"
	all := c.repo.rulesFor(branch)
	for _, one := range all {
		text := c.breaks(one, sha, what, forced)
		switch {
		case text == "":
		case c.passes(one.from):
			result = "bypass"
		default:
			broken = append(broken, text)
		}
	}
	if broken != nil {
		result = "fail"
	}
	if len(all) > 0 {
		c.repo.suites = append(c.repo.suites, &suite{c.s.id(), c.by.account, c.repo.refs[ref], sha, "refs/" + ref, result, c.s.time()})
	}
	if broken == nil {
		return nil
	}
	status := http.StatusUnprocessableEntity
	if strings.Contains(c.r.URL.Path, "/contents/") {
		status = http.StatusConflict
	}
	return refuse(status, "Repository rule violations found\n\n%s\n\n", strings.Join(broken, "\n\n"))
}

// breaks says what of a rule a change breaks.
func (c *call) breaks(one ruled, sha, what string, forced bool) string {
	made := c.s.git.commits[sha]
	switch {
	case one.Type == what:
		return map[string]string{"creation": "Cannot create ref due to creations being restricted.", "update": "Cannot update this protected ref.",
			"deletion": "Cannot delete this protected ref."}[what]
	case one.Type == "non_fast_forward" && forced:
		return "Cannot force-push to this branch"
	case one.Type == "required_signatures" && made != nil && !made.signed:
		return "Commits must have verified signatures."
	case one.Type == "required_linear_history" && made != nil && len(made.parents) > 1:
		return "This branch must not contain merge commits."
	case one.Type == "pull_request" && what == "update":
		return "Changes must be made through a pull request."
	}
	return ""
}

// mayMerge asks the rules of the base about a merge.
func (c *call) mayMerge(p *pull) error {
	for _, one := range c.repo.rulesFor(p.base) {
		need, _ := one.Parameters["required_approving_review_count"].(float64)
		if one.Type == "pull_request" && c.repo.approvals(p) < int(need) && !c.passes(one.from) {
			return refuse(http.StatusMethodNotAllowed, "Repository rule violations found\n\nAt least %d approving review is required by reviewers with write access.\n\n", int(need))
		}
	}
	return nil
}

// AddRuleSuite says how the rules judged a change of a branch: pass, fail, bypass.
func (r *Repo) AddRuleSuite(branch, login, before, after, result string) {
	r.s.mu.Lock()
	defer r.s.mu.Unlock()
	r.suites = append(r.suites, &suite{r.s.id(), r.s.account(login), before, after, "refs/heads/" + branch, result, r.s.time()})
}

func listSuites(c *call) (any, error) {
	all := slices.DeleteFunc(slices.Clone(c.repo.suites), func(s *suite) bool {
		ref, result := c.query("ref"), c.query("rule_suite_result")
		return ref != "" && s.ref != ref && s.ref != "refs/heads/"+ref || result != "" && result != "all" && s.result != result
	})
	slices.Reverse(all)
	return page(c, all, func(s *suite) any {
		return object{"id": s.id, "actor_id": s.actor.ID, "actor_name": s.actor.Login, "before_sha": s.before, "after_sha": s.after, "ref": s.ref,
			"repository_id": c.repo.ID, "repository_name": c.repo.Name, "pushed_at": date(s.at), "result": s.result, "evaluation_result": s.result}
	}), nil
}
