package githubfake

import (
	"encoding/json"
	"maps"
	"slices"
	"strings"
	"time"
	"unicode/utf8"
)

// longestBody is how many characters an issue or a comment can have.
const longestBody = 65536

type issue struct {
	id               int64
	number           int
	title, body      string
	state, reason    string
	user, closer     *Account
	app              *App // that it came from
	labels           []*label
	assignees        []*Account
	created, updated time.Time
	closed           time.Time
	comments         []*comment
	pull             *pull // if it is a pull request
}

func issueRoutes() []route {
	return []route{
		{"GET /repos/{owner}/{repo}/issues", 200, "issues=read; pull_requests=read", listIssues},
		{"POST /repos/{owner}/{repo}/issues", 201, "issues=write", createIssue},
		{"GET /repos/{owner}/{repo}/issues/{number}", 200, "issues=read; pull_requests=read", func(c *call) (any, error) {
			i, err := c.issue()
			if err != nil {
				return nil, err
			}
			return c.repo.showIssue(i), nil
		}},
		{"PATCH /repos/{owner}/{repo}/issues/{number}", 200, "issues=write; pull_requests=write", editIssue},
	}
}

// issue is the one that the path names.
func (c *call) issue() (*issue, error) {
	n, err := c.number("number")
	if err != nil {
		return nil, err
	}
	if i := c.repo.issues[int(n)]; i != nil {
		return i, nil
	}
	return nil, notFound()
}

// AddIssue opens an issue of a person and returns its number.
func (r *Repo) AddIssue(login, title, body string, labels ...string) int {
	r.s.mu.Lock()
	defer r.s.mu.Unlock()
	i := r.open(r.s.account(login), title, body)
	i.labels = r.labelled(labels)
	return i.number
}

// DeleteIssue removes an issue with all its comments, as an administrator can.
func (r *Repo) DeleteIssue(number int) {
	r.s.mu.Lock()
	defer r.s.mu.Unlock()
	delete(r.issues, number)
}

func (r *Repo) open(by *Account, title, body string) *issue {
	r.last++
	now := r.s.time()
	i := &issue{id: r.s.id(), number: r.last, title: title, body: body, state: "open", user: by, created: now, updated: now}
	r.issues[i.number] = i
	return i
}

func (r *Repo) showIssue(i *issue) any {
	at, page := r.api()+"/issues/"+intText(int64(i.number)), r.web()+"/issues/"+intText(int64(i.number))
	labels, assignees := []any{}, []any{}
	for _, l := range i.labels {
		labels = append(labels, r.showLabel(l))
	}
	for _, a := range i.assignees {
		assignees = append(assignees, r.s.user(a))
	}
	o := object{
		"id": i.id, "node_id": node("I", i.id), "url": at, "repository_url": r.api(), "labels_url": at + "/labels{/name}", "comments_url": at + "/comments",
		"events_url": at + "/events", "html_url": page, "number": i.number, "state": i.state, "state_reason": nullable(i.reason), "title": i.title,
		"body": nullable(i.body), "user": r.s.user(i.user), "labels": labels, "assignee": nil, "assignees": assignees, "milestone": nil, "locked": false,
		"active_lock_reason": nil, "comments": len(i.comments), "created_at": date(i.created), "updated_at": date(i.updated), "closed_at": date(i.closed),
		"author_association": r.association(i.user), "performed_via_github_app": i.app.show(), "closed_by": r.s.user(i.closer),
	}
	if len(assignees) > 0 {
		o["assignee"] = assignees[0]
	}
	if i.pull != nil {
		o["pull_request"] = object{"url": r.pullURL(i), "html_url": r.pullPage(i), "diff_url": r.pullPage(i) + ".diff", "patch_url": r.pullPage(i) + ".patch",
			"merged_at": date(i.pull.merged)}
	}
	return o
}

// association is what somebody is to the repository.
func (r *Repo) association(a *Account) string {
	switch {
	case a == nil || a.Type == "Bot":
		return "NONE"
	case a.Login == r.Owner:
		return "OWNER"
	case atLeast(r.roleOf(a.Login), "read"):
		return "COLLABORATOR"
	}
	return "NONE"
}

