package githubfake

import (
	"slices"
	"strings"
	"time"
	"unicode/utf8"
)

// mostStatuses is how many statuses a commit can have of one context.
const mostStatuses = 1000

type status struct {
	id                                      int64
	sha, state, context, description, links string
	creator                                 *Account
	at                                      time.Time
}

func statusRoutes() []route {
	return []route{
		{"POST /repos/{owner}/{repo}/statuses/{sha}", 201, "statuses=write", createStatus},
		{"GET /repos/{owner}/{repo}/commits/{ref}/statuses", 200, "statuses=read", listStatuses},
		{"GET /repos/{owner}/{repo}/commits/{ref}/status", 200, "statuses=read", combinedStatus},
	}
}

// AddStatus adds a status as somebody with a token may.
func (r *Repo) AddStatus(login, sha, context, state, description string) {
	r.s.mu.Lock()
	defer r.s.mu.Unlock()
	r.statuses = append(r.statuses, &status{id: r.s.id(), sha: sha, state: state, context: context, description: description,
		creator: r.s.account(login), at: r.s.time()})
}

// DropStatuses forgets the statuses of a context (all, if it is ""), as nobody
// can on GitHub: the tests lose them so.
func (r *Repo) DropStatuses(context string) {
	r.s.mu.Lock()
	defer r.s.mu.Unlock()
	r.statuses = slices.DeleteFunc(r.statuses, func(st *status) bool { return context == "" || strings.EqualFold(st.context, context) })
}

func createStatus(c *call) (any, error) {
	in, err := decode[struct {
		State, Description, Context string
		Target                      string `json:"target_url"`
	}](c)
	if err != nil {
		return nil, err
	}
	sha := c.value("sha")
	if in.Context == "" {
		in.Context = "default"
	}
	same := func(st *status) bool { return st.sha == sha && strings.EqualFold(st.context, in.Context) }
	switch {
	case c.s.git.commits[sha] == nil:
		return nil, refuse(422, "No commit found for SHA: %s", sha)
	case !slices.Contains([]string{"error", "failure", "pending", "success"}, in.State):
		return nil, invalid("Status", "state", "custom", "state is not included in the list")
	case utf8.RuneCountInString(in.Description) > 140:
		return nil, invalid("Status", "description", "custom", "description is too long (maximum is 140 characters)")
	case count(c.repo.statuses, same) >= mostStatuses:
		return nil, invalid("Status", "base", "custom", "This SHA and context has reached the maximum number of statuses.")
	}
	st := &status{id: c.s.id(), sha: sha, state: in.State, context: in.Context, description: in.Description, links: in.Target, creator: c.by.account, at: c.s.time()}
	c.repo.statuses = append(c.repo.statuses, st)
	return c.repo.showStatus(st), nil
}

func count[T any](all []T, is func(T) bool) int {
	n := 0
	for _, one := range all {
		if is(one) {
			n++
		}
	}
	return n
}

func (r *Repo) simpleStatus(st *status) object {
	return object{
		"url": r.api() + "/statuses/" + st.sha, "avatar_url": "https://avatars.example/u/" + intText(st.creator.ID), "id": st.id, "node_id": node("SC", st.id),
		"state": st.state, "description": nullable(st.description), "target_url": nullable(st.links), "context": st.context,
		"created_at": date(st.at), "updated_at": date(st.at),
	}
}

func (r *Repo) showStatus(st *status) any {
	o := r.simpleStatus(st)
	o["creator"] = r.s.user(st.creator)
	return o
}

// of are the statuses of a commit, newest first.
func (r *Repo) of(ref string) (*commit, []*status, error) {
	at := r.resolve(ref)
	if at == nil {
		return nil, nil, refuse(422, "No commit found for SHA: %s", ref)
	}
	all := slices.DeleteFunc(slices.Clone(r.statuses), func(st *status) bool { return st.sha != at.sha })
	slices.Reverse(all)
	return at, all, nil
}

func listStatuses(c *call) (any, error) {
	_, all, err := c.repo.of(c.value("ref"))
	if err != nil {
		return nil, err
	}
	return page(c, all, c.repo.showStatus), nil
}

// combinedStatus shows the newest status of each context.
func combinedStatus(c *call) (any, error) {
	at, all, err := c.repo.of(c.value("ref"))
	if err != nil {
		return nil, err
	}
	var newest []*status
	seen, state := map[string]bool{}, "success"
	for _, st := range all {
		if seen[strings.ToLower(st.context)] {
			continue
		}
		seen[strings.ToLower(st.context)] = true
		newest = append(newest, st)
		if st.state == "error" || st.state == "failure" {
			state = "failure"
		} else if st.state == "pending" && state == "success" {
			state = "pending"
		}
	}
	if newest == nil {
		state = "pending"
	}
	return object{
		"state": state, "sha": at.sha, "total_count": len(newest), "repository": c.repo.minimal(), "commit_url": c.repo.api() + "/commits/" + at.sha,
		"url": c.repo.api() + "/commits/" + at.sha + "/status", "statuses": page(c, newest, func(st *status) any { return c.repo.simpleStatus(st) }),
	}, nil
}
