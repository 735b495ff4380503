package approval_test

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/keyturn/keyturn/internal/approval"
)

const planHash = "4be1c0ffee00aa11"

var (
	now   = time.Date(2026, 11, 25, 12, 0, 0, 0, time.UTC)
	alice = approval.Person{Login: "alice", ID: 1} // opens the pull request and starts the runs
	bob   = approval.Person{Login: "bob", ID: 2}
	carol = approval.Person{Login: "carol", ID: 3}
	dave  = approval.Person{Login: "dave", ID: 4} // of no team
	robot = approval.Person{Login: "helper[bot]", ID: 5, Bot: true}
)

// A case is a situation: a policy and facts.
type situation struct {
	p approval.Policy
	f approval.Facts
}

func review(id int64, by approval.Person, state, head string, age time.Duration) approval.Review {
	return approval.Review{ID: id, By: by, State: state, Head: head, At: now.Add(-age)}
}

// good is a cutover that is approved by both gates: carol in the environment, bob on
// the pull request.
func good() *situation {
	return &situation{
		p: approval.Policy{Count: 2, By: []string{"acme/sre"}, Environment: "prod-cutover", PullRequest: true,
			Workflows: []string{".github/workflows/cutover.yml"}},
		f: approval.Facts{
			Action: approval.Cutover, InActions: true, Now: now, PlanShown: planHash, PlanNow: planHash, Default: "main", PolicyFrom: "aa",
			Run: &approval.Run{ID: 77, Attempt: 1, Event: "workflow_dispatch", Branch: "main", SHA: "m1", HeadSHA: "m1",
				Path: ".github/workflows/cutover.yml", Actor: alice, Trigger: alice},
			Env:       &approval.Environment{ID: 9, Name: "prod-cutover", Reviewers: true, PreventSelf: true, DefaultOnly: true},
			Decisions: []approval.Decision{{Approved: true, By: carol, Environments: []int64{9}}},
			Pull: &approval.Pull{Number: 12, Open: true, Base: "main", Head: "h1", Author: robot, Makers: []string{"helper[bot]"},
				Reviews: []approval.Review{review(100, bob, "APPROVED", "h1", time.Hour)}},
			Proposed: &approval.Proposal{Number: 12, Head: "h1", At: now.Add(-2 * time.Hour)},
			Actors:   []string{"alice"},
			MayWrite: map[string]bool{"alice": true, "bob": true, "carol": true, "dave": true, "helper[bot]": true},
			MemberOf: map[string][]string{"alice": {"acme/sre"}, "bob": {"acme/sre"}, "carol": {"acme/sre"}, "helper[bot]": {"acme/sre"}},
			Rules:    &approval.Rules{Count: 1},
		},
	}
}

// byEnvironment is one that the environment alone decides.
func byEnvironment() *situation {
	s := good()
	s.p.Count, s.p.PullRequest = 1, false
	s.f.Pull, s.f.Proposed, s.f.Rules = nil, nil, nil
	return s
}

// byPull is one that the pull request alone decides.
func byPull() *situation {
	s := good()
	s.p.Count, s.p.Environment = 1, ""
	s.f.Env, s.f.Decisions = nil, nil
	return s
}

// rolledBack is a rollback that alice asked for and carol lets go on.
func rolledBack() *situation {
	s := byEnvironment()
	s.f.Action, s.f.Started = approval.Rollback, "alice"
	s.p.Environment, s.f.Env.Name = "prod-rollback", "prod-rollback"
	return s
}

