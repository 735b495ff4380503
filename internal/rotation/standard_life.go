package rotation

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"time"
)

// liftNext makes the pending version valid without end, and reads that back.
func (s *Standard) liftNext(ctx context.Context, c Credential) (Result, error) {
	return s.lift(ctx, c.Next())
}

func (s *Standard) liftLast(ctx context.Context, c Credential) (Result, error) {
	return s.lift(ctx, c.Last())
}

// expireAgain gives the old version its fail-safe back when a rollback is given
// up before any service was moved.
func (s *Standard) expireAgain(ctx context.Context, c Credential, _ json.RawMessage) error {
	e, ok := s.Backend.(Expirer)
	last := c.Last()
	if !ok || last.Number == 0 || s.Target.Traits().OneVersion {
		return nil
	}
	until := c.OverlapUntil.Add(s.Policy.Grace)
	if soon := s.now().Add(s.Policy.Grace); until.Before(soon) {
		until = soon
	}
	return e.Expire(ctx, last, until.UTC())
}

func (s *Standard) lift(ctx context.Context, v Version) (Result, error) {
	standing, err := s.Backend.Observe(ctx, v)
	if err != nil {
		return Result{}, err
	}
	if standing.Status == Ended || standing.Status == Absent {
		hint := "start again: keyturn prepare " + v.Credential
		if v.State != Pending {
			hint = "the way is forward: keyturn cleanup " + v.Credential
		}
		return Result{}, Errorf(Failed, hint, "version %d is %s in the backend", v.Number, standing.Status)
	}
	e, ok := s.Backend.(Expirer)
	if !ok || standing.Status == Armed {
		return Result{Observed: true}, nil
	}
	if !standing.Until.IsZero() && !standing.Until.After(s.now()) {
		if v.State == Pending {
			return Result{}, Errorf(Failed, "start again: keyturn prepare "+v.Credential,
				"the time of version %d ran out %s", v.Number, standing.Until.UTC().Format(time.RFC3339))
		}
	}
	if err := e.Expire(ctx, v, time.Time{}); err != nil {
		return Result{}, err
	}
	standing, err = s.Backend.Observe(ctx, v)
	if err != nil {
		return Result{}, err
	}
	if standing.Status != Armed {
		return Result{}, fmt.Errorf("the expiry of version %d was lifted, and reads back as %s", v.Number, standing.Status)
	}
	return Result{}, nil
}

// rebound gives the pending version its bound again when a cutover is given up.
func (s *Standard) rebound(ctx context.Context, c Credential, _ json.RawMessage) error {
	e, ok := s.Backend.(Expirer)
	if !ok {
		return nil
	}
	standing, err := s.Backend.Observe(ctx, c.Next())
	if err != nil || standing.Status != Armed {
		return err
	}
	return e.Expire(ctx, c.Next(), s.now().Add(s.Policy.Bound))
}

// overwrite is the cutover of a target that holds one value: drafted (or minted), put
// and armed in one step, so that the value never rests anywhere else. There is no way
// back but forward: an interrupted one is done again with a fresh value.
func (s *Standard) overwrite(ctx context.Context, c Credential) (Result, error) {
	next := c.Next()
	if r, ok := c.Open.Step(Cutover, "overwrite", next.Number); ok && r.Done {
		return Result{Observed: true}, nil
	}
	minter, minted := s.Backend.(Minter)
	m, ok := s.material[next.Number]
	var err error
	if !ok {
		if minted {
			if o, ordered := minter.(Orderer); ordered {
				if next, err = o.Order(ctx, next); err != nil {
					return Result{}, err
				}
			}
			next, err = s.mintNext(ctx, minter, next)
		} else {
			next, err = s.draftNext(next)
		}
		if err != nil {
			return Result{}, err
		}
		m = s.material[next.Number]
	}
	defer m.Wipe()
	defer delete(s.material, next.Number)
	begun := s.now()
	if next, err = s.Target.Put(ctx, next, m); err != nil {
		return Result{}, Classify(Stuck, "run it again at once: keyturn cutover "+c.Name, err)
	}
	if minted { // it was accepted from its birth on
		return Result{Version: &next}, nil
	}
	if err := s.Backend.Arm(ctx, next, m, time.Time{}); err != nil {
		return Result{}, Classify(Stuck, "run it again at once: keyturn cutover "+c.Name, err)
	}
	return Result{Version: &next, Evidence: map[string]any{"gap_ms": s.now().Sub(begun).Milliseconds()}}, nil
}

