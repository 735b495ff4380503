package githubfake

import (
	"slices"
	"strings"
	"time"
)

func commitRoutes() []route {
	return []route{
		{"GET /repos/{owner}/{repo}/git/commits/{sha}", 200, "contents=read", getGitCommit},
		{"POST /repos/{owner}/{repo}/git/commits", 201, "contents=write", createCommit},
		{"GET /repos/{owner}/{repo}/commits", 200, "contents=read", listCommits},
		{"GET /repos/{owner}/{repo}/commits/{ref}", 200, "contents=read", getCommit},
		{"GET /repos/{owner}/{repo}/compare/{basehead...}", 200, "contents=read", compare},
	}
}

// resolve finds the commit of a hash, a branch or a tag; "" is the default branch.
func (r *Repo) resolve(ref string) *commit {
	if ref == "" {
		ref = r.main
	}
	short := strings.TrimPrefix(ref, "refs/")
	for _, name := range []string{short, "heads/" + short, "tags/" + short} {
		if sha, ok := r.refs[name]; ok {
			return r.s.git.commits[sha]
		}
	}
	return r.s.git.commits[ref]
}

func (s *Server) verification(c *commit) object {
	if !c.signed {
		return object{"verified": false, "reason": "unsigned", "signature": nil, "payload": nil, "verified_at": nil}
	}
	return object{"verified": true, "reason": "valid", "signature": "-----BEGIN PGP SIGNATURE-----\n\nfake\n-----END PGP SIGNATURE-----\n",
		"payload": "tree " + c.tree + "\n", "verified_at": date(c.committer.Date)}
}

func (g signature) show() object {
	return object{"name": g.Name, "email": g.Email, "date": date(g.Date)}
}

func (r *Repo) parentsOf(c *commit, kind string) []any {
	out := []any{}
	for _, p := range c.parents {
		out = append(out, object{"sha": p, "url": r.api() + "/" + kind + "/" + p, "html_url": r.web() + "/commit/" + p})
	}
	return out
}

// showGitCommit shows a commit as the Git database has it.
func (r *Repo) showGitCommit(c *commit) object {
	return object{
		"sha": c.sha, "node_id": node("C", c.sha), "url": r.api() + "/git/commits/" + c.sha, "html_url": r.web() + "/commit/" + c.sha,
		"author": c.author.show(), "committer": c.committer.show(), "message": c.message, "verification": r.s.verification(c),
		"tree": object{"sha": c.tree, "url": r.api() + "/git/trees/" + c.tree}, "parents": r.parentsOf(c, "git/commits"),
	}
}

// showCommit shows a commit with the accounts of who made it.
func (r *Repo) showCommit(c *commit) any {
	at := r.api() + "/commits/" + c.sha
	return object{
		"sha": c.sha, "node_id": node("C", c.sha), "url": at, "html_url": r.web() + "/commit/" + c.sha, "comments_url": at + "/comments",
		"author": r.s.user(r.s.byEmail(c.author.Email)), "committer": r.s.user(r.s.byEmail(c.committer.Email)), "parents": r.parentsOf(c, "commits"),
		"commit": object{"author": c.author.show(), "committer": c.committer.show(), "message": c.message, "comment_count": 0,
			"tree": object{"sha": c.tree, "url": r.api() + "/git/trees/" + c.tree}, "url": r.api() + "/git/commits/" + c.sha,
			"verification": r.s.verification(c)},
	}
}

func getGitCommit(c *call) (any, error) {
	commit := c.s.git.commits[c.value("sha")]
	if commit == nil {
		return nil, notFound()
	}
	return c.repo.showGitCommit(commit), nil
}

type sentBy struct {
	Name, Email string
	Date        *time.Time
}

func createCommit(c *call) (any, error) {
	in, err := decode[struct {
		Message, Tree     string
		Parents           []string
		Author, Committer *sentBy
		Signature         string
	}](c)
	if err != nil {
		return nil, err
	}
	if _, ok := c.s.git.trees[in.Tree]; !ok {
		return nil, refuse(422, "Tree SHA does not exist")
	}
	for _, p := range in.Parents {
		if c.s.git.commits[p] == nil {
			return nil, refuse(422, "Parent SHA does not exist or is not a commit object")
		}
	}
	made := c.signs(&commit{tree: in.Tree, parents: in.Parents, message: in.Message}, in.Author, in.Committer)
	if in.Signature != "" {
		made.signed = false
	}
	return c.repo.showGitCommit(c.s.git.addCommit(made)), nil
}

