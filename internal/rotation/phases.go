package rotation

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"
)

// attempts is how many numbers one rotation may burn: the first, and fresh ones
// after an interruption or a value that the backend would not take.
const attempts = 3

func (s *session) prepare(ctx context.Context) error {
	if s.id == "" {
		s.id = s.NewID()
	}
	for _, p := range s.procs {
		if err := s.prepareOne(ctx, p); err != nil {
			return s.failed(ctx, err)
		}
		if s.out.Outcome == Waiting {
			return nil
		}
	}
	if err := s.shift(ctx, Prepare, stepMount, Beside); err != nil {
		return s.failed(ctx, err)
	}
	return s.complete(ctx, Prepare)
}

// prepareOne brings one credential's next version to be accepted and stored,
// under a number that an interrupted run began if everything of it is in place.
func (s *session) prepareOne(ctx context.Context, p Procedure) error {
	c := s.view(p)
	if c.Open != nil && s.done(c) {
		return nil
	}
	if c.Open != nil && c.Next().State == Pending {
		verdict, err := p.Settle(ctx, c)
		if err != nil {
			return fmt.Errorf("looking at what is left of version %d of %q: %w", c.Next().Number, c.Name, err)
		}
		switch verdict {
		case Undecided:
			return Errorf(Unknown, "run it again: keyturn prepare "+c.Name,
				"cannot tell now what is left of version %d of %q", c.Next().Number, c.Name)
		case Discard:
			if err := s.discard(ctx, p); err != nil {
				return err
			}
		}
	}
	for {
		c = s.view(p)
		if c.Open != nil && c.Open.Discards >= attempts {
			return Errorf(Failed, "look at the journal: keyturn status "+c.Name, "%q: %d versions were tried in vain", c.Name, c.Open.Discards)
		}
		err := s.makeOne(ctx, p)
		if !errors.Is(err, ErrRejected) || ctx.Err() != nil {
			return err
		}
		// Another value may be taken.
		s.notef("version %d of %q was given up: %v", s.view(p).Next().Number, c.Name, err)
		if err := s.discard(ctx, p); err != nil {
			return err
		}
	}
}

// makeOne makes one number of a credential: drafted, then stored and accepted.
func (s *session) makeOne(ctx context.Context, p Procedure) error {
	c := s.view(p)
	before, _ := p.Steps(Prepare)
	pure, effects := split(before)
	if c.Open == nil || c.Next().State != Pending {
		s.drafts[c.Name] = Version{Credential: c.Name, Number: c.Burnt + 1, State: Pending}
		defer delete(s.drafts, c.Name)
	}
	if r, err := s.walk(ctx, p, Prepare, pure); err != nil {
		return err
	} else if r.Outcome == Waiting {
		s.wait(r)
		return nil
	}
	if err := s.intend(ctx, p); err != nil {
		return err
	}
	r, err := s.walk(ctx, p, Prepare, effects)
	if errors.Is(err, ErrRejected) {
		r, err = s.walk(ctx, p, Prepare, effects) // once more: what refused it may have been passing
	}
	if err == nil && r.Outcome == Waiting {
		s.wait(r)
	}
	return err
}

// split parts the steps without effect, which come first, from the others.
func split(steps []Step) (pure, effects []Step) {
	i := slices.IndexFunc(steps, func(st Step) bool { return st.Effect != None })
	if i < 0 {
		return steps, nil
	}
	return steps[:i], steps[i:]
}

// intend records the intent of prepare: number, identity, fingerprints, and how
// the services are now. From here on the number is burnt.
func (s *session) intend(ctx context.Context, p Procedure) error {
	c := s.view(p)
	before, err := s.snapshot(ctx, p, Cutover)
	if err != nil {
		return err
	}
	var batch []string
	for _, q := range s.procs {
		batch = append(batch, q.Credential())
	}
	rec := s.record(p, Prepare, stepPhase, RecordIntent, keyVersion, c.Next(), keyFrom, c.Open.From, keyBatch, batch, keyBefore, before)
	for key, found := range s.asides[c.Name] {
		maps.Copy(rec.Evidence, evidence(key, found))
	}
	if err := s.append(ctx, rec); err != nil {
		return err
	}
	delete(s.drafts, c.Name)
	return nil
}

// discard ends and removes what exists of the pending number, and burns it. The
// rotation stays open for the next number.
func (s *session) discard(ctx context.Context, p Procedure) error {
	if err := s.undo(ctx, p, Prepare); err != nil {
		return err
	}
	return s.append(ctx, s.record(p, Prepare, stepDiscard, RecordDone))
}

// intents records the intent of a later phase for every credential.
func (s *session) intents(ctx context.Context, phase Phase, pairs ...any) error {
	var records []Record
	for _, p := range s.procs {
		if c := s.view(p); c.Open == nil || s.done(c) && phase != Rollback {
			continue
		}
		records = append(records, s.record(p, phase, stepPhase, RecordIntent, pairs...))
	}
	if len(records) == 0 {
		return nil
	}
	return s.append(ctx, records...)
}