func listIssues(c *call) (any, error) {
	state := c.query("state")
	if state == "" {
		state = "open"
	}
	var since time.Time
	if text := c.query("since"); text != "" {
		var err error
		if since, err = time.Parse(time.RFC3339, text); err != nil {
			return nil, invalid("Issue", "since", "invalid", "")
		}
	}
	var wanted []string
	if text := c.query("labels"); text != "" {
		wanted = strings.Split(text, ",")
	}
	var all []*issue
	for _, n := range slices.Sorted(maps.Keys(c.repo.issues)) {
		i := c.repo.issues[n]
		switch who := c.query("creator"); {
		case state != "all" && i.state != state, who != "" && !strings.EqualFold(i.user.Login, who), i.updated.Before(since), !i.has(wanted):
		default:
			all = append(all, i)
		}
	}
	by := func(i *issue) time.Time { return i.created }
	if c.query("sort") == "updated" {
		by = func(i *issue) time.Time { return i.updated }
	}
	slices.SortStableFunc(all, func(a, b *issue) int { return by(a).Compare(by(b)) })
	if c.query("direction") != "asc" {
		slices.Reverse(all)
	}
	return page(c, all, c.repo.showIssue), nil
}

// has reports whether an issue has all the labels.
func (i *issue) has(labels []string) bool {
	for _, name := range labels {
		if !slices.ContainsFunc(i.labels, func(l *label) bool { return strings.EqualFold(l.name, strings.TrimSpace(name)) }) {
			return false
		}
	}
	return true
}

type sentIssue struct {
	Title, Body, State *string
	Reason             *string `json:"state_reason"`
	Labels             *[]json.RawMessage
	Assignees          *[]string
	Assignee           *string
}

func createIssue(c *call) (any, error) {
	in, err := decode[sentIssue](c)
	if err != nil {
		return nil, err
	}
	if in.Title == nil || *in.Title == "" {
		return nil, invalid("Issue", "title", "missing_field", "")
	}
	if in.Body != nil && utf8.RuneCountInString(*in.Body) > longestBody {
		return nil, tooLong("Issue")
	}
	i := c.repo.open(c.by.account, "", "")
	i.app = c.by.app
	c.apply(i, in)
	return c.repo.showIssue(i), nil
}

func tooLong(resource string) error {
	return invalid(resource, "body", "custom", "body is too long (maximum is 65536 characters)")
}

func editIssue(c *call) (any, error) {
	i, err := c.issue()
	if err != nil {
		return nil, err
	}
	in, err := decode[sentIssue](c)
	if err != nil {
		return nil, err
	}
	if in.Body != nil && utf8.RuneCountInString(*in.Body) > longestBody {
		return nil, tooLong("Issue")
	}
	c.apply(i, in)
	i.updated = c.s.time()
	return c.repo.showIssue(i), nil
}

// apply sets what was sent. Labels of who may not write are dropped, silently.
func (c *call) apply(i *issue, in sentIssue) {
	if in.Title != nil {
		i.title = *in.Title
	}
	if in.Body != nil {
		i.body = *in.Body
	}
	if in.State != nil && *in.State != i.state {
		i.state, i.closed, i.closer, i.reason = *in.State, time.Time{}, nil, "reopened"
		if i.state == "closed" {
			i.closed, i.closer, i.reason = c.s.time(), c.by.account, "completed"
		}
	}
	if in.Reason != nil && i.state == "closed" {
		i.reason = *in.Reason
	}
	if in.Labels != nil && (c.by.installation || atLeast(c.repo.roleOf(c.by.account.Login), "triage")) {
		i.labels = c.repo.labelled(labelNames(*in.Labels))
	}
	if in.Assignees != nil {
		i.assignees = nil
		for _, login := range *in.Assignees {
			if atLeast(c.repo.roleOf(login), "read") {
				i.assignees = append(i.assignees, c.s.account(login))
			}
		}
	}
}

func atLeast(role, need string) bool { return slices.Index(roles, role) >= slices.Index(roles, need) }
