package journal

import (
	"bytes"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/gowebpki/jcs"
)

// Seal returns the entry as the next one after prev: with its number, the hash
// of the one before, a nonce if it has none, and its own hash. The time is cut
// to milliseconds in UTC, the evidence put in canonical form, so that the
// result equals what a reader of the journal gets. Numbers in the evidence that
// are not integers within ±(2^53-1) are refused, as is a zero time.
func Seal(prev Head, e Entry) (Entry, error) {
	sealed, err := seal(prev, e)
	if err != nil {
		return Entry{}, fmt.Errorf("sealing entry %d: %w", prev.Seq+1, err)
	}
	return sealed, nil
}

func seal(prev Head, e Entry) (Entry, error) {
	if err := checkFields(e); err != nil {
		return Entry{}, err
	}
	if prev.Seq < 0 || prev.Seq >= maxInteger || len(prev.prev()) != len(noHash) {
		return Entry{}, fmt.Errorf("%v cannot be followed", prev)
	}
	ev, err := evidence(e.Evidence)
	if err != nil {
		return Entry{}, err
	}
	e.Seq, e.Prev, e.Evidence = prev.Seq+1, prev.prev(), ev
	e.Time = e.Time.UTC().Truncate(time.Millisecond)
	if e.Nonce == "" {
		e.Nonce = NewNonce()
	}
	f, err := formOf(e)
	if err != nil {
		return Entry{}, err
	}
	e.Hash = f.digest()
	return e, checkLine(f.line(e.Hash))
}

// checkLine has a line that is about to be written checked by a library that
// knows nothing of entries.
func checkLine(line []byte) error {
	if len(line) >= maxLine {
		return fmt.Errorf("it has %d bytes, and may have %d", len(line), maxLine-1)
	}
	if text, err := jcs.Transform(line); err != nil || !bytes.Equal(text, line) {
		return fmt.Errorf("its form is not canonical: %w", errors.Join(errors.New("two writers disagree"), err))
	}
	return nil
}

// Line returns a sealed entry as it stands in a journal, without a newline.
func Line(e Entry) ([]byte, error) {
	f, err := formOf(e)
	if err != nil {
		return nil, fmt.Errorf("writing entry %d: %w", e.Seq, err)
	}
	return f.line(e.Hash), nil
}

// SealAll seals entries that are appended together. They share a nonce, the
// first that one of them has or a new one, each with its place behind it, so
// that a reader can tell a part of them from the whole: all count, or none.
// Entries that were appended at different times, and only come to a home
// together, each have a nonce of their own, and keep it.
func SealAll(prev Head, entries ...Entry) ([]Entry, error) {
	if !apart(entries) {
		nonce := ""
		for _, e := range entries {
			if nonce == "" {
				nonce, _, _ = strings.Cut(e.Nonce, ".")
			}
		}
		if nonce == "" {
			nonce = NewNonce()
		}
		entries = together(nonce, entries)
	}
	sealed := make([]Entry, 0, len(entries))
	for _, e := range entries {
		e, err := Seal(prev, e)
		if err != nil {
			return nil, err
		}
		sealed = append(sealed, e)
		prev = e.Head()
	}
	return sealed, nil
}

// apart reports whether each entry has a nonce of its own.
func apart(entries []Entry) bool {
	seen := map[string]bool{"": true}
	for _, e := range entries {
		if seen[e.Nonce] {
			return false
		}
		seen[e.Nonce] = true
	}
	return len(entries) > 1
}

// together returns entries with the nonce that they share, each with its place.
func together(nonce string, entries []Entry) []Entry {
	out := slices.Clone(entries)
	for i := range out {
		out[i].Nonce = nonce
		if len(out) > 1 {
			out[i].Nonce = fmt.Sprintf("%s.%d/%d", nonce, i+1, len(out))
		}
	}
	return out
}

// NewNonce returns 32 random hexadecimal digits.
func NewNonce() string {
	b := make([]byte, 16)
	rand.Read(b) // never fails: it ends the program instead
	return hex.EncodeToString(b)
}

// place returns which of how many entries that were appended together one is.
func place(nonce string) (i, of int) {
	_, rest, found := strings.Cut(nonce, ".")
	first, last, ok := strings.Cut(rest, "/")
	if !found || !ok {
		return 1, 1
	}
	i, err1 := strconv.Atoi(first)
	of, err2 := strconv.Atoi(last)
	if err1 != nil || err2 != nil || i < 1 || of < i {
		return 1, 1
	}
	return i, of
}
