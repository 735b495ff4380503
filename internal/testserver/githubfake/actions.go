package githubfake

import (
	"cmp"
	"slices"
	"time"
)

// A Run is a workflow's run.
type Run struct {
	ID             int64  // 0: the next number
	Attempt        int    // 0 is 1
	Event          string // "" is workflow_dispatch
	Branch         string // "" is the default branch
	SHA            string // "" is the head of the branch
	Path           string // of the workflow's file
	Actor, Trigger string // Trigger "" is the actor
	Status         string // "" is in_progress
}

type run struct {
	Run
	created   time.Time
	decisions []decision
}

type decision struct {
	state   string
	by      *Account
	comment string
	env     *environment
}

// An Environment is a place that jobs deploy to, with its rules.
type Environment struct {
	Reviewers   []string // logins; none asks for no review
	PreventSelf bool
	AdminBypass bool
	Branches    []string // names that may deploy; none: every branch
	custom      bool     // names are given, and there may be none
}

type environment struct {
	Environment
	id   int64
	name string
}

func actionRoutes() []route {
	return []route{
		{"GET /repos/{owner}/{repo}/actions/runs/{id}", 200, "actions=read", func(c *call) (any, error) {
			r, err := c.run()
			if err != nil {
				return nil, err
			}
			return c.repo.showRun(r), nil
		}},
		{"GET /repos/{owner}/{repo}/actions/runs/{id}/attempts/{attempt}", 200, "actions=read", func(c *call) (any, error) {
			r, err := c.run()
			if err != nil {
				return nil, err
			}
			n, err := c.number("attempt")
			if err != nil || int(n) > r.Attempt {
				return nil, notFound()
			}
			shown := *r
			if int(n) < r.Attempt {
				shown.Attempt, shown.Status = int(n), "completed"
			}
			return c.repo.showRun(&shown), nil
		}},
		{"GET /repos/{owner}/{repo}/actions/runs/{id}/approvals", 200, "actions=read", func(c *call) (any, error) {
			r, err := c.run()
			if err != nil {
				return nil, err
			}
			out := []any{}
			for _, d := range r.decisions {
				out = append(out, object{"state": d.state, "comment": d.comment, "user": c.s.user(d.by), "environments": []any{c.repo.briefEnvironment(d.env)}})
			}
			return out, nil
		}},
		{"GET /repos/{owner}/{repo}/environments/{name}", 200, "actions=read", func(c *call) (any, error) {
			e := c.repo.environment(c.value("name"))
			if e == nil {
				return nil, notFound()
			}
			return c.repo.showEnvironment(e), nil
		}},
		{"PUT /repos/{owner}/{repo}/environments/{name}", 200, "administration=write", putEnvironment},
		{"POST /repos/{owner}/{repo}/environments/{name}/deployment-branch-policies", 200, "administration=write", func(c *call) (any, error) {
			in, err := decode[struct{ Name string }](c)
			e := c.repo.environment(c.value("name"))
			if err != nil || e == nil {
				return nil, cmp.Or(err, error(notFound()))
			}
			e.Branches = append(e.Branches, in.Name)
			return object{"id": e.id*100 + int64(len(e.Branches)), "node_id": node("BP", e.id), "name": in.Name, "type": "branch"}, nil
		}},
		{"GET /repos/{owner}/{repo}/actions/secrets", 200, "secrets=read", func(c *call) (any, error) {
			out := []any{}
			for _, name := range c.repo.secrets {
				out = append(out, object{"name": name, "created_at": date(c.repo.created), "updated_at": date(c.repo.created)})
			}
			return object{"total_count": len(out), "secrets": out}, nil
		}},
		{"GET /repos/{owner}/{repo}/environments/{name}/deployment-branch-policies", 200, "actions=read", func(c *call) (any, error) {
			e := c.repo.environment(c.value("name"))
			if e == nil {
				return nil, notFound()
			}
			out := []any{}
			for i, b := range e.Branches {
				out = append(out, object{"id": e.id*100 + int64(i), "node_id": node("BP", e.id), "name": b, "type": "branch"})
			}
			return object{"total_count": len(out), "branch_policies": out}, nil
		}},
	}
}

// putEnvironment replaces the rules of an environment, as GitHub does: what is not
// sent is as if it was never set.
func putEnvironment(c *call) (any, error) {
	in, err := decode[struct {
		Reviewers []struct {
			Type string
			ID   int64
		}
		PreventSelf bool  `json:"prevent_self_review"`
		AdminBypass *bool `json:"can_admins_bypass"`
		Branches    *struct {
			Custom bool `json:"custom_branch_policies"`
		} `json:"deployment_branch_policy"`
	}](c)
	if err != nil {
		return nil, err
	}
	e := c.repo.environment(c.value("name"))
	if e == nil {
		e = &environment{id: c.s.id(), name: c.value("name")}
		c.repo.environments = append(c.repo.environments, e)
	}
	branches := e.Branches
	e.Environment = Environment{PreventSelf: in.PreventSelf, AdminBypass: in.AdminBypass == nil || *in.AdminBypass, custom: in.Branches != nil && in.Branches.Custom}
	if e.custom {
		e.Branches = branches
	}
	for _, r := range in.Reviewers {
		e.Reviewers = append(e.Reviewers, r.Type+" "+intText(r.ID))
	}
	return c.repo.showEnvironment(e), nil
}

// AddSecret adds the name of a secret that every workflow of the repository may read.
func (r *Repo) AddSecret(name string) {
	r.s.mu.Lock()
	defer r.s.mu.Unlock()
	r.secrets = append(r.secrets, name)
}

