package rotation

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"time"
)

// append writes records if the ledger permits them, with the time and the epoch
// of the lease. It is done also when ctx was cancelled.
func (s *session) append(ctx context.Context, records ...Record) error {
	if len(records) == 0 {
		return nil
	}
	ctx, cancel := aside(ctx, time.Minute)
	defer cancel()
	var next *Ledger
	name := fmt.Sprintf("%s %s %s", records[0].Phase, records[0].Step, records[0].Status)
	s.hook("before record: %s", name)
	last, err := s.Journal.Append(ctx, s.ledger.last, func(since []Record) ([]Record, error) {
		next = s.ledger.Clone()
		for _, r := range since {
			if err := next.Apply(r); err != nil {
				return nil, err
			}
		}
		for i := range records {
			r := &records[i]
			r.Time = s.now().UTC().Truncate(time.Millisecond) // as the journal keeps it
			if r.Rotation == "" {
				r.Rotation = s.id
			}
			if r.Evidence == nil {
				r.Evidence = map[string]json.RawMessage{}
			}
			if lease, ok := s.leases[r.Credential]; ok {
				maps.Copy(r.Evidence, evidence(keyEpoch, lease.Holder().Epoch))
			}
			if err := next.Apply(*r); err != nil {
				return nil, err
			}
		}
		return records, nil
	})
	if err != nil {
		if ClassOf(err) == Failed {
			// What the journal did not take says nothing of what was done: nothing is undone for it.
			err = Classify(Unknown, "see to the journal, then run it again", fmt.Errorf("writing the journal: %w", err))
		}
		return err
	}
	next.last = last
	s.ledger = next
	s.hook("after record: %s", name)
	return nil
}

// record returns a record of a procedure's credential and its next version.
func (s *session) record(p Procedure, phase Phase, step string, status RecordStatus, pairs ...any) Record {
	next := s.view(p).Next()
	return Record{Credential: p.Credential(), Version: next.Number, Identity: next.Identity, Phase: phase,
		Step: step, Status: status, Plan: s.opt.Plan, Evidence: evidence(pairs...)}
}

// recordOf returns a record of a step, about the version that the step is on.
func (s *session) recordOf(p Procedure, phase Phase, st Step, status RecordStatus, pairs ...any) Record {
	rec := s.record(p, phase, st.Name, status, append(pairs, keyEffect, st.Effect, keyTarget, s.on(p, st))...)
	if st.On == LastVersion {
		last := s.view(p).Last()
		rec.Version, rec.Identity = last.Number, last.Identity
	}
	return rec
}

// walk does the steps one after the other. It stops at the first that waits or fails.
func (s *session) walk(ctx context.Context, p Procedure, phase Phase, steps []Step) (Result, error) {
	for _, st := range steps {
		if err := ctx.Err(); err != nil {
			return Result{}, err
		}
		r, err := s.step(ctx, p, phase, st)
		if err != nil {
			return r, fmt.Errorf("%s %q: %s: %w", gerund(phase), p.Credential(), st.Name, err)
		}
		if r.Outcome == Waiting {
			return r, nil
		}
	}
	return Result{}, nil
}

func gerund(p Phase) string {
	switch p {
	case Prepare:
		return "preparing"
	case Validate:
		return "validating"
	case Cutover:
		return "cutting over"
	case Cleanup:
		return "cleaning up"
	case Rollback:
		return "rolling back"
	case Revoke:
		return "revoking"
	}
	return string(p)
}

// step does one step, with a record before and after if it has an effect.
func (s *session) step(ctx context.Context, p Procedure, phase Phase, st Step) (Result, error) {
	begun := s.now()
	on := s.on(p, st)
	if st.Effect != None {
		if err := s.begin(ctx, p, phase, st, RecordStarted); err != nil {
			return Result{}, err
		}
	}
	s.tell(Event{Credential: p.Credential(), Version: on, Phase: phase, Step: st.Name, Status: RecordStarted})
	s.hook("before effect: %s %s", phase, st.Name)
	r, err := st.Do(s.within(ctx), s.view(p))
	s.hook("after effect: %s %s", phase, st.Name)
	if r.Version != nil && s.isDraft(*r.Version) {
		s.drafts[p.Credential()] = r.Version.Clone()
	}
	status := statusOf(r, err)
	switch {
	case err != nil:
		s.blame(p, phase, st, r.Evidence, err)
	case st.Healthy && r.Outcome != Waiting:
		s.well = s.now()
	}
	elapsed := s.now().Sub(begun)
	text := r.For
	if err != nil {
		text = err.Error()
	}
	s.tell(Event{Credential: p.Credential(), Version: on, Phase: phase, Step: st.Name, Status: status, Elapsed: elapsed, Text: text})
	if r.Note != "" {
		s.notef("%s", r.Note)
	}
	if s.isDrafting(p) {
		s.keepAside(p, r)
		return r, err
	}
	if st.Effect == None && status == RecordDone && len(r.Evidence) == 0 {
		return r, err
	}
	rec := s.recordOf(p, phase, st, status, "ms", elapsed.Milliseconds())
	describe(&rec, r, err)
	if werr := s.append(ctx, rec); werr != nil {
		return r, werr
	}
	return r, err
}