// signs says who made a commit. GitHub signs what a bot sends without any of that.
func (c *call) signs(made *commit, author, committer *sentBy) *commit {
	now, me := c.s.time(), c.by.account
	as := func(sent *sentBy, usual signature) signature {
		if sent == nil {
			return usual
		}
		g := signature{Name: sent.Name, Email: sent.Email, Date: now}
		if sent.Date != nil {
			g.Date = *sent.Date
		}
		return g
	}
	made.author = as(author, signature{me.Name, me.Email, now})
	made.committer = as(committer, made.author)
	if author == nil && committer == nil && me.Type == "Bot" {
		flow := c.s.accounts["web-flow"]
		made.committer = signature{flow.Name, flow.Email, now}
		made.signed = true
	}
	return made
}

func listCommits(c *call) (any, error) {
	at := c.repo.resolve(c.query("sha"))
	if at == nil {
		return nil, refuse(404, "No commit found for SHA: %s", c.query("sha"))
	}
	all := c.s.git.history(at.sha)
	if p := c.query("path"); p != "" {
		all = slices.DeleteFunc(all, func(one *commit) bool { return !c.s.git.touches(one, p) })
	}
	if who := c.query("author"); who != "" {
		all = slices.DeleteFunc(all, func(one *commit) bool {
			a := c.s.byEmail(one.author.Email)
			return one.author.Email != who && (a == nil || a.Login != who)
		})
	}
	return page(c, all, c.repo.showCommit), nil
}

// touches reports whether a commit changed a file or something in a folder.
func (o objects) touches(c *commit, path string) bool {
	return slices.ContainsFunc(o.changes(o.before(c), o.files(c.tree)), func(d change) bool {
		return d.path == path || strings.HasPrefix(d.path, path+"/")
	})
}

// before is the tree of a commit's first parent.
func (o objects) before(c *commit) tree {
	if len(c.parents) == 0 {
		return tree{}
	}
	return o.files(o.commits[c.parents[0]].tree)
}

func getCommit(c *call) (any, error) {
	at := c.repo.resolve(c.value("ref"))
	if at == nil {
		return nil, refuse(422, "No commit found for SHA: %s", c.value("ref"))
	}
	if strings.Contains(c.r.Header.Get("Accept"), "sha") {
		return raw{"application/vnd.github.sha; charset=utf-8", []byte(at.sha)}, nil
	}
	o := c.repo.showCommit(at).(object)
	files, added, removed := c.repo.showChanges(c.s.git.changes(c.s.git.before(at), c.s.git.files(at.tree)), at.sha)
	o["files"], o["stats"] = files, object{"additions": added, "deletions": removed, "total": added + removed}
	return o, nil
}

func compare(c *call) (any, error) {
	from, to, ok := strings.Cut(c.value("basehead"), "...")
	base, head := c.repo.resolve(from), c.repo.resolve(to)
	if !ok || base == nil || head == nil {
		return nil, notFound()
	}
	git := c.s.git
	ahead, behind := git.since(head.sha, base.sha), git.since(base.sha, head.sha)
	merge := git.mergeBase(base.sha, head.sha)
	if merge == nil {
		return nil, refuse(404, "No common ancestor between %s and %s.", from, to)
	}
	status := map[[2]bool]string{{false, false}: "identical", {true, false}: "ahead", {false, true}: "behind", {true, true}: "diverged"}[[2]bool{len(ahead) > 0, len(behind) > 0}]
	files, _, _ := c.repo.showChanges(git.changes(git.files(merge.tree), git.files(head.tree)), head.sha)
	slices.Reverse(ahead) // oldest first, here only
	at := c.repo.api() + "/compare/" + c.value("basehead")
	page1 := c.repo.web() + "/compare/" + c.value("basehead")
	return object{
		"url": at, "html_url": page1, "permalink_url": page1, "diff_url": page1 + ".diff", "patch_url": page1 + ".patch",
		"base_commit": c.repo.showCommit(base), "merge_base_commit": c.repo.showCommit(merge), "status": status,
		"ahead_by": len(ahead), "behind_by": len(behind), "total_commits": len(ahead),
		"commits": page(c, ahead, c.repo.showCommit), "files": files,
	}, nil
}

// since are the commits that one has and another has not, newest first.
func (o objects) since(of, than string) []*commit {
	had := map[string]bool{}
	for _, c := range o.history(than) {
		had[c.sha] = true
	}
	return slices.DeleteFunc(o.history(of), func(c *commit) bool { return had[c.sha] })
}

func (o objects) mergeBase(a, b string) *commit {
	had := map[string]bool{}
	for _, c := range o.history(a) {
		had[c.sha] = true
	}
	for _, c := range o.history(b) {
		if had[c.sha] {
			return c
		}
	}
	return nil
}
