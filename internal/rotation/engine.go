package rotation

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
)

// undoTime bounds an automatic rollback. Each move of a service has a limit of
// its own, so this is only for what never ends.
const undoTime = time.Hour

// An Engine walks the steps of procedures, phase by phase.
type Engine struct {
	Journal Journal
	Leaser  Leaser
	Run     Holder            // who we are; phase, epoch and deadline are filled in
	Dead    func(Holder) bool // whether a holder is known to be dead; nil means never

	LeaseTime time.Duration    // of a phase's lease; 0 means two hours
	Now       func() time.Time // nil means time.Now
	NewID     func() string    // makes rotation ids: unique, sortable by time
	Watch     func(Event)      // told of what happens; nil means nobody
	Hook      func(at string)  // called around every record and effect; for crash tests
}

// An Event tells of progress.
type Event struct {
	Credential string
	Version    int
	Phase      Phase
	Step       string
	Status     RecordStatus
	Elapsed    time.Duration
	Text       string
}

// Options says how a phase is run.
type Options struct {
	Force    string // the reason not to wait for the overlap; "" waits
	Reason   string // of a rollback
	TakeOver bool   // take a lease from a holder that may be alive
	Plan     string // hash of the plan that was approved
	Approval any    // who approved it and how that is known, in a form that has JSON; nil: nobody was asked
}

// A Summary says what a run of a phase came to.
type Summary struct {
	Phase       Phase           `json:"phase"`
	Rotation    string          `json:"rotation,omitempty"`
	Outcome     Outcome         `json:"outcome"`
	For         string          `json:"for,omitempty"`
	Until       time.Time       `json:"until,omitzero"`
	Hint        string          `json:"hint,omitempty"`
	Credentials []Position      `json:"credentials"`
	Services    []ServiceReport `json:"services,omitempty"`
	Notes       []string        `json:"notes,omitempty"`
	Millis      int64           `json:"ms"`
}

// A Position says where a credential stands after a run.
type Position struct {
	Name     string    `json:"name"`
	Current  int       `json:"current,omitempty"`
	Pending  int       `json:"pending,omitempty"`
	Previous int       `json:"previous,omitempty"`
	Until    time.Time `json:"previous_until,omitzero"`
	Queue    int       `json:"queue,omitempty"`
}

// session is one run of one phase.
type session struct {
	*Engine
	phase  Phase
	opt    Options
	procs  []Procedure
	ledger *Ledger
	leases map[string]Lease
	drafts map[string]Version        // versions that are not on the record yet
	asides map[string]map[string]any // what was found while drafting, for the intent
	passed map[string]error          // at cleanup: credentials that nothing can be done for now, and why
	id     string                    // of the rotation
	well   time.Time                 // when the services were last seen healthy
	cause  *Cause                    // the first failure
	out    Summary
}

func newSession(e *Engine, phase Phase, opt Options) *session {
	return &session{Engine: e, phase: phase, opt: opt, leases: map[string]Lease{}, drafts: map[string]Version{},
		asides: map[string]map[string]any{}, passed: map[string]error{}}
}

// Do runs a phase for a batch of credentials: all of them belong to one open
// rotation, or none to any. What is done already is not done again. The error's
// class says what is left; see [ClassOf]. A cancelled context stops the run
// after the step in hand, with nothing undone: the next run goes on.
func (e *Engine) Do(ctx context.Context, phase Phase, procs []Procedure, opt Options) (sum Summary, err error) {
	begun := e.now()
	s := newSession(e, phase, opt)
	s.procs = slices.SortedFunc(slices.Values(procs), func(a, b Procedure) int { return strings.Compare(a.Credential(), b.Credential()) })
	s.out = Summary{Phase: phase, Outcome: Done}
	if err := s.load(ctx); err != nil {
		return s.out, err
	}
	if err := s.gate(); err != nil || s.out.For != "" {
		return s.finish(begun), err
	}
	defer func() { err = s.closed(err, s.close(ctx)) }()
	unlock, err := s.enter(ctx)
	defer unlock()
	if err != nil {
		return s.finish(begun), err
	}
	err = s.run(ctx)
	return s.finish(begun), err
}

