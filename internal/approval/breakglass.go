package approval

import "strings"

// A BreakGlass is somebody's word that it must be done without approvals.
type BreakGlass struct {
	Who    Person
	Admin  bool // of the repository, now
	Reason string
	Ticket string // where it is followed up
}

// Decide says whether the glass may be broken: by an administrator, with a reason
// and a ticket. It is on the record, and the next rotation waits until somebody
// else has reviewed it.
func (b BreakGlass) Decide() Verdict {
	v := Verdict{By: []Approver{}, Reasons: []Reason{}, Could: []string{"an administrator of the repository"}}
	no := func(code, text string) { v.Reasons = append(v.Reasons, Reason{code, text}) }
	switch {
	case b.Who.Login == "":
		no("unknown", "nobody says who breaks the glass")
	case b.Who.Bot:
		no("bot", b.Who.Login+" is no person")
	case !b.Admin:
		no("no-admin", b.Who.Login+" is no administrator of the repository now")
	}
	if strings.TrimSpace(b.Reason) == "" {
		no("reason", "there is no reason")
	}
	if strings.TrimSpace(b.Ticket) == "" {
		no("ticket", "there is no ticket")
	}
	if v.Approved = len(v.Reasons) == 0; v.Approved {
		v.By = append(v.By, Approver{Person: b.Who, How: "break-glass"})
	}
	return v
}

// Reviewed says whether the glass that somebody broke was looked at by somebody else.
func (b BreakGlass) Reviewed(by Person, mayWrite bool) Verdict {
	v := Verdict{Needs: 1, By: []Approver{}, Reasons: []Reason{}, Could: []string{"anybody but " + b.Who.Login + " who may write to the repository"}}
	no := func(code, text string) { v.Reasons = append(v.Reasons, Reason{code, text}) }
	switch {
	case by.Login == "":
		no("unknown", "nobody says who reviewed it")
	case by.Bot:
		no("bot", by.Login+" is no person")
	case strings.EqualFold(by.Login, b.Who.Login) || by.ID == b.Who.ID:
		no("own-work", by.Login+" broke the glass")
	case !mayWrite:
		no("no-access", by.Login+" may not write to the repository now")
	}
	if v.Approved = len(v.Reasons) == 0; v.Approved {
		v.By = append(v.By, Approver{Person: by, How: "review"})
	}
	return v
}
