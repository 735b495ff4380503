package githubfake

import (
	"context"
	"io"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/google/go-github/v60/github"
)

// A recorder answers everything with nothing, and keeps what was asked.
type recorder struct {
	method, path string
	body         []byte
}

// RoundTrip implements [http.RoundTripper].
func (r *recorder) RoundTrip(req *http.Request) (*http.Response, error) {
	r.method, r.path, r.body = req.Method, req.URL.EscapedPath(), nil
	if req.Body != nil {
		r.body, _ = io.ReadAll(req.Body)
	}
	return &http.Response{StatusCode: http.StatusOK, Request: req, Header: http.Header{}, Body: io.NopCloser(strings.NewReader("null"))}, nil
}

func of[T any](v T) *T { return &v }

// calls are the methods of go-github that Keyturn uses, each as it uses it.
var calls = map[string]func(context.Context, *github.Client){
	"Repositories.Get": func(ctx context.Context, c *github.Client) { _, _, _ = c.Repositories.Get(ctx, "o", "r") },
	"Repositories.GetPermissionLevel": func(ctx context.Context, c *github.Client) {
		_, _, _ = c.Repositories.GetPermissionLevel(ctx, "o", "r", "u")
	},
	"Repositories.GetContents": func(ctx context.Context, c *github.Client) {
		_, _, _, _ = c.Repositories.GetContents(ctx, "o", "r", "log/1.jsonl", &github.RepositoryContentGetOptions{Ref: "main"})
	},
	"Repositories.CreateFile": func(ctx context.Context, c *github.Client) {
		_, _, _ = c.Repositories.CreateFile(ctx, "o", "r", "log/1.jsonl", &github.RepositoryContentFileOptions{Message: of("m"), Content: []byte("x"), Branch: of("b")})
	},
	"Repositories.ListCommits": func(ctx context.Context, c *github.Client) {
		_, _, _ = c.Repositories.ListCommits(ctx, "o", "r", &github.CommitsListOptions{SHA: "b"})
	},
	"Repositories.GetEnvironment": func(ctx context.Context, c *github.Client) {
		_, _, _ = c.Repositories.GetEnvironment(ctx, "o", "r", "prod")
	},
	"Repositories.GetArchiveLink": func(ctx context.Context, c *github.Client) {
		_, _, _ = c.Repositories.GetArchiveLink(ctx, "o", "r", github.Tarball, &github.RepositoryContentGetOptions{Ref: "b"}, 0)
	},
	"Repositories.CreateStatus": func(ctx context.Context, c *github.Client) {
		_, _, _ = c.Repositories.CreateStatus(ctx, "o", "r", "sha", &github.RepoStatus{State: of("success"), Context: of("c"), Description: of("d"), TargetURL: of("https://x.example")})
	},
	"Repositories.ListStatuses": func(ctx context.Context, c *github.Client) {
		_, _, _ = c.Repositories.ListStatuses(ctx, "o", "r", "sha", nil)
	},
	"Repositories.CompareCommits": func(ctx context.Context, c *github.Client) {
		_, _, _ = c.Repositories.CompareCommits(ctx, "o", "r", "a", "b", nil)
	},
	"Repositories.CreateKey": func(ctx context.Context, c *github.Client) {
		_, _, _ = c.Repositories.CreateKey(ctx, "o", "r", &github.Key{Title: of("t"), Key: of("k"), ReadOnly: of(true)})
	},
	"Repositories.DeleteKey": func(ctx context.Context, c *github.Client) { _, _ = c.Repositories.DeleteKey(ctx, "o", "r", 1) },
	"Issues.ListByRepo":      func(ctx context.Context, c *github.Client) { _, _, _ = c.Issues.ListByRepo(ctx, "o", "r", nil) },
	"Issues.Create": func(ctx context.Context, c *github.Client) {
		_, _, _ = c.Issues.Create(ctx, "o", "r", &github.IssueRequest{Title: of("t"), Body: of("b"), Labels: &[]string{"l"}})
	},
	"Issues.Edit": func(ctx context.Context, c *github.Client) {
		_, _, _ = c.Issues.Edit(ctx, "o", "r", 1, &github.IssueRequest{State: of("closed"), StateReason: of("completed")})
	},
	"Issues.ListComments": func(ctx context.Context, c *github.Client) { _, _, _ = c.Issues.ListComments(ctx, "o", "r", 1, nil) },
	"Issues.CreateComment": func(ctx context.Context, c *github.Client) {
		_, _, _ = c.Issues.CreateComment(ctx, "o", "r", 1, &github.IssueComment{Body: of("b")})
	},
	"Issues.GetLabel": func(ctx context.Context, c *github.Client) { _, _, _ = c.Issues.GetLabel(ctx, "o", "r", "l") },
	"Issues.CreateLabel": func(ctx context.Context, c *github.Client) {
		_, _, _ = c.Issues.CreateLabel(ctx, "o", "r", &github.Label{Name: of("l"), Color: of("0e8a16")})
	},
	"PullRequests.List": func(ctx context.Context, c *github.Client) { _, _, _ = c.PullRequests.List(ctx, "o", "r", nil) },
	"PullRequests.Get":  func(ctx context.Context, c *github.Client) { _, _, _ = c.PullRequests.Get(ctx, "o", "r", 1) },
	"PullRequests.ListReviews": func(ctx context.Context, c *github.Client) {
		_, _, _ = c.PullRequests.ListReviews(ctx, "o", "r", 1, nil)
	},
	"PullRequests.ListCommits": func(ctx context.Context, c *github.Client) {
		_, _, _ = c.PullRequests.ListCommits(ctx, "o", "r", 1, nil)
	},
	"PullRequests.Create": func(ctx context.Context, c *github.Client) {
		_, _, _ = c.PullRequests.Create(ctx, "o", "r", &github.NewPullRequest{Title: of("t"), Head: of("h"), Base: of("main"), Body: of("b")})
	},
	"PullRequests.Edit": func(ctx context.Context, c *github.Client) {
		_, _, _ = c.PullRequests.Edit(ctx, "o", "r", 1, &github.PullRequest{Title: of("t"), Body: of("b"), State: of("closed")})
	},
	"PullRequests.RequestReviewers": func(ctx context.Context, c *github.Client) {
		_, _, _ = c.PullRequests.RequestReviewers(ctx, "o", "r", 1, github.ReviewersRequest{Reviewers: []string{"u"}, TeamReviewers: []string{"t"}})
	},
	"Git.GetRef":    func(ctx context.Context, c *github.Client) { _, _, _ = c.Git.GetRef(ctx, "o", "r", "heads/b") },
	"Git.GetCommit": func(ctx context.Context, c *github.Client) { _, _, _ = c.Git.GetCommit(ctx, "o", "r", "sha") },
	"Git.CreateRef": func(ctx context.Context, c *github.Client) {
		_, _, _ = c.Git.CreateRef(ctx, "o", "r", &github.Reference{Ref: of("refs/heads/b"), Object: &github.GitObject{SHA: of("sha")}})
	},
	"Git.UpdateRef": func(ctx context.Context, c *github.Client) {
		_, _, _ = c.Git.UpdateRef(ctx, "o", "r", &github.Reference{Ref: of("refs/heads/b"), Object: &github.GitObject{SHA: of("sha")}}, true)
	},
	"Git.DeleteRef": func(ctx context.Context, c *github.Client) { _, _ = c.Git.DeleteRef(ctx, "o", "r", "heads/b") },
	"Git.CreateTree": func(ctx context.Context, c *github.Client) {
		_, _, _ = c.Git.CreateTree(ctx, "o", "r", "", []*github.TreeEntry{{Path: of("p"), Mode: of("100644"), Type: of("blob"), Content: of("c")}})
	},
	"Git.CreateCommit": func(ctx context.Context, c *github.Client) {
		_, _, _ = c.Git.CreateCommit(ctx, "o", "r", &github.Commit{Message: of("m"), Tree: &github.Tree{SHA: of("sha")}}, nil)
	},
	"Actions.GetWorkflowRunAttempt": func(ctx context.Context, c *github.Client) {
		_, _, _ = c.Actions.GetWorkflowRunAttempt(ctx, "o", "r", 1, 1, nil)
	},
	"Teams.GetTeamBySlug": func(ctx context.Context, c *github.Client) { _, _, _ = c.Teams.GetTeamBySlug(ctx, "o", "t") },
	"Teams.GetTeamMembershipBySlug": func(ctx context.Context, c *github.Client) {
		_, _, _ = c.Teams.GetTeamMembershipBySlug(ctx, "o", "t", "u")
	},
	"Users.Get":               func(ctx context.Context, c *github.Client) { _, _, _ = c.Users.Get(ctx, "u") },
	"Actions.GetEnvPublicKey": func(ctx context.Context, c *github.Client) { _, _, _ = c.Actions.GetEnvPublicKey(ctx, 1, "prod") },
	"Actions.CreateOrUpdateEnvSecret": func(ctx context.Context, c *github.Client) {
		_, _ = c.Actions.CreateOrUpdateEnvSecret(ctx, 1, "prod", &github.EncryptedSecret{Name: "S", KeyID: "1", EncryptedValue: "eA=="})
	},
}

