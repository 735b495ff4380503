package journal_test

import (
	"bytes"
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/keyturn/keyturn/internal/journal"
	"github.com/keyturn/keyturn/internal/secret"
)

func TestOpenCreates(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "a", "b", "journal.jsonl")
	if _, err := journal.Open(path, journal.Options{}); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("Open of a missing file = %v, want fs.ErrNotExist", err)
	} else {
		wantHint(t, err)
	}
	j, err := journal.Open(path, journal.Options{Create: true, Now: func() time.Time { return day }})
	if err != nil {
		t.Fatalf("Open: %v", err)
	}
	for name, want := range map[string]fs.FileMode{"a": 0o700, "a/b": 0o700, "a/b/journal.jsonl": 0o600} {
		info, err := os.Stat(filepath.Join(dir, name))
		if err != nil || info.Mode().Perm() != want {
			t.Errorf("mode of %s = %v, %v, want %v", name, info.Mode().Perm(), err, want)
		}
	}
	entries := read(t, j)
	if len(entries) != 1 || entries[0].Step != "genesis" || !entries[0].Time.Equal(day) {
		t.Fatalf("a new journal holds %+v, want its first entry", entries)
	}
	key, ok := journal.FingerprintKey(entries)
	if !ok {
		t.Error("a new journal holds no key of the fingerprints")
	}
	again, err := journal.Open(path, journal.Options{Create: true})
	if err != nil {
		t.Fatal(err)
	}
	if other, _ := journal.FingerprintKey(read(t, again)); !bytes.Equal(other.Reveal(), key.Reveal()) {
		t.Error("opening a journal again changed its key")
	}
}

func TestOpenWithKeyElsewhere(t *testing.T) {
	path := filepath.Join(t.TempDir(), "journal.jsonl")
	put(t, path, nil) // what a crash at its creation leaves
	j, err := journal.Open(path, journal.Options{Create: true,
		Genesis: func() journal.Entry { return journal.Genesis(day, secret.Value{}) }})
	if err != nil {
		t.Fatal(err)
	}
	entries := read(t, j)
	if _, ok := journal.FingerprintKey(entries); ok || len(entries) != 1 || entries[0].Step != "genesis" {
		t.Errorf("journal = %+v, want a first entry without a key", entries)
	}
}

func TestOpenRefuses(t *testing.T) {
	dir := t.TempDir()
	open := filepath.Join(dir, "open.jsonl")
	put(t, open, nil)
	if err := os.Chmod(open, 0o620); err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(dir, "file")
	put(t, file, nil)
	for name, c := range map[string]struct {
		path, want string
		place      bool // it is the path that is wrong
	}{
		"a directory":          {dir, "not a regular file", true},
		"writable by others":   {open, "others may write", true},
		"below a file":         {filepath.Join(file, "journal"), "not a directory", true},
		"where nobody may":     {"/sys/keyturn/journal", "keyturn", true},
		"an empty path":        {"", "empty", false},
		"a loop of links":      {loop(t, dir), "many", false},
		"no name at a journal": {"/dev/null", "not a regular file", true},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := journal.Open(c.path, journal.Options{Create: true})
			if err == nil || !strings.Contains(err.Error(), c.want) || strings.Count(err.Error(), "journal \"") > 1 {
				t.Fatalf("Open(%q) = %v, want an error with %q that names the journal once", c.path, err, c.want)
			}
			if _, ok := errors.AsType[*journal.PlaceError](err); ok != c.place {
				t.Errorf("Open(%q) = %v: PlaceError %v, want %v", c.path, err, ok, c.place)
			}
			if c.place {
				wantHint(t, err)
			}
		})
	}
}

// An error of the journal's content names the file once, too.
func TestOpenNamesTheJournalOnce(t *testing.T) {
	path := filepath.Join(t.TempDir(), "journal.jsonl")
	put(t, path, []byte("hello\nworld\n"))
	for _, o := range []journal.Options{{}, {Create: true}} {
		if _, err := journal.Open(path, o); err == nil || strings.Count(err.Error(), path) != 1 {
			t.Errorf("Open(%+v) = %v, want an error that names the journal once", o, err)
		}
	}
}

