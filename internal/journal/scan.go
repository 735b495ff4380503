package journal

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
)

// Decode reads a journal, one entry a line, and verifies its chain. A broken
// one is returned up to its fault, with the [*Fault]. One that ends in the
// middle of an entry, or of entries that were appended together, as after a
// crash, is a fault of kind [Truncated]: the home in which it happened sets
// such an end aside, an export has none. The cost is linear.
func Decode(r io.Reader) ([]Entry, error) {
	s := scan(r, mark{})
	switch {
	case s.err != nil:
		return s.entries, s.err
	case s.torn != nil:
		return s.entries, &Fault{Seq: s.end.head.Seq + 1, Line: s.end.line + 1, Kind: Truncated,
			Detail: fmt.Sprintf("the journal ends in the middle of it (%s)", s.torn.reason)}
	}
	return s.entries, nil
}

// A mark is a boundary between two lines: what stands before it.
type mark struct {
	offset int64 // bytes
	line   int   // lines
	head   Head
}

// A scanned is what a scan found.
type scanned struct {
	entries []Entry
	starts  []mark // before each entry
	end     mark   // after the last entry
	torn    *torn  // what a crash left at the end; nil if nothing
	unended bool   // the last entry is whole, but for its newline
	err     error  // a *Fault, or an error of reading
}

// torn is an end that is no entry.
type torn struct {
	from   int64 // where it begins
	reason string
}

// scan reads lines from r, whose first byte stands at the mark, to the end.
func scan(r io.Reader, from mark) *scanned {
	s := &scanned{end: from}
	c := chain{head: from.head}
	br := bufio.NewReaderSize(r, 64<<10)
	for {
		line, err := readLine(br)
		ended := bytes.HasSuffix(line, []byte("\n"))
		if err != nil && err != io.EOF {
			s.fail(err)
			return s
		}
		if len(line) == 0 {
			break
		}
		if !ended && isTorn(line) {
			s.torn = &torn{from: s.end.offset, reason: "the last line is not finished"}
			break
		}
		e, fault := readEntry(&c, bytes.TrimSuffix(line, []byte("\n")))
		if fault != nil {
			s.fault(br, fault)
			return s
		}
		s.starts = append(s.starts, s.end)
		s.entries = append(s.entries, e)
		s.end = mark{offset: s.end.offset + int64(len(line)), line: s.end.line + 1, head: e.Head()}
		s.unended = !ended
	}
	s.dropPart()
	return s
}

var errLongLine = errors.New("the line is longer than 1 MiB")

// readLine returns a line with its newline; without one it is the last.
func readLine(br *bufio.Reader) ([]byte, error) {
	var line []byte
	for {
		part, err := br.ReadSlice('\n')
		if line == nil && err == nil {
			return part, nil // valid until the next read, which is long enough
		}
		line = append(line, part...)
		if len(line) > maxLine {
			return nil, errLongLine
		}
		if err != bufio.ErrBufferFull {
			return line, err
		}
	}
}

// isTorn reports whether a last line without a newline is the beginning of an
// entry, and no more: JSON that goes on. A power failure may leave zero bytes
// behind it, also behind the last brace, where the file had grown and its data
// were not yet written.
func isTorn(line []byte) bool {
	text := bytes.TrimRight(line, "\x00")
	if len(text) == 0 {
		return true
	}
	d := json.NewDecoder(bytes.NewReader(text))
	var v json.RawMessage
	err := d.Decode(&v)
	zeros := len(text) < len(line)
	whole := err == nil && d.InputOffset() == int64(len(text))
	return text[0] == '{' && (errors.Is(err, io.ErrUnexpectedEOF) || zeros && whole)
}

// readEntry reads a line and adds it to the chain. A line must be, byte for
// byte, the canonical form of its entry: then nothing in it can be changed
// without changing the entry.
func readEntry(c *chain, line []byte) (Entry, *Fault) {
	e, err := parse(line)
	if err != nil {
		return e, c.fault(Unreadable, "the line is not an entry: "+err.Error())
	}
	f, err := formOf(e)
	if err != nil {
		return e, c.fault(Unreadable, "the line is not an entry: "+err.Error())
	}
	if !bytes.Equal(f.line(e.Hash), line) {
		return e, c.fault(Edited, "the line is not in the form in which entries are written")
	}
	return e, c.addForm(e, f)
}

// ParseLine reads one entry, without its place in a chain: its line must be in
// the form in which entries are written, and its hash right.
func ParseLine(line []byte) (Entry, error) {
	e, err := parse(line)
	if err != nil {
		return Entry{}, err
	}
	f, err := formOf(e)
	switch {
	case err != nil:
		return Entry{}, err
	case !bytes.Equal(f.line(e.Hash), line):
		return Entry{}, errors.New("the line is not in the form in which entries are written")
	case e.Hash != f.digest():
		return Entry{}, errors.New("its content does not match its hash")
	}
	return e, nil
}

func parse(line []byte) (Entry, error) {
	var w wire
	if err := json.Unmarshal(line, &w); err != nil {
		return Entry{}, errors.New(strings.TrimPrefix(err.Error(), "json: "))
	}
	return w.entry()
}

// fault ends the scan, after a look at what follows.
func (s *scanned) fault(br *bufio.Reader, f *Fault) {
	f.Line = s.end.line + 1
	for f.Kind == Gap {
		line, err := readLine(br)
		var e struct{ Seq int64 }
		if json.Unmarshal(line, &e) == nil {
			f.later(e.Seq)
		}
		if err != nil {
			break
		}
	}
	s.err = f
}

// fail ends the scan at a line that cannot be read.
func (s *scanned) fail(err error) {
	if errors.Is(err, errLongLine) {
		err = &Fault{Seq: s.end.head.Seq + 1, Line: s.end.line + 1, Kind: Unreadable, Detail: err.Error()}
	}
	s.err = err
}

// dropPart takes back entries at the end whose others, appended together with
// them, did not get there: all count, or none.
func (s *scanned) dropPart() {
	n := len(s.entries)
	if n == 0 {
		return
	}
	i, of := place(s.entries[n-1].Nonce)
	if i == of {
		return
	}
	first := max(n-i, 0)
	s.end = s.starts[first]
	s.entries, s.starts = s.entries[:first], s.starts[:first]
	s.unended = false
	s.torn = &torn{from: s.end.offset, reason: fmt.Sprintf("%d of %d entries that belong together", i, of)}
}