// closed joins what came of a run and what kept its leases from being given back.
func (s *session) closed(err, closing error) error {
	switch {
	case closing == nil:
		return err
	case err == nil:
		return Classify(Unknown, "nothing needs to be done again; the lease ends by itself, or with --take-over",
			fmt.Errorf("%s is done, but: %w", s.phase, closing))
	}
	return errors.Join(err, closing)
}

func (s *session) load(ctx context.Context) (err error) {
	if s.ledger, err = ReadLedger(ctx, s.Journal); err != nil {
		return fmt.Errorf("reading the journal: %w", err)
	}
	return nil
}

// enter takes the leases, in the order of the names, and the backends' locks.
func (s *session) enter(ctx context.Context) (unlock func(), err error) {
	var unlocks []func(context.Context) error
	unlock = func() {
		ctx, cancel := aside(ctx, 2*time.Second)
		defer cancel()
		for _, u := range slices.Backward(unlocks) {
			_ = u(ctx) // the session that holds the lock ends with us
		}
	}
	for _, p := range s.procs {
		if err := s.lease(ctx, p.Credential()); err != nil {
			return unlock, err
		}
	}
	// What others did until the leases were ours is on the record by now.
	if err := s.gate(); err != nil {
		return unlock, err
	}
	for _, p := range s.procs {
		g, ok := p.(Guard)
		if !ok {
			continue
		}
		u, err := g.Guard(ctx)
		if err == nil {
			unlocks = append(unlocks, u)
			continue
		}
		err = fmt.Errorf("locking %q: %w", p.Credential(), err)
		if HintOf(err) == "" && ClassOf(err) == Unknown {
			err = Classify(Unknown, "nothing was changed; run it again when the backend answers", err)
		}
		if s.phase != Cleanup || ctx.Err() != nil {
			return unlock, err
		}
		s.passed[p.Credential()] = err // the others' old versions are looked after all the same
	}
	return unlock, nil
}

func (s *session) lease(ctx context.Context, name string) error {
	want := s.Run
	want.Phase, want.Epoch = s.phase, s.ledger.Credential(name).Holder.Epoch
	life := s.LeaseTime
	if life == 0 {
		life = 2 * time.Hour
	}
	want.Deadline = s.now().Add(life)
	lease, err := s.Leaser.Acquire(ctx, name, want, s.Dead, s.opt.TakeOver)
	if busy, ok := errors.AsType[*BusyError](err); ok {
		return Classify(Refused, "wait for it, or take over with --take-over if you know that it is dead", busy)
	}
	if err != nil {
		return fmt.Errorf("taking the lease of %q: %w", name, err)
	}
	s.leases[name] = lease
	if err := s.load(ctx); err != nil {
		return err
	}
	if s.ledger.Credential(name).Holder.Epoch >= lease.Holder().Epoch {
		return nil // the leaser keeps its leases in the journal
	}
	return s.append(ctx, leaseRecord(name, lease.Holder(), s.opt.TakeOver))
}

// leaseRecord says who holds the lease of a credential from now on, and whether
// it was to be taken from a holder that may be alive.
func leaseRecord(credential string, h Holder, takeOver bool) Record {
	r := Record{Credential: credential, Phase: h.Phase, Step: stepLease, Status: RecordNote, Evidence: evidence(keyHolder, h)}
	if takeOver {
		r.Evidence["take_over"] = json.RawMessage("true")
	}
	return r
}

// close gives the leases back, also after a cancellation: then in less time, for a
// runner soon kills what it has cancelled.
func (s *session) close(ctx context.Context) error {
	limit := 5 * time.Second
	if ctx.Err() != nil {
		limit = 3 * time.Second
	}
	ctx, cancel := aside(ctx, limit)
	defer cancel()
	var errs []error
	for _, p := range slices.Backward(s.procs) {
		if lease, ok := s.leases[p.Credential()]; ok {
			errs = append(errs, s.release(ctx, p.Credential(), lease))
		}
	}
	return errors.Join(errs...)
}

// release gives one lease back, and says so in the journal if it is kept elsewhere.
func (s *session) release(ctx context.Context, name string, lease Lease) error {
	err := lease.Release(ctx)
	switch _, inJournal := lease.(*journalLease); {
	case errors.Is(err, ErrLeaseLost):
		return nil
	case err != nil:
		return fmt.Errorf("releasing the lease of %q: %w", name, err)
	case inJournal:
		return nil
	}
	return s.append(ctx, Record{Credential: name, Phase: s.phase, Step: stepRelease, Status: RecordNote})
}

