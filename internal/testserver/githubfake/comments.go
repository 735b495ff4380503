package githubfake

import (
	"maps"
	"slices"
	"time"
	"unicode/utf8"
)

type comment struct {
	id               int64
	body             string
	user             *Account
	app              *App // that it came from
	created, updated time.Time
}

func commentRoutes() []route {
	return []route{
		{"GET /repos/{owner}/{repo}/issues/{number}/comments", 200, "issues=read; pull_requests=read", listComments},
		{"POST /repos/{owner}/{repo}/issues/{number}/comments", 201, "issues=write; pull_requests=write", createComment},
		{"GET /repos/{owner}/{repo}/issues/comments", 200, "issues=read; pull_requests=read", allComments},
		{"GET /repos/{owner}/{repo}/issues/comments/{id}", 200, "issues=read; pull_requests=read", func(c *call) (any, error) {
			i, one, err := c.comment()
			if err != nil {
				return nil, err
			}
			return c.repo.showComment(i)(one), nil
		}},
		{"PATCH /repos/{owner}/{repo}/issues/comments/{id}", 200, "issues=write; pull_requests=write", editComment},
		{"DELETE /repos/{owner}/{repo}/issues/comments/{id}", 204, "issues=write; pull_requests=write", func(c *call) (any, error) {
			i, one, err := c.comment()
			if err == nil {
				i.drop(one)
			}
			return nil, err
		}},
	}
}

func (i *issue) drop(one *comment) {
	i.comments = slices.DeleteFunc(i.comments, func(c *comment) bool { return c == one })
}

// comment is the one that the path names.
func (c *call) comment() (*issue, *comment, error) {
	id, err := c.number("id")
	if err != nil {
		return nil, nil, err
	}
	if i, one := c.repo.comment(id); one != nil {
		return i, one, nil
	}
	return nil, nil, notFound()
}

func (r *Repo) comment(id int64) (*issue, *comment) {
	for _, i := range r.issues {
		for _, one := range i.comments {
			if one.id == id {
				return i, one
			}
		}
	}
	return nil, nil
}

// A Comment is a comment of an issue as it is now.
type Comment struct {
	ID    int64
	Login string
	Body  string
}

// Comments are those of an issue, oldest first.
func (r *Repo) Comments(number int) []Comment {
	r.s.mu.Lock()
	defer r.s.mu.Unlock()
	var out []Comment
	if i := r.issues[number]; i != nil {
		for _, c := range i.comments {
			out = append(out, Comment{c.id, c.user.Login, c.body})
		}
	}
	return out
}

// AddComment comments on an issue as a person, and returns the comment's id.
func (r *Repo) AddComment(number int, login, body string) int64 {
	r.s.mu.Lock()
	defer r.s.mu.Unlock()
	return r.say(r.issues[number], &comment{body: body, user: r.s.account(login)}).id
}

// EditComment changes a comment as somebody else with the right to write can: its
// author stays, and the time of the change is seen, a second later at least.
func (r *Repo) EditComment(id int64, body string) {
	r.s.mu.Lock()
	defer r.s.mu.Unlock()
	if _, c := r.comment(id); c != nil {
		c.body, c.updated = body, r.s.time()
		if !c.updated.After(c.created) {
			c.updated = c.created.Add(time.Second)
		}
	}
}

// DeleteComment removes a comment, as somebody else with the right to write can.
func (r *Repo) DeleteComment(id int64) {
	r.s.mu.Lock()
	defer r.s.mu.Unlock()
	if i, c := r.comment(id); c != nil {
		i.drop(c)
	}
}

func (r *Repo) say(i *issue, c *comment) *comment {
	c.id, c.created = r.s.id(), r.s.time()
	c.updated = c.created
	i.updated = c.created
	i.comments = append(i.comments, c)
	return c
}

func (r *Repo) showComment(i *issue) func(*comment) any {
	return func(c *comment) any {
		id := intText(c.id)
		return object{
			"id": c.id, "node_id": node("IC", c.id), "url": r.api() + "/issues/comments/" + id, "issue_url": r.api() + "/issues/" + intText(int64(i.number)),
			"html_url": r.web() + "/issues/" + intText(int64(i.number)) + "#issuecomment-" + id, "body": c.body, "user": r.s.user(c.user),
			"created_at": date(c.created), "updated_at": date(c.updated), "author_association": r.association(c.user),
			"performed_via_github_app": c.app.show(),
		}
	}
}

func since(c *call, all []*comment) ([]*comment, error) {
	text := c.query("since")
	if text == "" {
		return all, nil
	}
	from, err := time.Parse(time.RFC3339, text)
	if err != nil {
		return nil, invalid("IssueComment", "since", "invalid", "")
	}
	return slices.DeleteFunc(slices.Clone(all), func(one *comment) bool { return one.updated.Before(from) }), nil
}

func listComments(c *call) (any, error) {
	i, err := c.issue()
	if err != nil {
		return nil, err
	}
	all, err := since(c, i.comments)
	if err != nil {
		return nil, err
	}
	return page(c, all, c.repo.showComment(i)), nil
}

// allComments are those of every issue.
func allComments(c *call) (any, error) {
	of := map[*comment]*issue{}
	for _, i := range c.repo.issues {
		for _, one := range i.comments {
			of[one] = i
		}
	}
	all := slices.SortedFunc(maps.Keys(of), func(a, b *comment) int { return int(a.id - b.id) })
	all, err := since(c, all)
	if err != nil {
		return nil, err
	}
	if c.query("direction") == "desc" {
		slices.Reverse(all)
	}
	return page(c, all, func(one *comment) any { return c.repo.showComment(of[one])(one) }), nil
}

func sentBody(c *call) (string, error) {
	in, err := decode[struct{ Body string }](c)
	switch {
	case err != nil:
		return "", err
	case in.Body == "":
		return "", invalid("IssueComment", "body", "missing_field", "")
	case utf8.RuneCountInString(in.Body) > longestBody:
		return "", invalid("IssueComment", "data", "unprocessable", "Body is too long (maximum is 65536 characters)")
	}
	return in.Body, nil
}

func createComment(c *call) (any, error) {
	i, err := c.issue()
	if err != nil {
		return nil, err
	}
	body, err := sentBody(c)
	if err != nil {
		return nil, err
	}
	return c.repo.showComment(i)(c.repo.say(i, &comment{body: body, user: c.by.account, app: c.by.app})), nil
}

// editComment keeps the author, whoever edits.
func editComment(c *call) (any, error) {
	i, one, err := c.comment()
	if err != nil {
		return nil, err
	}
	body, err := sentBody(c)
	if err != nil {
		return nil, err
	}
	one.body, one.updated = body, c.s.time()
	return c.repo.showComment(i)(one), nil
}
