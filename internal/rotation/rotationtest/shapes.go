package rotationtest

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/keyturn/keyturn/internal/rotation"
)

// Drafted is a fake backend whose values we choose: logins in turn, each with
// an expiry, as in a database.
type Drafted struct{ core }

var (
	_ rotation.Backend  = (*Drafted)(nil)
	_ rotation.Drafter  = (*Drafted)(nil)
	_ rotation.Expirer  = (*Drafted)(nil)
	_ rotation.Comparer = (*Drafted)(nil)
	_ rotation.Adopter  = (*Drafted)(nil)
	_ rotation.Locker   = (*Drafted)(nil)
)

// Drafted returns the drafted backend of a credential, with three logins.
func (w *World) Drafted(credential string) *Drafted {
	return &Drafted{w.core(credential, credential+"_a", credential+"_b", credential+"_c")}
}

func (w *World) core(credential string, logins ...string) core {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.systems[credential] == nil {
		w.systems[credential] = &system{accounts: map[string]*account{}, armed: map[int]string{}}
	}
	return core{w: w, credential: credential, logins: logins}
}

// Draft implements [rotation.Drafter].
func (b *Drafted) Draft(v rotation.Version) (rotation.Material, error) { return draft(v), nil }

// Arm implements [rotation.Backend].
func (b *Drafted) Arm(ctx context.Context, v rotation.Version, m rotation.Material, until time.Time) error {
	return b.ask(ctx, "arm", func(s *system) error { return b.accept(s, v, valueOf(m), until) })
}

// Expire implements [rotation.Expirer].
func (b *Drafted) Expire(ctx context.Context, v rotation.Version, until time.Time) error {
	return b.expire(ctx, v, until)
}

// Compare implements [rotation.Comparer].
func (b *Drafted) Compare(ctx context.Context, _, _ rotation.Version) error {
	return b.ask(ctx, "compare", func(*system) error { return nil })
}

// Adopt implements [rotation.Adopter].
func (b *Drafted) Adopt(ctx context.Context, v rotation.Version) (rotation.Version, error) {
	v = v.Clone()
	err := b.ask(ctx, "adopt", func(*system) error {
		v.Identity = b.logins[0]
		v.Public = map[string]string{"username": v.Identity}
		return nil
	})
	return v, err
}

// Minted is a fake backend that chooses the values itself and answers once.
type Minted struct{ core }

var _ rotation.Minter = (*Minted)(nil)

// Minted returns the minting backend of a credential.
func (w *World) Minted(credential string) *Minted { return &Minted{w.core(credential)} }

// Identify implements [rotation.Backend]: the id of the token is ours to choose.
func (b *Minted) Identify(ctx context.Context, next rotation.Version, _ []rotation.Version) (rotation.Version, error) {
	next = next.Clone()
	err := b.ask(ctx, "identify", func(*system) error {
		next.Identity = fmt.Sprintf("token-%d", next.Number)
		return nil
	})
	return next, err
}

// Mint implements [rotation.Minter].
func (b *Minted) Mint(ctx context.Context, v rotation.Version) (rotation.Version, rotation.Material, error) {
	m := draft(v)
	err := b.ask(ctx, "mint", func(s *system) error {
		if a := s.accounts[v.Identity]; a != nil {
			return b.w.faultf("token %q is made twice", v.Identity)
		}
		return b.accept(s, v, valueOf(m), time.Time{})
	})
	if err != nil {
		return v, nil, err
	}
	return v, m, nil
}

// Arm implements [rotation.Backend]: a minted version is accepted from birth.
func (b *Minted) Arm(context.Context, rotation.Version, rotation.Material, time.Time) error {
	return errors.New("a minted version is not armed")
}

// Ordered is a fake backend that makes what was asked for: what it made is known by the
// handle of that, and by nothing else.
type Ordered struct{ Minted }

var _ rotation.Orderer = (*Ordered)(nil)

// Ordered returns the backend of a credential that is asked before it mints.
func (w *World) Ordered(credential string) *Ordered { return &Ordered{Minted{w.core(credential)}} }

// publicOrder is the public field with the handle of an order.
const publicOrder = "order"

