package approval

import (
	"fmt"
	"slices"
	"strings"
)

// A judge goes through facts.
type judge struct {
	p       Policy
	f       Facts
	v       Verdict
	refused bool
	banned  map[string]string // login → why
}

// Decide says whether facts are what a policy asks for.
func Decide(p Policy, f Facts) Verdict {
	j := &judge{p: p, f: f, v: Verdict{Needs: p.Count, By: []Approver{}, Reasons: []Reason{}, Could: []string{}}}
	if p.None() {
		j.v.Approved = true
		return j.v
	}
	j.v.Needs = max(p.Count, 1)
	if !f.InActions {
		j.no("outside", "outside of GitHub Actions nobody can approve; break-glass is the one way")
		return j.v
	}
	j.v.Could = p.By
	if len(p.By) == 0 {
		j.v.Could = []string{"anybody who may write to the repository"}
	}
	j.bans()
	j.plan()
	j.run()
	if p.Environment != "" {
		j.environment()
	}
	if p.PullRequest {
		j.pull()
	}
	j.count()
	for _, what := range f.Unread {
		j.no("unread", "%s could not be read", what)
	}
	j.v.Approved = !j.refused
	return j.v
}

// no refuses.
func (j *judge) no(code, format string, args ...any) {
	j.refused = true
	j.note(code, format, args...)
}

// note says what does not count, which is not yet a refusal.
func (j *judge) note(code, format string, args ...any) {
	j.v.Reasons = append(j.v.Reasons, Reason{code, fmt.Sprintf(format, args...)})
}

// bans gathers who may not approve.
func (j *judge) bans() {
	j.banned = map[string]string{}
	ban := func(login, why string) {
		if login != "" && j.banned[key(login)] == "" {
			j.banned[key(login)] = why
		}
	}
	if p := j.f.Pull; p != nil && j.p.PullRequest {
		ban(p.Author.Login, "opened the pull request")
		for _, m := range p.Makers {
			ban(m, "committed to the pull request")
		}
	}
	if j.f.Action == Rollback {
		ban(j.f.Started, "asked for the rollback")
	}
	if j.p.SelfReview && !j.p.PullRequest {
		return
	}
	for _, a := range j.f.Actors {
		ban(a, "started a run of this rotation")
	}
	// On a schedule, GitHub names whoever touched its line last: that is nobody's act.
	if r := j.f.Run; r != nil && r.Event != "schedule" {
		ban(r.Actor.Login, "started this run")
		ban(r.Trigger.Login, "started this run")
	}
}

func key(login string) string { return strings.ToLower(login) }

func (j *judge) plan() {
	switch {
	case j.f.PlanNow == "":
		j.no("plan", "there is no plan")
	case j.f.PlanShown == "":
		j.no("plan-not-shown", "the job before the gate showed no plan: hand its hash on, as the input plan")
	case j.f.PlanShown != j.f.PlanNow:
		j.no("plan-changed", "the plan changed since it was shown: it was %.12s, and is %.12s", j.f.PlanShown, j.f.PlanNow)
	}
	if j.f.PolicyFrom == "" {
		j.no("policy", "the configuration is not that of the default branch")
	}
}

// run checks the run that asks: it must be of the default branch, and not of an
// event that runs in a pull request's context.
func (j *judge) run() {
	r := j.f.Run
	switch {
	case r == nil:
		j.no("run", "GitHub knows nothing of this run")
		return
	case !slices.Contains([]string{"workflow_dispatch", "push", "schedule", "repository_dispatch"}, r.Event):
		j.no("event", "a run of the event %s cannot be approved: it runs in the context of a pull request", r.Event)
	case j.f.Default == "" || r.Branch != j.f.Default:
		j.no("branch", "the run is of branch %q, not of the default branch", r.Branch)
	case r.SHA == "" || r.SHA != r.HeadSHA:
		j.no("commit", "the run is of another commit than this job")
	}
	if len(j.p.Workflows) > 0 && !slices.Contains(j.p.Workflows, r.Path) {
		j.no("workflow", "the workflow %s may not do it", r.Path)
	}
}

