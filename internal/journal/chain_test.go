package journal_test

import (
	"bytes"
	"encoding/json"
	"io"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/gowebpki/jcs"
	"pgregory.net/rapid"

	"github.com/keyturn/keyturn/internal/journal"
)

// chainLines is the length of the chains that the properties break.
const chainLines = 12

// broken decodes lines that are not a good chain and returns their fault,
// having checked what is true of every fault.
func broken(t *rapid.T, text []byte) *journal.Fault {
	entries, err := journal.Decode(bytes.NewReader(text))
	f, ok := err.(*journal.Fault)
	if !ok {
		t.Fatalf("Decode = %v, want a *Fault in:\n%s", err, text)
	}
	if int64(len(entries)) != f.Seq-1 || int64(f.Line) != f.Seq {
		t.Fatalf("Decode = %d entries before the fault %v", len(entries), f)
	}
	if err := journal.Verify(entries); err != nil {
		t.Fatalf("Verify of the entries before the fault = %v", err)
	}
	return f
}

func want(t *rapid.T, f *journal.Fault, seq int, kinds ...journal.Kind) {
	if f.Seq != int64(seq) || !slices.Contains(kinds, f.Kind) {
		t.Fatalf("fault = %v (%s), want entry %d, one of %q", f, f.Kind, seq, kinds)
	}
}

func TestAnyChangeIsFound(t *testing.T) {
	text := textOf(t, sealed(t, chainLines))
	lines := linesOf(text)
	line := rapid.IntRange(1, chainLines)
	join := func(lines [][]byte) []byte { return bytes.Join(lines, nil) }

	for name, property := range map[string]func(*rapid.T){
		"a byte changed": func(t *rapid.T) {
			at := rapid.IntRange(0, len(text)-1).Draw(t, "at")
			to := rapid.Byte().Filter(func(b byte) bool { return b != text[at] }).Draw(t, "to")
			edited := bytes.Clone(text)
			edited[at] = to
			f := broken(t, edited)
			// A newline in the last line makes a torn end of it at most, never an entry.
			want(t, f, bytes.Count(text[:at], []byte("\n"))+1, journal.Edited, journal.Unreadable, journal.Truncated)
		},
		"a byte inserted": func(t *rapid.T) {
			at := rapid.IntRange(0, len(text)-1).Draw(t, "at")
			b := rapid.Byte().Draw(t, "byte")
			edited := slices.Insert(bytes.Clone(text), at, b)
			if bytes.Equal(edited, text) {
				t.Skip("nothing changed")
			}
			hurt := bytes.Count(text[:at], []byte("\n")) + 1
			if b == '\n' && text[at] == '\n' { // that line is whole, and an empty one comes behind it
				hurt++
			}
			want(t, broken(t, edited), hurt, journal.Edited, journal.Unreadable)
		},
		"a byte removed": func(t *rapid.T) {
			at := rapid.IntRange(0, len(text)-2).Draw(t, "at") // without the last newline it is whole
			edited := slices.Delete(bytes.Clone(text), at, at+1)
			want(t, broken(t, edited), bytes.Count(text[:at], []byte("\n"))+1, journal.Edited, journal.Unreadable, journal.Truncated)
		},
		"lines removed": func(t *rapid.T) {
			from := rapid.IntRange(1, chainLines-1).Draw(t, "from")
			to := rapid.IntRange(from, chainLines-1).Draw(t, "to")
			cut := slices.Delete(slices.Clone(lines), from-1, to)
			want(t, broken(t, join(cut)), from, journal.Gap)
		},
		"lines swapped": func(t *rapid.T) {
			i := rapid.IntRange(1, chainLines-1).Draw(t, "one")
			j := rapid.IntRange(i+1, chainLines).Draw(t, "other")
			swapped := slices.Clone(lines)
			swapped[i-1], swapped[j-1] = swapped[j-1], swapped[i-1]
			want(t, broken(t, join(swapped)), i, journal.Reordered)
		},
		"a line twice": func(t *rapid.T) {
			from, to := line.Draw(t, "line"), rapid.IntRange(0, chainLines).Draw(t, "after")
			twice := slices.Insert(slices.Clone(lines), to, lines[from-1])
			first := to + 1
			if to == from-1 { // beside the original: the second of the two is too many
				first = from + 1
			}
			want(t, broken(t, join(twice)), first, journal.Reordered)
		},
		"an entry sealed again": func(t *rapid.T) {
			at := line.Draw(t, "line")
			entries := sealed(t, chainLines)
			var head journal.Head
			if at > 1 {
				head = entries[at-2].Head()
			}
			e := entries[at-1]
			e.Status = "forged"
			e, err := journal.Seal(head, e)
			if err != nil {
				t.Fatal(err)
			}
			entries[at-1] = e
			if at == chainLines { // the last one: only an anchor tells
				if err := journal.Anchored(entries, sealed(t, chainLines)[at-1].Head()); err == nil {
					t.Fatal("Anchored = nil, want a fork")
				}
				return
			}
			want(t, broken(t, textOf(t, entries)), at+1, journal.Fork)
		},
		"two histories": func(t *rapid.T) {
			at := rapid.IntRange(1, chainLines-1).Draw(t, "fork after")
			entries := sealed(t, chainLines)
			e, err := journal.Seal(entries[at-1].Head(), journal.Entry{Time: day, Step: "other"})
			if err != nil {
				t.Fatal(err)
			}
			want(t, broken(t, textOf(t, append(entries, e))), chainLines+1, journal.Fork)
		},
	} {
		t.Run(name, func(t *testing.T) { rapid.Check(t, property) })
	}
}

