package githubfake

import (
	"cmp"
	"fmt"
	"strings"
	"time"
)

// A Repo is a repository of the fake.
type Repo struct {
	Owner, Name string
	ID          int64
	Public      bool // who has no role may read it

	s        *Server
	created  time.Time
	main     string
	parent   *Repo             // that it is a fork of
	roles    map[string]string // by login
	refs     map[string]string // "heads/main" → hash of a commit
	statuses []*status
	issues   map[int]*issue // pull requests are among them
	last     int            // number of an issue
	labels   []*label
	state    // of the other areas
}

func newRepo(s *Server, owner, name string) *Repo {
	return &Repo{Owner: owner, Name: name, ID: s.id(), s: s, created: s.time(), main: "main",
		roles: map[string]string{}, refs: map[string]string{}, issues: map[int]*issue{}}
}

// FullName is "owner/name".
func (r *Repo) FullName() string { return r.Owner + "/" + r.Name }

// api is the base of what the API has of the repository.
func (r *Repo) api() string { return r.s.URL + "/repos/" + r.FullName() }

func (r *Repo) web() string { return web + "/" + r.FullName() }

func (r *Repo) roleOf(login string) string {
	return cmp.Or(r.roles[login], r.teamRole(login), "none")
}

// SetRole changes what a person may do in the repository.
func (r *Repo) SetRole(login, role string) {
	r.s.mu.Lock()
	defer r.s.mu.Unlock()
	r.roles[login] = role
}

// Archive makes the repository read-only, as its settings can.
func (r *Repo) Archive() {
	r.s.mu.Lock()
	defer r.s.mu.Unlock()
	r.archived = true
}

func repoRoutes() []route {
	return []route{
		{"GET /repos/{owner}/{repo}", 200, "metadata=read", func(c *call) (any, error) {
			return c.repo.full(c.by), nil
		}},
		{"GET /repos/{owner}/{repo}/branches/{branch}", 200, "contents=read", func(c *call) (any, error) {
			return c.repo.branch(c.value("branch"))
		}},
	}
}

// minimal shows a repository as GitHub's "minimal repository".
func (r *Repo) minimal() object {
	at := r.api()
	o := object{
		"id": r.ID, "node_id": node("R", r.ID), "name": r.Name, "full_name": r.FullName(), "owner": r.s.user(r.s.account(r.Owner)),
		"private": !r.Public, "html_url": r.web(), "description": nil, "fork": r.parent != nil, "url": at,
		"git_url": "git:github.com/" + r.FullName() + ".git", "ssh_url": "git@github.com:" + r.FullName() + ".git", "clone_url": r.web() + ".git",
		"default_branch": r.main, "created_at": date(r.created), "updated_at": date(r.created), "pushed_at": date(r.created),
	}
	for _, link := range strings.Fields("archive:/{archive_format}{/ref} assignees:/assignees{/user} blobs:/git/blobs{/sha} branches:/branches{/branch} " +
		"collaborators:/collaborators{/collaborator} comments:/comments{/number} commits:/commits{/sha} compare:/compare/{base}...{head} " +
		"contents:/contents/{+path} contributors:/contributors deployments:/deployments downloads:/downloads events:/events forks:/forks " +
		"git_commits:/git/commits{/sha} git_refs:/git/refs{/sha} git_tags:/git/tags{/sha} hooks:/hooks issue_comment:/issues/comments{/number} " +
		"issue_events:/issues/events{/number} issues:/issues{/number} keys:/keys{/key_id} labels:/labels{/name} languages:/languages " +
		"merges:/merges milestones:/milestones{/number} notifications:/notifications{?since,all,participating} pulls:/pulls{/number} " +
		"releases:/releases{/id} stargazers:/stargazers statuses:/statuses/{sha} subscribers:/subscribers subscription:/subscription " +
		"tags:/tags teams:/teams trees:/git/trees{/sha}") {
		name, path, _ := strings.Cut(link, ":")
		o[name+"_url"] = at + path
	}
	return o
}

// full shows a repository with all that its own page has.
func (r *Repo) full(by *token) object {
	o := r.minimal()
	for _, zero := range []string{"forks", "forks_count", "open_issues", "open_issues_count", "size", "stargazers_count", "watchers",
		"watchers_count", "network_count", "subscribers_count"} {
		o[zero] = 0
	}
	for _, no := range []string{"has_wiki", "has_pages", "has_discussions", "has_projects", "archived", "disabled"} {
		o[no] = false
	}
	for _, null := range []string{"homepage", "language", "mirror_url", "license"} {
		o[null] = nil
	}
	o["archived"] = r.archived
	o["has_issues"], o["has_downloads"], o["svn_url"] = true, true, r.web()
	o["visibility"] = map[bool]string{true: "public", false: "private"}[r.Public]
	o["allow_squash_merge"], o["allow_merge_commit"], o["allow_rebase_merge"] = true, true, true
	if !by.installation {
		may := object{}
		for i, role := range []string{"pull", "triage", "push", "maintain", "admin"} {
			may[role] = atLeast(r.roleOf(by.account.Login), roles[i+1])
		}
		o["permissions"] = may
	}
	return o
}

// branch shows a branch, with its newest commit.
func (r *Repo) branch(name string) (any, error) {
	sha, ok := r.refs["heads/"+name]
	if !ok {
		return nil, refuse(404, "Branch not found")
	}
	at := r.api() + "/branches/" + name
	protected := len(r.rulesFor(name)) > 0
	return object{
		"name": name, "commit": r.showCommit(r.s.git.commits[sha]), "protected": protected, "protection": object{"enabled": protected},
		"protection_url": at + "/protection", "_links": object{"self": at, "html": fmt.Sprintf("%s/tree/%s", r.web(), name)},
	}, nil
}