func loop(t *testing.T, dir string) string {
	path := filepath.Join(dir, "loop")
	if err := os.Symlink(path, path); err != nil {
		t.Fatal(err)
	}
	return path
}

// What is read is what was appended, through every way in.
func TestAppendAndRead(t *testing.T) {
	j := create(t)
	var all []journal.Entry
	all = append(all, read(t, j)...)
	for n := 1; n <= 5; n++ {
		var entries []journal.Entry
		for i := range n {
			entries = append(entries, sample(i+1))
		}
		entries[n-1].Nonce = strings.Repeat("c", n)
		done, err := j.Append(t.Context(), all[len(all)-1].Head(), entries...)
		if err != nil {
			t.Fatalf("Append: %v", err)
		}
		if !strings.HasPrefix(done[0].Nonce, strings.Repeat("c", n)) {
			t.Errorf("nonce = %q, want the one that was given", done[0].Nonce)
		}
		all = append(all, done...)
	}
	other, err := journal.Open(j.Path(), journal.Options{})
	if err != nil {
		t.Fatal(err)
	}
	for name, f := range map[string]*journal.File{"the same": j, "another": other} {
		if diff := cmp.Diff(all, read(t, f)); diff != "" {
			t.Errorf("Read of %s File (-appended +read):\n%s", name, diff)
		}
		var each []journal.Entry
		err := journal.Each(t.Context(), f, func(e journal.Entry) { each = append(each, e) })
		if diff := cmp.Diff(all, each); err != nil || diff != "" {
			t.Errorf("Each of %s File: %v (-appended +handed over):\n%s", name, err, diff)
		}
		for i := range all {
			since, err := f.Since(t.Context(), all[i].Head())
			if err != nil || cmp.Diff(all[i+1:], since) != "" && len(since)+len(all[i+1:]) > 0 {
				t.Errorf("Since entry %d of %s File = %d entries, %v", i+1, name, len(since), err)
			}
		}
	}
	if diff := cmp.Diff(all, decode(t, j.Path())); diff != "" {
		t.Errorf("Decode of the file (-appended +read):\n%s", diff)
	}
}

// Who goes through the entries needs memory for the numbers of the chain, and for no entry.
func TestEachKeepsNothing(t *testing.T) {
	const many = 3000
	path := filepath.Join(t.TempDir(), "journal.jsonl")
	text := textOf(t, sealed(t, many))
	put(t, path, text)
	j, err := journal.Open(path, journal.Options{})
	if err != nil {
		t.Fatal(err)
	}
	live := func() int64 {
		var m runtime.MemStats
		runtime.GC()
		runtime.ReadMemStats(&m)
		return int64(m.HeapAlloc)
	}
	before, n, at := live(), 0, int64(0)
	err = journal.Each(t.Context(), j, func(journal.Entry) {
		if n++; n == many {
			at = live()
		}
	})
	if err != nil || n != many {
		t.Fatalf("Each = %v after %d entries, want %d", err, n, many)
	}
	if grown := at - before; grown > int64(len(text))/2 {
		t.Errorf("at the last entry of a journal of %d bytes, %d more are in memory", len(text), grown)
	}
	runtime.KeepAlive(text)
}

func decode(t *testing.T, path string) []journal.Entry {
	t.Helper()
	entries, err := journal.Decode(bytes.NewReader(bytesOf(t, path)))
	if err != nil {
		t.Fatalf("Decode: %v", err)
	}
	return entries
}

