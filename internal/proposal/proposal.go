// Package proposal opens the pull request by which people approve a cutover: it
// changes files on a branch of its own, from the default branch as it is now, and
// is kept up to date as long as it is open.
//
// The calls are those of GitHub's REST API: "Git database", "Pulls", "Review
// requests". No author, committer or signature is sent, so GitHub signs the commit.
package proposal

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"

	"github.com/google/go-github/v60/github"

	"github.com/keyturn/keyturn/internal/githubapp"
)

// A Proposal is what a pull request is to be.
type Proposal struct {
	Branch    string // of the change
	Title     string
	Body      string            // Markdown
	Message   string            // of the commit
	Files     map[string]string // path → text, of those that change
	Reviewers []string          // logins
	Teams     []string          // slugs, of the repository's organisation
	Labels    []string
}

// An Open is a pull request that was opened or brought up to date.
type Open struct {
	Number int
	URL    string
	Head   string // hash of its newest commit
	Fresh  bool   // it has a new commit: earlier reviews do not count
	Unsent string // why the reviewers were not asked; "" if they were
}

// Base is the default branch as it is now.
type Base struct {
	Branch string
	Commit string
	Tree   string
}

// Default reads the default branch.
func Default(ctx context.Context, c *githubapp.Client) (Base, error) {
	repo, _, err := c.Repositories.Get(ctx, c.Owner, c.Repo)
	if err != nil {
		return Base{}, fmt.Errorf("reading the repository: %w", err)
	}
	b := Base{Branch: repo.GetDefaultBranch()}
	ref, _, err := c.Git.GetRef(ctx, c.Owner, c.Repo, "heads/"+b.Branch)
	if err != nil {
		return Base{}, fmt.Errorf("reading branch %q: %w", b.Branch, err)
	}
	b.Commit = ref.GetObject().GetSHA()
	commit, _, err := c.Git.GetCommit(ctx, c.Owner, c.Repo, b.Commit)
	if err != nil {
		return Base{}, fmt.Errorf("reading the head of branch %q: %w", b.Branch, err)
	}
	b.Tree = commit.GetTree().GetSHA()
	return b, nil
}

// File reads a file of a commit.
func File(ctx context.Context, c *githubapp.Client, path, commit string) (string, error) {
	file, _, _, err := c.Repositories.GetContents(ctx, c.Owner, c.Repo, path, &github.RepositoryContentGetOptions{Ref: commit})
	if err != nil {
		return "", fmt.Errorf("reading %s of commit %.12s: %w", path, commit, err)
	}
	if file == nil {
		return "", fmt.Errorf("reading %s of commit %.12s: it is no file", path, commit)
	}
	return file.GetContent()
}

// Put opens the pull request, or brings the one of its branch up to date.
func (p Proposal) Put(ctx context.Context, c *githubapp.Client, base Base) (Open, error) {
	pr, err := Find(ctx, c, p.Branch)
	if err != nil {
		return Open{}, err
	}
	head, fresh, err := p.commit(ctx, c, base)
	if err != nil {
		return Open{}, fmt.Errorf("writing branch %q: %w", p.Branch, err)
	}
	if pr == nil {
		pr, _, err = c.PullRequests.Create(ctx, c.Owner, c.Repo, &github.NewPullRequest{Title: &p.Title, Body: &p.Body,
			Head: &p.Branch, Base: &base.Branch, MaintainerCanModify: github.Bool(false)})
		if err != nil {
			return Open{}, fmt.Errorf("opening the pull request: %w", err)
		}
	} else if pr.GetBody() != p.Body || pr.GetTitle() != p.Title {
		if pr, _, err = c.PullRequests.Edit(ctx, c.Owner, c.Repo, pr.GetNumber(), &github.PullRequest{Title: &p.Title, Body: &p.Body}); err != nil {
			return Open{}, fmt.Errorf("updating pull request #%d: %w", pr.GetNumber(), err)
		}
	}
	open := Open{Number: pr.GetNumber(), URL: pr.GetHTMLURL(), Head: head, Fresh: fresh}
	if fresh {
		open.Unsent = p.ask(ctx, c, open.Number)
	}
	return open, nil
}

// ask requests reviews, and puts the labels there. That it is refused is no reason
// not to propose: a person who cannot be asked can review all the same.
func (p Proposal) ask(ctx context.Context, c *githubapp.Client, number int) string {
	var errs []error
	if len(p.Reviewers)+len(p.Teams) > 0 {
		_, _, err := c.PullRequests.RequestReviewers(ctx, c.Owner, c.Repo, number, github.ReviewersRequest{Reviewers: p.Reviewers, TeamReviewers: p.Teams})
		errs = append(errs, err)
	}
	if len(p.Labels) > 0 {
		// go-github sends a bare list, which GitHub does not describe any more.
		req, err := c.NewRequest(http.MethodPost, fmt.Sprintf("repos/%s/%s/issues/%d/labels", c.Owner, c.Repo, number), map[string][]string{"labels": p.Labels})
		if err == nil {
			_, err = c.Do(ctx, req, nil)
		}
		errs = append(errs, err)
	}
	if err := errors.Join(errs...); err != nil {
		return err.Error()
	}
	return ""
}

