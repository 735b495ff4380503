package mirror

import (
	"context"
	"strings"

	"github.com/google/go-github/v60/github"

	"github.com/keyturn/keyturn/internal/githubapp"
)

// labelled returns the issues with a label, newest first.
func (r Repository) labelled(ctx context.Context, label, state string) ([]*github.Issue, error) {
	return githubapp.All(func(page github.ListOptions) ([]*github.Issue, *github.Response, error) {
		return r.Client.Issues.ListByRepo(ctx, r.Owner, r.Repo, &github.IssueListByRepoOptions{State: state, Labels: []string{label}, ListOptions: page})
	})
}

// marked returns the newest issue whose body begins with a marker; nil if there is none.
func marked(issues []*github.Issue, marker string) *github.Issue {
	for _, i := range issues {
		if strings.HasPrefix(unixLines(i.GetBody()), marker) {
			return i
		}
	}
	return nil
}

// unixLines is a body as it was written: GitHub may give it back with other line ends.
func unixLines(body string) string { return strings.ReplaceAll(body, "\r\n", "\n") }

// complete closes an issue, because what it is about is over. A body replaces its own.
func (r Repository) complete(ctx context.Context, number int, body *string) (*github.Issue, error) {
	issue, _, err := r.Client.Issues.Edit(ctx, r.Owner, r.Repo, number,
		&github.IssueRequest{Body: body, State: github.String("closed"), StateReason: github.String("completed")})
	return issue, err
}
