package rotation

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/keyturn/keyturn/internal/secret"
)

// Policy is what the configuration says of a credential's life.
type Policy struct {
	Every      time.Duration // how often it is rotated
	Overlap    time.Duration // how long the previous version stays valid after cutover
	Grace      time.Duration // how long after that its expiry waits
	Bound      time.Duration // how long a version may wait for its cutover
	MinimumAge time.Duration // how old the current version must be
	Strict     bool          // the expiry is not lengthened while it is used
	AcceptGap  bool          // one value at a time is accepted

	ProbeTimeout time.Duration // until a probe must have said alive; 0 means 30 s
	ProbeEvery   time.Duration // between tries; 0 means a second
	Drain        time.Duration // how long an abandoned version's sessions may take to end; 0 means 10 s
}

// Standard is the usual procedure: a backend that accepts two versions at once,
// and a target whose services are moved from one to the other.
type Standard struct {
	Name       string
	Backend    Backend
	Target     Target
	Placements []Placement
	Render     map[string]string // field → template
	Prints     *secret.Fingerprinter
	Policy     Policy
	Force      bool // cleanup does not wait for the overlap
	Emergency  bool // the current version's age does not matter
	Now        func() time.Time

	// Blueprint says where what services are deployed from, such as a stack file,
	// would make them read something else than a version. While it says anything
	// against the current version, the one before is kept: the next deployment
	// may put it back. Nil: nothing is known of that.
	Blueprint func(Version) []string

	material map[int]Material
}

var (
	_ Procedure  = (*Standard)(nil)
	_ Guard      = (*Standard)(nil)
	_ Overlapper = (*Standard)(nil)
)

// Credential implements [Procedure].
func (s *Standard) Credential() string { return s.Name }

// Overlap implements [Overlapper].
func (s *Standard) Overlap() time.Duration { return s.Policy.Overlap }

// Guard takes the backend's own lock, if it has one. Once nobody else is at
// work, what probes of killed runs left in the target goes.
func (s *Standard) Guard(ctx context.Context) (unlock func(context.Context) error, err error) {
	unlock, err = s.lock(ctx)
	if sweeper, ok := s.Target.(Sweeper); ok && err == nil {
		_ = sweeper.Sweep(ctx, s.Name) // the next run sweeps again
	}
	return unlock, err
}

func (s *Standard) lock(ctx context.Context) (func(context.Context) error, error) {
	if l, ok := s.Backend.(Locker); ok {
		return l.Lock(ctx, s.Name)
	}
	return func(context.Context) error { return nil }, nil
}

// Steps implements [Procedure].
func (s *Standard) Steps(p Phase) (before, after []Step) {
	switch p {
	case Prepare:
		return s.prepareSteps(), nil
	case Validate:
		return []Step{
			{Name: "probe", Do: s.validateProbe},
			{Name: "rights", Do: s.compare},
			{Name: "healthy", Healthy: true, Do: s.healthy},
		}, nil
	case Cutover:
		return s.cutoverSteps()
	case Cleanup:
		return []Step{
			{Name: "ready", On: LastVersion, Do: s.ready},
			{Name: "end", Effect: End, On: LastVersion, Do: s.endLast},
			{Name: "proof", Effect: Prove, On: LastVersion, Do: s.prove},
			{Name: "remove", Effect: Remove, On: LastVersion, Do: s.removeLast},
		}, nil
	case Rollback:
		return s.rollbackSteps()
	}
	return nil, nil
}

func (s *Standard) prepareSteps() []Step {
	steps := []Step{
		{Name: "preflight", Do: s.preflight},
		{Name: "identify", Do: s.identify},
	}
	if s.Target.Traits().OneVersion {
		return steps // putting is the cutover
	}
	put := Step{Name: "put", Effect: Put, Do: s.put, Undo: s.unput}
	if _, ordered := s.Backend.(Orderer); ordered {
		steps = append(steps, Step{Name: "order", Effect: Mint, Do: s.order, Undo: s.disarm})
	}
	if _, minted := s.Backend.(Minter); minted {
		return append(steps, Step{Name: "mint", Effect: Mint, Do: s.mint, Undo: s.disarm}, put)
	}
	return append(steps, Step{Name: "draft", Do: s.draft}, put, Step{Name: "arm", Effect: Arm, Do: s.arm, Undo: s.disarm})
}