// TestSituations is what can be the case, and what comes of it: approved, or the
// reason why not. Hard problems 34, 35, 36, 60 and 63.
func TestSituations(t *testing.T) {
	for name, c := range map[string]struct {
		of     func() *situation
		change func(s *situation)
		want   string // "" is approved
	}{
		"both gates":                      {good, nil, ""},
		"nothing is asked for":            {good, func(s *situation) { s.p = approval.Policy{}; s.f = approval.Facts{} }, ""},
		"nothing is known":                {good, func(s *situation) { s.f = approval.Facts{InActions: true} }, "run"},
		"outside of Actions":              {good, func(s *situation) { s.f.InActions = false }, "outside"},
		"a fact could not be read":        {good, func(s *situation) { s.f.Unread = []string{"the reviews"} }, "unread"},
		"the plan was not shown":          {good, func(s *situation) { s.f.PlanShown = "" }, "plan-not-shown"},
		"there is no plan":                {good, func(s *situation) { s.f.PlanNow = "" }, "plan"},
		"the plan changed after approval": {good, func(s *situation) { s.f.PlanNow = "0123456789abcdef" }, "plan-changed"},
		"the policy is the branch's own":  {good, func(s *situation) { s.f.PolicyFrom = "" }, "policy"},
		"the run is unknown":              {good, func(s *situation) { s.f.Run = nil }, "run"},
		"a pull request's event":          {good, func(s *situation) { s.f.Run.Event = "pull_request" }, "event"},
		"a pull request's event, target":  {good, func(s *situation) { s.f.Run.Event = "pull_request_target" }, "event"},
		"a review's event":                {good, func(s *situation) { s.f.Run.Event = "pull_request_review" }, "event"},
		"a comment's event":               {good, func(s *situation) { s.f.Run.Event = "issue_comment" }, "event"},
		"a merge queue's event":           {good, func(s *situation) { s.f.Run.Event = "merge_group" }, "event"},
		"another branch":                  {good, func(s *situation) { s.f.Run.Branch = "mine" }, "branch"},
		"the default branch is not known": {good, func(s *situation) { s.f.Default = "" }, "branch"},
		"another commit than the job's":   {good, func(s *situation) { s.f.Run.HeadSHA = "m2" }, "commit"},
		"another workflow":                {good, func(s *situation) { s.f.Run.Path = ".github/workflows/mine.yml" }, "workflow"},
		"a schedule":                      {byEnvironment, func(s *situation) { s.f.Run.Event = "schedule" }, ""},
		"a schedule whose line carol wrote": {byEnvironment, func(s *situation) {
			s.f.Run.Event, s.f.Run.Actor, s.f.Run.Trigger = "schedule", carol, carol
		}, ""},
		"a push to the default branch": {byEnvironment, func(s *situation) { s.f.Run.Event = "push" }, ""},

		"the environment alone":            {byEnvironment, nil, ""},
		"the environment is missing":       {byEnvironment, func(s *situation) { s.f.Env, s.f.Decisions = nil, nil }, "env-missing"},
		"it was made by naming it":         {byEnvironment, func(s *situation) { *s.f.Env = approval.Environment{ID: 9, Name: "prod-cutover"}; s.f.Decisions = nil }, "env-open"},
		"it has no reviewers":              {byEnvironment, func(s *situation) { s.f.Env.Reviewers = false }, "env-open"},
		"it lets people approve their own": {byEnvironment, func(s *situation) { s.f.Env.PreventSelf = false }, "env-self"},
		"administrators may bypass it":     {byEnvironment, func(s *situation) { s.f.Env.AdminBypass = true }, "env-bypass"},
		"an administrator did bypass it":   {byEnvironment, func(s *situation) { s.f.Decisions = nil }, "env-not-approved"},
		"it is open to any branch":         {byEnvironment, func(s *situation) { s.f.Env.DefaultOnly = false }, "env-branches"},
		"somebody rejected it": {byEnvironment, func(s *situation) {
			s.f.Decisions = append(s.f.Decisions, approval.Decision{By: bob, Environments: []int64{9}})
		}, "rejected"},
		"another environment was approved":    {byEnvironment, func(s *situation) { s.f.Decisions[0].Environments = []int64{8} }, "env-not-approved"},
		"the approver started the run":        {byEnvironment, func(s *situation) { s.f.Run.Actor = carol }, "own-work"},
		"the approver started this attempt":   {byEnvironment, func(s *situation) { s.f.Run.Trigger = carol }, "own-work"},
		"the approver started an earlier run": {byEnvironment, func(s *situation) { s.f.Actors = []string{"alice", "Carol"} }, "own-work"},
		"the approver is a bot":               {byEnvironment, func(s *situation) { s.f.Decisions[0].By = robot }, "bot"},
		"the approver left GitHub":            {byEnvironment, func(s *situation) { s.f.Decisions[0].By = approval.Person{} }, "unknown"},
		"the approver lost access":            {byEnvironment, func(s *situation) { s.f.MayWrite["carol"] = false }, "no-access"},
		"the approver left the team":          {byEnvironment, func(s *situation) { s.f.MemberOf["carol"] = nil }, "not-named"},
		"the approver is of no team":          {byEnvironment, func(s *situation) { s.f.Decisions[0].By = dave }, "not-named"},
		"anybody who may write":               {byEnvironment, func(s *situation) { s.p.By = nil; s.f.Decisions[0].By = dave }, ""},
		"a login is named":                    {byEnvironment, func(s *situation) { s.p.By = []string{"Dave"}; s.f.Decisions[0].By = dave }, ""},
		"a re-run, with the old approval":     {byEnvironment, func(s *situation) { s.f.Run.Attempt, s.f.Earlier = 2, 1 }, "attempt"},
		"a re-run of which nothing is known":  {byEnvironment, func(s *situation) { s.f.Run.Attempt, s.f.Earlier = 2, -1 }, "attempt"},
		"a re-run that was approved again": {byEnvironment, func(s *situation) {
			s.f.Run.Attempt, s.f.Earlier = 2, 1
			s.f.Decisions = append(s.f.Decisions, approval.Decision{Approved: true, By: bob, Environments: []int64{9}})
		}, ""},
		"more than an environment can give": {byEnvironment, func(s *situation) { s.p.Count = 2 }, "env-one"},
		"one who is alone": {byEnvironment, func(s *situation) {
			s.p.SelfReview, s.f.Env.PreventSelf, s.f.Decisions[0].By = true, false, alice
		}, ""},

		"the pull request alone":            {byPull, nil, ""},
		"there is none":                     {byPull, func(s *situation) { s.f.Pull = nil }, "pull-missing"},
		"one that the record does not know": {byPull, func(s *situation) { s.f.Proposed = nil }, "pull-unknown"},
		"another one than was proposed":     {byPull, func(s *situation) { s.f.Pull.Number = 13 }, "pull-unknown"},
		"it was changed after it was made":  {byPull, func(s *situation) { s.f.Pull.Head = "h2"; s.f.Pull.Reviews[0].Head = "h2" }, "pull-moved"},
		"it is a draft":                     {byPull, func(s *situation) { s.f.Pull.Draft = true }, "pull-draft"},
		"it was closed":                     {byPull, func(s *situation) { s.f.Pull.Open = false }, "pull-closed"},
		"it goes elsewhere":                 {byPull, func(s *situation) { s.f.Pull.Base = "develop" }, "pull-base"},
		"it comes from a fork":              {byPull, func(s *situation) { s.f.Pull.Fork = true }, "pull-fork"},
		"a commit is by nobody":             {byPull, func(s *situation) { s.f.Pull.Unnamed = true }, "pull-unnamed"},
		"it was merged":                     {byPull, func(s *situation) { s.f.Pull.Open, s.f.Pull.Merged, s.f.Pull.InRun = false, true, true }, ""},
		"it was squashed and merged": {byPull, func(s *situation) {
			s.f.Pull.Open, s.f.Pull.Merged, s.f.Pull.InRun, s.f.Pull.MergedAs = false, true, true, "m1"
		}, ""},
		"it was merged elsewhere":           {byPull, func(s *situation) { s.f.Pull.Open, s.f.Pull.Merged = false, true }, "pull-elsewhere"},
		"it was merged past the rules":      {byPull, func(s *situation) { s.f.Pull.Merged, s.f.Pull.InRun, s.f.Rules.Bypassed = true, true, true }, "rule-bypass"},
		"the branch asks for more":          {byPull, func(s *situation) { s.f.Rules.Count = 2 }, "count"},
		"the rules could not be read":       {byPull, func(s *situation) { s.f.Rules = nil }, "rules"},
		"code owners have not reviewed":     {byPull, func(s *situation) { s.f.Rules.CodeOwners = true }, "code-owners"},
		"code owners have reviewed":         {byPull, func(s *situation) { s.f.Rules.CodeOwners, s.f.Rules.Satisfied = true, true }, ""},
		"nobody reviewed":                   {byPull, func(s *situation) { s.f.Pull.Reviews = nil }, "count"},
		"a review of an older head":         {byPull, func(s *situation) { s.f.Pull.Reviews[0].Head = "h0" }, "stale"},
		"a review from before the proposal": {byPull, func(s *situation) { s.f.Pull.Reviews[0].At = now.Add(-3 * time.Hour) }, "stale"},
		"a review that is too old": {byPull, func(s *situation) {
			s.f.Pull.Reviews[0].At, s.f.Proposed.At = now.Add(-15*24*time.Hour), now.Add(-20*24*time.Hour)
		}, "old"},
		"a review that was dismissed": {byPull, func(s *situation) { s.f.Pull.Reviews[0].State = "DISMISSED" }, "dismissed"},
		"approved, then asked for changes": {byPull, func(s *situation) {
			s.f.Pull.Reviews = append(s.f.Pull.Reviews, review(101, bob, "CHANGES_REQUESTED", "h1", 0))
		}, "changes-requested"},
		"approved, then commented": {byPull, func(s *situation) {
			s.f.Pull.Reviews = append(s.f.Pull.Reviews, review(101, bob, "COMMENTED", "h1", 0))
		}, ""},
		"asked for changes, then approved": {byPull, func(s *situation) {
			s.f.Pull.Reviews = append(s.f.Pull.Reviews, review(99, bob, "CHANGES_REQUESTED", "h1", 90*time.Minute))
		}, ""},
		"only a comment": {byPull, func(s *situation) { s.f.Pull.Reviews[0].State = "COMMENTED" }, "count"},
		"somebody without rights asks": {byPull, func(s *situation) {
			s.f.MayWrite["dave"] = false
			s.f.Pull.Reviews = append(s.f.Pull.Reviews, review(101, dave, "CHANGES_REQUESTED", "h1", 0))
		}, ""},
		"the author approves":                 {byPull, func(s *situation) { s.f.Pull.Author = bob }, "own-work"},
		"a committer approves":                {byPull, func(s *situation) { s.f.Pull.Makers = append(s.f.Pull.Makers, "bob") }, "own-work"},
		"a co-author approves":                {byPull, func(s *situation) { s.f.Pull.Makers = []string{"helper[bot]", "BOB"} }, "own-work"},
		"who started the rotation approves":   {byPull, func(s *situation) { s.f.Pull.Reviews[0].By = alice }, "own-work"},
		"a bot approves":                      {byPull, func(s *situation) { s.f.Pull.Reviews[0].By = robot }, "bot"},
		"a reviewer may not write":            {byPull, func(s *situation) { s.f.MayWrite["bob"] = false }, "no-access"},
		"a reviewer whose rights are unknown": {byPull, func(s *situation) { delete(s.f.MayWrite, "bob") }, "no-access"},
		"one person twice": {byPull, func(s *situation) {
			s.p.Count = 2
			s.f.Pull.Reviews = append(s.f.Pull.Reviews, review(101, bob, "APPROVED", "h1", 0))
		}, "count"},
		"two people": {byPull, func(s *situation) {
			s.p.Count = 2
			s.f.Pull.Reviews = append(s.f.Pull.Reviews, review(101, carol, "APPROVED", "h1", 0))
		}, ""},
		"a self-review switch is not for it": {byPull, func(s *situation) { s.p.SelfReview = true; s.f.Pull.Reviews[0].By = alice }, "own-work"},

		"one gate of two: no environment":    {good, func(s *situation) { s.f.Decisions = nil; s.p.Count = 1 }, "env-not-approved"},
		"one gate of two: no review":         {good, func(s *situation) { s.f.Pull.Reviews = nil }, "count"},
		"both gates by the same person":      {good, func(s *situation) { s.f.Decisions[0].By = bob }, "count"},
		"the environment's one made commits": {good, func(s *situation) { s.f.Pull.Makers = append(s.f.Pull.Makers, "carol") }, "own-work"},

		"a rollback":                             {rolledBack, nil, ""},
		"by who asked for it":                    {rolledBack, func(s *situation) { s.f.Decisions[0].By = alice }, "own-work"},
		"by who asked for it, elsewhere":         {rolledBack, func(s *situation) { s.f.Started = "carol" }, "own-work"},
		"a rollback with the cutover's approval": {rolledBack, func(s *situation) { s.f.Decisions[0].Environments = []int64{3} }, "env-not-approved"},
		"a rollback with the cutover's plan":     {rolledBack, func(s *situation) { s.f.PlanShown = "the-cutover's-plan" }, "plan-changed"},
	} {
		t.Run(name, func(t *testing.T) {
			s := c.of()
			if c.change != nil {
				c.change(s)
			}
			v := approval.Decide(s.p, s.f)
			if v.Approved != (c.want == "") {
				t.Fatalf("approved: %v, want %v: %s", v.Approved, c.want == "", v)
			}
			if c.want != "" && !v.Has(c.want) {
				t.Errorf("the reasons are %v, want %q", v.Reasons, c.want)
			}
			if text := v.String(); text == "" || !v.Approved && (!strings.Contains(text, "not approved") || len(v.Reasons) == 0) {
				t.Errorf("the verdict reads %q", text)
			}
			if !v.Approved && s.f.InActions && v.Hint() == "" {
				t.Error("nobody is named who could approve")
			}
		})
	}
}