// redraft drafts what overwrites, where a version is known by its value: that is on the
// record before anything hears of it. What a run that was cut off may have armed is in
// no hand of ours, and ended.
func (s *Standard) redraft(ctx context.Context, c Credential) (Result, error) {
	next := c.Next()
	if r, ok := c.Open.Step(Cutover, "overwrite", next.Number); ok && r.Done {
		return Result{Observed: true}, nil
	}
	if len(next.Fingerprints) > 0 {
		if err := s.Backend.End(ctx, next, ToDiscard); err != nil {
			return Result{}, err
		}
	}
	next, err := s.draftNext(next)
	return Result{Version: &next, Evidence: map[string]any{"public": next.Public}}, err
}

// expireLast sets the fail-safe: if nobody ever cleans up, the previous version
// ends by itself when overlap and grace are over.
func (s *Standard) expireLast(ctx context.Context, c Credential) (Result, error) {
	last := c.Last()
	if last.Number == 0 || revoked(c, last) {
		return Result{Observed: true}, nil
	}
	until := s.now().Add(s.Policy.Overlap + s.Policy.Grace).UTC()
	if err := s.Backend.(Expirer).Expire(ctx, last, until); err != nil {
		return Result{}, err
	}
	return Result{Evidence: map[string]any{"until": until.Format(time.RFC3339)}}, nil
}

// Tend implements [Procedure]. While services still use the previous version its
// expiry is lengthened, and cleanup waits; sessions alone get their grace.
func (s *Standard) Tend(ctx context.Context, c Credential) (Result, error) {
	last := c.Last()
	now := s.now()
	if last.Number == 0 {
		return Result{}, nil
	}
	uses, err := s.uses(ctx, last)
	if err != nil {
		return Result{}, err
	}
	stale := s.stale(c)
	evidence := map[string]any{}
	if err := s.renew(ctx, last, len(uses.services)+len(stale) > 0 && !s.Policy.Strict, evidence); err != nil {
		return Result{}, err
	}
	switch {
	case !s.Force && now.Before(c.OverlapUntil):
		return Result{Outcome: Waiting, For: "the overlap", Until: c.OverlapUntil, Evidence: evidence,
			Hint: "services may still be rolled back; to go on now: keyturn cleanup --force REASON " + c.Name}, nil
	case len(uses.services) > 0:
		return Result{Outcome: Waiting, For: "services that still use version " + fmt.Sprint(last.Number) + ": " + strings.Join(uses.services, ", "),
			Hint: uses.hint, Evidence: evidence}, nil
	case len(stale) > 0:
		return Result{Outcome: Waiting, For: "the stack file, which would bring version " + fmt.Sprint(last.Number) + " back: " + strings.Join(stale, "; "),
			Hint:     "keyturn status " + c.Name + " prints the change; or, without it: keyturn cleanup --force REASON " + c.Name,
			Evidence: evidence}, nil
	case len(uses.sessions) > 0 && !s.Force && now.Before(c.OverlapUntil.Add(s.Policy.Grace)):
		return Result{Outcome: Waiting, For: "sessions of version " + fmt.Sprint(last.Number) + ": " + strings.Join(uses.sessions, ", "),
			Until: c.OverlapUntil.Add(s.Policy.Grace), Hint: "they are ended when their grace is over", Evidence: evidence}, nil
	}
	return Result{Evidence: evidence}, nil
}

// stale returns what a deployment would make of the services that is not the
// version in use. Whoever forces a cleanup has said why it does not matter.
func (s *Standard) stale(c Credential) []string {
	if s.Blueprint == nil || s.Force {
		return nil
	}
	return s.Blueprint(c.Next())
}

type useList struct {
	services, sessions []string
	hint               string    // how to end the use by services
	until              time.Time // when a version that cannot be ended before ends by itself
}

