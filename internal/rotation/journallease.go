package rotation

import (
	"context"
	"errors"
	"fmt"
	"math"
	"time"
)

// A JournalLeaser keeps leases in the journal itself, for targets that have no
// place for them: its compare-and-swap lets one run win.
type JournalLeaser struct {
	Journal Journal
	Now     func() time.Time // nil means time.Now

	// Kept, if set, is told that a lease may be left behind: the journal did not take
	// that it was given back, or it is not known whether it was taken.
	Kept func()
}

func (j *JournalLeaser) kept() {
	if j.Kept != nil {
		j.Kept()
	}
}

func (j *JournalLeaser) now() time.Time {
	if j.Now != nil {
		return j.Now()
	}
	return time.Now()
}

var _ Leaser = (*JournalLeaser)(nil)

// Acquire implements [Leaser].
func (j *JournalLeaser) Acquire(ctx context.Context, credential string, want Holder, dead func(Holder) bool, force bool) (Lease, error) {
	ledger, err := ReadLedger(ctx, j.Journal)
	if err != nil {
		return nil, err
	}
	last, err := j.Journal.Append(ctx, ledger.last, func(since []Record) ([]Record, error) {
		ledger := ledger.Clone()
		for _, r := range since {
			if err := ledger.Apply(r); err != nil {
				return nil, err
			}
		}
		c := ledger.Credential(credential)
		held := c.Holder.Epoch > 0 && !c.Released && j.now().Before(c.Holder.Deadline)
		if held && !force && (dead == nil || !dead(c.Holder)) {
			return nil, &BusyError{Credential: credential, Holder: c.Holder}
		}
		want.Epoch = max(want.Epoch, c.Holder.Epoch) + 1
		r := leaseRecord(credential, want, held && force)
		r.Time = j.now()
		return []Record{r}, nil
	})
	if err != nil {
		if busy := (*BusyError)(nil); !errors.As(err, &busy) {
			j.kept()
		}
		return nil, err
	}
	return &journalLease{leaser: j, credential: credential, holder: want, seen: last}, nil
}

type journalLease struct {
	leaser     *JournalLeaser
	credential string
	holder     Holder
	seen       int64 // the last record that was looked at
}

func (l *journalLease) Holder() Holder { return l.holder }

// errLooked ends an append that only wanted to see what came since.
var errLooked = errors.New("looked")

// Check looks for a later holder among what was appended since.
func (l *journalLease) Check(ctx context.Context) error {
	var lost error
	_, err := l.leaser.Journal.Append(ctx, l.seen, func(since []Record) ([]Record, error) {
		for _, r := range since {
			var h Holder
			if r.Credential == l.credential && r.Step == stepLease && r.read(keyHolder, &h) && h.Epoch > l.holder.Epoch {
				lost = fmt.Errorf("%w by run %q, epoch %d", ErrLeaseLost, h.Run, h.Epoch)
			}
			l.seen = max(l.seen, r.Seq)
		}
		return nil, errLooked
	})
	if !errors.Is(err, errLooked) {
		return fmt.Errorf("reading the lease of %q: %w", l.credential, err)
	}
	return lost
}

func (l *journalLease) Release(ctx context.Context) error {
	_, err := l.leaser.Journal.Append(ctx, math.MaxInt64, func([]Record) ([]Record, error) {
		return []Record{{Time: l.leaser.now(), Credential: l.credential, Phase: l.holder.Phase, Step: stepRelease,
			Status: RecordNote, Evidence: evidence(keyEpoch, l.holder.Epoch)}}, nil
	})
	if err != nil {
		l.leaser.kept()
		return fmt.Errorf("releasing the lease of %q: %w", l.credential, err)
	}
	return nil
}
