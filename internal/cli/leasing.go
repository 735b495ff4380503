package cli

import (
	"context"
	"sync/atomic"

	"github.com/keyturn/keyturn/internal/rotation"
)

// leasing notes that a lease may be left behind, as when the way to the engine
// breaks and the run ends: it was not given back, or it is not known whether it was
// taken.
type leasing struct {
	rotation.Leaser
	kept *atomic.Bool
}

// Acquire implements [rotation.Leaser].
func (l leasing) Acquire(ctx context.Context, credential string, want rotation.Holder, dead func(rotation.Holder) bool, force bool) (rotation.Lease, error) {
	got, err := l.Leaser.Acquire(ctx, credential, want, dead, force)
	if err != nil {
		if rotation.ClassOf(err) == rotation.Unknown || ctx.Err() != nil {
			l.kept.Store(true)
		}
		return nil, err
	}
	return leased{got, l.kept}, nil
}

type leased struct {
	rotation.Lease
	kept *atomic.Bool
}

// Release implements [rotation.Lease].
func (l leased) Release(ctx context.Context) error {
	err := l.Lease.Release(ctx)
	if err != nil {
		l.kept.Store(true)
	}
	return err
}
