package githubfake

import (
	"maps"
	"slices"
	"strings"
)

type team struct {
	id        int64
	org, slug string
	members   map[string]string // login → active or pending
	roles     map[*Repo]string
}

// AddTeam makes a team of the repository's owner, gives it a role in the
// repository ("" for none), and adds its members.
func (r *Repo) AddTeam(slug, role string, members ...string) {
	r.s.mu.Lock()
	defer r.s.mu.Unlock()
	t := &team{id: r.s.id(), org: r.Owner, slug: slug, members: map[string]string{}, roles: map[*Repo]string{}}
	if role != "" {
		t.roles[r] = role
	}
	for _, login := range members {
		t.members[r.s.account(login).Login] = "active"
	}
	r.s.teams[r.Owner+"/"+slug] = t
}

// SetMember sets what somebody is in a team: "active", "pending" (asked, and has
// not answered) or "".
func (r *Repo) SetMember(slug, login, as string) {
	r.s.mu.Lock()
	defer r.s.mu.Unlock()
	members := r.s.teams[r.Owner+"/"+slug].members
	delete(members, login)
	if as != "" {
		members[r.s.account(login).Login] = as
	}
}

// teamRole is the best role that somebody has in the repository by a team.
func (r *Repo) teamRole(login string) string {
	best := ""
	for _, t := range r.s.teams {
		if role := t.roles[r]; t.members[login] == "active" && role != "" && (best == "" || atLeast(role, best)) {
			best = role
		}
	}
	return best
}

func memberRoutes() []route {
	return []route{
		{"GET /repos/{owner}/{repo}/collaborators", 200, "metadata=read", listCollaborators},
		{"GET /repos/{owner}/{repo}/collaborators/{username}", 204, "metadata=read", func(c *call) (any, error) {
			if !atLeast(c.repo.roleOf(c.value("username")), "read") {
				return nil, notFound()
			}
			return nil, nil
		}},
		{"GET /repos/{owner}/{repo}/collaborators/{username}/permission", 200, "metadata=read", permissionOf},
		{"GET /repos/{owner}/{repo}/teams", 200, "administration=read", func(c *call) (any, error) {
			return page(c, c.s.teamsOf(func(t *team) bool { return t.roles[c.repo] != "" }), c.s.showTeam), nil
		}},
		{"GET /orgs/{org}", 200, "", func(c *call) (any, error) { return c.s.organisation(c.value("org")) }},
		{"GET /orgs/{org}/teams", 200, "members=read", func(c *call) (any, error) {
			return page(c, c.s.teamsOf(func(t *team) bool { return t.org == c.value("org") }), c.s.showTeam), nil
		}},
		{"GET /orgs/{org}/teams/{team}", 200, "members=read", onTeam(func(c *call, t *team) (any, error) {
			return c.s.fullTeam(t), nil
		})},
		{"GET /orgs/{org}/teams/{team}/members", 200, "members=read", onTeam(func(c *call, t *team) (any, error) {
			logins := slices.DeleteFunc(slices.Sorted(maps.Keys(t.members)), func(l string) bool { return t.members[l] != "active" })
			return page(c, logins, func(l string) any { return c.s.user(c.s.account(l)) }), nil
		})},
		{"GET /orgs/{org}/teams/{team}/memberships/{username}", 200, "members=read", onTeam(func(c *call, t *team) (any, error) {
			state := t.members[c.value("username")]
			if state == "" {
				return nil, notFound()
			}
			return object{"role": "member", "state": state, "url": c.s.URL + "/teams/" + intText(t.id) + "/memberships/" + c.value("username")}, nil
		})},
	}
}

func onTeam(do func(*call, *team) (any, error)) func(*call) (any, error) {
	return func(c *call) (any, error) {
		t := c.s.teams[c.value("org")+"/"+c.value("team")]
		if t == nil {
			return nil, notFound()
		}
		return do(c, t)
	}
}

func (s *Server) teamsOf(is func(*team) bool) []*team {
	var all []*team
	for _, name := range slices.Sorted(maps.Keys(s.teams)) {
		if is(s.teams[name]) {
			all = append(all, s.teams[name])
		}
	}
	return all
}

func (s *Server) showTeam(t *team) any {
	at := s.URL + "/organizations/1/team/" + intText(t.id)
	return object{"id": t.id, "node_id": node("T", t.id), "url": at, "members_url": at + "/members{/member}", "name": t.slug, "slug": t.slug,
		"description": nil, "permission": "pull", "privacy": "closed", "notification_setting": "notifications_enabled", "parent": nil,
		"html_url": web + "/orgs/" + t.org + "/teams/" + t.slug, "repositories_url": at + "/repos", "type": "organization",
		"organization_id": s.account(t.org).ID}
}

func (s *Server) fullTeam(t *team) any {
	o := s.showTeam(t).(object)
	org, err := s.organisation(t.org)
	if err == nil {
		o["organization"] = org
	}
	o["members_count"], o["repos_count"], o["created_at"], o["updated_at"] = len(t.members), len(t.roles), date(epoch), date(epoch)
	return o
}

func (s *Server) organisation(login string) (any, error) {
	a := s.accounts[login]
	if a == nil || a.Type != "Organization" {
		return nil, notFound()
	}
	at := s.URL + "/orgs/" + login
	return object{"login": login, "id": a.ID, "node_id": node("O", a.ID), "url": at, "repos_url": at + "/repos", "events_url": at + "/events",
		"hooks_url": at + "/hooks", "issues_url": at + "/issues", "members_url": at + "/members{/member}",
		"public_members_url": at + "/public_members{/member}", "avatar_url": "https://avatars.example/o/" + login, "description": nil,
		"has_organization_projects": true, "has_repository_projects": true, "public_repos": 0, "public_gists": 0, "followers": 0, "following": 0,
		"html_url": web + "/" + login, "type": "Organization", "created_at": date(epoch), "updated_at": date(epoch), "archived_at": nil}, nil
}

// legacy is what the API calls a role where it knows four words only.
func legacy(role string) string {
	return map[string]string{"maintain": "write", "triage": "read"}[role] + map[string]string{"none": "none", "read": "read", "write": "write", "admin": "admin"}[role]
}

func (r *Repo) collaborator(a *Account) object {
	role := r.roleOf(a.Login)
	o := r.s.user(a).(object)
	may := object{}
	for i, name := range []string{"pull", "triage", "push", "maintain", "admin"} {
		may[name] = atLeast(role, roles[i+1])
	}
	o["role_name"], o["permissions"] = role, may
	return o
}

func listCollaborators(c *call) (any, error) {
	var all []*Account
	for _, login := range slices.Sorted(maps.Keys(c.s.accounts)) {
		if atLeast(c.repo.roleOf(login), "read") {
			all = append(all, c.s.accounts[login])
		}
	}
	return page(c, all, func(a *Account) any { return c.repo.collaborator(a) }), nil
}

func permissionOf(c *call) (any, error) {
	a := c.s.accounts[c.value("username")]
	if a == nil || a.Type == "Organization" {
		return nil, refuse(404, "%s is not a user", strings.TrimSpace(c.value("username")))
	}
	role := c.repo.roleOf(a.Login)
	if role == "none" && c.repo.Public {
		role = "read"
	}
	o := c.repo.collaborator(a)
	o["role_name"] = role
	return object{"permission": legacy(role), "role_name": role, "user": o}, nil
}
