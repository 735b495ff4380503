// Package approval decides whether people have approved what is about to be done
// to production, from what GitHub says now. It fails closed: whatever could not be
// read, or is not as it must be, refuses, and the verdict says what is missing and
// who could give it.
//
// [Collect] reads the [Facts], [Decide] judges them, and asks nothing. There are two
// gates. The environment of the job: GitHub held the job until a reviewer let it
// go on, and the record of the run has who that was; one person at most. The pull
// request: reviews of its current head, the latest of each person. A policy may ask
// for either or both.
//
// Nobody approves his own work: not the author of the pull request, nor whoever
// committed to it, nor the actor of a run of this rotation; and no bot.
package approval

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"
)

// An Action is what is approved.
type Action string

// The actions that need an approval.
const (
	Cutover  Action = "cutover"
	Rollback Action = "rollback"
)

// A Policy is what the configuration on the default branch asks for.
type Policy struct {
	Count       int           // how many people; 0 asks for nobody
	By          []string      // logins, and teams as org/team; none: whoever may write
	Environment string        // of the job; "": it is no gate
	PullRequest bool          // whether the reviews of the pull request are a gate
	Workflows   []string      // paths of the workflows that may do it; none: any on the default branch
	MaxAge      time.Duration // of a review; 0 is 14 days
	SelfReview  bool          // whoever started it may approve in the environment: for one who is alone
}

// None reports whether the policy asks for nothing.
func (p Policy) None() bool { return p.Count == 0 && p.Environment == "" && !p.PullRequest }

const defaultMaxAge = 14 * 24 * time.Hour

func (p Policy) maxAge() time.Duration { return cmp.Or(p.MaxAge, defaultMaxAge) }

// A Person is an account of GitHub.
type Person struct {
	Login string `json:"login"`
	ID    int64  `json:"id"`
	Bot   bool   `json:"-"`
}

// Facts are what is known when an approval is asked for. A nil pointer is what
// could not be read or is not there; Unread says which of the two.
type Facts struct {
	Action     Action
	InActions  bool // in a job of GitHub Actions
	Now        time.Time
	PlanShown  string // hash of the plan that the job before the gate showed
	PlanNow    string // of the plan as it is now
	Default    string // the default branch
	Run        *Run
	Env        *Environment
	Decisions  []Decision // of the run's environments
	Earlier    int        // approvals that the record has of earlier attempts of this run; -1: not known
	Pull       *Pull
	Proposed   *Proposal       // what the record says of the pull request
	Actors     []string        // of the runs of this rotation, by the record
	Started    string          // who asked for a rollback
	MayWrite   map[string]bool // by login; who is not in it may not
	MemberOf   map[string][]string
	Rules      *Rules
	Unread     []string // what could not be read, in words
	PolicyFrom string   // hash of the configuration's text on the default branch; "" if it is not that
}

// A Run is the workflow's run that asks.
type Run struct {
	ID      int64
	Attempt int
	Event   string
	Branch  string
	SHA     string // that the run is of
	HeadSHA string // that this job sees
	Path    string // of the workflow's file
	Actor   Person
	Trigger Person // who started this attempt
}

// An Environment is one of the repository, with its rules.
type Environment struct {
	ID          int64
	Name        string
	Reviewers   bool // somebody has to review
	PreventSelf bool
	AdminBypass bool
	DefaultOnly bool // only the default branch may deploy to it
}

// A Decision is what somebody said to a job that waited.
type Decision struct {
	Approved     bool
	By           Person
	Environments []int64
}

// A Pull is a pull request.
type Pull struct {
	Number   int
	Open     bool
	Merged   bool
	Draft    bool
	Base     string
	Head     string // hash of its newest commit
	MergedAs string // hash of the commit that its merge made
	InRun    bool   // the merge is part of what this run sees
	Fork     bool   // it comes from another repository
	Author   Person
	Makers   []string // authors, committers and co-authors of its commits
	Unnamed  bool     // a commit's author or committer has no account
	Reviews  []Review // oldest first
}

// A Review is one review of a pull request.
type Review struct {
	ID    int64
	By    Person
	State string // APPROVED, CHANGES_REQUESTED, DISMISSED or COMMENTED
	Head  string
	At    time.Time
}

// A Proposal is the pull request as the record has it.
type Proposal struct {
	Number int
	Head   string
	Plan   string // hash of the plan that it shows
	At     time.Time
}

// Rules are what the default branch itself asks for.
type Rules struct {
	Count      int
	CodeOwners bool
	Satisfied  bool // GitHub's own decision, where code owners have to review
	Bypassed   bool // the merge went past a rule
}

// An Approver is one who approved, and how that is known.
type Approver struct {
	Person
	How    string    `json:"how"` // environment or review
	Review int64     `json:"review,omitempty"`
	Env    int64     `json:"environment,omitempty"`
	Head   string    `json:"head,omitempty"`
	At     time.Time `json:"at,omitzero"`
}

// A Reason says why something does not count, in one word and in a sentence.
type Reason struct {
	Code string `json:"code"`
	Text string `json:"text"`
}

// A Verdict is what facts come to.
type Verdict struct {
	Approved bool       `json:"approved"`
	By       []Approver `json:"by"`
	Needs    int        `json:"needs"`
	Reasons  []Reason   `json:"reasons"` // why not; and what did not count, if it is approved
	Could    []string   `json:"could"`   // who could give what is missing
}

// String is the verdict in a sentence.
func (v Verdict) String() string {
	var names []string
	for _, a := range v.By {
		names = append(names, a.Login+" ("+a.How+")")
	}
	if v.Approved && v.Needs == 0 && len(names) == 0 {
		return "no approval is asked for"
	}
	if v.Approved {
		return "approved by " + strings.Join(names, ", ")
	}
	text := fmt.Sprintf("not approved: has %d of %d", len(v.By), v.Needs)
	if len(names) > 0 {
		text += " (" + strings.Join(names, ", ") + ")"
	}
	for _, r := range v.Reasons {
		text += "; " + r.Text
	}
	return text
}

// Hint says who could give what is missing.
func (v Verdict) Hint() string {
	if v.Approved || len(v.Could) == 0 {
		return ""
	}
	return "who could approve: " + strings.Join(v.Could, ", ")
}

// Has reports whether a reason of that kind is among the verdict's.
func (v Verdict) Has(code string) bool {
	return slices.ContainsFunc(v.Reasons, func(r Reason) bool { return r.Code == code })
}
