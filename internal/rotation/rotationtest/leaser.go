package rotationtest

import (
	"context"
	"fmt"
	"sync"

	"github.com/keyturn/keyturn/internal/rotation"
)

// Leaser is a leaser in memory, apart from the journal, as a Swarm has one.
type Leaser struct {
	w *World

	mu    sync.Mutex
	held  map[string]rotation.Holder
	epoch map[string]int64
}

var _ rotation.Leaser = (*Leaser)(nil)

// Leaser returns a leaser of the world's processes.
func (w *World) Leaser() *Leaser {
	return &Leaser{w: w, held: map[string]rotation.Holder{}, epoch: map[string]int64{}}
}

// Acquire implements [rotation.Leaser].
func (l *Leaser) Acquire(ctx context.Context, credential string, want rotation.Holder, dead func(rotation.Holder) bool, force bool) (rotation.Lease, error) {
	err := l.w.call(ctx, "acquire", func() error {
		l.mu.Lock()
		defer l.mu.Unlock()
		if h, ok := l.held[credential]; ok && !force && l.w.now.Before(h.Deadline) && (dead == nil || !dead(h)) {
			return &rotation.BusyError{Credential: credential, Holder: h}
		}
		want.Epoch = max(want.Epoch, l.epoch[credential]) + 1
		l.epoch[credential], l.held[credential] = want.Epoch, want
		return nil
	})
	if err != nil {
		return nil, err
	}
	return &lease{l, credential, want}, nil
}

type lease struct {
	l          *Leaser
	credential string
	holder     rotation.Holder
}

func (x *lease) Holder() rotation.Holder { return x.holder }

func (x *lease) Check(ctx context.Context) error {
	return x.l.w.call(ctx, "check", func() error {
		x.l.mu.Lock()
		defer x.l.mu.Unlock()
		if h := x.l.held[x.credential]; h.Epoch != x.holder.Epoch {
			return fmt.Errorf("epoch %d, now %d: %w", x.holder.Epoch, h.Epoch, rotation.ErrLeaseLost)
		}
		return nil
	})
}

func (x *lease) Release(ctx context.Context) error {
	return x.l.w.call(ctx, "release", func() error {
		x.l.mu.Lock()
		defer x.l.mu.Unlock()
		if h := x.l.held[x.credential]; h.Epoch == x.holder.Epoch {
			delete(x.l.held, x.credential)
		}
		return nil
	})
}
