package rotation

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"
)

// failed decides what follows from an error before the services were moved, or
// from a move that made them unhealthy. It returns the error with what was done
// about it.
//
//   - cancelled: nothing is undone, the next run goes on
//   - not known ([Unknown]): nothing may be concluded, nothing is undone
//   - refused before the services were moved: that says nothing against the new
//     version, and nothing is undone
//   - else: everything of the rotation is taken back
//
// Whatever it is, a gap that was opened for a move that did not begin is closed.
func (s *session) failed(ctx context.Context, cause error) error {
	if errors.Is(cause, ErrLeaseLost) {
		return cause // what is left is the business of who has the lease now
	}
	if err := s.closeGap(ctx, s.phase); err != nil {
		return errors.Join(err, cause)
	}
	switch {
	case ctx.Err() != nil:
		return cause
	case ClassOf(cause) == Unknown || ClassOf(cause) == Stuck:
		s.boundAgain(ctx)
		return cause
	case !slices.ContainsFunc(s.procs, func(p Procedure) bool { return s.ledger.Credential(p.Credential()).Open != nil }):
		return cause
	case ClassOf(cause) == Refused && s.phase != Prepare && !s.begun(Move):
		s.boundAgain(ctx)
		return cause
	}
	ctx, cancel := context.WithTimeout(ctx, undoTime)
	defer cancel()
	if err := s.intents(ctx, Rollback, s.why(cause)...); err != nil {
		return &Error{Class: Stuck, Hint: "what is true now: keyturn status; to go on: " + s.again(s.phase), Err: errors.Join(cause, err)}
	}
	if err := s.back(ctx); err != nil {
		return &Error{Class: Stuck, Hint: "what is true now: keyturn status; to go on: " + s.again(Rollback), Err: errors.Join(cause, err)}
	}
	s.notef("rolled back: everything of rotation %s was undone", s.id)
	return &Error{Class: Failed, Hint: HintOf(cause), Text: "rolled back", Err: cause}
}

// A Cause is why a rotation was taken back, as the intent of the rollback has it.
type Cause struct {
	Credential string         `json:"credential"`
	Phase      Phase          `json:"phase"`
	Step       string         `json:"step"` // the first that failed
	At         time.Time      `json:"at"`
	Healthy    *time.Time     `json:"healthy,omitempty"` // when the services were last seen healthy before it, in this run
	Error      string         `json:"error"`
	Found      map[string]any `json:"found,omitempty"`   // by the step
	LookAt     string         `json:"look_at,omitempty"` // for people
}

// blame keeps the first failure of a run.
func (s *session) blame(p Procedure, phase Phase, st Step, found map[string]any, err error) {
	if s.cause != nil || ctxError(err) || phase == Rollback {
		return
	}
	s.cause = &Cause{Credential: p.Credential(), Phase: phase, Step: st.Name, At: s.now(), Error: err.Error(), Found: found, LookAt: HintOf(err)}
	if !s.well.IsZero() {
		well := s.well
		s.cause.Healthy = &well
	}
}

// why is the evidence of a rollback that nobody asked for.
func (s *session) why(cause error) []any {
	pairs := []any{keyReason, cause.Error()}
	if s.cause != nil {
		pairs = append(pairs, keyCause, s.cause)
	}
	return pairs
}

// closeGap takes back the steps of a phase that opened a gap, also after a
// cancellation, unless the services began to be moved: then the way out of it is
// the end of the move.
func (s *session) closeGap(ctx context.Context, phase Phase) error {
	ctx, cancel := aside(ctx, gapTime)
	defer cancel()
	var errs []error
	for _, p := range slices.Backward(s.procs) {
		before, _ := p.Steps(phase)
		for _, st := range slices.Backward(before) {
			c := s.view(p)
			if !st.Gap || c.Open == nil {
				continue
			}
			if moved, _ := c.Open.happened(Move, s.on(p, st)); moved {
				continue
			}
			errs = append(errs, s.undoStep(ctx, p, phase, st))
		}
	}
	if err := errors.Join(errs...); err != nil {
		return &Error{Class: Stuck, Hint: "services may lack a working version: run it again at once: " + s.again(phase), Err: err}
	}
	return nil
}

// gapTime is how long closing a gap may take: a runner soon kills what it has cancelled.
const gapTime = 5 * time.Second

// again returns the command that goes on with a phase.
func (s *session) again(p Phase) string {
	command := "keyturn " + string(p)
	if p == Rollback {
		command += ` --reason "go on"`
	}
	for _, proc := range s.procs {
		command += " " + proc.Credential()
	}
	return command
}

// halfway marks an error of a rollback that was begun and is not at its end.
func (s *session) halfway(err error) error {
	if err == nil || ctxError(err) || errors.Is(err, ErrLeaseLost) || !s.standsAt(Rollback) {
		return err
	}
	return Classify(Stuck, "what is true now: keyturn status; to go on: "+s.again(Rollback), err)
}

