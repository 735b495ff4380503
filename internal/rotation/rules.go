package rotation

import (
	"encoding/json"
	"fmt"
	"maps"
)

// This file holds the rules that no caller can get round. They are asked when a
// record is about to be written, and the record is written before the effect.

func ruleBroken(c *Credential, r Record, why string) error {
	step := r.Step
	if step == stepPhase {
		step = "the phase"
	}
	return Errorf(Refused, "see: keyturn status "+c.Name, "%s of %q, %s of version %d: %s", r.Phase, c.Name, step, r.Version, why)
}

// applyIntent begins a phase: from here on it may have effects.
func applyIntent(c *Credential, r Record) error {
	if r.Phase == Prepare {
		return applyIntentPrepare(c, r)
	}
	if c.Open == nil || c.Open.ID != r.Rotation {
		return ruleBroken(c, r, "no rotation is open")
	}
	if !follows(r.Phase, c.Open) {
		return ruleBroken(c, r, "the rotation stands at "+string(c.Open.Phase))
	}
	if r.Phase == Cleanup && c.Open.From != 0 && !c.Open.Forced && r.Time.Before(c.OverlapUntil) {
		return ruleBroken(c, r, "the overlap is not over")
	}
	if r.Phase == Rollback && c.Open.Phase != Rollback {
		c.Open.wasAt, c.Open.wasComplete = c.Open.Phase, c.Open.Complete
	}
	c.Open.Phase, c.Open.Complete = r.Phase, false
	if r.Plan != "" {
		c.Open.Plan = r.Plan
	}
	mergeBefore(c.Open, r)
	return nil
}

// follows reports whether a phase may begin, or begin again, after the one that
// the rotation stands at.
func follows(next Phase, open *Rotation) bool {
	if next == open.Phase {
		return !open.Complete
	}
	switch next {
	case Validate:
		return open.Phase == Prepare && open.Complete
	case Cutover:
		return open.Phase == Validate && open.Complete
	case Cleanup:
		return open.Phase == Cutover && open.Complete
	case Rollback:
		// Once the old version's end was begun there is no way back.
		begun, _ := open.happened(End, open.From)
		moved, _ := open.happened(Move, open.To)
		return !begun && !open.overwritten() && (open.From != 0 || !moved)
	}
	return false
}

func applyIntentPrepare(c *Credential, r Record) error {
	var v Version
	r.read(keyVersion, &v)
	if c.Open != nil && c.Open.ID != r.Rotation {
		return ruleBroken(c, r, "rotation "+c.Open.ID+" is open")
	}
	if c.Open != nil && c.Open.Phase != Prepare {
		return ruleBroken(c, r, "the rotation stands at "+string(c.Open.Phase))
	}
	if p, ok := c.In(Pending); ok && p.Number != v.Number {
		return ruleBroken(c, r, "another version is pending")
	}
	known, ok := c.Version(v.Number)
	switch {
	case !ok && v.Number != c.Burnt+1:
		return ruleBroken(c, r, "numbers are used once and in order")
	case ok && known.State != Pending:
		return ruleBroken(c, r, "the number is burnt")
	}
	if prior, ok := c.In(Previous); ok {
		return ruleBroken(c, r, fmt.Sprintf("version %d is not retired yet", prior.Number))
	}
	if fp := reused(c, v); fp != "" {
		return ruleBroken(c, r, "the value of field "+fp+" was used before")
	}
	if c.Open == nil {
		from := 0
		r.read(keyFrom, &from)
		if current, _ := c.In(Current); from != current.Number {
			return ruleBroken(c, r, fmt.Sprintf("version %d is in service, not %d", current.Number, from))
		}
		c.Open = &Rotation{ID: r.Rotation, From: from, Phase: Prepare, Begun: r.Time, cutoverAt: c.CutoverAt, lastSuccess: c.LastSuccess}
		r.read(keyBatch, &c.Open.Batch)
	}
	v.State = Pending
	c.set(v)
	c.Burnt = max(c.Burnt, v.Number)
	c.Open.To, c.Open.Complete, c.Open.Plan = v.Number, false, r.Plan
	mergeBefore(c.Open, r)
	return nil
}

// mergeBefore keeps the first snapshot of each service: that is what to set back.
func mergeBefore(open *Rotation, r Record) {
	var fresh map[string]json.RawMessage
	r.read(keyBefore, &fresh)
	if len(fresh) == 0 {
		return
	}
	before := open.Before
	open.Before = maps.Clone(before)
	if open.Before == nil {
		open.Before = map[string]json.RawMessage{}
	}
	for service, b := range fresh {
		if _, ok := open.Before[service]; !ok {
			open.Before[service] = b
		}
	}
}

// reused returns the field whose value an earlier version had.
func reused(c *Credential, v Version) string {
	for field, fp := range v.Fingerprints {
		if number, ok := c.prints[fp]; ok && number != v.Number {
			return field
		}
	}
	return ""
}

