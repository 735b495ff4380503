package rotation

import (
	"context"
	"encoding/json"
	"fmt"
	"time"
)

// What a place with room for one version costs: a gap, which is announced,
// accepted, kept short and measured.

const stepActivate = "activate"

// gapped reports whether the backend accepts one version at a time.
func (s *Standard) gapped() bool {
	_, ok := s.Backend.(Gapped)
	return ok
}

// Gap says what fails for a time at a cutover, in a clause for people, or "".
func (s *Standard) Gap() string {
	if g, ok := s.Backend.(interface{ Gap() string }); ok { // a gapped one, or one that says what else must be accepted
		return g.Gap()
	}
	if s.Target.Traits().OneVersion {
		return "the target holds one value at a time: from the moment it is overwritten until " +
			"the backend takes the new value and the services read it, they hold none that works"
	}
	return ""
}

// errGap refuses a gap that nobody accepted.
func (s *Standard) errGap() error {
	if gap := s.Gap(); gap != "" && !s.Policy.AcceptGap {
		return Errorf(Refused, "accept it with accept-gap: true", "there is a moment without a version that works: %s", gap)
	}
	return nil
}

// probeInService tries the version that services use: of two, a gapped backend
// accepts one. Once the next one was activated it is another step's to try.
func (s *Standard) probeInService(ctx context.Context, c Credential, p Phase) (Result, error) {
	last := c.Last()
	const untold = "not provable before the cutover: the backend accepts one version at a time"
	if begun, _ := c.Open.happened(Activate, c.Open.To); begun || last.Number == 0 {
		return Result{Evidence: map[string]any{"new": untold}}, nil
	}
	l := s.probeUntil(ctx, last)
	r := Result{Evidence: map[string]any{"new": untold, "old": l}}
	switch {
	case ctx.Err() != nil:
		return r, ctx.Err()
	case l.Answer != Alive:
		return r, Errorf(Unknown, fmt.Sprintf("nothing was changed; run it again: keyturn %s %s", p, c.Name),
			"the current version does not work (%s): there would be no way back", l.Reason)
	}
	return r, nil
}

// began is what the step that opens a gap leaves for the one that measures it.
type began struct {
	At time.Time `json:"began"`
}

func (s *Standard) activate(ctx context.Context, c Credential) (Result, error) {
	return s.activated(ctx, c, c.Next())
}

// deactivate makes the version before the one in use again. The first version
// has none: its end comes with the undo of its arming.
func (s *Standard) deactivate(ctx context.Context, c Credential, _ json.RawMessage) error {
	if c.Last().Number == 0 {
		return nil
	}
	return s.Backend.(Activator).Activate(ctx, c.Last())
}

// noWayBack refuses to go back where services were moved.
func (s *Standard) noWayBack(o OneWay) func(context.Context, Credential) (Result, error) {
	return func(_ context.Context, c Credential) (Result, error) {
		return Result{}, Errorf(Refused, "the way is forward: keyturn cleanup "+c.Name+", then keyturn prepare "+c.Name,
			"version %d cannot be taken back: %s", c.Open.To, o.NoWayBack())
	}
}

func (s *Standard) activateLast(ctx context.Context, c Credential) (Result, error) {
	return s.activated(ctx, c, c.Last())
}

// activateAgain is what is left to do when a rollback is given up.
func (s *Standard) activateAgain(ctx context.Context, c Credential, _ json.RawMessage) error {
	return s.Backend.(Activator).Activate(ctx, c.Next())
}

// activated activates a version, and notes when the gap began: of a step that an
// earlier run had begun, that is when it did.
func (s *Standard) activated(ctx context.Context, c Credential, v Version) (Result, error) {
	var r Result
	if st, ok := c.Open.Step(c.Open.Phase, stepActivate, v.Number); s.gapped() && !(ok && st.Tried && len(st.Restore) > 0) {
		var err error
		if r.Restore, err = json.Marshal(began{s.now().UTC()}); err != nil {
			return r, fmt.Errorf("noting when the gap began: %w", err)
		}
	}
	return r, s.Backend.(Activator).Activate(ctx, v)
}

// probeActivated tries the next version as soon as it is accepted, before any
// service is moved to it. What fails here closes the gap.
func (s *Standard) probeActivated(ctx context.Context, c Credential) (Result, error) {
	if moved, _ := c.Open.happened(Move, c.Open.To); moved || s.Target.Traits().Unprobeable {
		return Result{Observed: true}, nil
	}
	n := s.probeUntil(ctx, c.Next())
	r := Result{Evidence: map[string]any{"new": n}}
	switch {
	case ctx.Err() != nil:
		return r, ctx.Err()
	case n.Answer == Alive:
		return r, nil
	case n.Answer == Inconclusive:
		return r, Errorf(Unknown, "no service was moved, and the version before is accepted again; run it again: keyturn cutover "+c.Name,
			"cannot tell whether version %d works: %s", c.Next().Number, n.Reason)
	}
	return r, Errorf(Failed, "start again: keyturn prepare "+c.Name, "version %d is %s: %s", c.Next().Number, n.Answer, n.Reason)
}

// measureGap says how long the gap was: from before the activation until every
// service was moved. Where a run was killed in it, it was longer.
func (s *Standard) measureGap(_ context.Context, c Credential) (Result, error) {
	phase, number := c.Open.Phase, c.Open.To
	if phase == Rollback {
		number = c.Open.From
	}
	st, ok := c.Open.Step(phase, stepActivate, number)
	var from began
	if !ok || json.Unmarshal(st.Restore, &from) != nil || from.At.IsZero() {
		return Result{}, nil
	}
	gap, least := s.now().Sub(from.At), ""
	if st.Tried {
		least = "at least "
	}
	return Result{Evidence: map[string]any{"gap_ms": gap.Milliseconds(), "interrupted": st.Tried},
		Note: fmt.Sprintf("the gap of %q took %s%s: %s", c.Name, least, gap.Round(10*time.Millisecond), s.Gap())}, nil
}
