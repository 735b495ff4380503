package swarm_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/keyturn/keyturn/internal/rotation"
)

func TestLease(t *testing.T) {
	s := newStage(t)
	ctx := s.ctx()
	holder := func(run string, left time.Duration) rotation.Holder {
		return rotation.Holder{Run: run, Attempt: 1, Phase: rotation.Prepare, Epoch: 4, Deadline: time.Now().Add(left).Truncate(time.Second).UTC()}
	}
	first, err := s.target.Acquire(ctx, s.credential, holder("a", time.Hour), nil, false)
	s.must(err)
	s.must(first.Check(ctx))
	if first.Holder().Epoch != 5 {
		t.Errorf("epoch = %d, want the one after 4", first.Holder().Epoch)
	}
	var busy *rotation.BusyError
	if _, err = s.target.Acquire(ctx, s.credential, holder("b", time.Hour), func(rotation.Holder) bool { return false }, false); !errors.As(err, &busy) || busy.Holder.Run != "a" {
		t.Fatalf("a second holder: %v, want that a holds it", err)
	}
	second, err := s.target.Acquire(ctx, s.credential, holder("b", time.Hour), func(h rotation.Holder) bool { return h.Run == "a" }, false)
	s.must(err)
	if err := first.Check(ctx); !errors.Is(err, rotation.ErrLeaseLost) {
		t.Errorf("Check of a lease that was taken over = %v", err)
	}
	s.must(first.Release(ctx)) // leaves the other's alone
	s.must(second.Check(ctx))
	third, err := s.target.Acquire(ctx, s.credential, holder("c", -time.Second), nil, true)
	s.must(err)
	fourth, err := s.target.Acquire(ctx, s.credential, holder("d", time.Hour), nil, false) // c is past its deadline
	s.must(err)
	s.must(fourth.Release(ctx))
	last, err := s.target.Acquire(ctx, s.credential, holder("e", time.Hour), nil, false)
	s.must(err)
	if e := []int64{second.Holder().Epoch, third.Holder().Epoch, fourth.Holder().Epoch, last.Holder().Epoch}; !cmp.Equal(e, []int64{6, 7, 8, 9}) {
		t.Errorf("epochs = %v, want them to grow, also after a release", e)
	}
	s.must(last.Release(ctx))
	if err := last.Check(ctx); !errors.Is(err, rotation.ErrLeaseLost) {
		t.Errorf("Check after Release = %v, want ErrLeaseLost", err)
	}

	// Of many at once, one wins.
	won := make(chan error)
	for range 5 {
		go func() {
			_, err := s.target.Acquire(context.WithoutCancel(ctx), s.credential, holder("race", time.Hour), nil, false)
			won <- err
		}()
	}
	winners := 0
	for range 5 {
		if err := <-won; err == nil {
			winners++
		} else if !errors.As(err, &busy) {
			t.Error(err)
		}
	}
	if winners != 1 {
		t.Errorf("%d of 5 hold the lease", winners)
	}
}
