package githubfake

import (
	"cmp"
	"maps"
	"slices"
	"strings"
	"time"
)

// A pull is what a pull request is beyond an issue.
type pull struct {
	from      *Repo // of the head
	branch    string
	head      string // hash; of a closed one, the last
	base      string // branch
	baseSHA   string // that it was merged into
	draft     bool
	merged    time.Time
	merger    *Account
	mergedAs  string // hash
	reviews   []*review
	requested []*Account
	teams     []*team
}

// A Pull says what [Repo.AddPull] opens.
type Pull struct {
	Author      string
	Branch      string            // of the head; made if there is none
	Base        string            // "" is the default branch
	Title, Body string            // "" is the branch's name
	Files       map[string]string // of the one commit that the author adds to the branch; nil adds none
	Draft       bool
	Fork        bool // the branch is in a fork of the author
	At          time.Time
}

// AddPull opens a pull request and returns its number.
func (r *Repo) AddPull(p Pull) int {
	r.s.mu.Lock()
	defer r.s.mu.Unlock()
	author, from := r.s.account(p.Author), r
	if p.Fork {
		from = r.fork(author)
	}
	if p.Files != nil {
		from.commit(p.Branch, author, cmp.Or(p.Title, p.Branch), p.Files)
	}
	i := r.open(author, cmp.Or(p.Title, p.Branch), p.Body)
	if !p.At.IsZero() {
		i.created = p.At
	}
	i.pull = &pull{from: from, branch: p.Branch, head: from.refs["heads/"+p.Branch], base: cmp.Or(p.Base, r.main), draft: p.Draft}
	return i.number
}

func (r *Repo) fork(of *Account) *Repo {
	name := strings.ToLower(of.Login + "/" + r.Name)
	if f := r.s.repos[name]; f != nil {
		return f
	}
	f := newRepo(r.s, of.Login, r.Name)
	f.parent, f.main, f.roles[of.Login], f.Public = r, r.main, "admin", r.Public
	maps.Copy(f.refs, r.refs)
	r.s.repos[name] = f
	return f
}

// EditPull changes a pull request as its page can: whether it is a draft and open.
func (r *Repo) EditPull(number int, draft, open bool) {
	r.s.mu.Lock()
	defer r.s.mu.Unlock()
	i := r.issues[number]
	i.pull.draft, i.state = draft, map[bool]string{true: "open", false: "closed"}[open]
	i.updated = r.s.time()
}

// pushed tells the open pull requests from a branch that it has moved.
func (r *Repo) pushed(branch string) {
	for _, base := range r.s.repos {
		for _, i := range base.issues {
			p := i.pull
			if p == nil || p.from != r || p.branch != branch || i.state != "open" {
				continue
			}
			p.head, i.updated = r.refs["heads/"+branch], r.s.time()
			if base.dismissesStale(p.base) {
				p.dismissAll()
			}
		}
	}
}

func pullRoutes() []route {
	return []route{
		{"GET /repos/{owner}/{repo}/pulls", 200, "pull_requests=read", listPulls},
		{"POST /repos/{owner}/{repo}/pulls", 201, "pull_requests=write", createPull},
		{"GET /repos/{owner}/{repo}/pulls/{number}", 200, "pull_requests=read", onPull(func(c *call, i *issue) (any, error) { return c.repo.showPull(i), nil })},
		{"PATCH /repos/{owner}/{repo}/pulls/{number}", 200, "pull_requests=write", onPull(editPull)},
		{"GET /repos/{owner}/{repo}/pulls/{number}/commits", 200, "pull_requests=read", onPull(func(c *call, i *issue) (any, error) {
			return page(c, c.repo.pullCommits(i.pull), c.repo.showCommit), nil
		})},
		{"GET /repos/{owner}/{repo}/pulls/{number}/files", 200, "pull_requests=read", onPull(func(c *call, i *issue) (any, error) {
			return page(c, c.repo.pullChanges(i.pull), func(d change) any { return c.repo.showChange(d, i.pull.head) }), nil
		})},
		{"GET /repos/{owner}/{repo}/commits/{sha}/pulls", 200, "pull_requests=read", pullsOfCommit},
		{"GET /repos/{owner}/{repo}/pulls/{number}/requested_reviewers", 200, "pull_requests=read", onPull(func(c *call, i *issue) (any, error) {
			users, teams := c.repo.showRequested(i.pull)
			return object{"users": users, "teams": teams}, nil
		})},
		{"POST /repos/{owner}/{repo}/pulls/{number}/requested_reviewers", 201, "pull_requests=write", onPull(requestReviewers)},
		{"DELETE /repos/{owner}/{repo}/pulls/{number}/requested_reviewers", 200, "pull_requests=write", onPull(dropReviewers)},
	}
}

// onPull finds the pull request that the path names.
func onPull(do func(*call, *issue) (any, error)) func(*call) (any, error) {
	return func(c *call) (any, error) {
		i, err := c.issue()
		if err != nil {
			return nil, err
		}
		if i.pull == nil {
			return nil, notFound()
		}
		return do(c, i)
	}
}

// baseOf is the commit that a pull request is seen against.
func (r *Repo) baseOf(p *pull) string { return cmp.Or(p.baseSHA, r.refs["heads/"+p.base]) }

// pullCommits are a pull request's own, oldest first.
func (r *Repo) pullCommits(p *pull) []*commit {
	all := r.s.git.since(p.head, r.baseOf(p))
	slices.Reverse(all)
	return all
}

func (r *Repo) pullChanges(p *pull) []change {
	git := r.s.git
	from := tree{}
	if base := git.mergeBase(r.baseOf(p), p.head); base != nil {
		from = git.files(base.tree)
	}
	return git.changes(from, git.files(git.commits[p.head].tree))
}