// aside returns a context that outlives ctx's end, for a bounded time.
func aside(ctx context.Context, d time.Duration) (context.Context, context.CancelFunc) {
	return context.WithTimeout(context.WithoutCancel(ctx), d)
}

func (s *session) run(ctx context.Context) error {
	if err := s.retryQueue(ctx); err != nil {
		return err
	}
	if s.standsAt(Rollback) && s.phase != Rollback {
		if err := s.halfway(s.back(ctx)); err != nil {
			return err
		}
		s.notef("an interrupted rollback was brought to its end")
		s.id = ""
		if s.phase != Prepare {
			return Errorf(Failed, "start again: keyturn prepare", "the rotation was rolled back")
		}
	}
	switch s.phase {
	case Prepare:
		return s.prepare(ctx)
	case Validate:
		return s.validate(ctx)
	case Cutover:
		return s.cutover(ctx)
	case Cleanup:
		return s.cleanup(ctx)
	case Rollback:
		return s.rollback(ctx)
	}
	return Errorf(Invalid, "", "no phase is called %q", s.phase)
}

// standsAt reports whether any credential's rotation stands at a phase that is
// begun and not complete.
func (s *session) standsAt(p Phase) bool {
	return slices.ContainsFunc(s.procs, func(proc Procedure) bool {
		at, complete := s.view(proc).At(p)
		return at && !complete
	})
}

// view returns what is known of a procedure's credential, with the version that
// is being drafted and not on the record yet.
func (s *session) view(p Procedure) Credential {
	c := s.ledger.Credential(p.Credential())
	draft, ok := s.drafts[c.Name]
	if !ok {
		return c
	}
	if c.Open == nil {
		last, _ := c.In(Current)
		c.Open = &Rotation{ID: s.id, Phase: Prepare, From: last.Number}
	}
	c.Open.To = draft.Number
	c.set(draft.Clone())
	return c
}

func (s *session) finish(begun time.Time) Summary {
	s.out.Rotation, s.out.Millis = s.id, s.now().Sub(begun).Milliseconds()
	s.out.Credentials = nil
	for _, p := range s.procs {
		s.out.Credentials = append(s.out.Credentials, PositionOf(s.ledger.Credential(p.Credential())))
	}
	return s.out
}

// PositionOf returns where a credential stands.
func PositionOf(c Credential) Position {
	number := func(s State) int { v, _ := c.In(s); return v.Number }
	pos := Position{Name: c.Name, Current: number(Current), Pending: number(Pending), Previous: number(Previous), Queue: len(c.Queue)}
	if pos.Previous != 0 {
		pos.Until = c.OverlapUntil
	}
	return pos
}

func (s *session) notef(format string, args ...any) {
	s.out.Notes = append(s.out.Notes, fmt.Sprintf(format, args...))
}

// wait notes what a credential waits for; of a batch, all of it.
func (s *session) wait(r Result) {
	if s.out.For != "" && s.out.For != r.For {
		r.For = s.out.For + "; " + r.For
	}
	s.out.Outcome, s.out.For, s.out.Hint = Waiting, r.For, r.Hint
	if s.out.Until.IsZero() || r.Until.After(s.out.Until) {
		s.out.Until = r.Until
	}
}

func (e *Engine) now() time.Time {
	if e.Now != nil {
		return e.Now()
	}
	return time.Now()
}

func (e *Engine) hook(format string, args ...any) {
	if e.Hook != nil {
		e.Hook(fmt.Sprintf(format, args...))
	}
}

func (e *Engine) tell(ev Event) {
	if e.Watch != nil {
		e.Watch(ev)
	}
}

// evidence builds a record's evidence from keys and values in turn. It panics on
// what cannot be encoded, which is a mistake in the program.
func evidence(pairs ...any) map[string]json.RawMessage {
	out := map[string]json.RawMessage{}
	for i := 0; i+1 < len(pairs); i += 2 {
		b, err := json.Marshal(pairs[i+1])
		if err != nil {
			panic("rotation: evidence " + fmt.Sprint(pairs[i]) + ": " + err.Error())
		}
		out[pairs[i].(string)] = b
	}
	return out
}
