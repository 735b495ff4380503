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
	var entries []Entry
	s := scan(r, mark{}, func(e Entry, _ mark) { entries = append(entries, e) })
	switch {
	case s.err != nil:
		return entries, s.err
	case s.torn != nil:
		return entries, &Fault{Seq: s.end.head.Seq + 1, Line: s.end.line + 1, Kind: Truncated,
			Detail: fmt.Sprintf("the journal ends in the middle of it (%s)", s.torn.reason)}
	}
	return entries, nil
}

// A mark is a boundary between two lines: what stands before it.
type mark struct {
	offset int64 // bytes
	line   int   // lines
	head   Head
}

// A scanned is what a scan found, apart from the entries.
type scanned struct {
	end     mark  // after the last entry; where the scan began, if there was none
	torn    *torn // what a crash left at the end; nil if nothing
	unended bool  // the last entry is whole, but for its newline
	err     error // a *Fault, or an error of reading

	part []placedEntry // of entries that were appended together, while they come in
}

// A placedEntry is an entry and what stands before it.
type placedEntry struct {
	Entry
	start mark
}

// torn is an end that is no entry.
type torn struct {
	from   int64 // where it begins
	reason string
}

// scan reads lines from r, whose first byte stands at the mark, to the end, and hands
// each entry, with what stands before it, to take as soon as all that were appended
// together with it are there. It keeps none of them.
func scan(r io.Reader, from mark, take func(Entry, mark)) *scanned {
	s := &scanned{end: from}
	c := chain{head: from.head}
	br := bufio.NewReaderSize(r, 64<<10)
	for {
		line, err := readLine(br)
		ended := bytes.HasSuffix(line, []byte("\n"))
		if err != nil && err != io.EOF {
			s.give(take)
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
			s.give(take)
			s.fault(br, fault)
			return s
		}
		i, of := place(e.Nonce)
		if i != len(s.part)+1 {
			s.give(take)
		}
		s.part = append(s.part, placedEntry{e, s.end})
		if i == of {
			s.give(take)
		}
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

// give hands over the entries that were held back.
func (s *scanned) give(take func(Entry, mark)) {
	for _, e := range s.part {
		take(e.Entry, e.start)
	}
	s.part = s.part[:0]
}

// dropPart forgets entries at the end whose others, appended together with them,
// did not get there: all count, or none.
func (s *scanned) dropPart() {
	if len(s.part) == 0 {
		return
	}
	i, of := place(s.part[len(s.part)-1].Nonce)
	s.end, s.unended, s.part = s.part[0].start, false, nil
	s.torn = &torn{from: s.end.offset, reason: fmt.Sprintf("%d of %d entries that belong together", i, of)}
}
