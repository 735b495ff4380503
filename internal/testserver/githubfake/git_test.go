package githubfake_test

import (
	"archive/tar"
	"compress/gzip"
	"context"
	"errors"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/google/go-github/v60/github"

	"github.com/keyturn/keyturn/internal/secret"
	"github.com/keyturn/keyturn/internal/testserver/githubfake"
)

// client is go-github's, with a token.
func client(t *testing.T, base string, token secret.Value) *github.Client {
	t.Helper()
	c := github.NewClient(nil).WithAuthToken(string(token.Reveal()))
	at, err := url.Parse(base + "/")
	if err != nil {
		t.Fatal(err)
	}
	c.BaseURL = at
	return c
}

// status is that of a refusal, or 0.
func status(err error) int {
	var e *github.ErrorResponse
	if errors.As(err, &e) {
		return e.Response.StatusCode
	}
	return 0
}

// TestWritersOfABranchCollide: of writers that come at the same time one wins, the
// others are told that the branch moved or that the file is there, and nothing is lost.
func TestWritersOfABranchCollide(t *testing.T) {
	ctx := context.Background()
	gh := githubfake.Start(t, githubfake.Options{})
	app := gh.AddApp("keyturn", map[string]string{"contents": "write"})
	c := client(t, gh.URL, app.Token(nil))
	var won, moved, there atomic.Int64
	var group sync.WaitGroup
	for range 8 {
		group.Go(func() {
			for range 5 {
				_, _, err := c.Repositories.CreateFile(ctx, gh.Owner, gh.Name, "log/"+strconv.FormatInt(won.Load(), 10)+".json", &github.RepositoryContentFileOptions{
					Message: github.String("an entry"), Content: []byte("{}"), Branch: github.String("main")})
				switch {
				case err == nil:
					won.Add(1)
				case status(err) == 409 && strings.Contains(err.Error(), "but expected"):
					moved.Add(1)
				case status(err) == 422 && strings.Contains(err.Error(), `"sha" wasn't supplied`):
					there.Add(1)
				default:
					t.Error(err)
				}
			}
		})
	}
	group.Wait()
	commits, _, err := c.Repositories.ListCommits(ctx, gh.Owner, gh.Name, &github.CommitsListOptions{ListOptions: github.ListOptions{PerPage: 100}})
	if err != nil {
		t.Fatal(err)
	}
	if int64(len(commits)) != won.Load()+1 || won.Load() == 0 || moved.Load() == 0 {
		t.Errorf("%d commits after %d writes; %d were told that the branch moved, %d that the file is there", len(commits), won.Load(), moved.Load(), there.Load())
	}
	if v := commits[0].GetCommit().GetVerification(); !v.GetVerified() || commits[0].GetAuthor().GetLogin() != "keyturn[bot]" {
		t.Errorf("commit is by %q, verified: %v", commits[0].GetAuthor().GetLogin(), v.GetVerified())
	}
}

func TestTarball(t *testing.T) {
	ctx := context.Background()
	gh := githubfake.Start(t, githubfake.Options{})
	gh.Commit("main", "founder", "more", map[string]string{"log/000.jsonl": "one\n", "log/deep/x": "two\n"})
	c := client(t, gh.URL, gh.Token("founder"))
	at, resp, err := c.Repositories.GetArchiveLink(ctx, gh.Owner, gh.Name, github.Tarball, &github.RepositoryContentGetOptions{Ref: "main"}, 0)
	if err != nil || resp.StatusCode != http.StatusFound {
		t.Fatal(resp, err)
	}
	answer, err := http.Get(at.String())
	if err != nil {
		t.Fatal(err)
	}
	defer answer.Body.Close()
	unpacked, err := gzip.NewReader(answer.Body)
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for in := tar.NewReader(unpacked); ; {
		h, err := in.Next()
		if errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			t.Fatal(err)
		}
		names = append(names, h.Name)
	}
	top := "octo-shop-" + gh.Head("main")[:7] + "/"
	want := strings.Join([]string{"pax_global_header", top, top + "README.md", top + "log/", top + "log/000.jsonl", top + "log/deep/", top + "log/deep/x"}, " ")
	if got := strings.Join(names, " "); got != want {
		t.Errorf("the archive holds %s, want %s", got, want)
	}
}
