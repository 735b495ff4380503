package cli_test

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/keyturn/keyturn/internal/testserver/githubfake"
)

// gated makes a directory's credential on GitHub whose cutover and rollback need
// people, in jobs of a workflow that alice starts.
func gated(t *testing.T, policy string) *forge {
	t.Helper()
	s := newShop(t, servers.postgres.Get(t), "overlap: 1h", "approve: "+policy)
	f := (&stack{shop: s}).onGitHub()
	f.gh.AddUser("alice", "admin")
	f.gh.AddUser("bob", "write")
	f.gh.AddUser("carol", "write")
	f.gh.AddTeam("sre", "write", "alice", "bob")
	f.commitConfig()
	f.env = append(f.env, "GITHUB_ACTIONS=true", "GITHUB_WORKSPACE="+filepath.Dir(f.config), "GITHUB_EVENT_NAME=workflow_dispatch")
	f.app.Permissions["members"] = "read"
	return f
}

// commitConfig puts the configuration on the default branch, which runs are of then.
func (f *forge) commitConfig() {
	f.t.Helper()
	b, err := os.ReadFile(f.config)
	f.must(err)
	f.gh.Commit("main", "alice", "configuration", map[string]string{filepath.Base(f.config): string(b)})
	f.env = append(f.env, "GITHUB_SHA="+f.gh.Head("main"))
}

// job begins a run that a person starts.
func (f *forge) job(actor string) int64 {
	f.nextRun()
	f.gh.AddRun(githubfake.Run{ID: f.runs, Actor: actor})
	f.env = append(f.env, "GITHUB_ACTOR="+actor, "GITHUB_TRIGGERING_ACTOR="+actor)
	return f.runs
}

// validated takes the credential to where its cutover waits for people.
func (f *forge) validated() {
	f.t.Helper()
	f.job("alice")
	f.ok("adopt", f.name)
	f.ok("prepare", f.name)
	f.ok("validate", f.name)
}

// planned returns the hash of the plan.
func (f *forge) planned(args ...string) string {
	f.t.Helper()
	var all struct{ Plans []struct{ Hash string } }
	f.must(json.Unmarshal([]byte(f.ok(append(args, "--output", "json", f.name)...)), &all))
	if len(all.Plans) != 1 || all.Plans[0].Hash == "" {
		f.t.Fatalf("no hash of a plan: %+v", all)
	}
	return all.Plans[0].Hash
}

// TestApprovals cuts over and rolls back with people's approval, and not without.
func TestApprovals(t *testing.T) {
	t.Parallel()
	f := gated(t, "{cutover: {by: [octo/sre], environment: prod-cutover}, rollback: {environment: prod-rollback}}")
	f.validated()
	hash := f.planned("plan")
	run := f.job("alice")
	refused := func(what string, words ...string) {
		t.Helper()
		args := []string{"cutover", f.name}
		if what != "no plan" {
			args = append(args, "--plan", hash)
		}
		f.fails(3, words, args...)
	}
	refused("no plan", "showed no plan")
	refused("no environment", "there is no environment")
	open := githubfake.Environment{Reviewers: []string{"bob"}, PreventSelf: true, Branches: []string{"main"}}
	f.gh.SetEnvironment("prod-cutover", githubfake.Environment{})
	refused("made by naming it", "asks for no reviewer")
	f.gh.SetEnvironment("prod-cutover", open)
	refused("nobody approved", "nobody whose word counts", "octo/sre")
	f.gh.Approve(run, "prod-cutover", "alice")
	refused("own work", "alice started")
	f.gh.Approve(run, "prod-cutover", "carol")
	refused("of no team", "carol is not one of octo/sre")
	if r := f.run("approvals", f.name, "--plan", hash); r.code != 3 || !strings.Contains(r.stdout, "not approved") {
		t.Errorf("approvals: exit %d\n%s%s", r.code, r.stdout, r.stderr)
	}
	f.gh.Approve(run, "prod-cutover", "bob")
	if r := f.run("approvals", f.name, "--plan", hash); r.code != 0 || !strings.Contains(r.stdout, "bob (environment)") {
		t.Errorf("approvals: exit %d\n%s%s", r.code, r.stdout, r.stderr)
	}
	// The configuration of another branch asks for less.
	text, err := os.ReadFile(f.config)
	f.must(err)
	f.must(os.WriteFile(f.config, append(text, '\n'), 0o600))
	refused("another configuration", "not that of the default branch")
	f.must(os.WriteFile(f.config, text, 0o600))
	f.ok("cutover", "--plan", hash, f.name)
	if log := f.log(); !strings.Contains(log, `"login":"bob"`) || !strings.Contains(log, `"approval":[{`) {
		t.Error("the record does not say who approved")
	}
	if p := f.status(); p.Current != 2 {
		t.Fatalf("status is %+v", p)
	}

	back := f.planned("rollback", "--dry-run")
	run = f.job("carol")
	f.gh.SetEnvironment("prod-rollback", open)
	f.gh.Approve(run, "prod-cutover", "bob")
	f.fails(3, []string{"nobody whose word counts"}, "rollback", "--reason", "test", "--plan", back, f.name)
	f.gh.Approve(run, "prod-rollback", "carol")
	f.fails(3, []string{"carol asked for the rollback"}, "rollback", "--reason", "test", "--plan", back, f.name)
	f.gh.Approve(run, "prod-rollback", "bob")
	f.ok("rollback", "--reason", "test", "--plan", back, f.name)
	if p := f.status(); p.Current != 1 || p.Pending != 0 {
		t.Errorf("status is %+v", p)
	}
	if found := f.audit(); len(found) != 0 {
		t.Errorf("the audit finds %v", found)
	}
}

