package rotation

import (
	"context"
	"fmt"
	"math"
	"time"
)

// A JournalLeaser keeps leases in the journal itself, for targets that have no
// place for them: its compare-and-swap lets one run win.
type JournalLeaser struct {
	Journal Journal
	Now     func() time.Time // nil means time.Now
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
	records, err := j.Journal.Records(ctx)
	if err != nil {
		return nil, err
	}
	ledger, err := Replay(records)
	if err != nil {
		return nil, err
	}
	_, err = j.Journal.Append(ctx, ledger.last, func(since []Record) ([]Record, error) {
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
		return []Record{{Time: j.now(), Credential: credential, Phase: want.Phase, Step: stepLease,
			Status: RecordNote, Evidence: evidence(keyHolder, want)}}, nil
	})
	if err != nil {
		return nil, err
	}
	return &journalLease{leaser: j, credential: credential, holder: want}, nil
}

type journalLease struct {
	leaser     *JournalLeaser
	credential string
	holder     Holder
}

func (l *journalLease) Holder() Holder { return l.holder }

// Check reads nothing: every record is appended by compare-and-swap, and the
// ledger refuses one of an older epoch. The record before an effect is the check.
func (l *journalLease) Check(context.Context) error { return nil }

func (l *journalLease) Release(ctx context.Context) error {
	_, err := l.leaser.Journal.Append(ctx, math.MaxInt64, func([]Record) ([]Record, error) {
		return []Record{{Time: l.leaser.now(), Credential: l.credential, Phase: l.holder.Phase, Step: stepRelease,
			Status: RecordNote, Evidence: evidence(keyEpoch, l.holder.Epoch)}}, nil
	})
	if err != nil {
		return fmt.Errorf("releasing the lease of %q: %w", l.credential, err)
	}
	return nil
}