// TestVerdictSaysWho shows what is kept of those who approved.
func TestVerdictSaysWho(t *testing.T) {
	s := good()
	v := approval.Decide(s.p, s.f)
	if len(v.By) != 2 || v.By[0].Login != "carol" || v.By[0].Env != 9 || v.By[1].Review != 100 || v.By[1].Head != "h1" {
		t.Errorf("approved by %+v", v.By)
	}
	s.f.Pull.Reviews[0].Head = "h0"
	v = approval.Decide(s.p, s.f)
	if got := v.String(); !strings.Contains(got, "has 1 of 2 (carol (environment))") || !strings.Contains(got, "bob reviewed an older state") ||
		!strings.Contains(v.Hint(), "acme/sre") {
		t.Errorf("the refusal reads %q, hint %q", got, v.Hint())
	}
}

func TestBreakGlass(t *testing.T) {
	ok := approval.BreakGlass{Who: alice, Admin: true, Reason: "the database is down", Ticket: "INC-1"}
	for name, c := range map[string]struct {
		change func(*approval.BreakGlass)
		want   string
	}{
		"an administrator": {func(*approval.BreakGlass) {}, ""},
		"no administrator": {func(b *approval.BreakGlass) { b.Admin = false }, "no-admin"},
		"a bot":            {func(b *approval.BreakGlass) { b.Who = robot }, "bot"},
		"nobody":           {func(b *approval.BreakGlass) { b.Who = approval.Person{} }, "unknown"},
		"no reason":        {func(b *approval.BreakGlass) { b.Reason = " " }, "reason"},
		"no ticket":        {func(b *approval.BreakGlass) { b.Ticket = "" }, "ticket"},
	} {
		b := ok
		c.change(&b)
		if v := b.Decide(); v.Approved != (c.want == "") || c.want != "" && !v.Has(c.want) {
			t.Errorf("%s: %v, %v", name, v, v.Reasons)
		}
	}
	for name, c := range map[string]struct {
		by       approval.Person
		mayWrite bool
		want     string
	}{
		"somebody else": {bob, true, ""}, "the same": {alice, true, "own-work"}, "a bot": {robot, true, "bot"}, "without rights": {bob, false, "no-access"},
		"nobody": {approval.Person{}, true, "unknown"},
	} {
		if v := ok.Reviewed(c.by, c.mayWrite); v.Approved != (c.want == "") || c.want != "" && !v.Has(c.want) {
			t.Errorf("reviewed by %s: %v", name, v)
		}
	}
}