// applyStep takes the record of a step.
func applyStep(c *Credential, r Record) error {
	if c.Open == nil || c.Open.ID != r.Rotation {
		return ruleBroken(c, r, "no rotation is open")
	}
	state := StepState{Phase: r.Phase, Name: r.Step, Version: r.Version, Status: r.Status, At: r.Time}
	r.read(keyEffect, &state.Effect)
	r.read(keyTarget, &state.Version)
	r.read(keyRestore, &state.Restore)
	switch r.Status {
	case RecordStarted:
		if err := permit(c, r, state); err != nil {
			return err
		}
	case RecordUndoing:
		if err := permitUndo(c, r, state); err != nil {
			return err
		}
	case RecordUndone:
		if err := permitUndone(c, r, state); err != nil {
			return err
		}
	case RecordDone, RecordObserved:
		if err := permitDone(c, r, state); err != nil {
			return err
		}
	}
	var v Version
	if r.read(keyVersion, &v) {
		if known, ok := c.Version(v.Number); ok {
			if fp := reused(c, v); fp != "" {
				return ruleBroken(c, r, "the value of field "+fp+" was used before")
			}
			v.State = known.State
			c.set(v)
		}
	}
	c.Open.note(state)
	return nil
}

// permit says whether a step may have its effect now.
func permit(c *Credential, r Record, s StepState) error {
	open := c.Open
	if r.Phase != open.Phase {
		return ruleBroken(c, r, "the phase's intent is not on the record")
	}
	v, _ := c.Version(s.Version)
	switch s.Effect {
	case Mint, Put, Arm, Beside:
		if v.State != Pending || s.Version != open.To {
			return ruleBroken(c, r, "only the pending version may be made ready")
		}
		if _, put := open.happened(Put, s.Version); s.Effect == Arm && r.Phase == Prepare && !put {
			return ruleBroken(c, r, "its value is stored nowhere yet")
		}
	case Move, Activate:
		return permitMove(c, r, s)
	case End:
		return permitEnd(c, r, s)
	case Prove:
		if _, done := open.happened(End, s.Version); !done {
			return ruleBroken(c, r, "it is not ended")
		}
	case Remove:
		if _, proven := open.happened(Prove, s.Version); s.Version != open.From || !proven {
			return ruleBroken(c, r, "its proof of death is not on the record")
		}
	}
	return nil
}

// permitDone refuses the end of an effect that was never permitted to begin.
func permitDone(c *Credential, r Record, s StepState) error {
	if s.Effect == None {
		return nil
	}
	begun, ok := c.Open.Step(s.Phase, s.Name, s.Version)
	if !ok || begun.Status != RecordStarted || begun.Effect != s.Effect {
		return ruleBroken(c, r, "it was not begun")
	}
	return nil
}

func permitMove(c *Credential, r Record, s StepState) error {
	open := c.Open
	switch {
	case s.Version == open.To && r.Phase == Cutover:
		if !open.passed(Validate) {
			return ruleBroken(c, r, "it is not validated")
		}
	case s.Version == open.From && r.Phase == Rollback:
		if begun, _ := open.happened(End, open.From); begun {
			return ruleBroken(c, r, "the old version was ended")
		}
	default:
		return ruleBroken(c, r, "services may not be moved to it in this phase")
	}
	return nil
}

// passed reports whether a phase was completed for the version that is being brought.
func (r *Rotation) passed(p Phase) bool {
	s, ok := r.Step(p, stepPhase, r.To)
	return ok && s.Done
}

// permitEnd keeps the promise that there is always one working version: what is
// ended is never what services read.
func permitEnd(c *Credential, r Record, s StepState) error {
	open := c.Open
	if r.Phase != Cleanup || s.Version != open.From {
		return ruleBroken(c, r, "only the previous version may be ended, at cleanup")
	}
	next, _ := c.Version(open.To)
	if next.State != Current {
		return ruleBroken(c, r, "no other version is current")
	}
	if open.From != 0 && !open.Forced && r.Time.Before(c.OverlapUntil) {
		return ruleBroken(c, r, "the overlap is not over")
	}
	return nil
}

// permitUndo says whether a step may be undone now. Nothing of a version is
// taken away while services may read it.
func permitUndo(c *Credential, r Record, s StepState) error {
	switch s.Effect {
	case End, Prove, Remove:
		return ruleBroken(c, r, "an end cannot be undone")
	}
	if s.Version != c.Open.To {
		return nil
	}
	switch s.Effect {
	case Arm, Put, Mint:
		if begun, _ := c.Open.happened(Move, s.Version); begun {
			return ruleBroken(c, r, "services may read it: they must be moved back first")
		}
		if begun, _ := c.Open.happened(Beside, s.Version); begun {
			return ruleBroken(c, r, "services may read it beside the current one: it must be taken away first")
		}
	}
	return nil
}

// permitUndone says whether a step may be recorded as undone: its undo was
// permitted, or, for what services read, they were moved to the old version.
func permitUndone(c *Credential, r Record, s StepState) error {
	open := c.Open
	if s.Effect == Move || s.Effect == Beside {
		if _, back := open.happened(Move, open.From); s.Version != open.To || !back || open.Phase != Rollback {
			return ruleBroken(c, r, "the services were not moved back")
		}
		return nil
	}
	if begun, ok := open.Step(s.Phase, s.Name, s.Version); !ok || begun.Status != RecordUndoing {
		return ruleBroken(c, r, "its undo was not begun")
	}
	return nil
}
