package actionsecrets

import (
	"context"
	"fmt"
	"net/http"
	"slices"
	"strings"

	"github.com/google/go-github/v60/github"

	"github.com/keyturn/keyturn/internal/githubapp"
	"github.com/keyturn/keyturn/internal/rotation"
)

// readers returns who may read an organisation's secret: GitHub asks for it with every
// change. Where repositories were selected, they are those of the configuration: who
// asks may not see all of them, and what is not said again would be taken from others.
func (t *Target) readers(ctx context.Context, c *githubapp.Client, name string) (visibility string, ids []int64, err error) {
	s, there, err := t.read(ctx, c, name)
	switch {
	case err != nil:
		return "", nil, err
	case !there:
		return "", nil, rotation.Errorf(rotation.Refused,
			"make it once, with any value, and choose which repositories may read it: settings of the organisation, Secrets and variables",
			"the organisation %s has no secret %s", t.Organization, name)
	case s.Visibility != "selected":
		return s.Visibility, nil, nil
	}
	seen, err := t.selected(ctx, c, name)
	if err != nil {
		return "", nil, err
	}
	for repo := range seen {
		if !slices.ContainsFunc(t.Repositories, func(r string) bool { return strings.EqualFold(r, repo) }) {
			return "", nil, rotation.Errorf(rotation.Refused, "name every repository that may read it: actions-secrets: {repositories: [acme/orders, …]}",
				"%s may read %s of the organisation %s, and is not under repositories", repo, name, t.Organization)
		}
	}
	for _, repo := range t.Repositories {
		id, ok := seen[strings.ToLower(repo)]
		if !ok {
			return "", nil, rotation.Errorf(rotation.Refused, "select it on the secret's page, or take it out of repositories; or let the App see it",
				"%s is under repositories, and cannot be seen among those that may read %s of the organisation %s", repo, name, t.Organization)
		}
		ids = append(ids, id)
	}
	return s.Visibility, ids, nil
}

// selected returns the repositories that may read a secret, by name in small letters.
func (t *Target) selected(ctx context.Context, c *githubapp.Client, name string) (map[string]int64, error) {
	type repository struct {
		ID       int64  `json:"id"`
		FullName string `json:"full_name"`
	}
	all, err := githubapp.All(func(o github.ListOptions) ([]repository, *github.Response, error) {
		var page struct {
			Repositories []repository `json:"repositories"`
		}
		resp, err := ask(ctx, c, http.MethodGet, fmt.Sprintf("%s/repositories?per_page=%d&page=%d", t.path(name), o.PerPage, max(o.Page, 1)), nil, &page)
		return page.Repositories, resp, err
	})
	if err != nil {
		return nil, wrap(fmt.Sprintf("reading which repositories may read %s of the %s", name, t.Place), err)
	}
	seen := map[string]int64{}
	for _, r := range all {
		seen[strings.ToLower(r.FullName)] = r.ID
	}
	return seen, nil
}