// keepAside keeps what a step found while there is no intent to record it under.
func (s *session) keepAside(p Procedure, r Result) {
	if len(r.Evidence) == 0 {
		return
	}
	if s.asides[p.Credential()] == nil {
		s.asides[p.Credential()] = map[string]any{}
	}
	maps.Copy(s.asides[p.Credential()], r.Evidence)
}

func statusOf(r Result, err error) RecordStatus {
	switch {
	case err != nil:
		return RecordFailed
	case r.Outcome == Waiting:
		return RecordWaiting
	case r.Observed:
		return RecordObserved
	}
	return RecordDone
}

func describe(rec *Record, r Result, err error) {
	for k, v := range r.Evidence {
		maps.Copy(rec.Evidence, evidence(k, v))
	}
	if err != nil {
		maps.Copy(rec.Evidence, evidence("error", err.Error()))
	}
	if r.For != "" {
		maps.Copy(rec.Evidence, evidence("for", r.For))
	}
	if len(r.Restore) > 0 {
		rec.Evidence[keyRestore] = r.Restore
	}
	if r.Version != nil && err == nil {
		maps.Copy(rec.Evidence, evidence(keyVersion, r.Version))
	}
}

// begin asks for the lease once more and records that a step is about to have,
// or to take back, its effect.
func (s *session) begin(ctx context.Context, p Procedure, phase Phase, st Step, status RecordStatus) error {
	if err := s.check(ctx, p.Credential()); err != nil {
		return err
	}
	return s.append(ctx, s.recordOf(p, phase, st, status))
}

// check asks for the lease of a credential. One in the journal itself is asked
// by the record that follows: the ledger takes none of an older epoch.
func (s *session) check(ctx context.Context, name string) error {
	lease, ok := s.leases[name]
	if _, inJournal := lease.(*journalLease); !ok || inJournal {
		return nil
	}
	return leaseError(lease.Check(ctx))
}

// checkAll asks for every lease, in the midst of an effect.
func (s *session) checkAll(ctx context.Context) error {
	for _, p := range s.procs {
		if lease, ok := s.leases[p.Credential()]; ok {
			if err := leaseError(lease.Check(ctx)); err != nil {
				return err
			}
		}
	}
	return nil
}

// leaseError gives a check's error its class: only a lease that is known to be
// lost is another's. One that cannot be read may still be ours.
func leaseError(err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, ErrLeaseLost):
		return Classify(Refused, "another run took over; look at: keyturn status", err)
	case ClassOf(err) == Unknown:
		return err
	}
	return Classify(Unknown, "nothing more was changed; run it again when the lease can be read", err)
}

// within returns the context for an effect: in whose name it is, and under which leases.
func (s *session) within(ctx context.Context) context.Context {
	return WithLease(WithRotation(ctx, s.id), s.checkAll)
}

// on returns the number of the version that a step's effect is on.
func (s *session) on(p Procedure, st Step) int {
	c := s.view(p)
	if c.Open == nil {
		return 0
	}
	if st.On == LastVersion {
		return c.Open.From
	}
	return c.Open.To
}

// isDrafting reports whether the credential's next version is not on the record yet.
func (s *session) isDrafting(p Procedure) bool {
	_, ok := s.drafts[p.Credential()]
	return ok
}

func (s *session) isDraft(v Version) bool {
	d, ok := s.drafts[v.Credential]
	return ok && d.Number == v.Number
}

// undo takes the effects of a phase's steps back, in reverse. Steps that were
// never begun for the version are passed over.
func (s *session) undo(ctx context.Context, p Procedure, phase Phase) error {
	before, after := p.Steps(phase)
	steps := append(append([]Step(nil), before...), after...)
	for i := len(steps) - 1; i >= 0; i-- {
		if err := s.undoStep(ctx, p, phase, steps[i]); err != nil {
			return fmt.Errorf("undoing %s of %q: %s: %w", phase, p.Credential(), steps[i].Name, err)
		}
	}
	return nil
}

func (s *session) undoStep(ctx context.Context, p Procedure, phase Phase, st Step) error {
	c := s.view(p)
	if st.Undo == nil || c.Open == nil {
		return nil
	}
	state, ok := c.Open.Step(phase, st.Name, s.on(p, st))
	if !ok || state.Status == RecordUndone {
		return nil
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	if err := s.begin(ctx, p, phase, st, RecordUndoing); err != nil {
		return err
	}
	s.tell(Event{Credential: p.Credential(), Version: s.on(p, st), Phase: phase, Step: st.Name, Status: RecordUndoing})
	s.hook("before undo: %s %s", phase, st.Name)
	err := st.Undo(s.within(ctx), c, state.Restore)
	s.hook("after undo: %s %s", phase, st.Name)
	if parks(err) {
		if err := s.park(ctx, p, Parked{Version: s.on(p, st), Phase: phase, Step: st.Name, Undo: true, Why: err.Error()}); err != nil {
			return err
		}
		err = nil
	}
	if err != nil {
		s.tell(Event{Credential: p.Credential(), Version: s.on(p, st), Phase: phase, Step: st.Name, Status: RecordFailed, Text: err.Error()})
		return errors.Join(err, s.append(ctx, s.recordOf(p, phase, st, RecordFailed, "undo", true, "error", err.Error())))
	}
	s.tell(Event{Credential: p.Credential(), Version: s.on(p, st), Phase: phase, Step: st.Name, Status: RecordUndone})
	return s.append(ctx, s.recordOf(p, phase, st, RecordUndone))
}
