package cli

import (
	"context"
	"math"
	"sync"

	"github.com/keyturn/keyturn/internal/journal"
	"github.com/keyturn/keyturn/internal/rotation"
)

// records is a journal's home as the core sees it: entries in, records out. It
// adds to every record who writes it.
type records struct {
	home journal.Home
	sign journal.Entry // actor, run and commit of what we write

	reading sync.Mutex
	ledger  *rotation.Ledger // of what was read up to at; nil before the first time
	at      journal.Head

	mu    sync.Mutex
	heads map[int64]journal.Head // of what was read or written last, by number
}

// keptHeads is how many heads are kept: whoever appends after an older entry reads from
// the first one on.
const keptHeads = 1000

var (
	_ rotation.Journal      = (*records)(nil)
	_ rotation.LedgerKeeper = (*records)(nil)
)

func newRecords(home journal.Home, sign journal.Entry) *records {
	return &records{home: home, sign: sign, heads: map[int64]journal.Head{0: {}}}
}

// Each implements [rotation.Journal].
func (r *records) Each(ctx context.Context, take func(rotation.Record)) error {
	return journal.Each(ctx, r.home, func(e journal.Entry) { take(r.read(e)) })
}

// Ledger implements [rotation.LedgerKeeper]. The chain is verified from its beginning once;
// then what follows.
func (r *records) Ledger(ctx context.Context) (*rotation.Ledger, error) {
	r.reading.Lock()
	defer r.reading.Unlock()
	var fault error
	err := r.follow(ctx, func(e journal.Entry) {
		if rec := r.read(e); fault == nil {
			fault = r.ledger.Replay(rec)
		}
		r.at = e.Head()
	})
	if err == nil {
		err = fault
	}
	if err != nil {
		r.ledger, r.at = nil, journal.Head{}
		return nil, err
	}
	return r.ledger.Clone(), nil
}

// follow hands over what was not read yet.
func (r *records) follow(ctx context.Context, take func(journal.Entry)) error {
	if r.ledger == nil {
		r.ledger = rotation.NewLedger()
		return journal.Each(ctx, r.home, take)
	}
	entries, err := r.home.Since(ctx, r.at)
	for _, e := range entries {
		take(e)
	}
	return err
}

// read returns the record of an entry, and remembers its place.
func (r *records) read(e journal.Entry) rotation.Record {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.heads[e.Seq] = e.Head()
	delete(r.heads, e.Seq-keptHeads)
	return recordOf(e)
}

// Append implements [rotation.Journal].
func (r *records) Append(ctx context.Context, after int64, build func([]rotation.Record) ([]rotation.Record, error)) (int64, error) {
	var from journal.Head
	r.mu.Lock()
	from, known := r.heads[after]
	r.mu.Unlock()
	if !known && after == math.MaxInt64 {
		head, err := r.home.Head(ctx)
		if err != nil {
			return 0, err
		}
		from = head
	}
	log := journal.FollowFrom(r.home, from)
	var since []rotation.Record
	sealed, err := log.Append(ctx, func(entries []journal.Entry, _ journal.Head) ([]journal.Entry, error) {
		for _, e := range entries {
			if rec := r.read(e); known || e.Seq > after || after == math.MaxInt64 {
				since = append(since, rec)
			}
		}
		fresh, err := build(since)
		if err != nil {
			return nil, err
		}
		return signed(r.sign, fresh), nil
	})
	if err != nil {
		return 0, err
	}
	for _, e := range sealed {
		r.read(e)
	}
	return log.Head().Seq, nil
}

// signed returns records as entries that say who wrote them.
func signed(sign journal.Entry, fresh []rotation.Record) []journal.Entry {
	out := make([]journal.Entry, len(fresh))
	for i, rec := range fresh {
		e := sign
		e.Time, e.Rotation, e.Credential, e.Version = rec.Time, rec.Rotation, rec.Credential, rec.Version
		e.Identity, e.Phase, e.Step, e.Status = rec.Identity, string(rec.Phase), rec.Step, string(rec.Status)
		e.Plan, e.Evidence = rec.Plan, rec.Evidence
		out[i] = e
	}
	return out
}

func recordOf(e journal.Entry) rotation.Record {
	return rotation.Record{Seq: e.Seq, Time: e.Time, Rotation: e.Rotation, Credential: e.Credential, Version: e.Version,
		Identity: e.Identity, Phase: rotation.Phase(e.Phase), Step: e.Step, Status: rotation.RecordStatus(e.Status),
		Plan: e.Plan, Evidence: e.Evidence}
}
