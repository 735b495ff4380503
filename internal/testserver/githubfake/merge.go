package githubfake

import (
	"cmp"
	"fmt"
	"net/http"
)

func mergeRoutes() []route {
	return []route{
		{"GET /repos/{owner}/{repo}/pulls/{number}/merge", 204, "pull_requests=read", onPull(func(c *call, i *issue) (any, error) {
			if i.pull.merged.IsZero() {
				return nil, notFound()
			}
			return nil, nil
		})},
		{"PUT /repos/{owner}/{repo}/pulls/{number}/merge", 200, "contents=write", onPull(mergePull)},
	}
}

// Merge merges a pull request as a person on its page does, with the method merge
// or squash, and returns the commit. The rules of the branch are not asked:
// whether they were bypassed is what [Repo.AddRuleSuite] says.
func (r *Repo) Merge(number int, login, method string) string {
	r.s.mu.Lock()
	defer r.s.mu.Unlock()
	i := r.issues[number]
	return r.merge(i, r.s.account(login), method, i.title, "").sha
}

// mergeable reports whether no file was changed on both sides.
func (r *Repo) mergeable(p *pull) bool {
	git := r.s.git
	base, head := r.baseOf(p), p.head
	from := git.mergeBase(base, head)
	if from == nil {
		return false
	}
	ours := map[string]string{}
	for _, d := range git.changes(git.files(from.tree), git.files(git.commits[base].tree)) {
		ours[d.path] = d.sha
	}
	for _, d := range git.changes(git.files(from.tree), git.files(git.commits[head].tree)) {
		if sha, both := ours[d.path]; both && sha != d.sha {
			return false
		}
	}
	return true
}

func mergePull(c *call, i *issue) (any, error) {
	in, err := decode[struct {
		Title   string `json:"commit_title"`
		Message string `json:"commit_message"`
		SHA     string
		Method  string `json:"merge_method"`
	}](c)
	p := i.pull
	switch {
	case err != nil:
		return nil, err
	case i.state != "open":
		return nil, refuse(http.StatusMethodNotAllowed, "Pull Request is not mergeable")
	case p.draft:
		return nil, refuse(http.StatusMethodNotAllowed, "Pull Request is still a draft")
	case in.SHA != "" && in.SHA != p.head:
		return nil, refuse(http.StatusConflict, "Head branch was modified. Review and try the merge again.")
	case !c.repo.mergeable(p):
		return nil, refuse(http.StatusMethodNotAllowed, "Pull Request is not mergeable")
	}
	if err := c.mayMerge(p); err != nil {
		return nil, err
	}
	made := c.repo.merge(i, c.by.account, in.Method, in.Title, in.Message)
	return object{"sha": made.sha, "merged": true, "message": "Pull Request successfully merged"}, nil
}

func (r *Repo) merge(i *issue, by *Account, method, title, message string) *commit {
	git, p, now := r.s.git, i.pull, r.s.time()
	base := r.baseOf(p)
	files := git.files(git.commits[base].tree)
	for _, d := range r.pullChanges(p) {
		if d.status == "removed" {
			delete(files, d.path)
			continue
		}
		files[d.path] = git.files(git.commits[p.head].tree)[d.path]
	}
	flow := r.s.accounts["web-flow"]
	c := &commit{tree: git.addTree(files), parents: []string{base}, author: signature{by.Name, by.Email, now},
		committer: signature{flow.Name, flow.Email, now}, signed: true}
	if method == "squash" {
		c.message = cmp.Or(title, fmt.Sprintf("%s (#%d)", i.title, i.number))
	} else {
		c.parents = append(c.parents, p.head)
		c.message = cmp.Or(title, fmt.Sprintf("Merge pull request #%d from %s/%s", i.number, p.from.Owner, p.branch))
	}
	if message != "" {
		c.message += "\n\n" + message
	}
	git.addCommit(c)
	p.baseSHA, p.merged, p.merger, p.mergedAs = base, now, by, c.sha
	i.state, i.closed, i.closer, i.updated = "closed", now, by, now
	r.move("heads/"+p.base, c.sha)
	return c
}
