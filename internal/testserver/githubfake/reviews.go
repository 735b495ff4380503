package githubfake

import (
	"cmp"
	"net/http"
	"slices"
	"strings"
	"time"
)

type review struct {
	id          int64
	user        *Account
	body, state string
	sha         string
	at          time.Time
}

// A Review says what [Repo.AddReview] adds.
type Review struct {
	Login  string
	State  string    // APPROVED, CHANGES_REQUESTED, COMMENTED, DISMISSED, PENDING
	Commit string    // "" is the head now
	At     time.Time // zero is now
	Body   string
}

// AddReview adds a review of somebody, whoever that is, and returns its id.
func (r *Repo) AddReview(number int, v Review) int64 {
	r.s.mu.Lock()
	defer r.s.mu.Unlock()
	p := r.issues[number].pull
	added := &review{id: r.s.id(), user: r.s.account(v.Login), body: v.Body, state: v.State, sha: cmp.Or(v.Commit, p.head), at: v.At}
	if v.At.IsZero() {
		added.at = r.s.time()
	}
	p.reviews = append(p.reviews, added)
	return added.id
}

// DismissReview takes the force of a review, as who may write can.
func (r *Repo) DismissReview(number int, id int64) {
	r.s.mu.Lock()
	defer r.s.mu.Unlock()
	for _, v := range r.issues[number].pull.reviews {
		if v.id == id {
			v.state = "DISMISSED"
		}
	}
}

// dismissAll is what a push does where approvals of an older head do not count.
func (p *pull) dismissAll() {
	for _, v := range p.reviews {
		if v.state == "APPROVED" {
			v.state = "DISMISSED"
		}
	}
}

// approvals are the people who may write and whose latest word is yes.
func (r *Repo) approvals(p *pull) int {
	n := 0
	for who, state := range r.latestReviews(p) {
		if state == "APPROVED" && who.Type == "User" && atLeast(r.roleOf(who.Login), "write") {
			n++
		}
	}
	return n
}

// latestReviews is the latest word of each person.
func (*Repo) latestReviews(p *pull) map[*Account]string {
	latest := map[*Account]string{}
	for _, v := range p.reviews {
		if v.state != "COMMENTED" && v.state != "PENDING" {
			latest[v.user] = v.state
		}
	}
	return latest
}

func reviewRoutes() []route {
	return []route{
		{"GET /repos/{owner}/{repo}/pulls/{number}/reviews", 200, "pull_requests=read", onPull(func(c *call, i *issue) (any, error) {
			shown := slices.DeleteFunc(slices.Clone(i.pull.reviews), func(v *review) bool { return v.state == "PENDING" && v.user != c.by.account })
			return page(c, shown, func(v *review) any { return c.repo.showReview(i, v) }), nil
		})},
		{"POST /repos/{owner}/{repo}/pulls/{number}/reviews", 200, "pull_requests=write", onPull(createReview)},
		{"GET /repos/{owner}/{repo}/pulls/{number}/reviews/{id}", 200, "pull_requests=read", onReview(func(c *call, i *issue, v *review) (any, error) {
			return c.repo.showReview(i, v), nil
		})},
		{"PUT /repos/{owner}/{repo}/pulls/{number}/reviews/{id}/dismissals", 200, "pull_requests=write", onReview(dismissReview)},
	}
}

func onReview(do func(*call, *issue, *review) (any, error)) func(*call) (any, error) {
	return onPull(func(c *call, i *issue) (any, error) {
		id, err := c.number("id")
		if err != nil {
			return nil, err
		}
		at := slices.IndexFunc(i.pull.reviews, func(v *review) bool { return v.id == id })
		if at < 0 {
			return nil, notFound()
		}
		return do(c, i, i.pull.reviews[at])
	})
}

func (r *Repo) showReview(i *issue, v *review) any {
	page := r.pullPage(i) + "#pullrequestreview-" + intText(v.id)
	o := object{"id": v.id, "node_id": node("PRR", v.id), "user": r.s.user(v.user), "body": v.body, "state": v.state, "html_url": page,
		"pull_request_url": r.pullURL(i), "commit_id": v.sha, "author_association": r.association(v.user),
		"_links": object{"html": href(page), "pull_request": href(r.pullURL(i))}}
	if v.state != "PENDING" {
		o["submitted_at"] = date(v.at)
	}
	return o
}

func createReview(c *call, i *issue) (any, error) {
	in, err := decode[struct {
		Body, Event string
		Commit      string `json:"commit_id"`
	}](c)
	if err != nil {
		return nil, err
	}
	state, ok := map[string]string{"": "PENDING", "APPROVE": "APPROVED", "REQUEST_CHANGES": "CHANGES_REQUESTED", "COMMENT": "COMMENTED"}[in.Event]
	switch {
	case !ok:
		return nil, invalid("PullRequestReview", "event", "invalid", "")
	case c.by.account == i.user && (state == "APPROVED" || state == "CHANGES_REQUESTED"):
		what := map[string]string{"APPROVED": "approve", "CHANGES_REQUESTED": "request changes on"}[state]
		return nil, &failure{status: 422, message: "Unprocessable Entity", errors: []any{"Can not " + what + " your own pull request"}}
	case in.Body == "" && (state == "CHANGES_REQUESTED" || state == "COMMENTED"):
		return nil, &failure{status: 422, message: "Unprocessable Entity", errors: []any{"Body can't be blank"}}
	}
	v := &review{id: c.s.id(), user: c.by.account, body: in.Body, state: state, sha: cmp.Or(in.Commit, i.pull.head), at: c.s.time()}
	i.pull.reviews = append(i.pull.reviews, v)
	i.pull.requested = slices.DeleteFunc(i.pull.requested, func(a *Account) bool { return a == v.user })
	return c.repo.showReview(i, v), nil
}

func dismissReview(c *call, i *issue, v *review) (any, error) {
	in, err := decode[struct{ Message, Event string }](c)
	switch {
	case err != nil:
		return nil, err
	case strings.TrimSpace(in.Message) == "":
		return nil, refuse(422, "Message can't be blank")
	case v.state != "APPROVED" && v.state != "CHANGES_REQUESTED":
		return nil, refuse(http.StatusUnprocessableEntity, "Can not dismiss a %s pull request review", strings.ToLower(v.state))
	}
	v.state = "DISMISSED"
	return c.repo.showReview(i, v), nil
}
