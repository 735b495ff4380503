package approval

import (
	"fmt"
	"slices"
	"strings"
)

// An Allow says who may do a phase, and from where. What it leaves empty, it does not ask.
type Allow struct {
	By           []string // logins, and teams as org/team
	Workflows    []string // paths of the workflows
	Environments []string // of the job
	Verified     bool     // the actor must be one that GitHub signed
}

// An Actor is who does a phase, and from where.
type Actor struct {
	Login       string
	Verified    bool // it comes from claims that GitHub signed
	Workflow    string
	Environment string // known from signed claims alone
	InActions   bool
	MemberOf    []string // teams that were asked about
}

// Decide says whether an actor may do a phase.
func (a Allow) Decide(who Actor) Verdict {
	v := Verdict{By: []Approver{}, Reasons: []Reason{}, Could: a.By}
	no := func(code, format string, args ...any) {
		v.Reasons = append(v.Reasons, Reason{code, fmt.Sprintf(format, args...)})
	}
	switch {
	case !who.InActions:
		no("outside", "outside of GitHub Actions nobody knows who does it")
	case (a.Verified || len(a.Environments) > 0) && !who.Verified:
		no("unverified", "GitHub has not signed who does it, and from where")
	case who.Login == "":
		no("unknown", "nobody says who does it")
	}
	if !names(a.By, who.Login, who.MemberOf) {
		no("not-named", "%s is not one of %s", who.Login, strings.Join(a.By, ", "))
	}
	if len(a.Workflows) > 0 && !slices.Contains(a.Workflows, who.Workflow) {
		no("workflow", "the workflow %q may not do it", who.Workflow)
	}
	if len(a.Environments) > 0 && !slices.Contains(a.Environments, who.Environment) {
		no("environment", "a job in the environment %q may not do it", who.Environment)
	}
	v.Approved = len(v.Reasons) == 0
	return v
}