// Every single byte of a small chain, every bit of it.
func TestEveryBitIsCovered(t *testing.T) {
	text := textOf(t, sealed(t, 2))
	for at := range text {
		for bit := range 8 {
			edited := bytes.Clone(text)
			edited[at] ^= 1 << bit
			_, err := journal.Decode(bytes.NewReader(edited))
			f := faultOf(t, err)
			if seq := int64(bytes.Count(text[:at], []byte("\n")) + 1); f.Seq != seq {
				t.Errorf("byte %d, bit %d: fault %v, want entry %d", at, bit, f, seq)
			}
		}
	}
}

func TestVerifyNamesTheFirst(t *testing.T) {
	good := sealed(t, 5)
	edit := func(change func(e []journal.Entry) []journal.Entry) []journal.Entry {
		return change(slices.Clone(good))
	}
	for name, c := range map[string]struct {
		entries []journal.Entry
		want    journal.Fault
	}{
		"edited": {edit(func(e []journal.Entry) []journal.Entry { e[2].Status = "x"; e[4].Status = "y"; return e }),
			journal.Fault{Seq: 3, Line: 3, Kind: journal.Edited}},
		"gap":       {slices.Delete(slices.Clone(good), 1, 3), journal.Fault{Seq: 2, Line: 2, Kind: journal.Gap}},
		"no first":  {good[1:], journal.Fault{Seq: 1, Line: 1, Kind: journal.Gap}},
		"reordered": {[]journal.Entry{good[0], good[2], good[1]}, journal.Fault{Seq: 2, Line: 2, Kind: journal.Reordered}},
		"twice":     {[]journal.Entry{good[0], good[0]}, journal.Fault{Seq: 2, Line: 2, Kind: journal.Reordered}},
	} {
		t.Run(name, func(t *testing.T) {
			err := journal.Verify(c.entries)
			f := faultOf(t, err)
			wantHint(t, err)
			f.Detail = ""
			if diff := cmp.Diff(&c.want, f); diff != "" {
				t.Errorf("Verify (-want +got):\n%s", diff)
			}
		})
	}
	if err := journal.Verify(good); err != nil {
		t.Errorf("Verify of a good chain = %v", err)
	}
	if err := journal.Verify(nil); err != nil {
		t.Errorf("Verify of an empty chain = %v", err)
	}
}

// A chain cannot tell that its end was cut off; who knows its head can.
func TestAnchored(t *testing.T) {
	good := sealed(t, 5)
	if err := journal.Anchored(good[:3], good[2].Head()); err != nil {
		t.Errorf("Anchored at its head = %v", err)
	}
	if err := journal.Anchored(nil, journal.Head{}); err != nil {
		t.Errorf("Anchored of an empty chain = %v", err)
	}
	if f := faultOf(t, journal.Anchored(good[:3], good[4].Head())); f.Kind != journal.Truncated || f.Seq != 4 || f.Line != 4 {
		t.Errorf("Anchored of a chain without its end = %v, want truncated at entry 4", f)
	}
	if f := faultOf(t, journal.Anchored(good, journal.Head{Seq: 2, Hash: strings.Repeat("a", 64)})); f.Kind != journal.Fork || f.Seq != 2 {
		t.Errorf("Anchored at another entry 2 = %v, want a fork", f)
	}
}

