package rotation

import (
	"context"
	"errors"
	"fmt"
)

func (s *session) cleanup(ctx context.Context) error {
	if err := s.force(ctx); err != nil {
		return err
	}
	// The credentials of a batch are cleaned up each for itself: one backend that
	// does not answer must not let the others' expiry run out.
	var errs []error
	for _, p := range s.procs {
		err := s.passed[p.Credential()]
		if err == nil {
			err = s.cleanupOne(ctx, p)
		}
		if err != nil && (ctx.Err() != nil || errors.Is(err, ErrLeaseLost)) {
			return err
		}
		errs = append(errs, err)
	}
	return joined(errs)
}

// force records the reason for not waiting until the overlap is over.
func (s *session) force(ctx context.Context) error {
	if s.opt.Force == "" {
		return nil
	}
	for _, p := range s.procs {
		if s.view(p).Open == nil || s.passed[p.Credential()] != nil {
			continue
		}
		if err := s.append(ctx, s.record(p, Cleanup, stepForce, RecordNote, keyReason, s.opt.Force)); err != nil {
			return err
		}
	}
	return nil
}

func (s *session) cleanupOne(ctx context.Context, p Procedure) error {
	c := s.view(p)
	if c.Open == nil {
		return nil
	}
	if ended, _ := c.Open.happened(End, c.Open.From); !ended {
		if waits, err := s.tend(ctx, p); err != nil || waits {
			return err
		}
	}
	if c.Open.Phase == Cutover {
		if err := s.append(ctx, s.record(p, Cleanup, stepPhase, RecordIntent)); err != nil {
			return err
		}
	}
	before, after := p.Steps(Cleanup)
	r, err := s.walkParking(ctx, p, append(before, after...))
	if err != nil {
		return s.stillOpen(err, c.Name)
	}
	if r.Outcome == Waiting {
		s.wait(r)
		return nil
	}
	return s.append(ctx, s.record(p, Cleanup, stepPhase, RecordDone))
}

// tend looks after the old version of a credential as long as its end was not
// begun, and says whether cleanup must wait.
func (s *session) tend(ctx context.Context, p Procedure) (waits bool, err error) {
	c := s.view(p)
	if err := s.check(ctx, c.Name); err != nil {
		return false, err
	}
	r, err := p.Tend(s.within(ctx), c)
	if err != nil {
		return false, fmt.Errorf("cleaning up %q: %w", c.Name, err)
	}
	if len(r.Evidence) > 0 {
		if err := s.append(ctx, s.noteOf(p, r)); err != nil {
			return false, err
		}
		if until, ok := r.Evidence["extended"]; ok {
			s.notef("version %d is still used: its expiry was put off to %v", c.Open.From, until)
		}
	}
	if r.Outcome == Waiting {
		s.wait(r)
		return true, nil
	}
	return false, nil
}

func (s *session) stillOpen(err error, name string) error {
	if ctxError(err) || ClassOf(err) == Refused || ClassOf(err) == Stuck && HintOf(err) != "" {
		return err
	}
	return Classify(Stuck, "nothing is lost; run it again: keyturn cleanup "+name, err)
}

func (s *session) noteOf(p Procedure, r Result) Record {
	rec := s.record(p, Cleanup, "tend", RecordNote)
	describe(&rec, r, nil)
	return rec
}

// walkParking walks the steps of cleanup; a removal that is not possible yet
// goes to the retirement queue and holds nothing up.
func (s *session) walkParking(ctx context.Context, p Procedure, steps []Step) (Result, error) {
	for _, st := range steps {
		r, err := s.walk(ctx, p, Cleanup, []Step{st})
		if st.Effect == Remove && parks(err) {
			err = s.park(ctx, p, Parked{Version: s.on(p, st), Phase: Cleanup, Step: st.Name, Why: err.Error()})
		}
		if err != nil || r.Outcome == Waiting {
			return r, err
		}
	}
	return Result{}, nil
}
