package cli_test

import (
	"encoding/base64"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/keyturn/keyturn/internal/testserver/githubfake"
)

// TestWorkflowsOnGitHub runs the example workflows as they are, job by job in a runner
// of workflows: twice the hourly one finds what is due, prepares, validates and
// proposes it; the pull request is reviewed and merged, the merge cuts over, and the
// next hour cleans up. Every step is a fresh container, every run a fresh checkout.
func TestWorkflowsOnGitHub(t *testing.T) {
	if os.Getenv("KEYTURN_CRASH") != "all" {
		t.Skip("minutes of containers; run it with: make crash")
	}
	t.Parallel()
	m := newTeam(t)
	b, err := os.ReadFile(m.config)
	m.must(err)
	m.must(os.WriteFile(m.config, regexp.MustCompile(`every: \w+`).ReplaceAll(b, []byte("every: 5s")), 0o644))
	m.buildAction()
	m.commitForContainers()
	r := &workflowRunner{team: m, program: m.buildAct(), action: m.actionFolder()}
	for version := 2; version <= 3; version++ {
		time.Sleep(5 * time.Second) // until it is due
		r.runs("schedule", "scheduled.yml")
		if p := m.status(); p.Pending != version || p.Current != version-1 {
			t.Fatalf("after the hourly workflow: %+v\n%s", p, r.log)
		}
		pulls := m.f.gh.Pulls()
		pull := pulls[len(pulls)-1]
		if len(pulls) != version-1 {
			t.Fatalf("the workflow proposed %+v\n%s", pulls, r.log)
		}
		if log, err := r.run("push", "cutover.yml"); err == nil || !strings.Contains(log, "has 0 of 1") && !strings.Contains(log, "still to be merged") {
			t.Errorf("a cutover that nobody approved: %v\n%s", err, log)
		}
		m.f.gh.AddReview(pull.Number, githubfake.Review{Login: "bob", State: "APPROVED"})
		m.f.gh.Merge(pull.Number, "alice", "squash")
		r.runs("push", "cutover.yml")
		if p := m.status(); p.Current != version || p.Previous != version-1 {
			t.Fatalf("after the merge: %+v\n%s", p, r.log)
		}
	}
	time.Sleep(3 * time.Second) // the overlap
	r.runs("schedule", "scheduled.yml", "-j", "cleanup")
	if p := m.status(); p.Current != 3 || p.Previous != 0 {
		t.Errorf("after the last cleanup: %+v\n%s", p, r.log)
	}
	r.runs("schedule", "audit.yml")
	if found := m.f.audit(); len(found) != 0 {
		t.Errorf("the audit finds %v", found)
	}
	if n := m.f.gh.LiveTokens(); n != 0 {
		t.Errorf("%d tokens are alive", n)
	}
	m.oneLogin()
	m.noneFailed()
}

// A workflowRunner runs example workflows of a team's repository.
type workflowRunner struct {
	*team
	program string
	action  string // the folder of the action
	log     string // of the run before
}

// actionFolder holds the action as its release has it, of the image that was built.
func (m *team) actionFolder() string {
	m.t.Helper()
	dir := m.t.TempDir()
	m.must(os.WriteFile(filepath.Join(dir, "action.yml"), []byte(page(m.t, "action.yml")), 0o644))
	m.must(os.WriteFile(filepath.Join(dir, "Dockerfile"), []byte("FROM "+actionImage+"\n"), 0o644))
	return dir
}

// runs runs a workflow that must succeed.
func (r *workflowRunner) runs(event, workflow string, more ...string) {
	r.t.Helper()
	if log, err := r.run(event, workflow, more...); err != nil {
		r.t.Fatalf("%s on %s: %v\n%s", workflow, event, err, log)
	}
}

// run runs a workflow on the default branch as it is now.
func (r *workflowRunner) run(event, workflow string, more ...string) (string, error) {
	r.t.Helper()
	dir := r.newCheckout()
	r.must(os.MkdirAll(filepath.Join(dir, ".github/workflows"), 0o755))
	r.must(os.WriteFile(filepath.Join(dir, ".github/workflows", workflow), []byte(page(r.t, "workflows-examples/"+workflow)), 0o644))
	id := r.f.gh.AddRun(githubfake.Run{Actor: "alice"})
	for name, value := range map[string]string{
		"GITHUB_API_URL": r.f.gh.URL, "GITHUB_REPOSITORY": r.f.gh.FullName(), "SHA_REF": r.f.gh.Head("main"), "GITHUB_RUN_ID": fmt.Sprint(id),
		"GITHUB_REF": "refs/heads/main", "GITHUB_TRIGGERING_ACTOR": "alice",
	} {
		more = append(more, "--env", name+"="+value)
	}
	key := base64.StdEncoding.EncodeToString(r.f.app.Key().Reveal())
	log, err := r.actOn(actRun{program: r.program, repository: dir, event: event, workflow: workflow, options: []string{"--network", "host"},
		secrets: "KEYTURN_PG_PASSWORD=" + adminPassword + "\nKEYTURN_APP_KEY=" + key + "\n",
		more:    append(more, "--actor", "alice", "--local-repository", "keyturn/keyturn@v1="+r.action)})
	r.log = log
	r.clean(unmasked(log))
	return log, err
}

// commitForContainers puts the configuration on the default branch as a container of
// the action needs it: the engine's socket is where the runner mounts it.
func (m *team) commitForContainers() {
	m.t.Helper()
	b, err := os.ReadFile(filepath.Join(m.newJob().dir, "workspace/.github/keyturn.yml"))
	m.must(err)
	m.f.gh.Commit("main", "alice", "as containers have it", map[string]string{".github/keyturn.yml": string(b)})
}

// newCheckout returns a folder with the default branch.
func (m *team) newCheckout() string {
	m.t.Helper()
	dir := m.t.TempDir()
	m.checkoutAt(dir)
	return dir
}

// checkoutAt writes the default branch to a folder, and the database's authority beside it.
func (m *team) checkoutAt(dir string) {
	m.t.Helper()
	for _, path := range m.f.gh.Files("main") {
		text, _ := m.f.gh.File("main", path)
		to := filepath.Join(dir, path)
		m.must(os.MkdirAll(filepath.Dir(to), 0o755))
		m.must(os.WriteFile(to, []byte(text), 0o644))
	}
	ca, err := os.ReadFile(m.pg.CAFile())
	m.must(err)
	m.must(os.MkdirAll(filepath.Join(dir, "deploy"), 0o755))
	m.must(os.WriteFile(filepath.Join(dir, "deploy/db-ca.pem"), ca, 0o644))
}

// unmasked is a log without the lines by which a runner learns what to hide.
func unmasked(log string) string {
	var b strings.Builder
	for line := range strings.Lines(log) {
		if !strings.Contains(line, "::add-mask::") {
			b.WriteString(line)
		}
	}
	return b.String()
}