func (s *Standard) cutoverSteps() (before, after []Step) {
	before = append(before, Step{Name: "healthy", Healthy: true, Do: s.stillHealthy})
	if s.Target.Traits().OneVersion {
		if _, ok := s.Backend.(Recognizer); ok {
			before = append(before, Step{Name: "draft", Do: s.redraft})
		}
		before = append(before, Step{Name: "overwrite", Effect: Put, Do: s.overwrite})
	} else {
		before = append(before,
			Step{Name: "lift bound", Effect: Bound, Do: s.liftNext, Undo: s.rebound},
			Step{Name: "probe", Do: s.cutoverProbe})
	}
	if _, ok := s.Backend.(Activator); ok {
		before = append(before, Step{Name: stepActivate, Effect: Activate, Gap: s.gapped(), Do: s.activate, Undo: s.deactivate})
	}
	if s.gapped() {
		before = append(before, Step{Name: "probe new", Do: s.probeActivated})
		after = append(after, Step{Name: "gap", Do: s.measureGap})
	}
	if _, ok := s.Backend.(Displayed); ok && s.tryable() {
		after = append(after, Step{Name: "shown", Do: s.probeShown})
	}
	if _, ok := s.Backend.(Expirer); ok && !s.Target.Traits().OneVersion {
		after = append(after, Step{Name: "expire old", Effect: Bound, On: LastVersion, Do: s.expireLast})
	}
	return before, after
}

func (s *Standard) rollbackSteps() (before, after []Step) {
	if o, ok := s.Backend.(OneWay); ok {
		before = append(before, Step{Name: "way back", On: LastVersion, Do: s.noWayBack(o)})
	}
	before = append(before, Step{Name: "lift expiry", Effect: Bound, On: LastVersion, Do: s.liftLast, Undo: s.expireAgain})
	if s.gapped() { // else the old version is accepted all the time, and activated when services read it again
		before = append(before, Step{Name: stepActivate, Effect: Activate, Gap: true, On: LastVersion, Do: s.activateLast, Undo: s.activateAgain})
		after = append(after, Step{Name: "gap", On: LastVersion, Do: s.measureGap})
	}
	return append(before, Step{Name: "probe old", On: LastVersion, Do: s.probeLast}), after
}

// Shifts implements [Procedure].
func (s *Standard) Shifts(p Phase, c Credential) (Target, []Shift) {
	next, last := c.Next(), c.Last()
	main := last
	var beside *Version
	switch p {
	case Prepare, Validate:
		if last.Number == 0 {
			return nil, nil // a first version is mounted by the cutover alone
		}
		beside = &next
	case Cutover:
		main = next
	case Rollback:
		if last.Number == 0 {
			return nil, nil
		}
	default:
		return nil, nil
	}
	var shifts []Shift
	for _, place := range s.Placements {
		if beside != nil && place.Mounts != Dual {
			continue
		}
		shifts = append(shifts, Shift{Placement: place, Main: main, Beside: beside})
	}
	return s.Target, shifts
}

// Settle implements [Procedure]: the version is kept if its value is stored
// completely and works.
func (s *Standard) Settle(ctx context.Context, c Credential) (Verdict, error) {
	next := c.Next()
	if s.Target.Traits().OneVersion {
		return Keep, nil
	}
	holding, err := s.Target.Observe(ctx, next)
	if err != nil {
		return Undecided, err
	}
	standing, err := s.Backend.Observe(ctx, next)
	if err != nil {
		return Undecided, err
	}
	if holding.Complete && standing.Status == Staged {
		return Keep, nil // stored, then staged, by one process: it can be tried when it is activated
	}
	if !holding.Complete || standing.Status != Armed && standing.Status != Expiring {
		return Discard, nil
	}
	if s.Target.Traits().Unprobeable {
		return Discard, nil // nobody can say whether the parts belong together
	}
	next.Objects = holding.Objects
	switch r := s.probeUntil(ctx, next); r.Answer {
	case Alive:
		return Keep, nil
	case Dead, Unfit:
		return Discard, nil
	}
	return Undecided, nil
}

