package rotation

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
)

// A Revoker is a procedure whose versions can be ended at once.
type Revoker interface {
	Procedure

	// Revoke ends a version in the backend, whatever uses it, and reads back that it
	// is refused. What was ended already is success.
	Revoke(context.Context, Version) (map[string]any, error)
}

// Revoke ends, before anything else is looked at, every version of the credentials that
// services use or may go back to: what they use stops working at once. A version that
// is prepared and used by nobody is kept, for the services to be moved to. Each
// credential is ended for itself; the error joins what could not be, and names it. The
// reason is on the record first. Whoever has the lease loses it.
//
// The rotations themselves go on by [Engine.Do]: nothing measures itself by a version
// that was revoked.
func (e *Engine) Revoke(ctx context.Context, procs []Procedure, opt Options) (sum Summary, err error) {
	begun := e.now()
	opt.TakeOver = true
	s := newSession(e, Revoke, opt)
	s.procs, s.out = slices.Clone(procs), Summary{Phase: Revoke, Outcome: Done}
	if strings.TrimSpace(opt.Reason) == "" {
		return s.out, Errorf(Invalid, "say why: it stands in the record", "a revocation needs a reason")
	}
	if err := s.load(ctx); err != nil {
		return s.out, err
	}
	defer func() { err = s.closed(err, s.close(ctx)) }()
	var errs []error
	for _, p := range s.procs {
		if err := s.revokeOne(ctx, p); err != nil {
			errs = append(errs, fmt.Errorf("revoking %q: %w", p.Credential(), err))
		}
	}
	return s.finish(begun), joined(errs)
}

func (s *session) revokeOne(ctx context.Context, p Procedure) error {
	r, ok := p.(Revoker)
	if !ok {
		return Errorf(Refused, "", "its versions cannot be ended at once")
	}
	if err := s.lease(ctx, p.Credential()); err != nil {
		return err
	}
	c := s.view(p)
	versions := slices.DeleteFunc(c.Live(), func(v Version) bool { return v.State == Pending })
	if len(versions) == 0 {
		return Errorf(Refused, "take over what services use: keyturn adopt "+c.Name, "no version of it is on the record")
	}
	var numbers []int
	for _, v := range versions {
		numbers = append(numbers, v.Number)
	}
	note := Record{Credential: c.Name, Phase: Revoke, Step: stepRevoke, Status: RecordNote, Evidence: evidence(keyReason, s.opt.Reason, keyRevoked, numbers)}
	if err := s.append(ctx, note); err != nil {
		return err
	}
	var errs []error
	for _, v := range slices.Backward(versions) { // what is in service is what was stolen, most likely
		errs = append(errs, s.revokeVersion(ctx, r, v))
	}
	return errors.Join(errs...)
}

func (s *session) revokeVersion(ctx context.Context, p Revoker, v Version) error {
	begun := s.now()
	s.tell(Event{Credential: v.Credential, Version: v.Number, Phase: Revoke, Step: stepEnded, Status: RecordStarted})
	s.hook("before effect: revoke %d", v.Number)
	found, err := p.Revoke(s.within(ctx), v)
	s.hook("after effect: revoke %d", v.Number)
	status, text := RecordDone, ""
	if err != nil {
		status, text = RecordFailed, err.Error()
		found = map[string]any{"error": text}
	}
	s.tell(Event{Credential: v.Credential, Version: v.Number, Phase: Revoke, Step: stepEnded, Status: status, Elapsed: s.now().Sub(begun), Text: text})
	rec := Record{Credential: v.Credential, Version: v.Number, Identity: v.Identity, Phase: Revoke, Step: stepEnded, Status: RecordNote, Evidence: evidence("found", found)}
	return errors.Join(err, s.append(ctx, rec))
}

// applyRevoke notes which versions nothing may rely on any more.
func applyRevoke(c *Credential, r Record) error {
	reason, numbers := "", []int{}
	if !r.read(keyReason, &reason) || strings.TrimSpace(reason) == "" {
		return ruleBroken(c, r, "a revocation needs a reason")
	}
	r.read(keyRevoked, &numbers)
	c.Revoked = slices.Clone(c.Revoked)
	for _, n := range numbers {
		if !slices.Contains(c.Revoked, n) {
			c.Revoked = append(c.Revoked, n)
		}
	}
	return nil
}

// Revoke implements [Revoker].
func (s *Standard) Revoke(ctx context.Context, v Version) (map[string]any, error) {
	if err := s.Backend.End(ctx, v, ToRevoke); err != nil {
		return nil, err
	}
	standing, err := s.Backend.Observe(ctx, v)
	if err != nil {
		return nil, err
	}
	found := map[string]any{"administrator": standing.Status, "sessions": len(standing.Uses)}
	if standing.Status != Ended && standing.Status != Absent || len(standing.Uses) > 0 {
		return found, Errorf(Stuck, "run it again; see: keyturn status "+v.Credential, "version %d is %s for the administrator, with %d uses", v.Number, standing.Status, len(standing.Uses))
	}
	return found, nil
}

// Stricken reports whether what services use was revoked: they are not expected to be
// well, and a target must not wait for that before they are moved.
func (c Credential) Stricken() bool {
	v, ok := c.In(Current)
	return ok && revoked(c, v)
}

// revoked reports whether somebody ended a version at once: it is no control of
// anything, and no version to go back to.
func revoked(c Credential, v Version) bool {
	return v.Number != 0 && slices.Contains(c.Revoked, v.Number)
}
