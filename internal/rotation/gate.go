package rotation

import (
	"fmt"
	"slices"
	"strings"
	"time"
)

// gate says, before anything is locked or done, whether the phase may run at
// all for these credentials. Nothing to do is an outcome, not an error.
func (s *session) gate() error {
	if len(s.procs) == 0 {
		return Errorf(Invalid, "name a credential", "nothing to %s", s.phase)
	}
	s.id = ""
	for i, p := range s.procs {
		if i > 0 && s.procs[i-1].Credential() == p.Credential() {
			return Errorf(Invalid, "", "%q is named twice", p.Credential())
		}
		c := s.ledger.Credential(p.Credential())
		if c.Open == nil {
			continue
		}
		if s.id != "" && s.id != c.Open.ID {
			return Errorf(Refused, "run the phase for one rotation at a time",
				"%q belongs to rotation %s, another credential to %s", c.Name, c.Open.ID, s.id)
		}
		s.id = c.Open.ID
	}
	if err := s.whole(); err != nil {
		return err
	}
	if err := s.alike(); err != nil {
		return err
	}
	for _, p := range s.procs {
		if err := s.order(s.ledger.Credential(p.Credential())); err != nil {
			return err
		}
	}
	queued := slices.ContainsFunc(s.procs, func(p Procedure) bool { return len(s.ledger.Credential(p.Credential()).Queue) > 0 })
	if s.id == "" && s.phase == Cleanup && !queued {
		s.out.For, s.out.Outcome = "nothing to clean up", Done
	}
	return nil
}

// alike refuses a batch in which one credential gets its first version and
// another its next one: the first has no way back, and would take the other's.
func (s *session) alike() error {
	if s.phase != Prepare {
		return nil
	}
	var first, next string
	for _, p := range s.procs {
		switch c := s.ledger.Credential(p.Credential()); {
		case c.Last().Number == 0:
			first = c.Name
		default:
			next = c.Name
		}
	}
	if first == "" || next == "" {
		return nil
	}
	return Errorf(Refused, "first: keyturn rotate "+first+"; then the other",
		"%q gets its first version, which has no way back, and %q its next one: they cannot be one batch", first, next)
}

// whole sees to it that the credentials of a batch go on together. Cleanup does
// not need it: each old version ends for itself.
func (s *session) whole() error {
	var missing []string
	for _, p := range s.procs {
		c := s.ledger.Credential(p.Credential())
		if c.Open == nil || s.phase == Prepare || s.phase == Cleanup {
			continue
		}
		for _, name := range c.Open.Batch {
			here := slices.ContainsFunc(s.procs, func(q Procedure) bool { return q.Credential() == name })
			if other := s.ledger.Credential(name); !here && other.Open != nil && other.Open.ID == c.Open.ID && !slices.Contains(missing, name) {
				missing = append(missing, name)
			}
		}
	}
	if len(missing) > 0 {
		return Errorf(Refused, "name all credentials of the batch", "%s of the batch %s without %s", s.phase, s.id, strings.Join(missing, ", "))
	}
	return nil
}

// order says whether the phase's turn has come for a credential.
func (s *session) order(c Credential) error {
	if c.Open == nil {
		hint := "keyturn prepare " + c.Name
		switch {
		case len(c.Versions) == 0:
			hint = "take over what services use: keyturn adopt " + c.Name + "; or, if there is nothing yet: keyturn prepare " + c.Name
		case s.phase == Rollback:
			hint = "the way is forward: keyturn rotate " + c.Name
		}
		switch s.phase {
		case Validate, Cutover:
			return Errorf(Refused, hint, "%s of %q: no rotation is open", s.phase, c.Name)
		case Rollback:
			why := "no rotation is open"
			if _, ok := c.In(Retired); ok {
				why += ", the version before is retired"
			}
			return Errorf(Refused, hint, "rolling back %q: %s", c.Name, why)
		}
		return nil
	}
	if c.Open.Phase == Rollback {
		return nil // it is brought to its end first
	}
	if s.phase == Prepare {
		if c.Open.Phase == Cutover && c.Open.Complete || c.Open.Phase == Cleanup {
			still := "rotation " + c.Open.ID + " waits for its cleanup"
			if c.Open.From != 0 {
				still = fmt.Sprintf("version %d is still valid until %s, %s", c.Open.From, c.OverlapUntil.UTC().Format(time.RFC3339), still)
			}
			return Errorf(Refused, "keyturn cleanup "+c.Name, "preparing %q: %s", c.Name, still)
		}
		return nil
	}
	if s.done(c) || follows(s.phase, c.Open) {
		return nil
	}
	if s.phase == Rollback && (c.Open.From == 0 || c.Open.overwritten()) {
		return Errorf(Refused, "the way is forward: keyturn "+string(nextPhase(c.Open))+" "+c.Name,
			"rolling back %q: there is no version before to go back to", c.Name)
	}
	if s.phase == Rollback {
		return Errorf(Refused, "the way is forward: keyturn cleanup "+c.Name+", then keyturn rotate "+c.Name,
			"rolling back %q: the end of version %d was begun", c.Name, c.Open.From)
	}
	return Errorf(Refused, "next: keyturn "+string(nextPhase(c.Open))+" "+c.Name,
		"%s of %q: the rotation stands at %s%s", s.phase, c.Name, c.Open.Phase, incomplete(c.Open))
}

// done reports whether the phase is behind the rotation already.
func (s *session) done(c Credential) bool {
	order := []Phase{Prepare, Validate, Cutover, Cleanup}
	at, want := slices.Index(order, c.Open.Phase), slices.Index(order, s.phase)
	return want >= 0 && (at > want || at == want && c.Open.Complete)
}

func nextPhase(open *Rotation) Phase {
	if !open.Complete {
		return open.Phase
	}
	switch open.Phase {
	case Prepare:
		return Validate
	case Validate:
		return Cutover
	}
	return Cleanup
}

func incomplete(open *Rotation) string {
	if open.Complete {
		return ""
	}
	return ", which is not complete"
}

// NextPhase returns the phase that a credential needs next: prepare if no
// rotation is open.
func NextPhase(c Credential) Phase {
	if c.Open == nil {
		return Prepare
	}
	return nextPhase(c.Open)
}
