package approval

import (
	"slices"
	"strconv"
	"time"
)

// pull is the gate of the pull request.
func (j *judge) pull() {
	p := j.f.Pull
	if p == nil {
		j.no("pull-missing", "there is no pull request of this cutover: keyturn propose opens it")
		return
	}
	j.pullItself(p)
	j.rules(p)
	for _, r := range latest(p.Reviews) {
		j.review(p, r)
	}
}

// pullItself checks that the pull request is the one that was proposed, as it was.
func (j *judge) pullItself(p *Pull) {
	proposed := j.f.Proposed
	switch {
	case proposed == nil || proposed.Number != p.Number:
		j.no("pull-unknown", "the record does not know pull request #%d", p.Number)
	case p.Head == "" || p.Head != proposed.Head:
		j.no("pull-moved", "pull request #%d was changed after it was proposed", p.Number)
	}
	switch {
	case !p.Open && !p.Merged:
		j.no("pull-closed", "pull request #%d was closed without being merged", p.Number)
	case p.Draft:
		j.no("pull-draft", "pull request #%d is a draft", p.Number)
	case p.Merged && !p.InRun:
		j.no("pull-elsewhere", "the merge of pull request #%d is no part of what this run sees", p.Number)
	}
	if j.f.Default == "" || p.Base != j.f.Default {
		j.no("pull-base", "pull request #%d goes to branch %q, not to the default branch", p.Number, p.Base)
	}
	if p.Fork {
		j.no("pull-fork", "pull request #%d comes from another repository", p.Number)
	}
	if p.Unnamed {
		j.no("pull-unnamed", "a commit of pull request #%d is by somebody whom GitHub does not know", p.Number)
	}
}

// rules checks what the branch itself asks for.
func (j *judge) rules(p *Pull) {
	r := j.f.Rules
	switch {
	case r == nil:
		j.no("rules", "the rules of the default branch could not be read")
	case r.CodeOwners && !r.Satisfied:
		j.no("code-owners", "the code owners have not approved pull request #%d", p.Number)
	case p.Merged && r.Bypassed:
		j.no("rule-bypass", "pull request #%d was merged past the rules of its branch", p.Number)
	}
}

// latest returns the last review of each person that says something: a comment
// takes no approval back.
func latest(reviews []Review) []Review {
	last := map[int64]Review{}
	var order []int64
	for _, r := range slices.SortedStableFunc(slices.Values(reviews), func(a, b Review) int { return a.At.Compare(b.At) }) {
		if r.State != "APPROVED" && r.State != "CHANGES_REQUESTED" && r.State != "DISMISSED" {
			continue
		}
		if _, seen := last[r.By.ID]; !seen {
			order = append(order, r.By.ID)
		}
		last[r.By.ID] = r
	}
	var out []Review
	for _, id := range order {
		out = append(out, last[id])
	}
	return out
}

func (j *judge) review(p *Pull, r Review) {
	code, why := j.eligible(r.By)
	switch {
	case r.State == "DISMISSED":
		j.note("dismissed", "the review of %s was dismissed", r.By.Login)
	case r.State == "CHANGES_REQUESTED" && code == "":
		j.no("changes-requested", "%s asks for changes", r.By.Login)
	case r.State == "CHANGES_REQUESTED":
	case code != "":
		j.note(code, "%s", why)
	case r.Head != p.Head:
		j.note("stale", "%s reviewed an older state of pull request #%d", r.By.Login, p.Number)
	case j.f.Proposed != nil && r.At.Before(j.f.Proposed.At.Truncate(time.Second)): // GitHub knows whole seconds
		j.note("stale", "%s reviewed pull request #%d before it was proposed", r.By.Login, p.Number)
	case j.f.Now.Sub(r.At) > j.p.maxAge():
		j.note("old", "the review of %s is older than %s", r.By.Login, days(j.p.maxAge()))
	default:
		j.add(Approver{Person: r.By, How: "review", Review: r.ID, Head: r.Head, At: r.At})
	}
}

func days(d time.Duration) string {
	if d%(24*time.Hour) == 0 {
		return strconv.Itoa(int(d/(24*time.Hour))) + " d"
	}
	return d.String()
}
