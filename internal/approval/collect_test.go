package approval_test

import (
	"context"
	"slices"
	"testing"
	"time"

	"github.com/google/go-github/v60/github"

	"github.com/keyturn/keyturn/internal/approval"
	"github.com/keyturn/keyturn/internal/githubapp"
	"github.com/keyturn/keyturn/internal/testserver/githubfake"
)

// proposed is a repository in which a pull request of the App changes a stack file, whose
// owners have to review it.
func proposed(t *testing.T) (gh *githubfake.Server, app *githubfake.App, number int) {
	t.Helper()
	gh = githubfake.Start(t, githubfake.Options{})
	app = gh.AddApp("keyturn", map[string]string{"contents": "write", "pull_requests": "write", "members": "read"})
	gh.AddUser("alice", "admin")
	gh.AddUser("bob", "write")
	gh.AddUser("carol", "write")
	gh.AddTeam("sre", "write", "carol")
	gh.Commit("main", "alice", "owners", map[string]string{".github/CODEOWNERS": "* @alice\n/deploy/ @octo/sre\n", "deploy/orders.yml": "a\n", "keyturn.yml": "x\n"})
	gh.AddRuleset("main", map[string]any{"required_approving_review_count": 1, "require_code_owner_review": true})
	number = gh.AddPull(githubfake.Pull{Author: "keyturn[bot]", Branch: "keyturn/orders-db", Files: map[string]string{"deploy/orders.yml": "b\n"}})
	return gh, app, number
}

// facts are what is read of the pull request.
func facts(t *testing.T, gh *githubfake.Server, app *githubfake.App, number int) approval.Facts {
	t.Helper()
	a, err := githubapp.New(githubapp.Options{API: gh.URL, Owner: gh.Owner, Repo: gh.Name, App: app.ID, Key: app.Key(), Between: -1,
		Sleep: func(ctx context.Context, _ time.Duration) error { return ctx.Err() }})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = a.Close(context.Background()) })
	client := a.Client(github.InstallationPermissions{Contents: github.String("read"), PullRequests: github.String("read"), Members: github.String("read")})
	f, err := approval.Collect(t.Context(), client, approval.Subject{Policy: approval.Policy{Count: 1, PullRequest: true},
		Facts: approval.Facts{Proposed: &approval.Proposal{Number: number}}, HeadSHA: gh.Head("main"), ConfigPath: "keyturn.yml", Config: []byte("x\n")})
	if err != nil {
		t.Fatal(err)
	}
	return f
}

// TestCollectOwners asks GitHub for its own decision, where owners of the code have to
// review: an approval of somebody else is not theirs.
func TestCollectOwners(t *testing.T) {
	gh, app, number := proposed(t)
	satisfied := func(when string, want bool) {
		t.Helper()
		f := facts(t, gh, app, number)
		if f.Rules == nil || f.Rules.Count != 1 || !f.Rules.CodeOwners || f.Rules.Satisfied != want || len(f.Unread) > 0 {
			t.Errorf("%s: the rules are %+v, unread %v", when, f.Rules, f.Unread)
		}
	}
	satisfied("nobody has reviewed", false)
	gh.AddReview(number, githubfake.Review{Login: "bob", State: "APPROVED"})
	satisfied("bob has approved, who owns nothing of it", false)
	gh.AddReview(number, githubfake.Review{Login: "alice", State: "APPROVED"})
	satisfied("alice has approved, whose line is not the last one", false)
	gh.AddReview(number, githubfake.Review{Login: "carol", State: "APPROVED"})
	satisfied("carol of the owning team has approved", true)
	gh.AddReview(number, githubfake.Review{Login: "bob", State: "CHANGES_REQUESTED"})
	satisfied("bob wants changes now", false)
}

// TestCollectNoDecision shows that a decision which cannot be read is none.
func TestCollectNoDecision(t *testing.T) {
	gh, app, number := proposed(t)
	gh.AddReview(number, githubfake.Review{Login: "carol", State: "APPROVED"})
	for name, fault := range map[string]githubfake.Fault{
		"errors with 200": {Status: 200, Body: `{"data":{"repository":null},"errors":[{"type":"FORBIDDEN","message":"Resource not accessible by integration"}]}`},
		"a refusal":       {Status: 403}, "a failure": {Status: 502}, "no answer": {Lose: true},
	} {
		back := gh.On(githubfake.Graph(fault))
		f := facts(t, gh, app, number)
		if f.Rules == nil || f.Rules.Satisfied || !slices.ContainsFunc(f.Unread, func(s string) bool { return len(s) > 0 }) {
			t.Errorf("%s: the rules are %+v, unread %v", name, f.Rules, f.Unread)
		}
		back()
	}
}

// TestCollectBypass reads whether a merge went past the rules, where the App may.
func TestCollectBypass(t *testing.T) {
	for name, may := range map[string]bool{"an App that may read it": true, "an App that may not": false} {
		gh, app, number := proposed(t)
		if may {
			app.Permissions["administration"] = "read"
		}
		before := gh.Head("main")
		gh.AddReview(number, githubfake.Review{Login: "bob", State: "APPROVED"})
		gh.Merge(number, "alice", "squash")
		gh.AddRuleSuite("main", "alice", before, gh.Head("main"), "bypass")
		a, err := githubapp.New(githubapp.Options{API: gh.URL, Owner: gh.Owner, Repo: gh.Name, App: app.ID, Key: app.Key(), Between: -1})
		if err != nil {
			t.Fatal(err)
		}
		permissions := github.InstallationPermissions{Contents: github.String("read"), PullRequests: github.String("read"), Members: github.String("read")}
		if may {
			permissions.Administration = github.String("read")
		}
		f, err := approval.Collect(t.Context(), a.Client(permissions), approval.Subject{Policy: approval.Policy{Count: 1, PullRequest: true},
			Facts: approval.Facts{Proposed: &approval.Proposal{Number: number}}, HeadSHA: gh.Head("main"), ConfigPath: "keyturn.yml", Config: []byte("x\n")})
		if err != nil || f.Rules == nil || f.Rules.Bypassed != may || len(f.Unread) > 0 {
			t.Errorf("%s: %+v, unread %v, %v", name, f.Rules, f.Unread, err)
		}
		_ = a.Close(t.Context())
	}
}