// uses returns who still holds on to a version.
func (s *Standard) uses(ctx context.Context, v Version) (out useList, err error) {
	if out.services, out.hint, err = s.readers(ctx, v); err != nil {
		return out, err
	}
	standing, err := s.Backend.Observe(ctx, v)
	for _, u := range standing.Uses {
		out.sessions = append(out.sessions, strings.TrimSpace(u.Name+" "+u.Detail))
	}
	if _, ok := s.Backend.(Fading); ok && standing.Status == Expiring {
		out.until = standing.Until
	}
	return out, err
}

// readers returns the specs and tasks that read a version, and how to end that. A
// previous spec is no use that anybody must act on (removal moves it on), nor is an
// idle one.
func (s *Standard) readers(ctx context.Context, v Version) (out []string, hint string, err error) {
	hint = "deploy the stack file that names the new secret"
	h, err := s.Target.Observe(ctx, v)
	for _, u := range h.Uses {
		if u.Kind != "previous-spec" && !u.Idle {
			out = append(out, strings.TrimSpace(u.Kind+" "+u.Name+" "+u.Detail))
			hint = cmp.Or(u.Hint, hint)
		}
	}
	return out, hint, err
}

// renew lengthens the fail-safe of a version that is still used, never shortens
// it, and sets one where there is none: a rollback that was given up lifted it.
func (s *Standard) renew(ctx context.Context, v Version, used bool, evidence map[string]any) error {
	e, ok := s.Backend.(Expirer)
	if !ok || s.Target.Traits().OneVersion {
		return nil
	}
	standing, err := s.Backend.Observe(ctx, v)
	if err != nil {
		return err
	}
	until := s.now().Add(s.Policy.Overlap + s.Policy.Grace).UTC()
	late := standing.Status == Expiring && standing.Until.Before(until.Add(-(s.Policy.Overlap+s.Policy.Grace)/4))
	switch {
	case standing.Status == Armed:
		evidence["expiry"] = until.Format(time.RFC3339)
	case used && late:
		evidence["extended"] = until.Format(time.RFC3339)
	default:
		return nil
	}
	return e.Expire(ctx, v, until)
}

// ready looks whether the previous version can be ended: nothing that we can see
// would miss it, and the one that services use works. It has no effect, so that
// what it finds takes nobody's way back.
func (s *Standard) ready(ctx context.Context, c Credential) (Result, error) {
	last := c.Last()
	if _, ended := c.Open.happened(End, last.Number); ended || last.Number == 0 {
		return Result{Observed: true}, nil
	}
	uses, err := s.uses(ctx, last)
	if err != nil {
		return Result{}, err
	}
	if len(uses.services) > 0 {
		return Result{Outcome: Waiting, For: "services that use version " + fmt.Sprint(last.Number) + " again: " + strings.Join(uses.services, ", "),
			Hint: uses.hint}, nil
	}
	if uses.until.After(s.now()) {
		return Result{Outcome: Waiting, For: fmt.Sprintf("version %d, which ends by itself", last.Number), Until: uses.until}, nil
	}
	if !s.Target.Traits().Unprobeable && !revoked(c, c.Next()) && !s.faded(ctx, c.Next()) {
		if r := s.probeUntil(ctx, c.Next()); r.Answer != Alive {
			return Result{}, Errorf(Unknown, "run it again when it does: keyturn cleanup "+c.Name,
				"the current version %d does not answer (%s): the one before it is kept", c.Next().Number, r.Reason)
		}
	}
	if len(uses.sessions) == 0 {
		return Result{}, nil
	}
	return Result{Evidence: map[string]any{"sessions": len(uses.sessions), "clients": uses.sessions}}, nil
}

// endLast ends the previous version.
func (s *Standard) endLast(ctx context.Context, c Credential) (Result, error) {
	last := c.Last()
	if last.Number == 0 {
		return Result{Observed: true}, nil
	}
	return Result{}, s.Backend.End(ctx, last, ToRetire)
}

func (s *Standard) removeLast(ctx context.Context, c Credential) (Result, error) {
	last := c.Last()
	if last.Number == 0 || s.Target.Traits().OneVersion {
		return Result{Observed: true}, nil
	}
	return Result{}, s.Target.Remove(ctx, last)
}
