package rotationtest

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/keyturn/keyturn/internal/rotation"
	"github.com/keyturn/keyturn/internal/secret"
)

// core is what the backends of every shape share.
type core struct {
	w          *World
	credential string
	logins     []string
	activates  bool
}

// Preflight implements [rotation.Preflighter].
func (b *core) Preflight(ctx context.Context, _ rotation.Credential) error {
	return b.ask(ctx, "preflight", func(*system) error { return nil })
}

// ask runs a call that fails while the backend is down.
func (b *core) ask(ctx context.Context, name string, do func(*system) error) error {
	return b.w.call(ctx, name, func() error {
		s := b.w.systems[b.credential]
		if s == nil {
			return b.w.faultf("%s: there is no backend for %q", name, b.credential)
		}
		if s.down {
			return rotation.Errorf(rotation.Unknown, "", "%s: the backend does not answer", name)
		}
		return do(s)
	})
}

// free picks an identity that nobody has.
func (b *core) free(s *system, others []rotation.Version) (string, error) {
	for _, login := range b.logins {
		taken := slices.ContainsFunc(others, func(v rotation.Version) bool { return v.Identity == login })
		if a := s.accounts[login]; !taken && (a == nil || a.ended) {
			return login, nil
		}
	}
	return "", rotation.Errorf(rotation.Refused, "end one", "no login is free")
}

// Identify implements [rotation.Backend].
func (b *core) Identify(ctx context.Context, next rotation.Version, others []rotation.Version) (rotation.Version, error) {
	next = next.Clone()
	err := b.ask(ctx, "identify", func(s *system) (err error) {
		next.Identity, err = b.free(s, others)
		next.Public = map[string]string{"username": next.Identity}
		return err
	})
	return next, err
}

// Observe implements [rotation.Backend].
func (b *core) Observe(ctx context.Context, v rotation.Version) (st rotation.Standing, err error) {
	err = b.ask(ctx, "observe", func(s *system) error {
		st = standing(s, v)
		return nil
	})
	return st, err
}

func standing(s *system, v rotation.Version) rotation.Standing {
	a, ok := s.accounts[v.Identity]
	switch {
	case !ok || a.number != v.Number:
		return rotation.Standing{Status: rotation.Absent}
	case a.ended:
		return rotation.Standing{Status: rotation.Ended, Uses: slices.Clone(a.sessions)}
	case !a.until.IsZero():
		return rotation.Standing{Status: rotation.Expiring, Until: a.until, Uses: slices.Clone(a.sessions)}
	}
	return rotation.Standing{Status: rotation.Armed, Uses: slices.Clone(a.sessions)}
}

// accept lets a version in; it is what arming and minting do.
func (b *core) accept(s *system, v rotation.Version, value string, until time.Time) error {
	if v.Identity == "" {
		return b.w.faultf("arming version %d of %q without an identity", v.Number, v.Credential)
	}
	a, ok := s.accounts[v.Identity]
	if ok && !a.ended && a.number != v.Number {
		return fmt.Errorf("login %q is held by version %d", v.Identity, a.number)
	}
	if before, ok := s.armed[v.Number]; ok && before != value {
		return b.w.faultf("version %d of %q is armed with another value", v.Number, v.Credential)
	}
	if ok && a.number == v.Number {
		if a.ended {
			return b.w.faultf("version %d of %q is armed after its end", v.Number, v.Credential)
		}
		return nil // done already
	}
	s.armed[v.Number] = value
	s.accounts[v.Identity] = &account{number: v.Number, value: value, until: until}
	return b.w.effect("arm %s %d", v.Credential, v.Number)
}

// End implements [rotation.Backend]. Sessions are ended after the login was.
func (b *core) End(ctx context.Context, v rotation.Version, why rotation.Why) error {
	return b.ask(ctx, "end", func(s *system) error {
		a, ok := s.accounts[v.Identity]
		if !ok || a.number != v.Number {
			return nil
		}
		if b.activates && s.active == v.Identity {
			return fmt.Errorf("version %d is the active one", v.Number)
		}
		if !a.ended {
			a.ended = true
			if err := b.w.effect("end %s %d (%s)", v.Credential, v.Number, why); err != nil {
				return err
			}
		}
		if len(a.sessions) > 0 {
			a.sessions = nil
			return b.w.effect("end sessions of %s %d", v.Credential, v.Number)
		}
		return nil
	})
}

// ProbeSpec implements [rotation.Backend].
func (b *core) ProbeSpec(v rotation.Version) rotation.ProbeSpec {
	return rotation.ProbeSpec{Backend: "fake", Identity: v.Identity, Endpoints: []string{"fake://" + b.credential}}
}

// Lock implements [rotation.Locker].
func (b *core) Lock(ctx context.Context, credential string) (func(context.Context) error, error) {
	err := b.ask(ctx, "lock", func(*system) error {
		if b.w.locks[credential] {
			return rotation.Errorf(rotation.Refused, "wait", "%q is locked", credential)
		}
		b.w.locks[credential] = true
		return nil
	})
	if err != nil {
		return nil, err
	}
	return func(ctx context.Context) error {
		return b.w.call(ctx, "unlock", func() error { delete(b.w.locks, credential); return nil })
	}, nil
}

// expire sets or lifts the end of a version.
func (b *core) expire(ctx context.Context, v rotation.Version, until time.Time) error {
	return b.ask(ctx, "expire", func(s *system) error {
		a, ok := s.accounts[v.Identity]
		if !ok || a.number != v.Number || a.ended {
			return fmt.Errorf("version %d is not accepted", v.Number)
		}
		if a.until.Equal(until) {
			return nil
		}
		a.until = until
		return b.w.effect("expire %s %d", v.Credential, v.Number)
	})
}

// draft makes a value; nothing of the world changes.
func draft(v rotation.Version) rotation.Material {
	m := rotation.Material{"password": secret.Generate()}
	for field, value := range v.Public {
		m[field] = secret.FromString(value)
	}
	return m
}

// valueOf is what the world keeps of a value: enough to compare it.
func valueOf(m rotation.Material) string {
	return string(m["password"].Reveal())
}

// Login returns the login of a backend, as its clients have it.
func (w *World) Login(credential string) rotation.Login {
	return func(_ context.Context, spec rotation.ProbeSpec, m rotation.Material) rotation.ProbeResult {
		w.mu.Lock()
		defer w.mu.Unlock()
		s := w.systems[credential]
		end := rotation.EndpointResult{Endpoint: spec.Endpoints[0], Answer: rotation.Dead, Reason: "refused"}
		switch {
		case s.down:
			end.Answer, end.Reason = rotation.Inconclusive, "no answer"
		case w.accepts(s, spec.Identity, valueOf(m)):
			end.Answer, end.Reason = rotation.Alive, ""
		}
		return rotation.ProbeResult{Endpoints: []rotation.EndpointResult{end}}.Summarize()
	}
}

// Sessions returns how many sessions live by an identity.
func (w *World) Sessions(credential, identity string) int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return len(w.systems[credential].accounts[identity].sessions)
}

// Unlock lets go of a backend's lock, as if the session that held it had ended.
func (w *World) Unlock(credential string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	delete(w.locks, credential)
}