func listPulls(c *call) (any, error) {
	state := cmp.Or(c.query("state"), "open")
	var all []*issue
	for _, n := range slices.Sorted(maps.Keys(c.repo.issues)) {
		i := c.repo.issues[n]
		if i.pull == nil || state != "all" && i.state != state {
			continue
		}
		if base := c.query("base"); base != "" && i.pull.base != base {
			continue
		}
		if head := c.query("head"); head != "" && !strings.EqualFold(head, i.pull.from.Owner+":"+i.pull.branch) {
			continue
		}
		all = append(all, i)
	}
	if c.query("direction") != "asc" {
		slices.Reverse(all)
	}
	return page(c, all, func(i *issue) any { return c.repo.simplePull(i) }), nil
}

func pullsOfCommit(c *call) (any, error) {
	sha := c.value("sha")
	if c.s.git.commits[sha] == nil {
		return nil, refuse(422, "No commit found for SHA: %s", sha)
	}
	var all []*issue
	for _, n := range slices.Sorted(maps.Keys(c.repo.issues)) {
		i := c.repo.issues[n]
		if i.pull != nil && (i.pull.mergedAs == sha || slices.ContainsFunc(c.repo.pullCommits(i.pull), func(one *commit) bool { return one.sha == sha })) {
			all = append(all, i)
		}
	}
	return page(c, all, func(i *issue) any { return c.repo.simplePull(i) }), nil
}

func createPull(c *call) (any, error) {
	in, err := decode[struct {
		Title, Head, Base, Body string
		Draft                   bool
	}](c)
	if err != nil {
		return nil, err
	}
	from, branch := c.repo, in.Head
	if owner, rest, ok := strings.Cut(in.Head, ":"); ok {
		from, branch = c.s.repos[strings.ToLower(owner+"/"+c.repo.Name)], rest
	}
	base := c.repo.refs["heads/"+in.Base]
	switch {
	case in.Title == "":
		return nil, invalid("PullRequest", "title", "missing_field", "")
	case from == nil || from.refs["heads/"+branch] == "":
		return nil, invalid("PullRequest", "head", "invalid", "")
	case base == "":
		return nil, invalid("PullRequest", "base", "invalid", "")
	case len(c.s.git.since(from.refs["heads/"+branch], base)) == 0:
		return nil, invalid("PullRequest", "base", "custom", "No commits between "+in.Base+" and "+branch)
	}
	for _, i := range c.repo.issues {
		if i.pull != nil && i.state == "open" && i.pull.from == from && i.pull.branch == branch && i.pull.base == in.Base {
			return nil, invalid("PullRequest", "base", "custom", "A pull request already exists for "+from.Owner+":"+branch+".")
		}
	}
	i := c.repo.open(c.by.account, in.Title, in.Body)
	i.app = c.by.app
	i.pull = &pull{from: from, branch: branch, head: from.refs["heads/"+branch], base: in.Base, draft: in.Draft}
	return c.repo.showPull(i), nil
}

func editPull(c *call, i *issue) (any, error) {
	in, err := decode[struct{ Title, Body, State, Base *string }](c)
	if err != nil {
		return nil, err
	}
	if in.State != nil && *in.State == "open" && !i.pull.merged.IsZero() {
		return nil, invalid("PullRequest", "state", "custom", "state cannot be changed. The pull request cannot be reopened.")
	}
	if in.Base != nil {
		if c.repo.refs["heads/"+*in.Base] == "" {
			return nil, invalid("PullRequest", "base", "invalid", "")
		}
		i.pull.base = *in.Base
	}
	c.apply(i, sentIssue{Title: in.Title, Body: in.Body, State: in.State})
	i.reason, i.updated = "", c.s.time()
	return c.repo.showPull(i), nil
}

func requestReviewers(c *call, i *issue) (any, error) {
	in, err := decode[struct {
		Reviewers []string
		Teams     []string `json:"team_reviewers"`
	}](c)
	if err != nil {
		return nil, err
	}
	if slices.Contains(in.Reviewers, i.user.Login) {
		return nil, refuse(422, "Review cannot be requested from pull request author.")
	}
	stranger := refuse(422, "Reviews may only be requested from collaborators. One or more of the users or teams you specified is not a collaborator of the %s repository.", c.repo.FullName())
	for _, login := range in.Reviewers {
		if !atLeast(c.repo.roleOf(login), "read") {
			return nil, stranger
		}
		if a := c.s.account(login); !slices.Contains(i.pull.requested, a) {
			i.pull.requested = append(i.pull.requested, a)
		}
	}
	for _, slug := range in.Teams {
		t := c.s.teams[c.repo.Owner+"/"+slug]
		if t == nil || t.roles[c.repo] == "" {
			return nil, stranger
		}
		if !slices.Contains(i.pull.teams, t) {
			i.pull.teams = append(i.pull.teams, t)
		}
	}
	return c.repo.simplePull(i), nil
}

func dropReviewers(c *call, i *issue) (any, error) {
	in, err := decode[struct {
		Reviewers []string
		Teams     []string `json:"team_reviewers"`
	}](c)
	if err != nil {
		return nil, err
	}
	i.pull.requested = slices.DeleteFunc(i.pull.requested, func(a *Account) bool { return slices.Contains(in.Reviewers, a.Login) })
	i.pull.teams = slices.DeleteFunc(i.pull.teams, func(t *team) bool { return slices.Contains(in.Teams, t.slug) })
	return c.repo.simplePull(i), nil
}