// drifted are methods whose path GitHub does not describe any more, so that Keyturn sends
// those requests itself. If one is described again, this test says so.
var drifted = map[string]bool{"Actions.GetEnvPublicKey": true, "Actions.CreateOrUpdateEnvSecret": true}

// TestDrift holds every method of go-github that Keyturn calls against GitHub's own
// description of today.
func TestDrift(t *testing.T) {
	d := newServer(t, Options{})
	d.describe(t)
	if d.description == nil {
		t.Skip("GitHub's description is not here")
	}
	seen := &recorder{}
	c := github.NewClient(&http.Client{Transport: seen})
	for name, call := range calls {
		*seen = recorder{}
		call(t.Context(), c)
		op, known := d.description.find(seen.method, seen.path)
		switch {
		case drifted[name]:
			if known {
				t.Errorf("%s asks for %s %s, which GitHub describes again: use it", name, seen.method, seen.path)
			}
		case !known:
			t.Errorf("%s asks for %s %s, which GitHub does not describe", name, seen.method, seen.path)
		default:
			if err := d.description.request(op, seen.path, seen.body); err != nil {
				t.Errorf("%s: %v\n%s", name, err, seen.body)
			}
		}
	}
	for name, file := range used(t) {
		if calls[name] == nil {
			t.Errorf("%s calls %s, which is not held against the description: add it to calls", file, name)
		}
	}
}

// used are the methods that stand in the sources, each with a file that calls it.
func used(t *testing.T) map[string]string {
	t.Helper()
	method := regexp.MustCompile(`\.((?:Repositories|Issues|PullRequests|Git|Actions|Apps|Teams|Users|Organizations|Dependabot|Checks|Activity|Search|Reactions)\.[A-Z][A-Za-z]+)\(`)
	out := map[string]string{}
	err := filepath.WalkDir("../..", func(path string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() || !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go") {
			return err
		}
		b, err := os.ReadFile(path)
		for _, m := range method.FindAllStringSubmatch(string(b), -1) {
			out[m[1]] = path
		}
		return err
	})
	if err != nil || len(out) < 20 {
		t.Fatalf("looking through the sources: %v, %d methods", err, len(out))
	}
	return out
}
