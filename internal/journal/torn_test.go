package journal_test

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/keyturn/keyturn/internal/journal"
)

// A crash may cut the file anywhere inside the last append. Whatever is left:
// the whole entries before are read, the rest is kept aside and on the record,
// and the journal goes on.
func TestTornAtEveryByte(t *testing.T) {
	for _, group := range []int{1, 2} {
		j := create(t)
		before := fill(t, j, 2)
		start := len(bytesOf(t, j.Path()))
		var entries []journal.Entry
		for i := range group {
			entries = append(entries, journal.Entry{Time: day, Step: fmt.Sprintf("é%d", i)})
		}
		done, err := j.Append(t.Context(), before[2].Head(), entries...)
		if err != nil {
			t.Fatal(err)
		}
		text := bytesOf(t, j.Path())
		const shares = 8 // at a time: it is fsync that takes long
		for share := range shares {
			t.Run(fmt.Sprintf("%d appended, share %d", group, share), func(t *testing.T) {
				t.Parallel()
				for cut := start + share; cut <= len(text); cut += shares {
					want := before
					if cut >= len(text)-1 { // whole but for its newline, at most
						want = append(before[:3:3], done...)
					}
					checkTorn(t, text[:start], text[start:cut], want)
					if cut < len(text) && (share == 0 || cut == len(text)-1) { // a power failure: zeros behind it
						want = before
						checkTorn(t, text[:start], append(bytes.Clone(text[start:cut]), make([]byte, 100)...), want)
					}
				}
			})
		}
	}
}

func checkTorn(t *testing.T, text, tail []byte, want []journal.Entry) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "journal.jsonl")
	put(t, path, append(bytes.Clone(text), tail...))
	j, err := journal.Open(path, journal.Options{})
	if err != nil {
		t.Fatalf("Open of a journal with the end %q: %v", tail, err)
	}
	if diff := cmp.Diff(want, read(t, j)); diff != "" {
		t.Fatalf("Read of a journal with the end %q (-want +got):\n%s", tail, diff)
	}
	if !bytes.Equal(bytesOf(t, path), append(bytes.Clone(text), tail...)) {
		t.Fatalf("reading a journal with the end %q changed it", tail)
	}
	log := journal.Follow(j)
	if _, err := log.Append(t.Context(), func([]journal.Entry, journal.Head) ([]journal.Entry, error) {
		return []journal.Entry{sample(7)}, nil
	}); err != nil {
		t.Fatalf("Append after the end %q: %v", tail, err)
	}
	kept, got := j.Torn(), decode(t, path)[len(want):]
	if len(tail) == 0 || got[0].Step == "step 7" {
		if len(kept) != 0 || len(got) != 1 || len(want) == 3 && len(tail) > 0 {
			t.Fatalf("after the end %q: %d kept aside, entries %+v", tail, len(kept), got)
		}
		return
	}
	if len(got) != 2 || got[0].Step != "journal-torn" || got[0].Status != "note" || got[1].Step != "step 7" {
		t.Fatalf("after the end %q the journal goes on with %+v, want a note and the entry", tail, got)
	}
	if len(kept) != 1 || !bytes.Equal(bytesOf(t, kept[0].Path), tail) || int(kept[0].Bytes) != len(tail) {
		t.Fatalf("kept aside %+v, want the end %q", kept, tail)
	}
	if name := string(got[0].Evidence["file"]); name != `"`+filepath.Base(kept[0].Path)+`"` {
		t.Fatalf("the note names %s, want %s", name, kept[0].Path)
	}
	if info, err := os.Stat(kept[0].Path); err != nil || info.Mode().Perm() != 0o600 {
		t.Fatalf("mode of the file kept aside = %v, %v, want 0600", info.Mode(), err)
	}
}