// boundAgain gives the next versions their bound again when a cutover stops
// before anything was moved: nobody may come back to it. What fails is noted,
// and no more.
func (s *session) boundAgain(ctx context.Context) {
	if s.phase != Cutover || s.begun(Move) || s.begun(Activate) {
		return
	}
	for _, p := range s.procs {
		before, _ := p.Steps(Cutover)
		for _, st := range before {
			if st.Effect != Bound || st.Undo == nil {
				continue
			}
			if err := s.undoStep(ctx, p, Cutover, st); err != nil {
				s.notef("the new version of %q stays valid without a bound: %v", p.Credential(), err)
			}
		}
	}
}

// begun reports whether an effect on any next version was begun and not undone.
func (s *session) begun(e Effect) bool {
	return slices.ContainsFunc(s.procs, func(p Procedure) bool {
		c := s.view(p)
		if c.Open == nil {
			return false
		}
		begun, _ := c.Open.happened(e, c.Open.To)
		return begun
	})
}

// back takes a rotation back to the version before: the old version proven to
// work, the services on it, and the next version ended and removed. The intent
// of the rollback is on the record. It may be called again at any point.
func (s *session) back(ctx context.Context) error {
	if s.begun(Move) {
		for _, p := range s.procs {
			before, _ := p.Steps(Rollback)
			if s.view(p).Open == nil {
				continue
			}
			if r, err := s.walk(ctx, p, Rollback, before); err != nil || r.Outcome == Waiting {
				return s.stay(ctx, errors.Join(err, waitError(r)))
			}
		}
	}
	if s.begun(Move) || s.begun(Beside) {
		if err := s.shift(ctx, Rollback, "move back", Move); err != nil {
			return errors.Join(s.closeGap(ctx, Rollback), err)
		}
		if err := s.unmoved(ctx); err != nil {
			return err
		}
		if err := s.settled(ctx); err != nil {
			return err
		}
	}
	for _, p := range slices.Backward(s.procs) {
		if s.view(p).Open == nil {
			continue
		}
		for _, phase := range []Phase{Cutover, Prepare} {
			err := s.undo(ctx, p, phase)
			if ClassOf(err) == Refused && err != nil && !errors.Is(err, ErrLeaseLost) {
				return s.stay(ctx, err) // its step says that there is no way back
			}
			if err != nil {
				return err
			}
		}
	}
	return s.closeAll(ctx)
}

// stay gives a rollback up before any service was moved back, because there is
// no working version to go back to: the rotation stands where it stood, and can
// go forward. It returns the cause.
func (s *session) stay(ctx context.Context, cause error) error {
	if errors.Is(cause, ErrLeaseLost) {
		return cause
	}
	if ctx.Err() != nil {
		return errors.Join(s.closeGap(ctx, Rollback), cause)
	}
	for _, p := range s.procs {
		if c := s.view(p); c.Open != nil {
			if begun, _ := c.Open.happened(Move, c.Open.From); begun {
				return cause // an earlier run began to move them: there is only back
			}
		}
	}
	var records []Record
	for _, p := range s.procs {
		c := s.view(p)
		if c.Open == nil || c.Open.Phase != Rollback {
			continue
		}
		if err := s.undo(ctx, p, Rollback); err != nil {
			s.notef("the old version of %q has no expiry now; cleanup sets it again: %v", p.Credential(), err)
		}
		records = append(records, s.record(p, Rollback, stepPhase, RecordFailed, "error", cause.Error()))
	}
	return errors.Join(cause, s.append(ctx, records...))
}

// settled walks what a rollback has to do when the services are back.
func (s *session) settled(ctx context.Context) error {
	for _, p := range s.procs {
		if _, after := p.Steps(Rollback); s.view(p).Open != nil {
			if _, err := s.walk(ctx, p, Rollback, after); err != nil {
				return err
			}
		}
	}
	return nil
}

func waitError(r Result) error {
	if r.Outcome != Waiting {
		return nil
	}
	return Errorf(Unknown, r.Hint, "waiting for %s", r.For)
}

// unmoved records that no service reads the next versions any more.
func (s *session) unmoved(ctx context.Context) error {
	var records []Record
	for _, p := range s.procs {
		c := s.view(p)
		if c.Open == nil {
			continue
		}
		for _, st := range c.Open.Steps {
			if (st.Effect == Move || st.Effect == Beside) && st.Version == c.Open.To && st.Status != RecordUndone {
				records = append(records, s.record(p, st.Phase, st.Name, RecordUndone, keyEffect, st.Effect, keyTarget, st.Version))
			}
		}
	}
	if len(records) == 0 {
		return nil
	}
	return s.append(ctx, records...)
}

func (s *session) closeAll(ctx context.Context) error {
	var records []Record
	for _, p := range s.procs {
		if s.view(p).Open != nil {
			records = append(records, s.record(p, Rollback, stepPhase, RecordUndone))
		}
	}
	if len(records) == 0 {
		return nil
	}
	if err := s.append(ctx, records...); err != nil {
		return fmt.Errorf("closing the rotation: %w", err)
	}
	return nil
}