// TestEveryFactCounts takes each fact away from what is approved, and has it refused.
func TestEveryFactCounts(t *testing.T) {
	takes := map[string]func(*approval.Facts){
		"InActions": func(f *approval.Facts) { f.InActions = false }, "PlanShown": func(f *approval.Facts) { f.PlanShown = "" },
		"PlanNow": func(f *approval.Facts) { f.PlanNow = "" }, "Default": func(f *approval.Facts) { f.Default = "" },
		"Run": func(f *approval.Facts) { f.Run = nil }, "Env": func(f *approval.Facts) { f.Env = nil },
		"Decisions": func(f *approval.Facts) { f.Decisions = nil }, "Pull": func(f *approval.Facts) { f.Pull = nil },
		"Proposed": func(f *approval.Facts) { f.Proposed = nil }, "MayWrite": func(f *approval.Facts) { f.MayWrite = nil },
		"MemberOf": func(f *approval.Facts) { f.MemberOf = nil }, "Rules": func(f *approval.Facts) { f.Rules = nil },
		"PolicyFrom": func(f *approval.Facts) { f.PolicyFrom = "" },
	}
	var names []string
	for name, take := range takes {
		s := good()
		take(&s.f)
		if v := approval.Decide(s.p, s.f); v.Approved {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	if len(names) > 0 {
		t.Errorf("approved without %q", names)
	}
}
