package cli_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/keyturn/keyturn/internal/testserver/githubfake"
)

// A team works on a workspace that is a checkout of a repository on GitHub.
type team struct {
	*workspace
	f          *forge
	credential string
}

// newTeam takes a stack over whose cutovers are approved by the pull request.
func newTeam(t *testing.T) *team {
	t.Helper()
	w := newWorkspace(t, servers.postgres.Get(t), fromFile)
	w.follow("keyturn init --from-service orders_api --ca deploy/db-ca.pem\n")
	m := &team{workspace: w, f: w.stack.onGitHub(), credential: w.name + "-db"}
	m.f.env = append(m.f.env, "GITHUB_WORKSPACE="+w.dir, "GITHUB_ACTIONS=true", "GITHUB_EVENT_NAME=workflow_dispatch")
	m.f.gh.AddUser("alice", "admin")
	m.f.gh.AddUser("bob", "write")
	b, err := os.ReadFile(w.config)
	w.must(err)
	w.must(os.WriteFile(w.config, append(b, "    approve:\n      cutover: {by: [bob], pull-request: true}\n"...), 0o644))
	w.follow("keyturn setup postgres > setup.sql\npsql -X -q -v ON_ERROR_STOP=1 -d orders -f setup.sql\n")
	m.push("the stack and its configuration", w.config, w.file())
	m.f.job("alice")
	w.sh("keyturn adopt " + m.credential)
	return m
}

// push commits files of the checkout to the default branch.
func (m *team) push(message string, paths ...string) {
	m.t.Helper()
	files := map[string]string{}
	for _, p := range paths {
		b, err := os.ReadFile(p)
		m.must(err)
		rel, err := filepath.Rel(m.dir, p)
		m.must(err)
		files[filepath.ToSlash(rel)] = string(b)
	}
	m.f.gh.Commit("main", "alice", message, files)
	m.f.env = append(m.f.env, "GITHUB_SHA="+m.f.gh.Head("main"))
}

// checkout makes the stack file what the default branch has.
func (m *team) checkout() {
	m.t.Helper()
	text, ok := m.f.gh.File("main", "deploy/"+m.name+".yml")
	if !ok {
		m.t.Fatal("the default branch has no stack file")
	}
	m.must(os.WriteFile(m.file(), []byte(text), 0o644))
	m.f.env = append(m.f.env, "GITHUB_SHA="+m.f.gh.Head("main"))
}

// TestPropose cuts over by a pull request: proposed, reviewed, merged, cut over by
// the merge, and deployed from the edited file, which changes nothing. Hard
// problems 36, 37, 54 and 55.
func TestPropose(t *testing.T) {
	journey(t)
	t.Parallel()
	m := newTeam(t)
	gh := m.f.gh
	m.f.job("alice")
	m.refuses(3, "keyturn propose "+m.credential, "next: keyturn prepare")
	m.sh("keyturn prepare " + m.credential)
	m.refuses(3, "keyturn propose "+m.credential, "not validated")
	m.sh("keyturn validate " + m.credential)
	m.refuses(3, "keyturn cutover "+m.credential, "there is no pull request")
	m.sh("keyturn propose " + m.credential)
	pulls := gh.Pulls()
	if len(pulls) != 1 || pulls[0].Author != "keyturn[bot]" || !strings.Contains(pulls[0].Body, "Plan `") || !strings.Contains(pulls[0].Body, "start-first") {
		t.Fatalf("proposed: %+v", pulls)
	}
	number, head := pulls[0].Number, pulls[0].Head
	text, _ := gh.File(pulls[0].Branch, "deploy/"+m.name+".yml")
	if strings.Count(text, m.name+"_a") != 2 || !strings.Contains(text, "# of today") || !strings.Contains(text, "name: "+m.secret+"_v2\n") {
		t.Errorf("the proposed stack file is\n%s", text)
	}
	if state := gh.Status(head, "keyturn/"+m.credential+"/validate"); state != "success" {
		t.Errorf("the pull request's status is %q", state)
	}
	if out := m.sh("keyturn propose " + m.credential); !strings.Contains(out, fmt.Sprintf("#%d", number)) || len(gh.Pulls()) != 1 || gh.Pulls()[0].Head != head {
		t.Errorf("proposed again: %s, %+v", out, gh.Pulls())
	}
	m.refuses(3, "keyturn cutover "+m.credential, "has 0 of 1", "bob")
	gh.AddReview(number, githubfake.Review{Login: "alice", State: "APPROVED"})
	m.refuses(3, "keyturn cutover "+m.credential, "alice")
	gh.AddReview(number, githubfake.Review{Login: "bob", State: "APPROVED"})
	m.refuses(0, "keyturn approvals "+m.credential, "approved by bob (review)")

	gh.Merge(number, "alice", "squash")
	m.f.job("alice")
	m.checkout()
	m.refuses(3, "keyturn guard "+m.name, "whose cutover is still to come")
	m.sh("keyturn cutover " + m.credential)
	m.sh("keyturn guard " + m.name)
	m.unchanged("of the merged file after the cutover")
	for i := 0; ; i++ {
		if out, code := m.try("keyturn cleanup " + m.credential); code == 0 {
			break
		} else if i == 60 || code != 3 {
			t.Fatalf("cleanup: exit %d\n%s", code, out)
		}
	}
	if found := m.f.audit(); len(found) != 0 {
		t.Errorf("the audit finds %v", found)
	}
	m.old()
	m.abandoned()
	if os.Getenv("KEYTURN_CRASH") == "all" {
		m.takenBack()
	}
	m.noneFailed()
}

