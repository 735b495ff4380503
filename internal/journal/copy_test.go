package journal_test

import (
	"context"
	"errors"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/keyturn/keyturn/internal/journal"
)

// drawer keeps a copy in memory.
type drawer struct {
	parts []journal.Part
	puts  int
}

func (d *drawer) Parts(context.Context) ([]journal.Part, error) { return slices.Clone(d.parts), nil }

func (d *drawer) Put(_ context.Context, p journal.Part) error {
	d.puts++
	d.parts = slices.DeleteFunc(d.parts, func(o journal.Part) bool { return o.First == p.First && o.Last < p.Last })
	d.parts = append(d.parts, p)
	return nil
}

// TestCopy: however often a copy is brought up to date, it reads as the journal does; no
// part is larger than it may be, and a part that is large is left as it is.
func TestCopy(t *testing.T) {
	t.Parallel()
	ctx, entries, d := context.Background(), sealed(t, 60), &drawer{}
	const limit = 2 << 10
	for n := range entries {
		if err := journal.Keep(ctx, d, limit, entries[:n+1]); err != nil {
			t.Fatal(err)
		}
		c, err := journal.OpenCopy(ctx, d)
		if err != nil {
			t.Fatalf("after %d entries: %v", n+1, err)
		}
		got, err := c.Read(ctx)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(entries[:n+1], got); diff != "" {
			t.Fatalf("after %d entries (-journal +copy):\n%s", n+1, diff)
		}
	}
	puts, parts := d.puts, len(d.parts)
	if err := journal.Keep(ctx, d, limit, entries); err != nil || d.puts != puts {
		t.Errorf("with nothing new: %v, %d parts written", err, d.puts-puts)
	}
	at := new(drawer) // and all at once
	if err := journal.Keep(ctx, at, limit, entries); err != nil {
		t.Fatal(err)
	}
	for _, p := range append(at.parts, d.parts...) {
		if len(p.Data) > limit {
			t.Errorf("entries %d to %d take %d bytes, want at most %d", p.First, p.Last, len(p.Data), limit)
		}
	}
	if parts < 3 || parts > 15 || len(at.parts) < 2 {
		t.Errorf("%d and %d parts, want some", parts, len(at.parts))
	}
}

// TestCopyRefuses: a copy takes nothing, and one that was changed or lost a part in the
// middle is none.
func TestCopyRefuses(t *testing.T) {
	t.Parallel()
	ctx, entries, d := context.Background(), sealed(t, 60), &drawer{}
	if _, err := journal.OpenCopy(ctx, d); err == nil {
		t.Error("a copy of nothing was opened")
	}
	if err := journal.Keep(ctx, d, 2<<10, entries); err != nil {
		t.Fatal(err)
	}
	c, err := journal.OpenCopy(ctx, d)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.Append(ctx, entries[59].Head(), entries[0]); !errors.Is(err, journal.ErrCopy) {
		t.Errorf("an append to a copy: %v, want %v", err, journal.ErrCopy)
	}
	since, err := c.Since(ctx, entries[49].Head())
	if err != nil || len(since) != 10 || since[0].Seq != 51 {
		t.Errorf("since entry 50: %d entries, %v", len(since), err)
	}
	var fault *journal.Fault
	if _, err := c.Since(ctx, journal.Head{Seq: 61, Hash: entries[59].Hash}); !errors.As(err, &fault) || fault.Kind != journal.Truncated {
		t.Errorf("since an entry that it has not: %v", err)
	}
	for name, change := range map[string]func() []journal.Part{
		"without its second part": func() []journal.Part { return slices.Delete(slices.Clone(d.parts), 1, 2) },
		"another order":           func() []journal.Part { return append(slices.Clone(d.parts[1:]), d.parts[0]) },
		"no gzip": func() []journal.Part {
			return append(slices.Clone(d.parts[1:]), journal.Part{First: 1, Last: 2, Data: []byte("{}\n")})
		},
	} {
		if _, err := journal.OpenCopy(ctx, &drawer{parts: change()}); err == nil {
			t.Errorf("%s: it was opened", name)
		}
	}
}