// Order implements [rotation.Orderer].
func (b *Ordered) Order(ctx context.Context, v rotation.Version) (rotation.Version, error) {
	v = v.Clone()
	err := b.ask(ctx, "order", func(*system) error {
		if v.Public == nil {
			v.Public = map[string]string{}
		}
		v.Public[publicOrder] = fmt.Sprintf("order-%d", v.Number)
		return b.w.effect("order %s %d", v.Credential, v.Number)
	})
	return v, err
}

// Mint implements [rotation.Minter].
func (b *Ordered) Mint(ctx context.Context, v rotation.Version) (rotation.Version, rotation.Material, error) {
	if v.Public[publicOrder] == "" {
		b.w.mu.Lock()
		defer b.w.mu.Unlock()
		return v, nil, b.w.faultf("version %d is made, and its order is not on the record", v.Number)
	}
	return b.Minted.Mint(ctx, v)
}

// Observe implements [rotation.Backend]: without its order nobody finds a version.
func (b *Ordered) Observe(ctx context.Context, v rotation.Version) (rotation.Standing, error) {
	if v.Public[publicOrder] == "" && v.State != rotation.Current && v.State != rotation.Previous {
		return rotation.Standing{Status: rotation.Absent}, nil
	}
	return b.Minted.Observe(ctx, v)
}

// End implements [rotation.Backend].
func (b *Ordered) End(ctx context.Context, v rotation.Version, why rotation.Why) error {
	if v.Public[publicOrder] == "" && why == rotation.ToDiscard {
		return nil
	}
	return b.Minted.End(ctx, v, why)
}

// Activated is a fake backend with a half of the cutover of its own: it accepts
// what is installed, and uses what is activated, which cannot be ended.
type Activated struct{ core }

var _ rotation.Activator = (*Activated)(nil)

// Activated returns the activating backend of a credential.
func (w *World) Activated(credential string) *Activated {
	b := &Activated{w.core(credential, credential+"_1", credential+"_2", credential+"_3")}
	b.activates = true
	return b
}

// Draft implements [rotation.Drafter].
func (b *Activated) Draft(v rotation.Version) (rotation.Material, error) { return draft(v), nil }

// Arm implements [rotation.Backend].
func (b *Activated) Arm(ctx context.Context, v rotation.Version, m rotation.Material, _ time.Time) error {
	return b.ask(ctx, "arm", func(s *system) error { return b.accept(s, v, valueOf(m), time.Time{}) })
}

// Activate implements [rotation.Activator].
func (b *Activated) Activate(ctx context.Context, v rotation.Version) error {
	return b.ask(ctx, "activate", func(s *system) error {
		a, ok := s.accounts[v.Identity]
		if !ok || a.number != v.Number || a.ended {
			return fmt.Errorf("version %d is not installed", v.Number)
		}
		if s.active == v.Identity {
			return nil
		}
		s.active = v.Identity
		return b.w.effect("activate %s %d", v.Credential, v.Number)
	})
}

// Overwriting is a fake backend with one login whose value is changed: the one
// before is refused from then on.
type Overwriting struct{ core }

// Overwriting returns the overwriting backend of a credential.
func (w *World) Overwriting(credential string) *Overwriting {
	b := &Overwriting{w.core(credential, credential)}
	w.systems[credential].gap = true
	return b
}

// Identify implements [rotation.Backend].
func (b *Overwriting) Identify(ctx context.Context, next rotation.Version, _ []rotation.Version) (rotation.Version, error) {
	next = next.Clone()
	err := b.ask(ctx, "identify", func(*system) error {
		next.Identity = b.credential
		return nil
	})
	return next, err
}

// Draft implements [rotation.Drafter].
func (b *Overwriting) Draft(v rotation.Version) (rotation.Material, error) { return draft(v), nil }

// Arm implements [rotation.Backend]. An interrupted overwriting is done again
// with a fresh value, so a number may be armed twice, but never an old one.
func (b *Overwriting) Arm(ctx context.Context, v rotation.Version, m rotation.Material, _ time.Time) error {
	return b.ask(ctx, "arm", func(s *system) error {
		if a := s.accounts[v.Identity]; a != nil && a.number > v.Number {
			return b.w.faultf("version %d of %q overwrites version %d", v.Number, v.Credential, a.number)
		}
		s.armed[v.Number] = valueOf(m)
		s.accounts[v.Identity] = &account{number: v.Number, value: valueOf(m)}
		return b.w.effect("overwrite %s %d", v.Credential, v.Number)
	})
}

