// Package journal keeps the record of everything that Keyturn does: a chain of
// entries in which each holds the hash of the one before, so that an edited, a
// removed, a moved or a forked entry is found and named.
//
// An [Entry] is sealed with [Seal], checked with [Verify], and lives in a
// [Home]: the local file of [Open], or another store that can append several
// entries by compare-and-swap. A [Log] reads a home and appends to it, building
// its entries again whenever somebody else was first.
//
// No secret value stands in an entry: names, versions and keyed fingerprints
// only. The one exception is meant to be there: without a configured one, the
// first entry holds the key of the fingerprints ([Genesis]).
//
// The format is described for readers without this package in docs/journal.md.
package journal

import (
	"encoding/json"
	"fmt"
	"strings"
	"time"
)

// timeLayout is how times are written: RFC 3339 in UTC with milliseconds.
const timeLayout = "2006-01-02T15:04:05.000Z"

// noHash stands in Prev of the first entry.
var noHash = strings.Repeat("0", 64)

// An Entry is one line of the journal. Seq, Prev and Hash are set by [Seal].
type Entry struct {
	Seq  int64     `json:"seq"`  // from 1, without holes
	Prev string    `json:"prev"` // hash of the entry before; 64 zeros in the first
	Time time.Time `json:"time"` // written in UTC with milliseconds

	Rotation   string `json:"rotation,omitempty"` // ULID; the same for a whole batch
	Credential string `json:"credential,omitempty"`
	Version    int    `json:"version,omitempty"`
	Identity   string `json:"identity,omitempty"` // public handle in the backend
	Phase      string `json:"phase,omitempty"`
	Step       string `json:"step,omitempty"`
	Status     string `json:"status,omitempty"`

	Actor  Actor  `json:"actor,omitzero"`
	Run    Run    `json:"run,omitzero"`
	Commit string `json:"commit,omitempty"`
	Plan   string `json:"plan,omitempty"` // hash of the plan that was approved

	// Evidence is what backs the entry: review ids, probe results, timings,
	// fingerprints. Values are JSON of any depth; their numbers are integers of
	// at most 2^53-1, so that every language reads and hashes them alike.
	Evidence map[string]json.RawMessage `json:"evidence,omitempty"`

	// Nonce is random. Entries that were appended together share it, followed
	// by their place: ".1/3", ".2/3", ".3/3".
	Nonce string `json:"nonce"`
	Hash  string `json:"hash,omitempty"` // hex SHA-256 of the rest in RFC 8785 form
}

// An Actor is who caused an entry. Verified says that the name comes from
// claims which somebody signed, not from the environment.
type Actor struct {
	Name     string `json:"name"`
	Verified bool   `json:"verified"`
}

// A Run is the process that wrote an entry, and the workflow run around it.
type Run struct {
	ID      string `json:"id,omitempty"`
	Attempt int    `json:"attempt,omitempty"`
	URL     string `json:"url,omitempty"`
	Host    string `json:"host,omitempty"`
	PID     int    `json:"pid,omitempty"`
}

// A Head names the last entry of a chain. The zero Head is that of an empty one.
type Head struct {
	Seq  int64
	Hash string
}

// Head returns the head of a chain that ends with the entry.
func (e Entry) Head() Head { return Head{Seq: e.Seq, Hash: e.Hash} }

// Quiet reports whether an entry changes nothing by itself: a note, or that
// something waits.
func (e Entry) Quiet() bool { return e.Status == statusNote || e.Status == statusWaiting }

// String names the head, for messages.
func (h Head) String() string {
	if h.Seq == 0 {
		return "an empty journal"
	}
	return fmt.Sprintf("entry %d (%.12s)", h.Seq, h.Hash)
}

// norm makes the ways to write the head of an empty chain equal.
func (h Head) norm() Head {
	if h.Seq == 0 && h.Hash == noHash {
		h.Hash = ""
	}
	return h
}

// prev returns what stands in Prev of the entry that follows.
func (h Head) prev() string {
	if h.norm() == (Head{}) {
		return noHash
	}
	return h.Hash
}

// plain is an Entry without its methods; wire is what its JSON looks like.
type (
	plain Entry
	wire  struct {
		plain
		Time string `json:"time"`
	}
)

func (e Entry) wire() wire { return wire{plain: plain(e), Time: e.Time.UTC().Format(timeLayout)} }

// MarshalJSON writes the entry as it stands in a journal, but for the order of
// its members.
func (e Entry) MarshalJSON() ([]byte, error) { return json.Marshal(e.wire()) }

// UnmarshalJSON reads what MarshalJSON wrote.
func (e *Entry) UnmarshalJSON(b []byte) error {
	var w wire
	if err := json.Unmarshal(b, &w); err != nil {
		return err
	}
	read, err := w.entry()
	if err == nil {
		*e = read
	}
	return err
}

func (w wire) entry() (Entry, error) {
	t, err := time.Parse(timeLayout, w.Time)
	if err != nil {
		return Entry{}, fmt.Errorf("time %q is not RFC 3339 in UTC with milliseconds", w.Time)
	}
	e := Entry(w.plain)
	e.Time = t
	return e, nil
}