func TestAppendNothing(t *testing.T) {
	j := create(t)
	before := bytesOf(t, j.Path())
	head, _ := j.Head(t.Context())
	if done, err := j.Append(t.Context(), head); err != nil || done != nil {
		t.Errorf("Append of nothing = %v, %v", done, err)
	}
	bad := sample(1)
	bad.Time = time.Time{}
	if _, err := j.Append(t.Context(), head, sample(1), bad); err == nil {
		t.Error("Append of an entry without a time succeeded")
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := j.Append(ctx, head, sample(1)); !errors.Is(err, context.Canceled) {
		t.Errorf("Append with a context that ended = %v, want context.Canceled", err)
	}
	if !bytes.Equal(before, bytesOf(t, j.Path())) {
		t.Error("an append that failed changed the file")
	}
}

func TestConflict(t *testing.T) {
	one := create(t)
	two, err := journal.Open(one.Path(), journal.Options{})
	if err != nil {
		t.Fatal(err)
	}
	head, _ := one.Head(t.Context())
	if _, err := one.Append(t.Context(), head, sample(1)); err != nil {
		t.Fatal(err)
	}
	if _, err := two.Append(t.Context(), head, sample(2), sample(3)); !errors.Is(err, journal.ErrConflict) {
		t.Errorf("Append after an old head = %v, want ErrConflict", err)
	}
	if n := len(read(t, two)); n != 2 {
		t.Errorf("the journal has %d entries after a conflict, want 2", n)
	}
}

// Changes behind the back of an open File are found, as what they are.
func TestChangedWhileOpen(t *testing.T) {
	for name, c := range map[string]struct {
		change func(lines [][]byte) [][]byte
		kind   journal.Kind
		seq    int64
		append bool // an append finds it too: it reads the end only
	}{
		"an early entry": {func(l [][]byte) [][]byte { l[1] = bytes.Replace(l[1], []byte("ada"), []byte("eve"), 1); return l },
			journal.Edited, 2, false},
		"the last entry": {func(l [][]byte) [][]byte { l[4] = bytes.Replace(l[4], []byte("ada"), []byte("eve"), 1); return l },
			journal.Edited, 5, true},
		"the end removed":    {func(l [][]byte) [][]byte { return l[:3] }, journal.Truncated, 4, true},
		"all removed":        {func(l [][]byte) [][]byte { return nil }, journal.Truncated, 1, true},
		"the middle removed": {func(l [][]byte) [][]byte { return append(l[:2:2], l[3:]...) }, journal.Gap, 3, true},
		"another history": {func(l [][]byte) [][]byte { return linesOf(textOf(t, sealed(t, 7))) },
			journal.Fork, 5, true},
	} {
		t.Run(name, func(t *testing.T) {
			j := create(t)
			head := fill(t, j, 4)[4].Head()
			put(t, j.Path(), bytes.Join(c.change(linesOf(bytesOf(t, j.Path()))), nil))
			if c.append {
				_, err := j.Append(t.Context(), head, sample(9))
				if f := faultOf(t, err); f.Kind != c.kind || f.Seq != c.seq {
					t.Errorf("Append = %v, want %s at entry %d", err, c.kind, c.seq)
				}
			}
			_, err := j.Read(t.Context())
			if f := faultOf(t, err); f.Kind != c.kind || f.Seq != c.seq {
				t.Errorf("Read = %v, want %s at entry %d", err, c.kind, c.seq)
			}
			wantHint(t, err)
			if _, err := journal.Open(j.Path(), journal.Options{}); c.kind != journal.Truncated && c.kind != journal.Fork {
				if f := faultOf(t, err); f.Kind != c.kind {
					t.Errorf("Open = %v, want %s", err, c.kind)
				}
			}
		})
	}
}

func TestRemovedWhileOpen(t *testing.T) {
	j := create(t)
	if err := os.Remove(j.Path()); err != nil {
		t.Fatal(err)
	}
	if _, err := j.Append(t.Context(), journal.Head{}, sample(1)); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("Append to a removed journal = %v, want fs.ErrNotExist", err)
	}
}

// A disk that is full takes back what was written of an append.
func TestFullDisk(t *testing.T) {
	if os.Getenv(childVar) == "" {
		out := runChild(t, "full-disk", filepath.Join(t.TempDir(), "journal.jsonl"))
		if !strings.Contains(out, "as it was") {
			t.Errorf("child said %q", out)
		}
	}
}

func TestLockRespectsContext(t *testing.T) {
	j := create(t)
	release := holdLock(t, j.Path())
	defer release()
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if _, err := j.Head(ctx); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("Head of a locked journal = %v, want context.DeadlineExceeded", err)
	}
}
