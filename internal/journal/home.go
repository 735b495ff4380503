package journal

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"
)

// ErrConflict is the error of an append after a head that is no longer the
// last entry: somebody else was first, and nothing was appended.
var ErrConflict = errors.New("somebody else appended first")

// A Home is where a journal lives. It verifies what it reads: the error of a
// broken chain is a [*Fault]. A Home is safe for concurrent use, also by
// several processes.
type Home interface {
	// Read returns every entry, oldest first.
	Read(context.Context) ([]Entry, error)

	// Since returns the entries that follow one that is known. That one must
	// still be part of the chain: else the error is a [*Fault] of kind
	// [Truncated] or [Fork]. Its cost is that of the new entries, where the
	// home can tell.
	Since(context.Context, Head) ([]Entry, error)

	// Head returns the head of the chain; the zero Head if it is empty.
	Head(context.Context) (Head, error)

	// Append seals the entries after the given head and keeps them durably, all
	// or none, and returns them as sealed. If that head is not the last entry
	// any more, the error is [ErrConflict]. After any other error it is not
	// known whether they are kept, unless the home says so; whoever asks again
	// looks for the nonce. Entries share the nonce that the first of them has; those
	// that each have one of their own keep it.
	Append(ctx context.Context, after Head, entries ...Entry) ([]Entry, error)
}

// A Streamer is a [Home] that can read its entries one by one: who folds them needs no
// memory for all of them.
type Streamer interface {
	// Each hands every entry to take, oldest first. If an error is returned, what was
	// handed over counts for nothing.
	Each(ctx context.Context, take func(Entry)) error
}

// Each is [Streamer].Each of any home.
func Each(ctx context.Context, home Home, take func(Entry)) error {
	if s, ok := home.(Streamer); ok {
		return s.Each(ctx, take)
	}
	entries, err := home.Read(ctx)
	for _, e := range entries {
		take(e)
	}
	return err
}

// maxConflicts is how often an append is built again before it gives up.
const maxConflicts = 100

// A Log is a place in a home: what was read so far. Make one with [Follow].
// It is for one goroutine at a time.
type Log struct {
	home Home
	at   Head
}

// Follow returns a Log at the beginning of a home.
func Follow(home Home) *Log { return &Log{home: home} }

// FollowFrom returns a Log at an entry that is known to be in the home.
func FollowFrom(home Home, at Head) *Log { return &Log{home: home, at: at} }

// Head returns the last entry that was read or appended.
func (l *Log) Head() Head { return l.at }

// Read returns every entry of the home and moves to its end.
func (l *Log) Read(ctx context.Context) ([]Entry, error) {
	entries, err := l.home.Read(ctx)
	if err != nil {
		return nil, err
	}
	if err := Anchored(entries, l.at); err != nil {
		return nil, err
	}
	l.move(entries)
	return entries, nil
}

// Append calls build with the entries that followed the last one this Log has
// returned or shown, and appends what it returns, all or none, durably. If
// somebody else appended meanwhile, build is called again, with what they
// wrote: each entry is shown once, so that a build may fold them into its
// state. An error of build is returned as it is, and nothing is appended; so it
// is when build returns no entries. The entries come back as they were sealed.
func (l *Log) Append(ctx context.Context, build func(since []Entry, head Head) ([]Entry, error)) ([]Entry, error) {
	for try := range maxConflicts {
		since, err := l.home.Since(ctx, l.at)
		if err != nil {
			return nil, err
		}
		l.move(since)
		entries, err := build(since, l.at)
		if err != nil || len(entries) == 0 {
			return nil, err
		}
		sealed, err := l.home.Append(ctx, l.at, entries...)
		if err == nil {
			l.move(sealed)
			return sealed, nil
		}
		if !errors.Is(err, ErrConflict) {
			return nil, err
		}
		if err := pause(ctx, try); err != nil {
			return nil, err
		}
	}
	return nil, fmt.Errorf("appending to the journal: %w, %d times in a row", ErrConflict, maxConflicts)
}

func (l *Log) move(entries []Entry) {
	if n := len(entries); n > 0 {
		l.at = entries[n-1].Head()
	}
}

// pause waits a random time that grows with the tries, at most 250 ms.
func pause(ctx context.Context, try int) error {
	longest := min(time.Millisecond<<min(try, 8), 250*time.Millisecond)
	timer := time.NewTimer(rand.N(longest) + time.Microsecond)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-timer.C:
		return nil
	}
}
