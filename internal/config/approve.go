package config

import (
	"regexp"
	"time"

	"go.yaml.in/yaml/v3"
)

// Approvals say which phases need people, and which people.
type Approvals struct {
	Cutover  *Approval `yaml:"cutover"`
	Rollback *Approval `yaml:"rollback"`
}

// Of returns what a phase needs; nil if nothing.
func (a *Approvals) Of(phase string) *Approval {
	if a == nil {
		return nil
	}
	return map[string]*Approval{"cutover": a.Cutover, "rollback": a.Rollback}[phase]
}

// Approval is what one phase needs.
type Approval struct {
	Count       *uint64        `yaml:"count"`
	By          []string       `yaml:"by"` // logins, and teams as org/team
	Environment string         `yaml:"environment"`
	PullRequest bool           `yaml:"pull-request"`
	Workflows   []string       `yaml:"workflows"` // paths of those that may do it
	MaxAge      *time.Duration `yaml:"max-age"`   // of a review
	SelfReview  bool           `yaml:"self-review"`
}

// People is how many have to approve.
func (a *Approval) People() int {
	if a.Count == nil {
		return 1
	}
	return int(*a.Count)
}

// DefaultMaxAge is how old a review may be.
const DefaultMaxAge = 14 * day

// Age is how old a review may be.
func (a *Approval) Age() time.Duration { return or(a.MaxAge, DefaultMaxAge) }

var (
	approverName = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9-]*(/[A-Za-z0-9._-]+)?$`)
	workflowPath = regexp.MustCompile(`^\.github/workflows/[^/]+\.ya?ml$`)
)

// approve checks the approvals of a credential.
func (p *parser) approve(a *Approvals, n *yaml.Node, key string) {
	if a == nil {
		return
	}
	p.approval(a.Cutover, at(n, "approve", "cutover"), key+".approve.cutover")
	p.approval(a.Rollback, at(n, "approve", "rollback"), key+".approve.rollback")
	if a.Rollback == nil {
		return
	}
	here := key + ".approve.rollback"
	if a.Rollback.PullRequest && !p.faults.below(here+".pull-request") {
		p.fault(at(n, "approve", "rollback", "pull-request"), here+".pull-request", "write environment: prod-rollback", "a rollback waits for no pull request")
	}
	if a.Cutover != nil && a.Cutover.Environment != "" && a.Cutover.Environment == a.Rollback.Environment && !p.faults.below(here) {
		p.fault(at(n, "approve", "rollback", "environment"), here+".environment", "give it one of its own: prod-rollback",
			"the approval of a cutover would be one of its rollback")
	}
}

func (p *parser) approval(a *Approval, n *yaml.Node, key string) {
	if a == nil || p.faults.below(key) {
		return
	}
	switch {
	case a.Environment == "" && !a.PullRequest:
		p.fault(n, key, "write environment: prod-cutover, or pull-request: true", "nothing says where people approve")
	case a.People() == 0:
		p.fault(at(n, "count"), key+".count", "leave the whole of it out, if nobody has to approve", "want at least one")
	case a.People() > 1 && !a.PullRequest:
		p.fault(at(n, "count"), key+".count", "add pull-request: true", "an environment gives one approval, and %d are asked for", a.People())
	case a.SelfReview && a.PullRequest:
		p.fault(at(n, "self-review"), key+".self-review", "leave it out", "nobody approves a pull request of his own")
	case a.MaxAge != nil && *a.MaxAge <= 0:
		p.fault(at(n, "max-age"), key+".max-age", "write: max-age: 14d", "want some time")
	}
	p.names(a.By, a.Workflows, n, key)
}

// item returns the i-th entry of a list.
func item(n *yaml.Node, name string, i int) *yaml.Node {
	list := child(n, name)
	if list == nil || i >= len(list.Content) {
		return n
	}
	return list.Content[i]
}
