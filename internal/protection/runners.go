package protection

import (
	"context"
	"fmt"
	"net/http"
	"net/url"
	"regexp"
	"strings"

	"github.com/google/go-github/v60/github"

	"github.com/keyturn/keyturn/internal/githubapp"
)

// A runnerGroup is one of the organisation, which the repository may use.
type runnerGroup struct {
	ID         int64    `json:"id"`
	Name       string   `json:"name"`
	Restricted bool     `json:"restricted_to_workflows"`
	Workflows  []string `json:"selected_workflows"`
}

const runnersHint = "put the runners that reach the Swarm into a group of the organisation that is restricted to the workflows of the default branch"

// lookRunners finds runners on which the workflows of every branch run: what reaches the
// Swarm, or a secret on its disk, does not need Keyturn.
func (r *repository) lookRunners(ctx context.Context) []Finding {
	var all []Finding
	var own struct {
		Count int `json:"total_count"`
	}
	switch err := r.call(ctx, http.MethodGet, "actions/runners?per_page=1", nil, &own); {
	case err != nil:
		all = append(all, lookYourself("the runners of the repository", err))
	case own.Count > 0:
		all = append(all, Finding{What: "runners", Bypass: true, Hint: runnersHint,
			Text: "whoever can push a branch: its workflows run on the repository's own runners, which no rule keeps to certain workflows"})
	}
	groups, err := githubapp.All(func(o github.ListOptions) ([]runnerGroup, *github.Response, error) {
		var page struct {
			Groups []runnerGroup `json:"runner_groups"`
		}
		resp, err := r.ofOwner(ctx, fmt.Sprintf("?visible_to_repository=%s&per_page=%d&page=%d", url.QueryEscape(r.Repo), o.PerPage, max(o.Page, 1)), &page)
		return page.Groups, resp, err
	})
	if err != nil {
		if githubapp.Missing(err) && !r.organisation {
			return all // a person has no groups
		}
		return append(all, lookYourself("the groups of runners that the repository may use", err))
	}
	for _, g := range groups {
		all = append(all, r.lookGroup(ctx, g)...)
	}
	return all
}

func (r *repository) lookGroup(ctx context.Context, g runnerGroup) []Finding {
	var in struct {
		Count int `json:"total_count"`
	}
	if _, err := r.ofOwner(ctx, fmt.Sprintf("/%d/runners?per_page=1", g.ID), &in); err != nil {
		return []Finding{lookYourself(fmt.Sprintf("the runners of the group %q", g.Name), err)}
	}
	switch {
	case in.Count == 0:
		return nil
	case !g.Restricted:
		return []Finding{{What: "runners", Bypass: true, Hint: runnersHint,
			Text: fmt.Sprintf("whoever can push a branch: its workflows run on the runners of the group %q, which is restricted to no workflows", g.Name)}}
	}
	for _, w := range g.Workflows {
		if !r.settled(w) {
			return []Finding{{What: "runners", Bypass: true, Hint: "name the workflows with the default branch, or with the whole number of a commit",
				Text: fmt.Sprintf("whoever can push a branch: the group %q takes the workflow %s as another reference than %s has it", g.Name, w, r.main)}}
		}
	}
	return nil
}

var wholeCommit = regexp.MustCompile(`^[0-9a-f]{40}$`)

// settled reports whether a workflow is named as the default branch, or one commit, has it.
func (r *repository) settled(workflow string) bool {
	_, ref, _ := strings.Cut(workflow, "@")
	return ref == r.main || ref == "refs/heads/"+r.main || wholeCommit.MatchString(ref)
}

func lookYourself(what string, err error) Finding {
	f := unread(what, err)
	f.Hint = "look yourself, or ask with an administrator's token: " + runnersHint
	return f
}

// ofOwner asks for groups of runners.
func (r *repository) ofOwner(ctx context.Context, path string, into any) (*github.Response, error) {
	req, err := r.NewRequest(http.MethodGet, "orgs/"+r.Owner+"/actions/runner-groups"+path, nil)
	if err != nil {
		return nil, err
	}
	return r.Do(ctx, req, into)
}