// eligible says why somebody's approval does not count, or nothing.
func (j *judge) eligible(who Person) (code, why string) {
	switch {
	case who.Login == "":
		return "unknown", "somebody whom GitHub does not know any more"
	case who.Bot:
		return "bot", who.Login + " is no person"
	case j.banned[key(who.Login)] != "":
		return "own-work", who.Login + " " + j.banned[key(who.Login)]
	case !j.f.MayWrite[key(who.Login)]:
		return "no-access", who.Login + " may not write to the repository now"
	case !j.named(who.Login):
		return "not-named", who.Login + " is not one of " + strings.Join(j.p.By, ", ")
	}
	return "", ""
}

// named reports whether somebody is one of those who may approve.
func (j *judge) named(login string) bool {
	return names(j.p.By, login, j.f.MemberOf[key(login)])
}

// names reports whether a list of logins and teams names somebody; an empty one
// names everybody.
func names(list []string, login string, teams []string) bool {
	fold := func(is string) func(string) bool { return func(s string) bool { return strings.EqualFold(s, is) } }
	return len(list) == 0 || slices.ContainsFunc(list, func(by string) bool {
		if isTeam(by) {
			return slices.ContainsFunc(teams, fold(by))
		}
		return strings.EqualFold(by, login)
	})
}

// isTeam reports whether a name is that of a team, org/team.
func isTeam(name string) bool { return strings.Contains(name, "/") }

// NamesTeam reports whether a list of logins and teams names a team.
func NamesTeam(list []string) bool { return slices.ContainsFunc(list, isTeam) }

// environment is the gate of the job's environment. It asks for the recorded
// approvals, not for the environment's name: a job that names one which is not
// there makes it, unprotected, and runs straight through.
func (j *judge) environment() {
	e := j.f.Env
	if e == nil {
		j.no("env-missing", "there is no environment %q, or it cannot be read", j.p.Environment)
		return
	}
	for _, c := range []struct {
		bad        bool
		code, text string
	}{
		{!e.Reviewers, "env-open", "asks for no reviewer"},
		{!e.PreventSelf && !j.p.SelfReview, "env-self", "lets whoever starts a run approve it"},
		{e.AdminBypass, "env-bypass", "lets administrators go round its rules"},
		{!e.DefaultOnly, "env-branches", "is open to other branches than the default one"},
	} {
		if c.bad {
			j.no(c.code, "the environment %q %s", e.Name, c.text)
		}
	}
	j.decisions(e)
}

// decisions counts what people said to the jobs of this run that waited.
func (j *judge) decisions(e *Environment) {
	var given []Decision
	for _, d := range j.f.Decisions {
		if !slices.Contains(d.Environments, e.ID) {
			continue
		}
		if !d.Approved {
			j.no("rejected", "%s rejected it", d.By.Login)
			continue
		}
		given = append(given, d)
	}
	// GitHub keeps them by run, not by attempt: those of earlier attempts are not of this one.
	if r := j.f.Run; r != nil && r.Attempt > 1 {
		if j.f.Earlier < 0 || j.f.Earlier >= len(given) {
			given = nil
			j.note("attempt", "the approvals of an earlier attempt do not count")
		} else {
			given = given[j.f.Earlier:]
		}
	}
	before := len(j.v.By)
	for _, d := range given {
		if code, why := j.eligible(d.By); code != "" {
			j.note(code, "%s", why)
			continue
		}
		j.add(Approver{Person: d.By, How: "environment", Env: e.ID})
	}
	if len(j.v.By) == before {
		j.no("env-not-approved", "nobody whose word counts has approved in the environment %q", e.Name)
	}
}

// add counts a person once.
func (j *judge) add(a Approver) {
	if i := slices.IndexFunc(j.v.By, func(b Approver) bool { return b.ID == a.ID }); i < 0 {
		j.v.By = append(j.v.By, a)
	}
}

// count says whether there are enough.
func (j *judge) count() {
	needs := j.v.Needs
	if j.p.PullRequest && j.f.Rules != nil {
		needs = max(needs, j.f.Rules.Count)
		j.v.Needs = needs
	}
	if j.p.Environment != "" && !j.p.PullRequest && needs > 1 {
		j.no("env-one", "an environment gives one approval, and %d are asked for: ask for the pull request, too", needs)
	}
	if len(j.v.By) < needs {
		j.no("count", "%d more needed", needs-len(j.v.By))
	}
}