// approval is what an intent says of who approved it.
func (s *session) approval() []any {
	if s.opt.Approval == nil {
		return nil
	}
	return []any{KeyApproval, s.opt.Approval}
}

// complete records that a phase is done for every credential it was not done for.
func (s *session) complete(ctx context.Context, phase Phase, pairs ...any) error {
	var records []Record
	for _, p := range s.procs {
		if c := s.view(p); c.Open == nil || s.done(c) {
			continue
		}
		records = append(records, s.record(p, phase, stepPhase, RecordDone, pairs...))
	}
	if len(records) == 0 {
		s.notef("nothing to do: %s is done already", phase)
		return nil
	}
	return s.append(ctx, records...)
}

func (s *session) validate(ctx context.Context) error {
	if err := s.intents(ctx, Validate); err != nil {
		return err
	}
	if err := s.mountAgain(ctx); err != nil {
		return s.failed(ctx, err)
	}
	for _, p := range s.procs {
		if s.done(s.view(p)) {
			continue
		}
		before, after := p.Steps(Validate)
		r, err := s.walk(ctx, p, Validate, append(before, after...))
		if err != nil {
			return s.failed(ctx, err)
		}
		if r.Outcome == Waiting {
			s.wait(r)
			return nil
		}
	}
	return s.complete(ctx, Validate)
}

// mountAgain mounts the next versions beside the current ones where a deploy
// took them away since prepare. Where they are, nothing is touched.
func (s *session) mountAgain(ctx context.Context) error {
	if !s.begun(Beside) {
		return nil
	}
	n := len(s.out.Services)
	if err := s.shift(ctx, Validate, stepMount, Beside); err != nil {
		return err
	}
	for _, r := range s.out.Services[n:] {
		if r.Updated {
			s.notef("service %s had lost what prepare mounted: it is mounted again", r.Service)
		}
	}
	return nil
}

func (s *session) cutover(ctx context.Context) error {
	if err := s.intents(ctx, Cutover, s.approval()...); err != nil {
		return err
	}
	// The backends' halves come last, of all credentials together: what they cost
	// is over with the move.
	for _, part := range []pick{beforeActivation, fromActivation} {
		waits, err := s.each(ctx, Cutover, part)
		if err != nil {
			return s.failed(ctx, err)
		}
		if waits {
			return s.closeGap(ctx, Cutover)
		}
	}
	if err := s.shift(ctx, Cutover, stepMove, Move); err != nil {
		return s.failed(ctx, err)
	}
	// The services are on the new version: from here on the way is forward.
	if waits, err := s.each(ctx, Cutover, afterMove); err != nil || waits {
		return s.forward(err)
	}
	var records []Record
	for _, p := range s.procs {
		if s.done(s.view(p)) {
			continue
		}
		until := s.now().Add(s.overlap(p))
		records = append(records, s.record(p, Cutover, stepPhase, RecordDone, keyOverlap, until.UTC().Format(time.RFC3339)))
	}
	if len(records) == 0 {
		s.notef("nothing to do: %s is done already", Cutover)
	}
	return s.append(ctx, records...)
}

// forward marks an error after the move: nothing is undone, the phase is run again.
func (s *session) forward(err error) error {
	if err == nil || ctxError(err) || errors.Is(err, ErrLeaseLost) {
		return err
	}
	return Classify(Stuck, "the services work on the new version; run it again: "+s.again(Cutover), err)
}

// An Overlapper says how long its previous version stays valid after cutover.
type Overlapper interface{ Overlap() time.Duration }

func (s *session) overlap(p Procedure) time.Duration {
	if o, ok := p.(Overlapper); ok {
		return o.Overlap()
	}
	return 0
}

// A pick is a part of a phase's steps.
type pick func(before, after []Step) []Step

func beforeActivation(before, _ []Step) []Step { return before[:activation(before)] }

func fromActivation(before, _ []Step) []Step { return before[activation(before):] }

func afterMove(_, after []Step) []Step { return after }

// activation returns where the backend's half begins.
func activation(steps []Step) int {
	if i := slices.IndexFunc(steps, func(st Step) bool { return st.Effect == Activate }); i >= 0 {
		return i
	}
	return len(steps)
}

// each walks a part of the steps for every credential that needs them.
func (s *session) each(ctx context.Context, phase Phase, part pick) (waits bool, err error) {
	for _, p := range s.procs {
		if s.done(s.view(p)) {
			continue
		}
		r, err := s.walk(ctx, p, phase, part(p.Steps(phase)))
		if err != nil {
			return false, err
		}
		if r.Outcome == Waiting {
			s.wait(r)
			waits = true
		}
	}
	return waits, nil
}

func (s *session) rollback(ctx context.Context) error {
	if err := s.intents(ctx, Rollback, append(s.approval(), keyReason, s.opt.Reason)...); err != nil {
		return err
	}
	return s.halfway(s.back(ctx))
}

func ctxError(err error) bool {
	return errors.Is(err, context.Canceled)
}
