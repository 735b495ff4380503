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

// The steps of prepare, each with its way back.

func (s *Standard) identify(ctx context.Context, c Credential) (Result, error) {
	next := c.Next()
	if next.Identity != "" {
		return Result{Observed: true}, nil
	}
	others := slices.DeleteFunc(c.Live(), func(v Version) bool { return v.Number == next.Number })
	v, err := s.Backend.Identify(ctx, next, others)
	if err != nil {
		return Result{}, err
	}
	return Result{Version: &v}, nil
}

func (s *Standard) draft(_ context.Context, c Credential) (Result, error) {
	next := c.Next()
	if len(next.Fingerprints) > 0 {
		return Result{Observed: true}, nil // the value is where an earlier run put it
	}
	next, err := s.draftNext(next)
	if err != nil {
		return Result{}, err
	}
	return Result{Version: &next}, nil
}

// draftNext drafts the value of a version, holds it, and notes what it is known by.
func (s *Standard) draftNext(v Version) (Version, error) {
	drafter, ok := s.Backend.(Drafter)
	if !ok {
		return v, errors.New("the backend neither drafts nor mints values")
	}
	m, err := drafter.Draft(v)
	if err != nil {
		return v, err
	}
	if r, ok := s.Backend.(Recognizer); ok {
		if v, err = r.Recognize(v, m); err != nil {
			return v, err
		}
	}
	return s.keep(v, m)
}

// keep renders the fields, holds the material until it is armed, and notes the
// fingerprints of what is secret.
func (s *Standard) keep(v Version, m Material) (Version, error) {
	if err := Render(m, s.Render); err != nil {
		return v, err
	}
	if s.material == nil {
		s.material = map[int]Material{}
	}
	s.material[v.Number] = m
	v.Fingerprints = map[string]string{}
	for field, value := range m {
		if _, public := v.Public[field]; !public {
			v.Fingerprints[field] = s.Prints.Fingerprint(v.Credential+"/"+field, value)
		}
	}
	return v, nil
}

// order asks for the version that is then minted. One that was asked for by a run that
// was cut off is given up with its number, unless its value is stored already.
func (s *Standard) order(ctx context.Context, c Credential) (Result, error) {
	next := c.Next()
	if len(next.Fingerprints) > 0 {
		return Result{Observed: true}, nil
	}
	v, err := s.Backend.(Orderer).Order(ctx, next)
	if err != nil {
		return Result{}, err
	}
	return Result{Version: &v}, nil
}

func (s *Standard) mint(ctx context.Context, c Credential) (Result, error) {
	next := c.Next()
	if len(next.Fingerprints) > 0 {
		return Result{Observed: true}, nil
	}
	v, err := s.mintNext(ctx, s.Backend.(Minter), next)
	if err != nil {
		return Result{}, err
	}
	return Result{Version: &v}, nil
}

// mintNext has the backend make the value of a version, holds it, and notes what it is
// known by.
func (s *Standard) mintNext(ctx context.Context, minter Minter, v Version) (Version, error) {
	v, m, err := minter.Mint(ctx, v)
	if err != nil {
		return v, err
	}
	return s.keep(v, m)
}

func (s *Standard) put(ctx context.Context, c Credential) (Result, error) {
	next := c.Next()
	m, ok := s.material[next.Number]
	if !ok {
		return s.findPut(ctx, next)
	}
	v, err := s.Target.Put(ctx, next, m)
	if err != nil {
		return Result{}, err
	}
	return Result{Version: &v}, nil
}

// findPut goes on from a version that an earlier run stored.
func (s *Standard) findPut(ctx context.Context, next Version) (Result, error) {
	h, err := s.Target.Observe(ctx, next)
	if err != nil {
		return Result{}, err
	}
	if !h.Complete {
		return Result{}, fmt.Errorf("version %d is not complete in the target", next.Number)
	}
	next.Objects = h.Objects
	return Result{Version: &next, Observed: true}, nil
}

func (s *Standard) unput(ctx context.Context, c Credential, _ json.RawMessage) error {
	next := c.Next()
	h, err := s.Target.Observe(ctx, next)
	if err != nil {
		return err
	}
	if len(h.Objects) == 0 {
		return nil
	}
	next.Objects = h.Objects
	return s.Target.Remove(ctx, next)
}

func (s *Standard) arm(ctx context.Context, c Credential) (Result, error) {
	next := c.Next()
	m, ok := s.material[next.Number]
	if !ok {
		return Result{Observed: true}, nil // settled: it is armed and works
	}
	if err := s.stored(ctx, next); err != nil {
		return Result{}, err
	}
	if err := s.Backend.Arm(ctx, next, m, s.now().Add(s.Policy.Bound)); err != nil {
		return Result{}, err
	}
	m.Wipe()
	delete(s.material, next.Number)
	return Result{}, s.stored(ctx, next)
}

// stored makes sure that the value is still where services will read it: what
// is armed must never be lost.
func (s *Standard) stored(ctx context.Context, v Version) error {
	h, err := s.Target.Observe(ctx, v)
	if err != nil {
		return err
	}
	if !h.Complete {
		return fmt.Errorf("the stored value of version %d is gone", v.Number)
	}
	return nil
}

// loginTime is how long a version that services read until now must have been without a session
// before it is ended: who has read it may be about to log in.
const loginTime = time.Second

// disarm ends a version that is given up, once its sessions had time to end. A
// service that reads it all the same, one that nobody declared, keeps it: the
// end waits in the retirement queue.
func (s *Standard) disarm(ctx context.Context, c Credential, _ json.RawMessage) error {
	next := c.Next()
	services, _, err := s.readers(ctx, next)
	if err != nil {
		return err
	}
	if len(services) > 0 {
		return Classify(Failed, "move it to the version that is in service",
			fmt.Errorf("ending version %d of %q: %w: %s", next.Number, next.Credential, ErrInUse, strings.Join(services, ", ")))
	}
	drain := s.Policy.Drain
	if drain == 0 {
		drain = 10 * time.Second
	}
	var quiet time.Duration
	if slices.ContainsFunc(c.Open.Steps, func(s StepState) bool { return s.Effect == Move || s.Effect == Beside }) {
		quiet = loginTime
	}
	begun := time.Now()
	for unused := begun; ; {
		standing, err := s.Backend.Observe(ctx, next)
		if err != nil {
			return err
		}
		// Absent may be an arming that is still under way: the end holds it off.
		if standing.Status == Ended && len(standing.Uses) == 0 {
			return nil
		}
		if len(standing.Uses) > 0 {
			unused = time.Now()
		}
		if time.Since(unused) >= quiet && len(standing.Uses) == 0 || time.Since(begun) > drain {
			return s.Backend.End(ctx, next, ToDiscard)
		}
		if err := pause(ctx, 200*time.Millisecond); err != nil {
			return err
		}
	}
}