// What a crash cannot leave is a fault, never set aside.
func TestNotTorn(t *testing.T) {
	text := textOf(t, sealed(t, 3))
	whole := text[:len(text)-1]
	for name, c := range map[string]struct {
		text []byte
		kind journal.Kind
	}{
		"edited, with its newline":    {bytes.Replace(text, []byte("step 3"), []byte("step 4"), 1), journal.Edited},
		"edited, without its newline": {bytes.Replace(whole, []byte("step 3"), []byte("step 4"), 1), journal.Edited},
		"more behind it":              {append(bytes.Clone(whole), "}"...), journal.Unreadable},
		"zeros in it":                 {append(append(bytes.Clone(whole), 0, 0), '}'), journal.Unreadable},
		"not JSON":                    {append(bytes.Clone(text), "rm -rf"...), journal.Unreadable},
		"cut, but ended":              {append(bytes.Clone(text[:len(text)-9]), '\n'), journal.Unreadable},
		"an empty line":               {append(bytes.Clone(text), '\n'), journal.Unreadable},
		"a part in the middle": {bytes.Replace(text, linesOf(text)[1], append(bytes.Clone(linesOf(text)[1][:40]), '\n'), 1),
			journal.Unreadable},
	} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "journal.jsonl")
			put(t, path, c.text)
			_, err := journal.Open(path, journal.Options{Create: true})
			if f := faultOf(t, err); f.Kind != c.kind {
				t.Errorf("Open = %v, want %s", err, c.kind)
			}
			if !bytes.Equal(bytesOf(t, path), c.text) {
				t.Error("Open changed a journal that is broken")
			}
		})
	}
}

// An export that ends in the middle is no journal.
func TestDecodeTorn(t *testing.T) {
	text := textOf(t, sealed(t, 3))
	entries, err := journal.Decode(bytes.NewReader(text[:len(text)-5]))
	if f := faultOf(t, err); f.Kind != journal.Truncated || f.Seq != 3 || f.Line != 3 || len(entries) != 2 {
		t.Errorf("Decode = %d entries, %v, want two and truncated at entry 3", len(entries), err)
	}
	if !strings.Contains(err.Error(), "line 3: entry 3") {
		t.Errorf("Decode = %q, want it to name line and entry", err)
	}
}

// TestAudit counts what is whole and says what a crash left behind it; a file
// without even a first entry is no journal that was begun.
func TestAudit(t *testing.T) {
	whole := create(t)
	fill(t, whole, 2)
	text := bytesOf(t, whole.Path())
	for name, c := range map[string]struct {
		text       []byte
		entries    int
		unfinished string
	}{
		"whole":                 {text, 3, ""},
		"without a newline":     {text[:len(text)-1], 3, ""},
		"torn":                  {append(bytes.Clone(text), `{"seq":`...), 3, "7 bytes after it are no entry: the last line is not finished"},
		"zeros behind it":       {append(bytes.Clone(text), make([]byte, 100)...), 3, "100 bytes after it"},
		"empty":                 {nil, 0, ""},
		"nothing but zeros":     {make([]byte, 4096), 0, ""},
		"torn in its beginning": {text[:50], 0, ""},
	} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "journal.jsonl")
			put(t, path, c.text)
			j, err := journal.Open(path, journal.Options{})
			if err != nil {
				t.Fatal(err)
			}
			a, err := j.Audit(t.Context())
			if c.entries == 0 {
				if f := faultOf(t, err); f.Kind != journal.Truncated || f.Line != 1 {
					t.Errorf("Audit = %v, want a fault of kind truncated on line 1", err)
				}
				return
			}
			if err != nil || a.Entries != c.entries || a.Head.Seq != int64(c.entries) ||
				!strings.HasPrefix(a.Unfinished, c.unfinished) || c.unfinished == "" && a.Unfinished != "" {
				t.Errorf("Audit = %+v, %v, want %d entries and %q", a, err, c.entries, c.unfinished)
			}
			if !bytes.Equal(bytesOf(t, path), c.text) {
				t.Error("Audit changed the file")
			}
		})
	}
}
