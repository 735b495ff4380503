package rotation

import (
	"context"
	"encoding/json"
	"time"
)

// A Record is one entry of the journal, as the core writes and reads it; the
// journal adds its chain. No value stands in it.
type Record struct {
	Seq        int64
	Time       time.Time
	Rotation   string // ULID; the same for a whole batch
	Credential string
	Version    int
	Identity   string
	Phase      Phase
	Step       string
	Status     RecordStatus
	Plan       string // hash of the plan
	Evidence   map[string]json.RawMessage
}

// RecordStatus says what a record reports.
type RecordStatus string

// The statuses of a record.
const (
	RecordIntent   RecordStatus = "intent"   // a phase is about to have effects
	RecordStarted  RecordStatus = "started"  // a step is about to have its effect
	RecordDone     RecordStatus = "done"     // a step or a phase is done
	RecordObserved RecordStatus = "observed" // it was found done
	RecordWaiting  RecordStatus = "waiting"
	RecordFailed   RecordStatus = "failed"
	RecordUndoing  RecordStatus = "undoing" // a step is about to be undone
	RecordUndone   RecordStatus = "undone"
	RecordNote     RecordStatus = "note" // says something; changes no state
)

// A Journal keeps the records.
type Journal interface {
	// Each hands every record to take, oldest first; take may not use the journal. If
	// an error is returned, what was handed over counts for nothing.
	Each(ctx context.Context, take func(Record)) error

	// Append calls build with the records after the sequence number, and appends
	// what it returns, all or none, durably. If somebody else appended meanwhile,
	// build is called again with what they wrote too. An error of build is
	// returned as it is, and nothing is appended. Last is the sequence number of
	// the last record then.
	Append(ctx context.Context, after int64, build func(since []Record) ([]Record, error)) (last int64, err error)
}