func (s *Standard) now() time.Time {
	if s.Now != nil {
		return s.Now()
	}
	return time.Now()
}

func (s *Standard) preflight(ctx context.Context, c Credential) (Result, error) {
	if err := s.errGap(); err != nil {
		return Result{}, err
	}
	fresh := c.Open == nil || len(c.Open.Steps) == 0
	if age := s.now().Sub(c.CutoverAt); fresh && !s.Emergency && !c.CutoverAt.IsZero() && age < s.Policy.MinimumAge {
		return Result{}, Errorf(Refused, "an emergency does not wait: --emergency",
			"the current version is %s old, want at least %s", age.Round(time.Second), s.Policy.MinimumAge)
	}
	if err := s.foreign(ctx, c); err != nil {
		return Result{}, err
	}
	for _, part := range []any{s.Backend, s.Target} {
		if p, ok := part.(Preflighter); ok {
			if err := p.Preflight(ctx, c); err != nil {
				return Result{}, err
			}
		}
	}
	if s.Emergency {
		return Result{Evidence: map[string]any{"emergency": true}}, nil
	}
	return Result{}, nil
}

// foreign refuses objects of versions that the journal does not know: another
// journal rotates the same credential, or this one lost its end.
func (s *Standard) foreign(ctx context.Context, c Credential) error {
	orphans, err := s.Target.Orphans(ctx, c.Name)
	if err != nil {
		return err
	}
	for _, o := range orphans {
		if o.Version.Number > c.Burnt || !onRecord(c, o.Version) {
			return Errorf(Refused, "if nobody else rotates it, remove the objects by hand: "+names(o.Version.Objects),
				"version %d of %q stands in the target and not in this journal (rotation %q)", o.Version.Number, c.Name, o.Rotation)
		}
	}
	return nil
}

func onRecord(c Credential, v Version) bool {
	_, ok := c.Version(v.Number)
	return ok
}

func names(objects map[string]Object) string {
	var out []string
	for _, o := range objects {
		out = append(out, o.Name)
	}
	slices.Sort(out)
	return fmt.Sprint(out)
}

func (s *Standard) preflightTarget(ctx context.Context, c Credential) (Result, error) {
	if p, ok := s.Target.(Preflighter); ok {
		return Result{}, p.Preflight(ctx, c)
	}
	return Result{}, nil
}

// stillHealthy is healthy before the services are moved: days may have passed
// since validation, and a release that is stuck would be rolled on by the move.
func (s *Standard) stillHealthy(ctx context.Context, c Credential) (Result, error) {
	if moved, _ := c.Open.happened(Move, c.Open.To); moved {
		return Result{Observed: true}, nil
	}
	return s.healthy(ctx, c)
}

// healthy waits until the services are well and nobody changes them. What is in
// the way of that says nothing against the new version: it is not taken back.
func (s *Standard) healthy(ctx context.Context, c Credential) (Result, error) {
	if revoked(c, c.Last()) {
		return Result{Evidence: map[string]any{"services": "not looked at: what they use was revoked"}}, nil
	}
	limit := s.Policy.ProbeTimeout
	if limit == 0 {
		limit = 30 * time.Second
	}
	for end := time.Now().Add(limit); ; {
		r, err := s.preflightTarget(ctx, c)
		if err == nil {
			return r, nil
		}
		if time.Now().After(end) || pause(ctx, time.Second) != nil {
			class := Unknown
			if ClassOf(err) == Refused {
				class = Refused
			}
			return r, Classify(class, HintOf(err), fmt.Errorf("nothing was undone: %w", err))
		}
	}
}

func pause(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-t.C:
		return nil
	}
}
