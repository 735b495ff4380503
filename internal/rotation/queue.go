package rotation

import (
	"context"
	"errors"
	"fmt"
)

// parks reports whether what an error speaks of goes to the retirement queue:
// something still uses it, or it ends by itself later, which is neither a failure nor a
// reason to forget it.
func parks(err error) bool { return errors.Is(err, ErrInUse) || errors.Is(err, ErrLives) }

// park records what could not be ended or removed yet.
func (s *session) park(ctx context.Context, p Procedure, item Parked) error {
	item.Since = s.now().UTC()
	s.notef("queued for retirement: %s of version %d of %q: %s", item.Step, item.Version, p.Credential(), item.Why)
	return s.append(ctx, s.record(p, item.Phase, stepPark, RecordNote, keyParked, item))
}

// retryQueue tries again what earlier runs could not end or remove. What is
// still in use stays, with one more try on the record; it holds up nothing.
func (s *session) retryQueue(ctx context.Context) error {
	for _, p := range s.procs {
		if s.passed[p.Credential()] != nil {
			continue
		}
		for _, item := range s.view(p).Queue {
			if err := s.retryOne(ctx, p, item); err != nil {
				return err
			}
		}
	}
	return nil
}

func (s *session) retryOne(ctx context.Context, p Procedure, item Parked) error {
	c := s.view(p)
	st, ok := stepNamed(p, item)
	if !ok {
		return Errorf(Failed, "", "the queue of %q names the unknown step %q", c.Name, item.Step)
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	if err := s.check(ctx, c.Name); err != nil {
		return err
	}
	if err := s.append(ctx, Record{Credential: c.Name, Version: item.Version, Phase: item.Phase, Step: stepRetry,
		Status: RecordNote, Evidence: evidence(keyParked, item)}); err != nil {
		return err
	}
	// The step sees the version as it did: as the next or the last of a rotation.
	c.Open = &Rotation{ID: s.id, To: item.Version, From: item.Version}
	var err error
	s.hook("before effect: queue %s", item.Step)
	if item.Undo {
		err = st.Undo(s.within(ctx), c, nil)
	} else {
		var r Result
		r, err = st.Do(s.within(ctx), c)
		err = errors.Join(err, waitError(r))
	}
	s.hook("after effect: queue %s", item.Step)
	rec := Record{Credential: c.Name, Version: item.Version, Phase: item.Phase, Step: stepSettled, Status: RecordNote}
	if err != nil {
		item.Why = err.Error()
		rec.Step = stepPark
		s.notef("still queued: %s of version %d of %q: %s", item.Step, item.Version, c.Name, item.Why)
	}
	rec.Evidence = evidence(keyParked, item)
	if werr := s.append(ctx, rec); werr != nil {
		return fmt.Errorf("recording the queue of %q: %w", c.Name, werr)
	}
	return nil
}

func stepNamed(p Procedure, item Parked) (Step, bool) {
	before, after := p.Steps(item.Phase)
	for _, st := range append(append([]Step(nil), before...), after...) {
		if st.Name == item.Step && (item.Undo && st.Undo != nil || !item.Undo && st.Do != nil) {
			return st, true
		}
	}
	return Step{}, false
}