// TestBreakGlass does without approvals, as an administrator, and has the next
// rotation wait until somebody else has looked at it. Hard problem 34.
func TestBreakGlass(t *testing.T) {
	t.Parallel()
	f := gated(t, "{cutover: {environment: prod-cutover}}")
	f.validated()
	f.env = append(f.env, "GITHUB_ACTIONS=", "GH_TOKEN=")
	f.fails(3, []string{"outside of GitHub Actions", "--break-glass"}, "cutover", f.name)
	f.fails(3, []string{"GH_TOKEN"}, "cutover", "--break-glass", "it burns", "--ticket", "INC-7", f.name)
	as := func(login string) {
		token := string(f.gh.Token(login).Reveal())
		f.secrets = append(f.secrets, token)
		f.env = append(f.env, "GH_TOKEN="+token)
	}
	as("bob")
	f.fails(3, []string{"bob is no administrator"}, "cutover", "--break-glass", "it burns", "--ticket", "INC-7", f.name)
	as("alice")
	f.fails(3, []string{"there is no ticket"}, "cutover", "--break-glass", "it burns", f.name)
	if r := f.run("cutover", "--break-glass", "it burns", "--ticket", "INC-7", f.name); r.code != 0 || !strings.Contains(r.stderr, "the glass was broken by alice") {
		t.Fatalf("exit %d\n%s%s", r.code, r.stdout, r.stderr)
	}
	found := false
	for _, i := range f.gh.Issues() {
		found = found || strings.Contains(i.Title, "Break-glass") && i.State == "open" && strings.Contains(i.Body, "it burns")
	}
	if !found {
		t.Error("no issue follows it up")
	}
	f.ok("cleanup", "--force", "tested enough", f.name)
	f.fails(3, []string{"alice did without approvals", "--reviewed"}, "prepare", f.name)
	f.fails(3, []string{"alice broke the glass"}, "approvals", "--reviewed", f.name)
	as("bob")
	f.ok("approvals", "--reviewed", f.name)
	f.ok("prepare", f.name)
	if log := f.log(); strings.Count(log, `"step":"break-glass"`) != 1 || strings.Count(log, `"step":"break-glass-reviewed"`) != 1 {
		t.Error("the record does not say so")
	}
}

// TestApprovalsOfAnotherAttempt has the approvals of a run not count for its next attempt.
func TestApprovalsOfAnotherAttempt(t *testing.T) {
	t.Parallel()
	f := gated(t, "{cutover: {environment: prod-cutover}}")
	f.gh.SetEnvironment("prod-cutover", githubfake.Environment{Reviewers: []string{"bob"}, PreventSelf: true, Branches: []string{"main"}})
	f.validated()
	hash := f.planned("plan")
	run := f.job("alice")
	f.gh.Approve(run, "prod-cutover", "bob")
	f.gh.AddRun(githubfake.Run{ID: run, Attempt: 2, Actor: "alice"})
	f.env = append(f.env, "GITHUB_RUN_ATTEMPT=2")
	f.fails(3, []string{"earlier attempt"}, "cutover", "--plan", hash, f.name)
	f.env = append(f.env, fmt.Sprintf("GITHUB_RUN_ID=%d", run))
	if p := f.status(); p.Current != 1 {
		t.Errorf("status is %+v", p)
	}
}
