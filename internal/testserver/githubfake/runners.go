package githubfake

import "slices"

// A RunnerGroup is a group of runners of an organisation, or with no name the runners of
// a repository itself.
type RunnerGroup struct {
	Name      string
	Runners   int
	Workflows []string // that it is restricted to; nil: to none
}

func runnerRoutes() []route {
	return []route{
		{"GET /repos/{owner}/{repo}/actions/runners", 200, "administration=read", func(c *call) (any, error) {
			return shownRunners(c.repo.runners), nil
		}},
		{"GET /orgs/{org}/actions/runner-groups", 200, "organization_self_hosted_runners=read", func(c *call) (any, error) {
			if c.s.account(c.value("org")).Type != "Organization" {
				return nil, notFound()
			}
			shown := []any{}
			for i, g := range c.s.groups {
				o := object{"id": i + 1, "name": g.Name, "visibility": "all", "default": false, "runners_url": c.s.URL + c.r.URL.Path + "/" + intText(int64(i+1)) + "/runners",
					"inherited": false, "allows_public_repositories": false, "restricted_to_workflows": g.Workflows != nil, "selected_workflows": append([]string{}, g.Workflows...)}
				shown = append(shown, o)
			}
			return object{"total_count": len(shown), "runner_groups": shown}, nil
		}},
		{"GET /orgs/{org}/actions/runner-groups/{id}/runners", 200, "organization_self_hosted_runners=read", func(c *call) (any, error) {
			n, err := c.number("id")
			if err != nil || n < 1 || int(n) > len(c.s.groups) {
				return nil, notFound()
			}
			return shownRunners(c.s.groups[n-1].Runners), nil
		}},
	}
}

func shownRunners(n int) object {
	shown := []any{}
	for i := range n {
		shown = append(shown, object{"id": i + 1, "name": "runner-" + intText(int64(i+1)), "os": "linux", "status": "online", "busy": false, "labels": []any{}})
	}
	return object{"total_count": n, "runners": shown}
}

// SetRunners says which runners there are: those of the repository, and the
// organisation's groups.
func (r *Repo) SetRunners(own int, groups ...RunnerGroup) {
	r.s.mu.Lock()
	defer r.s.mu.Unlock()
	r.runners, r.s.groups = own, slices.Clone(groups)
}
