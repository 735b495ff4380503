package cli_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/keyturn/keyturn/internal/cli/undertest/hooks"
	"github.com/keyturn/keyturn/internal/testserver/githubfake"
)

const journalBranch = "keyturn-journal"

// A forge is a repository on GitHub with Keyturn's App, and the stack whose
// journal is there.
type forge struct {
	*stack
	gh    *githubfake.Server
	app   *githubfake.App
	runs  int64
	calls int // of the run before
}

// appPermissions are what docs/github.md says that the App needs.
var appPermissions = map[string]string{"contents": "write", "issues": "write", "statuses": "write", "actions": "read", "pull_requests": "write"}

// onGitHub gives a stack a journal on GitHub.
func (k *stack) onGitHub() *forge {
	k.t.Helper()
	gh := githubfake.Start(k.t, githubfake.Options{Repo: k.name})
	f := &forge{stack: k, gh: gh, app: gh.AddApp("keyturn", appPermissions), runs: 9000}
	b, err := os.ReadFile(k.config)
	k.must(err)
	text := strings.Replace(string(b), "journal: file:"+k.journal, fmt.Sprintf("journal: github\ngithub: {repository: %s, app: {id: %d, key: {from-env: KEYTURN_APP_KEY}}}",
		gh.FullName(), f.app.ID), 1)
	k.must(os.WriteFile(k.config, []byte(text), 0o600))
	k.env = append(k.env, "GITHUB_API_URL="+gh.URL, "GITHUB_SERVER_URL=https://github.example", "KEYTURN_APP_KEY="+string(f.app.Key().Reveal()),
		"GITHUB_REPOSITORY="+gh.FullName(), "GITHUB_SHA="+gh.Head("main"), "GITHUB_ACTOR=alice", hooks.AtOnce+"=1")
	// No token and no piece of the key may be seen anywhere.
	f.secrets = append(f.secrets, "ghs_", "eyJhbGciOi", strings.Split(string(f.app.Key().Reveal()), "\n")[3])
	f.nextRun()
	return f
}

// nextRun makes what follows a run of its own.
func (f *forge) nextRun() {
	f.runs++
	f.env = append(f.env, fmt.Sprintf("GITHUB_RUN_ID=%d", f.runs), "GITHUB_RUN_ATTEMPT=1")
	f.calls = len(f.gh.Calls())
}

// phase runs one phase as a job of its own, and returns what GitHub was asked.
func (f *forge) phase(args ...string) []githubfake.Call {
	f.t.Helper()
	f.nextRun()
	f.ok(args...)
	calls := f.gh.Calls()[f.calls:]
	if n := f.gh.LiveTokens(); n != 0 {
		f.t.Errorf("keyturn %q left %d tokens alive", args, n)
	}
	return calls
}

func isWrite(c githubfake.Call) bool {
	return c.Method != http.MethodGet && !strings.HasSuffix(c.Path, "/access_tokens") && !strings.HasSuffix(c.Path, "/installation/token")
}

// log returns the text of the journal on the branch.
func (f *forge) log() string {
	f.t.Helper()
	var b strings.Builder
	for _, name := range f.gh.Files(journalBranch) {
		if strings.HasPrefix(name, "log/") {
			text, _ := f.gh.File(journalBranch, name)
			b.WriteString(text)
		}
	}
	return b.String()
}

type finding struct {
	Kind, Where, Detail string
	Seq                 int64
}

// audit verifies the record, and returns what is found.
func (f *forge) audit(args ...string) []finding {
	f.t.Helper()
	r := f.run(append([]string{"audit", "verify", "--output", "json"}, args...)...)
	var v struct {
		OK       bool
		Entries  int
		Findings []finding
	}
	if err := json.Unmarshal([]byte(r.stdout), &v); err != nil {
		f.t.Fatalf("audit verify: exit %d\n%s%s", r.code, r.stdout, r.stderr)
	}
	if want := map[bool]int{true: 0, false: 5}[v.OK]; r.code != want || v.OK != (len(v.Findings) == 0) {
		f.t.Errorf("audit verify: exit %d, %d entries, %d findings\n%s", r.code, v.Entries, len(v.Findings), r.stderr)
	}
	return v.Findings
}

// TestGitHubJournal rotates (with KEYTURN_CRASH=all twice) with the journal on GitHub, each phase as a job
// of its own that shares nothing with the one before but the Swarm, the database and GitHub.
func TestGitHubJournal(t *testing.T) {
	t.Parallel()
	k := newStack(t, servers.postgres.Get(t), nil)
	f := k.onGitHub()
	f.phase("adopt", f.name)
	last := 2
	if os.Getenv("KEYTURN_CRASH") == "all" {
		last = 3
	}
	for version := 2; version <= last; version++ {
		for _, phase := range []string{"prepare", "validate", "cutover"} {
			calls := f.phase(phase, f.name)
			writes := 0
			for _, c := range calls {
				if isWrite(c) {
					writes++
				}
			}
			if len(calls) > 12 || writes > 4 {
				t.Errorf("%s made %d calls, %d of them writes:\n%v", phase, len(calls), writes, calls)
			}
			t.Logf("%s: %d calls, %d writes", phase, len(calls), writes)
		}
		f.goOn()
		if found := f.audit(); len(found) != 0 {
			t.Errorf("after rotation to version %d the audit finds %v", version, found)
		}
	}
	if p := f.status(); p.Current != last || p.Previous != 0 {
		t.Errorf("status is %+v", p)
	}
	f.noneFailed()
	f.oneLogin()
	f.clean(f.log())
	issues := f.gh.Issues()
	if len(issues) != last-1 {
		t.Errorf("%d issues, want one for each rotation", len(issues))
	}
	for _, i := range issues {
		if i.State != "closed" || !slices.Contains(i.Labels, "keyturn") || len(i.Comments) < 3 {
			t.Errorf("issue %d (%s) is %s, with labels %q and %d comments", i.Number, i.Title, i.State, i.Labels, len(i.Comments))
		}
		f.clean(i.Body)
		for _, c := range i.Comments {
			f.clean(c.Body)
		}
	}
	for _, phase := range []string{"prepare", "validate", "cutover", "cleanup"} {
		if state := f.gh.Status(f.gh.Head("main"), "keyturn/"+f.name+"/"+phase); state != "success" {
			t.Errorf("the status of %s is %q", phase, state)
		}
	}
}