// What a chain is written as is what the general library makes of it, whatever
// stands in its fields: two writers, one form.
func TestFormIsCanonical(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		text := rapid.String()
		count := rapid.IntRange(0, 1<<53-1)
		e := journal.Entry{Time: day, Rotation: text.Draw(t, "rotation"), Credential: text.Draw(t, "credential"),
			Version: count.Draw(t, "version"), Identity: text.Draw(t, "identity"), Phase: text.Draw(t, "phase"),
			Step: text.Draw(t, "step"), Status: text.Draw(t, "status"),
			Actor: journal.Actor{Name: text.Draw(t, "actor"), Verified: rapid.Bool().Draw(t, "verified")},
			Run: journal.Run{ID: text.Draw(t, "run"), Attempt: count.Draw(t, "attempt"), URL: text.Draw(t, "url"),
				Host: text.Draw(t, "host"), PID: count.Draw(t, "pid")},
			Commit: text.Draw(t, "commit"), Plan: text.Draw(t, "plan"), Evidence: map[string]json.RawMessage{}}
		for name, v := range rapid.MapOf(names(), values(3)).Draw(t, "evidence") {
			raw, err := json.Marshal(v)
			if err != nil {
				t.Fatal(err)
			}
			e.Evidence[name] = raw
		}
		e, err := journal.Seal(journal.Head{}, e)
		if err != nil {
			t.Fatalf("Seal: %v", err)
		}
		line, err := journal.Line(e)
		if err != nil {
			t.Fatalf("Line: %v", err)
		}
		plain, err := json.Marshal(e)
		if err != nil {
			t.Fatal(err)
		}
		if other, err := jcs.Transform(plain); err != nil || !bytes.Equal(other, line) {
			t.Fatalf("Line = %s, the library says %s, %v", line, other, err)
		}
		back, err := journal.Decode(bytes.NewReader(append(line, '\n')))
		if err != nil {
			t.Fatalf("Decode: %v", err)
		}
		if diff := cmp.Diff([]journal.Entry{e}, back); diff != "" {
			t.Fatalf("Decode (-Seal +Decode):\n%s", diff)
		}
	})
}

func names() *rapid.Generator[string] {
	return rapid.StringOf(rapid.RuneFrom([]rune("aZ0_ \"\\/\n\u00e9\u20ac\ud7ff<")))
}

// values draws what evidence may hold.
func values(depth int) *rapid.Generator[any] {
	kinds := []*rapid.Generator[any]{rapid.String().AsAny(), rapid.Bool().AsAny(),
		rapid.Int64Range(-(1<<53 - 1), 1<<53-1).AsAny(), rapid.Just[any](nil)}
	if depth > 0 {
		kinds = append(kinds, rapid.SliceOfN(values(depth-1), 0, 3).AsAny(), rapid.MapOfN(names(), values(depth-1), 0, 3).AsAny())
	}
	return rapid.OneOf(kinds...)
}

// FuzzRead feeds the reader anything. What it takes must be a chain, and be
// written again byte for byte; what it refuses it must refuse with a place.
func FuzzRead(f *testing.F) {
	text := textOf(f, sealed(f, 3))
	golden := bytesOf(f, "testdata/chain.jsonl")
	for _, seed := range [][]byte{nil, text, golden, text[:len(text)-1], text[:len(text)/2], text[len(text)/2:],
		append(bytes.Clone(text), 0, 0, 0), []byte("\n"), []byte("{}\n"), []byte(`{"seq":1e400}`), []byte("null\n")} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		entries, err := journal.Decode(bytes.NewReader(text))
		if bad := journal.Verify(entries); bad != nil {
			t.Fatalf("Decode returned entries that are no chain: %v", bad)
		}
		if err != nil {
			if f := faultOf(t, err); f.Line < 1 || f.Seq < 1 || f.Kind == "" || f.Detail == "" {
				t.Fatalf("Decode = %+v, want a place and a kind", f)
			}
			return
		}
		again := textOf(t, entries)
		if !bytes.Equal(bytes.TrimSuffix(again, []byte("\n")), bytes.TrimSuffix(text, []byte("\n"))) {
			t.Fatalf("Decode took %q, which is written %q", text, again)
		}
	})
}

// A line without an end is not read into memory.
func TestEndlessLine(t *testing.T) {
	_, err := journal.Decode(io.MultiReader(strings.NewReader(`{"evidence":"`), io.LimitReader(endless{}, 1<<30)))
	if f := faultOf(t, err); f.Kind != journal.Unreadable || !strings.Contains(f.Detail, "longer") {
		t.Errorf("Decode of an endless line = %v, want unreadable", f)
	}
}

type endless struct{}

func (endless) Read(b []byte) (int, error) {
	for i := range b {
		b[i] = 'x'
	}
	return len(b), nil
}
