package journal

import (
	"errors"
	"fmt"
	"io/fs"

	"golang.org/x/sys/unix"
)

// A Kind says in which way a journal is broken.
type Kind string

// The kinds of faults.
const (
	Edited     Kind = "edited"     // the content of the entry does not match its hash
	Gap        Kind = "gap"        // the entry is missing, and later ones are there
	Reordered  Kind = "reordered"  // another entry stands in its place: moved, or there twice
	Fork       Kind = "fork"       // a sealed entry that follows another history
	Truncated  Kind = "truncated"  // the journal ends in the middle of an entry, or before one that is known
	Unreadable Kind = "unreadable" // the line is not an entry at all
)

// A Fault is the error of a broken journal. It names the first entry that is
// not as it was sealed, or not where it belongs.
type Fault struct {
	Seq    int64 // number of the entry that should stand there
	Line   int   // line of the journal, from 1
	Kind   Kind
	Detail string
}

// Error names the entry, its line and what is wrong.
func (f *Fault) Error() string {
	return fmt.Sprintf("line %d: entry %d is %s: %s", f.Line, f.Seq, f.words(), f.Detail)
}

func (f *Fault) words() string {
	switch f.Kind {
	case Gap:
		return "missing"
	case Reordered:
		return "not in its place"
	case Fork:
		return "forked"
	}
	return string(f.Kind)
}

// Hint says what to do about it.
func (f *Fault) Hint() string {
	if f.Kind == Truncated {
		return "compare the journal with its mirrors and backups: entries at its end were lost"
	}
	return "nothing is done while the record is broken: keep this file as evidence, compare it with its mirrors and " +
		"backups, and put a verified copy in its place"
}

// hinted is an error with a hint for the user.
type hinted struct {
	err  error
	hint string
}

func (h *hinted) Error() string { return h.err.Error() }
func (h *hinted) Unwrap() error { return h.err }

// Hint says what the user can do.
func (h *hinted) Hint() string { return h.hint }

// A PlaceError is the error of a path where no journal can be kept: a mistake
// in the configuration, not in the journal.
type PlaceError struct{ hinted }

// placed makes a PlaceError of what the file system refuses.
func placed(err error) error {
	if _, ok := errors.AsType[*PlaceError](err); ok {
		return err
	}
	for _, refusal := range []error{fs.ErrPermission, unix.EROFS, unix.ENOTDIR, unix.ENAMETOOLONG, unix.ELOOP} {
		if errors.Is(err, refusal) {
			return &PlaceError{hinted{err, "name a file that this user may make, read and write: journal: file:/var/lib/keyturn/journal.jsonl"}}
		}
	}
	return err
}