// takenBack cuts over once more and rolls back: a pull request takes the stack file
// back, too.
func (m *team) takenBack() {
	m.t.Helper()
	m.f.job("alice")
	was, err := os.ReadFile(m.file())
	m.must(err)
	for _, phase := range []string{"prepare", "validate", "propose"} {
		m.sh("keyturn " + phase + " " + m.credential)
	}
	pulls := m.f.gh.Pulls()
	number := pulls[len(pulls)-1].Number
	m.f.gh.AddReview(number, githubfake.Review{Login: "bob", State: "APPROVED"})
	m.f.gh.Merge(number, "alice", "squash")
	m.f.job("alice")
	m.checkout()
	m.sh("keyturn cutover " + m.credential)
	out := m.sh("keyturn rollback --reason 'it was too early' " + m.credential)
	pulls = m.f.gh.Pulls()
	back := pulls[len(pulls)-1]
	text, _ := m.f.gh.File(back.Branch, "deploy/"+m.name+".yml")
	if back.Number == number || !strings.HasPrefix(back.Branch, "keyturn/rollback-") || text != string(was) || !strings.Contains(out, fmt.Sprintf("#%d", back.Number)) {
		m.t.Errorf("the rollback opened %+v, with the stack file\n%s\n%s", back, text, out)
	}
	m.f.gh.Merge(back.Number, "alice", "squash")
	m.checkout()
	m.sh("keyturn guard " + m.name)
	m.unchanged("of the file that was taken back")
}

// old has guard refuse the file of before.
func (m *team) old() {
	m.t.Helper()
	right, err := os.ReadFile(m.file())
	m.must(err)
	m.must(os.WriteFile(m.file(), []byte(m.stackFile()), 0o644))
	m.refuses(3, "keyturn guard", "bring an old version back")
	m.must(os.WriteFile(m.file(), right, 0o644))
}

// abandoned proposes once more and closes the pull request: the rotation is given up.
func (m *team) abandoned() {
	m.t.Helper()
	m.f.job("alice")
	for _, phase := range []string{"prepare", "validate", "propose"} {
		m.sh("keyturn " + phase + " " + m.credential)
	}
	pulls := m.f.gh.Pulls()
	m.f.gh.EditPull(pulls[len(pulls)-1].Number, false, false)
	out := m.sh("keyturn propose --due")
	if p := m.status(); p.Current != 2 || p.Pending != 0 {
		m.t.Errorf("after the pull request was closed: %+v\n%s", p, out)
	}
}