func (c *call) run() (*run, error) {
	id, err := c.number("id")
	if err != nil {
		return nil, err
	}
	for _, r := range c.repo.runs {
		if r.ID == id {
			return r, nil
		}
	}
	return nil, notFound()
}

// AddRun adds a run, or replaces the one with its number, and returns the number.
// What people said to it stays, as on GitHub when a run is run again.
func (r *Repo) AddRun(one Run) int64 {
	r.s.mu.Lock()
	defer r.s.mu.Unlock()
	if one.ID == 0 {
		one.ID = r.s.id()
	}
	one.Attempt = max(one.Attempt, 1)
	for _, d := range []struct {
		to        *string
		otherwise string
	}{{&one.Event, "workflow_dispatch"}, {&one.Branch, r.main}, {&one.Trigger, one.Actor}, {&one.Status, "in_progress"}, {&one.Path, ".github/workflows/cutover.yml"}} {
		if *d.to == "" {
			*d.to = d.otherwise
		}
	}
	if one.SHA == "" {
		one.SHA = r.refs["heads/"+one.Branch]
	}
	made := &run{Run: one, created: r.s.time()}
	r.runs = slices.DeleteFunc(r.runs, func(old *run) bool {
		if old.ID == one.ID {
			made.decisions = old.decisions
		}
		return old.ID == one.ID
	})
	r.runs = append(r.runs, made)
	return one.ID
}

// SetEnvironment makes an environment, or changes its rules.
func (r *Repo) SetEnvironment(name string, e Environment) {
	r.s.mu.Lock()
	defer r.s.mu.Unlock()
	if old := r.environment(name); old != nil {
		old.Environment = e
		return
	}
	r.environments = append(r.environments, &environment{e, r.s.id(), name})
}

// Approve is what a person says to a job of a run that waits for an environment;
// Reject the opposite.
func (r *Repo) Approve(run int64, env, login string) { r.decide(run, env, login, "approved") }

// Reject is what a person says to a job that shall not go on.
func (r *Repo) Reject(run int64, env, login string) { r.decide(run, env, login, "rejected") }

func (r *Repo) decide(id int64, env, login, state string) {
	r.s.mu.Lock()
	defer r.s.mu.Unlock()
	for _, one := range r.runs {
		if one.ID == id {
			one.decisions = append(one.decisions, decision{state, r.s.account(login), "", r.environment(env)})
		}
	}
}

func (r *Repo) environment(name string) *environment {
	for _, e := range r.environments {
		if e.name == name {
			return e
		}
	}
	return nil
}

func (r *Repo) briefEnvironment(e *environment) object {
	return object{"id": e.id, "node_id": node("EN", e.id), "name": e.name, "url": r.api() + "/environments/" + e.name,
		"html_url": r.web() + "/deployments/activity_log?environments_filter=" + e.name, "created_at": date(r.created), "updated_at": date(r.created)}
}

func (r *Repo) showEnvironment(e *environment) any {
	o := r.briefEnvironment(e)
	o["can_admins_bypass"] = e.AdminBypass
	rules := []any{}
	if len(e.Reviewers) > 0 {
		reviewers := []any{}
		for _, login := range e.Reviewers {
			reviewers = append(reviewers, object{"type": "User", "reviewer": r.s.user(r.s.account(login))})
		}
		rules = append(rules, object{"id": e.id + 1, "node_id": node("GA", e.id), "type": "required_reviewers", "prevent_self_review": e.PreventSelf, "reviewers": reviewers})
	}
	o["deployment_branch_policy"] = nil
	if len(e.Branches) > 0 || e.custom {
		o["deployment_branch_policy"] = object{"protected_branches": false, "custom_branch_policies": true}
		rules = append(rules, object{"id": e.id + 2, "node_id": node("GB", e.id), "type": "branch_policy"})
	}
	o["protection_rules"] = rules
	return o
}

// showRun shows a run with what the tests need of it; GitHub's has more.
func (r *Repo) showRun(one *run) any {
	at := r.api() + "/actions/runs/" + intText(one.ID)
	var conclusion any
	if one.Status == "completed" {
		conclusion = "success"
	}
	head := r.s.git.commits[one.SHA]
	var commit any
	if head != nil {
		commit = object{"id": head.sha, "tree_id": head.tree, "message": head.message, "timestamp": date(head.author.Date),
			"author":    object{"name": head.author.Name, "email": head.author.Email},
			"committer": object{"name": head.committer.Name, "email": head.committer.Email}}
	}
	return object{
		"id": one.ID, "name": "cutover", "node_id": node("WR", one.ID), "check_suite_id": one.ID, "check_suite_node_id": node("CS", one.ID),
		"head_branch": one.Branch, "head_sha": one.SHA, "path": one.Path, "run_number": 1, "run_attempt": one.Attempt, "event": one.Event,
		"display_title": "cutover", "status": one.Status, "conclusion": conclusion, "workflow_id": 1, "url": at, "html_url": r.web() + "/actions/runs/" + intText(one.ID),
		"pull_requests": []any{}, "created_at": date(one.created), "updated_at": date(one.created), "run_started_at": date(one.created),
		"actor": r.s.user(r.s.account(one.Actor)), "triggering_actor": r.s.user(r.s.account(one.Trigger)),
		"jobs_url": at + "/jobs", "logs_url": at + "/logs", "check_suite_url": at + "/check", "artifacts_url": at + "/artifacts", "cancel_url": at + "/cancel",
		"rerun_url": at + "/rerun", "previous_attempt_url": nil, "workflow_url": r.api() + "/actions/workflows/1", "head_commit": commit,
		"repository": r.minimal(), "head_repository": r.minimal(),
	}
}
