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