// Replacing is a fake backend with one login, which accepts one value at a time:
// the one that was activated last. What is armed waits for that.
type Replacing struct{ core }

var _ rotation.Gapped = (*Replacing)(nil)

// Replacing returns the replacing backend of a credential.
func (w *World) Replacing(credential string) *Replacing {
	b := &Replacing{w.core(credential, credential)}
	w.mu.Lock()
	defer w.mu.Unlock()
	if s := w.systems[credential]; s.staged == nil {
		s.gap, s.staged = true, map[int]*account{}
	}
	return b
}

// Gap implements [rotation.Gapped].
func (b *Replacing) Gap() string { return "whoever has the other value is refused" }

// Identify implements [rotation.Backend].
func (b *Replacing) Identify(ctx context.Context, next rotation.Version, _ []rotation.Version) (rotation.Version, error) {
	next = next.Clone()
	err := b.ask(ctx, "identify", func(*system) error {
		next.Identity = b.credential
		next.Public = map[string]string{"username": next.Identity}
		return nil
	})
	return next, err
}

// Draft implements [rotation.Drafter].
func (b *Replacing) Draft(v rotation.Version) (rotation.Material, error) { return draft(v), nil }

// version returns what is known of a number. What services used before anything
// was armed is version 1.
func (s *system) version(v rotation.Version) *account {
	in := s.accounts[v.Identity]
	if in != nil && s.staged[in.number] == nil {
		s.staged[in.number] = &account{number: in.number, value: in.value, sessions: in.sessions}
	}
	return s.staged[v.Number]
}

// Arm implements [rotation.Backend].
func (b *Replacing) Arm(ctx context.Context, v rotation.Version, m rotation.Material, _ time.Time) error {
	return b.ask(ctx, "arm", func(s *system) error {
		if a := s.version(v); a != nil {
			switch {
			case a.ended:
				return b.w.faultf("version %d of %q is armed after its end", v.Number, v.Credential)
			case a.value != valueOf(m):
				return b.w.faultf("version %d of %q is armed with another value", v.Number, v.Credential)
			}
			return nil
		}
		for _, a := range s.staged {
			if in := s.accounts[v.Identity]; !a.ended && (in == nil || a.number != in.number) {
				return fmt.Errorf("version %d is staged already", a.number)
			}
		}
		s.armed[v.Number] = valueOf(m)
		s.staged[v.Number] = &account{number: v.Number, value: valueOf(m)}
		return b.w.effect("stage %s %d", v.Credential, v.Number)
	})
}

// Activate implements [rotation.Activator].
func (b *Replacing) Activate(ctx context.Context, v rotation.Version) error {
	return b.ask(ctx, "activate", func(s *system) error {
		a := s.version(v)
		if a == nil || a.ended {
			return fmt.Errorf("version %d is not staged", v.Number)
		}
		if in := s.accounts[v.Identity]; in != nil && in.number == v.Number {
			return nil
		}
		s.accounts[v.Identity] = &account{number: a.number, value: a.value}
		return b.w.effect("activate %s %d", v.Credential, v.Number)
	})
}

// Observe implements [rotation.Backend].
func (b *Replacing) Observe(ctx context.Context, v rotation.Version) (st rotation.Standing, err error) {
	err = b.ask(ctx, "observe", func(s *system) error {
		a := s.version(v)
		switch in := s.accounts[v.Identity]; {
		case a == nil:
			st.Status = rotation.Absent
		case a.ended:
			st.Status = rotation.Ended
		case in != nil && in.number == v.Number:
			st.Status, st.Uses = rotation.Armed, in.sessions
		default:
			st.Status = rotation.Staged
		}
		return nil
	})
	return st, err
}

// End implements [rotation.Backend].
func (b *Replacing) End(ctx context.Context, v rotation.Version, why rotation.Why) error {
	return b.ask(ctx, "end", func(s *system) error {
		a := s.version(v)
		if a == nil {
			a = &account{number: v.Number, ended: true} // a number that is ended is burnt
			s.staged[v.Number] = a
			return nil
		}
		if a.ended {
			return nil
		}
		a.ended = true
		if in := s.accounts[v.Identity]; in != nil && in.number == v.Number {
			delete(s.accounts, v.Identity)
		}
		return b.w.effect("end %s %d (%s)", v.Credential, v.Number, why)
	})
}
