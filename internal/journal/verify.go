package journal

import "fmt"

// Verify checks a whole chain, from its first entry, and returns a [*Fault]
// that names the first bad one. The line of an entry is its place in the slice.
//
// Nothing in a chain tells that entries at its end were removed: see [Anchored].
func Verify(entries []Entry) error {
	var c chain
	for i, e := range entries {
		if f := c.add(e); f != nil {
			f.Line = i + 1
			for _, later := range entries[i+1:] {
				f.later(later.Seq)
			}
			return f
		}
	}
	return nil
}

// Anchored checks that a chain holds an entry that is known from elsewhere,
// such as a mirror, an earlier read or an export. The fault is [Truncated] if
// the chain ends before it, [Fork] if another entry has its number.
func Anchored(entries []Entry, at Head) error {
	w := waypoint{at: at.norm(), n: int64(len(entries))}
	if 0 < w.at.Seq && w.at.Seq <= w.n {
		w.found = entries[w.at.Seq-1].Hash
	}
	return w.judge()
}

// A waypoint is [Anchored] for entries that come one by one, from one before it on.
type waypoint struct {
	at    Head
	n     int64  // number of the last that came
	found string // hash of the one in its place
}

func (w *waypoint) pass(h Head) {
	if w.n = h.Seq; w.n == w.at.Seq {
		w.found = h.Hash
	}
}

func (w *waypoint) judge() error {
	switch {
	case w.at.Seq == 0:
		return nil
	case w.at.Seq > w.n:
		return &Fault{Seq: w.n + 1, Line: int(w.n) + 1, Kind: Truncated,
			Detail: fmt.Sprintf("the journal ends before it, and is known to have reached %v", w.at)}
	case w.found != w.at.Hash:
		return &Fault{Seq: w.at.Seq, Line: int(w.at.Seq), Kind: Fork,
			Detail: fmt.Sprintf("it is known as %.12s, and %.12s stands here", w.at.Hash, w.found)}
	}
	return nil
}

// A chain checks entries one after the other.
type chain struct {
	head   Head
	first  int64    // number of the entry whose hash is the first of hashes
	hashes []string // of the entries that were added
}

// add checks the next entry. The line of the fault is left to the caller.
func (c *chain) add(e Entry) *Fault {
	f, err := formOf(e)
	if err != nil {
		return c.fault(Unreadable, err.Error())
	}
	return c.addForm(e, f)
}

// addForm checks the next entry, given its canonical form.
func (c *chain) addForm(e Entry, f form) *Fault {
	if e.Hash != f.digest() {
		return c.fault(Edited, "its content does not match its hash")
	}
	return c.link(e)
}

// link checks the place of an entry whose own hash is right.
func (c *chain) link(e Entry) *Fault {
	next := c.head.Seq + 1
	switch {
	case e.Seq > next:
		// Reordered, if the missing one turns up: see Fault.later.
		return c.fault(Gap, fmt.Sprintf("entry %d stands in its place", e.Seq))
	case e.Seq < 1:
		return c.fault(Edited, fmt.Sprintf("number %d cannot be", e.Seq))
	case e.Seq < next && c.known(e):
		return c.fault(Reordered, fmt.Sprintf("entry %d stands there a second time", e.Seq))
	case e.Seq < next:
		return c.fault(Fork, fmt.Sprintf("a second entry %d stands in its place", e.Seq))
	case e.Prev != c.head.prev():
		return c.fault(Fork, fmt.Sprintf("it follows %.12s, and the entry before it is %.12s: one of the two was replaced",
			e.Prev, c.head.prev()))
	}
	if c.hashes == nil {
		c.first = e.Seq
	}
	c.hashes = append(c.hashes, e.Hash)
	c.head = e.Head()
	return nil
}

// known reports whether the entry is one that was added before.
func (c *chain) known(e Entry) bool {
	i := e.Seq - c.first
	return i >= 0 && i < int64(len(c.hashes)) && c.hashes[i] == e.Hash
}

func (c *chain) fault(k Kind, detail string) *Fault {
	return &Fault{Seq: c.head.Seq + 1, Kind: k, Detail: detail}
}

// later tells the fault which entries follow: a gap whose entry turns up later
// is none.
func (f *Fault) later(seq int64) {
	if f.Kind == Gap && seq == f.Seq {
		f.Kind = Reordered
	}
}