// commit makes the branch hold the files, on top of the base, and returns its head.
// A branch that is so already is left alone.
func (p Proposal) commit(ctx context.Context, c *githubapp.Client, base Base) (head string, fresh bool, err error) {
	ref, resp, err := c.Git.GetRef(ctx, c.Owner, c.Repo, "heads/"+p.Branch)
	there := err == nil
	if err != nil && (resp == nil || resp.StatusCode != http.StatusNotFound) {
		return "", false, err
	}
	var entries []*github.TreeEntry
	for _, path := range slices.Sorted(maps.Keys(p.Files)) {
		entries = append(entries, &github.TreeEntry{Path: github.String(path), Mode: github.String("100644"), Type: github.String("blob"), Content: github.String(p.Files[path])})
	}
	tree, _, err := c.Git.CreateTree(ctx, c.Owner, c.Repo, base.Tree, entries)
	if err != nil {
		return "", false, err
	}
	if there {
		now, _, err := c.Git.GetCommit(ctx, c.Owner, c.Repo, ref.GetObject().GetSHA())
		if err != nil {
			return "", false, err
		}
		if now.GetTree().GetSHA() == tree.GetSHA() && len(now.Parents) == 1 && now.Parents[0].GetSHA() == base.Commit {
			return now.GetSHA(), false, nil
		}
	}
	made, _, err := c.Git.CreateCommit(ctx, c.Owner, c.Repo, &github.Commit{Message: &p.Message, Tree: tree,
		Parents: []*github.Commit{{SHA: &base.Commit}}}, nil)
	if err != nil {
		return "", false, err
	}
	fresh = true
	next := &github.Reference{Ref: github.String("refs/heads/" + p.Branch), Object: &github.GitObject{SHA: made.SHA}}
	if there {
		_, _, err = c.Git.UpdateRef(ctx, c.Owner, c.Repo, next, true)
	} else {
		_, _, err = c.Git.CreateRef(ctx, c.Owner, c.Repo, next)
	}
	return made.GetSHA(), fresh, err
}

// Find returns the open pull request of a branch of this repository; nil if there is none.
func Find(ctx context.Context, c *githubapp.Client, branch string) (*github.PullRequest, error) {
	found, _, err := c.PullRequests.List(ctx, c.Owner, c.Repo, &github.PullRequestListOptions{State: "open", Head: c.Owner + ":" + branch})
	if err != nil {
		return nil, fmt.Errorf("looking for the pull request of branch %q: %w", branch, err)
	}
	for _, pr := range found {
		if pr.GetHead().GetRef() == branch {
			return pr, nil
		}
	}
	return nil, nil
}

// Discard closes every open pull request whose branch begins so and is none of
// those to keep, says why, and removes the branch.
func Discard(ctx context.Context, c *githubapp.Client, prefix string, keep []string, why string) (closed []int, err error) {
	open, err := githubapp.All(func(page github.ListOptions) ([]*github.PullRequest, *github.Response, error) {
		return c.PullRequests.List(ctx, c.Owner, c.Repo, &github.PullRequestListOptions{State: "open", ListOptions: page})
	})
	if err != nil {
		return nil, fmt.Errorf("listing pull requests: %w", err)
	}
	for _, pr := range open {
		branch := pr.GetHead().GetRef()
		if !strings.HasPrefix(branch, prefix) || slices.Contains(keep, branch) || pr.GetHead().GetRepo().GetID() != pr.GetBase().GetRepo().GetID() {
			continue
		}
		if err := discard(ctx, c, pr, why); err != nil {
			return closed, err
		}
		closed = append(closed, pr.GetNumber())
	}
	return closed, nil
}

func discard(ctx context.Context, c *githubapp.Client, pr *github.PullRequest, why string) error {
	number := pr.GetNumber()
	if _, _, err := c.Issues.CreateComment(ctx, c.Owner, c.Repo, number, &github.IssueComment{Body: &why}); err != nil {
		return fmt.Errorf("commenting on pull request #%d: %w", number, err)
	}
	if _, _, err := c.PullRequests.Edit(ctx, c.Owner, c.Repo, number, &github.PullRequest{State: github.String("closed")}); err != nil {
		return fmt.Errorf("closing pull request #%d: %w", number, err)
	}
	_, err := c.Git.DeleteRef(ctx, c.Owner, c.Repo, "heads/"+pr.GetHead().GetRef())
	if err != nil {
		return fmt.Errorf("removing branch %q: %w", pr.GetHead().GetRef(), err)
	}
	return nil
}
