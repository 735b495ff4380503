package cli

import (
	"context"
	"encoding/json"
	"errors"
	"slices"
	"time"

	"github.com/keyturn/keyturn/internal/journal"
	"github.com/keyturn/keyturn/internal/rotation"
	"github.com/keyturn/keyturn/internal/target/swarm"
)

// spooled is a journal on GitHub as the core sees it: a record is durable in the
// Swarm at once, and sent to GitHub together with others.
type spooled struct {
	*journal.Spooled
	sign    journal.Entry
	urgency func([]journal.Entry) journal.Urgency
}

var _ rotation.Journal = (*spooled)(nil)

func newSpooled(far journal.Home, shelf journal.Spool, sign journal.Entry, now func() time.Time) *spooled {
	return &spooled{journal.NewSpooled(far, shelf, now), sign, urgency}
}

// Each implements [rotation.Journal].
func (s *spooled) Each(ctx context.Context, take func(rotation.Record)) error {
	entries, err := s.Entries(ctx)
	for _, r := range placed(entries, 0) {
		take(r)
	}
	return err
}

// placed returns the records of entries that stand behind a place.
func placed(entries []journal.Entry, after int64) []rotation.Record {
	out := make([]rotation.Record, len(entries))
	for i, e := range entries {
		out[i] = recordOf(e)
		out[i].Seq = after + int64(i) + 1
	}
	return out
}

// Append implements [rotation.Journal].
func (s *spooled) Append(ctx context.Context, after int64, build func([]rotation.Record) ([]rotation.Record, error)) (int64, error) {
	return s.Spooled.Append(ctx, after, s.urgency, func(since []journal.Entry) ([]journal.Entry, error) {
		fresh, err := build(placed(since, after))
		if err != nil {
			return nil, err
		}
		return signed(s.sign, fresh), nil
	})
}

// urgency says which entries have to reach GitHub before anything else is done:
// the intent of a phase, before its first effect, and the proof that a version is
// dead, before what could repeat it is removed. The way back waits for nothing.
func urgency(entries []journal.Entry) journal.Urgency {
	most := journal.Later
	for _, e := range entries {
		var effect rotation.Effect
		_ = json.Unmarshal(e.Evidence["effect"], &effect) // not every entry has one
		switch {
		case e.Status == string(rotation.RecordIntent) && e.Phase == string(rotation.Rollback):
			most = max(most, journal.AtOnce)
		case e.Status == string(rotation.RecordIntent),
			effect == rotation.Prove && (e.Status == string(rotation.RecordDone) || e.Status == string(rotation.RecordObserved)):
			most = journal.First
		}
	}
	return most
}

// shelf is the Swarm as a journal's spool.
type shelf struct{ *swarm.Spool }

// Put implements [journal.Spool].
func (s shelf) Put(ctx context.Context, number int64, piece []byte) error {
	err := s.Spool.Put(ctx, number, piece)
	if errors.Is(err, swarm.ErrTaken) {
		return journal.ErrConflict
	}
	return err
}

// send sends to GitHub what waits for it. What cannot be sent now is sent by the
// next run: the phase did what it did.
func (a *app) send(ctx context.Context, w *wiring) (sent bool) {
	s, ok := w.journal.(*spooled)
	if !ok || s.Idle(dull) {
		return false // that a run looked, and waits on, is sent with what comes of it
	}
	ctx, cancel := afterwards(ctx)
	defer cancel()
	if err := s.Send(ctx); err != nil {
		a.notef("%s of the journal could not be sent to GitHub, and wait in the Swarm for the next run: %v", counted(s.Waiting(), "record"), err)
		return false
	}
	return true
}

// dull is an entry that is worth no commit of its own.
func dull(e journal.Entry) bool {
	return e.Status == string(rotation.RecordWaiting) || e.Status == string(rotation.RecordNote) && slices.Contains([]string{"lease", "release", "tend", noteTold}, e.Step)
}

// afterwards returns a context for what is left to do when a phase is over, also
// when it was cancelled: then in less time, for a runner soon kills what it has
// cancelled.
func afterwards(ctx context.Context) (context.Context, context.CancelFunc) {
	limit := 20 * time.Second
	if ctx.Err() != nil {
		limit = 2 * time.Second
	}
	return context.WithTimeout(context.WithoutCancel(ctx), limit)
}
