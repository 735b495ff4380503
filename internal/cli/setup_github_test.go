package cli_test

import (
	"net/http"
	"strings"
	"testing"

	"github.com/keyturn/keyturn/internal/testserver/githubfake"
)

// TestSetupGitHub makes what a repository lacks, reads it back, and finds each way
// round the approvals that is left open. Hard problems 35 and 57.
func TestSetupGitHub(t *testing.T) {
	t.Parallel()
	f := gated(t, "{cutover: {by: [octo/sre], environment: prod-cutover}, rollback: {by: [bob], environment: prod-rollback}}")
	f.env = append(f.env, "GITHUB_ACTIONS=")
	token := string(f.gh.Token("alice").Reveal())
	f.secrets = append(f.secrets, token)
	f.env = append(f.env, "GH_TOKEN="+token)
	f.gh.AddSecret("KEYTURN_PG_PASSWORD")
	f.gh.AddSecret("NPM_TOKEN")
	f.gh.AddSecret("KEYTURN_APP_KEY")
	said := func(code int, args ...string) string {
		t.Helper()
		r := f.run(append([]string{"setup", "github"}, args...)...)
		if r.code != code {
			t.Fatalf("setup github %q: exit %d, want %d\n%s%s", args, r.code, code, r.stdout, r.stderr)
		}
		return r.stdout
	}
	has := func(text string, words ...string) {
		t.Helper()
		for _, w := range words {
			if !strings.Contains(text, w) {
				t.Errorf("it does not say %q:\n%s", w, text)
			}
		}
	}
	before := said(6)
	has(before, `there is no ruleset "keyturn journal"`, `there is no environment "prod-cutover"`, `there is no environment "prod-rollback"`, `there is no label "keyturn"`,
		"approvals can be bypassed by whoever can push a branch: its workflows read the repository's secret KEYTURN_PG_PASSWORD",
		"secret KEYTURN_APP_KEY", "approvals can be bypassed by whoever may push to main")
	if strings.Contains(before, "NPM_TOKEN") {
		t.Errorf("a secret that is not Keyturn's:\n%s", before)
	}
	for _, c := range f.gh.Calls() {
		if c.Write() && c.Login == "alice" {
			t.Errorf("looking wrote: %s %s", c.Method, c.Path)
		}
	}
	after := said(6, "--apply")
	for _, gone := range []string{"there is no ruleset", "environment \"prod", "there is no label"} {
		if strings.Contains(after, gone) {
			t.Errorf("after --apply there is still %q:\n%s", gone, after)
		}
	}
	has(after, "secret KEYTURN_PG_PASSWORD", "may push to main")
	if again := said(6, "--apply"); again != after {
		t.Errorf("a second --apply says something else:\n%s\n%s", after, again)
	}
	has(said(6, "--output", "json"), `"bypass": true`)
	f.weakened(said, has)
}

// weakened takes each setting back, and has it found.
func (f *forge) weakened(said func(int, ...string) string, has func(string, ...string)) {
	f.t.Helper()
	good := githubfake.Environment{Reviewers: []string{"bob"}, PreventSelf: true, Branches: []string{"main"}}
	for word, e := range map[string]githubfake.Environment{
		"asks for no reviewer":                   {PreventSelf: true, Branches: []string{"main"}},
		"allows self-review":                     {Reviewers: good.Reviewers, Branches: good.Branches},
		"administrators: the environment":        {Reviewers: good.Reviewers, PreventSelf: true, Branches: good.Branches, AdminBypass: true},
		`the environment "prod-cutover" is open`: {Reviewers: good.Reviewers, PreventSelf: true},
	} {
		f.gh.SetEnvironment("prod-cutover", e)
		has(said(6), "approvals can be bypassed by", word)
		f.gh.SetEnvironment("prod-cutover", good)
	}
	// GitHub takes the call and drops the setting: what is read back counts.
	f.gh.SetEnvironment("prod-cutover", githubfake.Environment{})
	f.gh.On(githubfake.Times(1, func(r *http.Request) *githubfake.Fault {
		if r.Method != http.MethodPut || !strings.HasSuffix(r.URL.Path, "/environments/prod-cutover") {
			return nil
		}
		return &githubfake.Fault{Status: 200, Body: `{"id":1,"name":"prod-cutover"}`}
	}))
	has(said(6, "--apply"), "asks for no reviewer")
	f.gh.Commit("main", "alice", "owners", map[string]string{".github/CODEOWNERS": "* @octo/everybody\n/.github/ @octo/sre\n"})
	f.gh.AddRuleset("main", map[string]any{"required_approving_review_count": 1, "require_code_owner_review": true})
	text := said(6)
	if strings.Contains(text, "may push to main") || strings.Contains(text, "no owners") {
		f.t.Errorf("reviews of owners are required:\n%s", text)
	}
	f.gh.Commit("main", "alice", "no owners", map[string]string{".github/CODEOWNERS": "* @octo/everybody\n/.github/\n"})
	has(said(6), "has no owners")
	f.runnersOf(said, has)
	if r := f.run("doctor"); !strings.Contains(r.stdout, "approvals can be bypassed by") {
		f.t.Errorf("doctor does not say how approvals can be bypassed:\n%s%s", r.stdout, r.stderr)
	}
	if r := f.run("plan", f.name); !strings.Contains(r.stderr, "approvals can be bypassed by") {
		f.t.Errorf("plan does not say how approvals can be bypassed:\n%s%s", r.stdout, r.stderr)
	}
}

// runnersOf has runners found that take the workflows of every branch.
func (f *forge) runnersOf(said func(int, ...string) string, has func(string, ...string)) {
	f.t.Helper()
	const mine = "octo/shop/.github/workflows/rotate.yml"
	for words, set := range map[string]func(){
		"the repository's own runners":                           func() { f.gh.SetRunners(1) },
		`the group "swarm", which is restricted to no workflows`: func() { f.gh.SetRunners(0, githubfake.RunnerGroup{Name: "swarm", Runners: 2}) },
		`the group "swarm" takes the workflow ` + mine + `@feature`: func() {
			f.gh.SetRunners(0, githubfake.RunnerGroup{Name: "swarm", Runners: 1, Workflows: []string{mine + "@main", mine + "@feature"}})
		},
	} {
		set()
		has(said(6), "approvals can be bypassed by whoever can push a branch", words)
	}
	f.gh.SetRunners(0, githubfake.RunnerGroup{Name: "swarm", Runners: 1, Workflows: []string{mine + "@refs/heads/main", mine + "@" + strings.Repeat("a", 40)}},
		githubfake.RunnerGroup{Name: "empty"})
	if text := said(6); strings.Contains(text, "runners") {
		f.t.Errorf("runners that take the workflows of the default branch alone:\n%s", text)
	}
}
