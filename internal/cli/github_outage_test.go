package cli_test

import (
	"fmt"
	"net/http"
	"os"
	"regexp"
	"strings"
	"testing"

	"github.com/keyturn/keyturn/internal/cli/undertest/hooks"
	"github.com/keyturn/keyturn/internal/testserver/githubfake"
)

// TestGitHubOutage has GitHub out of reach from the middle of a cutover on: the
// services are moved all the same, and the next job, which shares nothing with that
// one, sends what it could not. Hard problem 40.
func TestGitHubOutage(t *testing.T) {
	journey(t)
	t.Parallel()
	k := newStack(t, servers.postgres.Get(t), []string{"overlap: 2s"})
	f := k.onGitHub()
	f.phase("adopt", f.name)
	f.phase("prepare", f.name)
	f.phase("validate", f.name)
	f.nextRun()
	out := func() (remove func()) {
		return f.gh.On(func(*http.Request) *githubfake.Fault { return &githubfake.Fault{Lose: true} })
	}
	r := f.start("before effect: cutover move", "cutover", f.name)
	back := out()
	r.goOn()
	if got := r.wait(); got.code != 0 || !strings.Contains(got.stderr, "wait in the Swarm") {
		t.Fatalf("cutover while GitHub is out of reach: exit %d\n%s%s", got.code, got.stdout, got.stderr)
	}
	f.settled()
	if _, secret := f.reads(); !strings.HasSuffix(secret, "_v2") {
		t.Errorf("the service reads %q, want version 2", secret)
	}
	if strings.Contains(f.log(), `"step":"move"`) {
		t.Error("the branch knows of the move already")
	}
	// No phase begins while its intent cannot be recorded.
	if got := f.run("cleanup", f.name); got.code == 0 || !strings.Contains(got.stderr, "journal") {
		t.Errorf("cleanup while GitHub is out of reach: exit %d\n%s", got.code, got.stderr)
	}
	back()
	f.nextRun()
	f.env = append(f.env, hooks.ClockAhead+"=20m")
	f.goOn()
	if found := f.audit(); len(found) != 0 {
		t.Errorf("the audit finds %v", found)
	}
	if got := f.ok("audit", "verify"); !regexp.MustCompile(`late, by 2\dm`).MatchString(got) {
		t.Errorf("the audit does not say that entries came late: %s", got)
	}
	if p := f.status(); p.Current != 2 || p.Previous != 0 {
		t.Errorf("status is %+v", p)
	}
	f.noneFailed()
}

// TestGitHubCrash kills a rotation with -9 after each kind of effect, with the
// journal on GitHub, each time letting another runner go on: no login fails, one
// version is left, and the record is whole. With KEYTURN_CRASH=all it is every
// point of a rotation, else one for each thing that is shared: the Swarm's secret,
// the database, the services, the proof.
func TestGitHubCrash(t *testing.T) {
	t.Parallel()
	rows := [][]string{{"after effect: prepare put", "after effect: cutover move", "before record: cutover  done", "after effect: cleanup proof"}}
	if os.Getenv("KEYTURN_CRASH") == "all" {
		rows = everyPoint(t, "switch")
	}
	for i, row := range rows {
		t.Run(fmt.Sprint(i), func(t *testing.T) {
			t.Parallel()
			f := newStack(t, servers.postgres.Get(t), nil).onGitHub()
			f.killedRunsHaveEnded()
			f.ok("adopt", f.name)
			for _, point := range row {
				f.nextRun()
				if strings.Contains(point, "#") {
					f.runWith([]string{hooks.DieAt + "=" + point}, "rotate", "--wait", f.name)
					f.goOn()
					continue
				}
				f.dieIn(point)
			}
			f.goOn()
			if p := f.status(); p.Pending != 0 || p.Previous != 0 || p.Queue != 0 {
				t.Errorf("status is %+v", p)
			}
			if found := f.audit(); len(found) != 0 {
				t.Errorf("the audit finds %v", found)
			}
			f.noneFailed()
			f.oneLogin()
		})
	}
}

// killedRunsHaveEnded has GitHub know that every run which is asked about has ended.
func (f *forge) killedRunsHaveEnded() {
	f.gh.On(func(r *http.Request) *githubfake.Fault {
		if !strings.Contains(r.URL.Path, "/actions/runs/") {
			return nil
		}
		return &githubfake.Fault{Status: 200, Body: `{"id":1,"status":"completed","conclusion":"failure","run_attempt":1}`}
	})
}
