package rotationtest

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"sync"

	"github.com/keyturn/keyturn/internal/rotation"
)

// Journal is a journal in memory, with compare-and-swap. A dead process reads
// and writes nothing.
type Journal struct {
	w *World

	mu      sync.Mutex
	records []rotation.Record
	rival   func([]rotation.Record) []rotation.Record
	fail    error
	failed  bool // the failure comes after the records were written
}

var _ rotation.Journal = (*Journal)(nil)

// Journal returns an empty journal of the world's processes.
func (w *World) Journal() *Journal { return &Journal{w: w} }

// Rival makes somebody else append records, once, right before the next append
// lands: it loses its race and must build again.
func (j *Journal) Rival(write func(since []rotation.Record) []rotation.Record) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.rival = write
}

// Fail makes the next append fail: before or after the records were written.
func (j *Journal) Fail(err error, after bool) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.fail, j.failed = err, after
}

// Each implements [rotation.Journal].
func (j *Journal) Each(ctx context.Context, take func(rotation.Record)) error {
	if j.w.Dead() {
		return ErrDead
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	for _, r := range j.All() {
		take(r)
	}
	return nil
}

// All returns every record, whoever asks.
func (j *Journal) All() []rotation.Record {
	j.mu.Lock()
	defer j.mu.Unlock()
	return slices.Clone(j.records)
}

// Ledger replays what is on record.
func (j *Journal) Ledger() (*rotation.Ledger, error) { return rotation.Replay(j.All()) }

// Append implements [rotation.Journal].
func (j *Journal) Append(ctx context.Context, after int64, build func([]rotation.Record) ([]rotation.Record, error)) (int64, error) {
	if err := ctx.Err(); err != nil {
		return 0, err
	}
	for {
		since := j.since(after)
		head := j.head()
		fresh, err := build(since)
		if err != nil {
			return 0, err
		}
		last, ok, err := j.land(head, fresh)
		if err != nil || ok {
			return last, err
		}
	}
}

func (j *Journal) head() int64 {
	j.mu.Lock()
	defer j.mu.Unlock()
	return int64(len(j.records))
}

func (j *Journal) since(after int64) []rotation.Record {
	j.mu.Lock()
	defer j.mu.Unlock()
	if after >= int64(len(j.records)) {
		return nil
	}
	return slices.Clone(j.records[after:])
}

// land writes the records if the head is still where it was.
func (j *Journal) land(head int64, fresh []rotation.Record) (last int64, ok bool, err error) {
	if j.w.Dead() {
		return 0, false, ErrDead
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.rival != nil {
		write := j.rival
		j.rival = nil
		if err := j.write(write(slices.Clone(j.records))); err != nil {
			return 0, false, err
		}
	}
	if head != int64(len(j.records)) {
		return 0, false, nil
	}
	fail := j.fail
	j.fail = nil
	if fail != nil && !j.failed {
		return 0, false, fail
	}
	if err := j.write(fresh); err != nil {
		return 0, false, err
	}
	return int64(len(j.records)), true, fail
}

func (j *Journal) write(fresh []rotation.Record) error {
	if len(fresh) == 0 {
		return errors.New("an append of nothing")
	}
	for _, r := range fresh {
		copied, err := roundTrip(r)
		if err != nil {
			return fmt.Errorf("record %d: %w", len(j.records)+1, err)
		}
		copied.Seq = int64(len(j.records)) + 1
		j.records = append(j.records, copied)
	}
	return nil
}

// roundTrip returns what a journal on disk gives back of a record.
func roundTrip(r rotation.Record) (out rotation.Record, err error) {
	b, err := json.Marshal(r)
	if err != nil {
		return out, err
	}
	return out, json.Unmarshal(b, &out)
}
