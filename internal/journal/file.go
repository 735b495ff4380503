package journal

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"
)

// Options say how [Open] treats a file. The zero value opens one that exists.
type Options struct {
	// Create makes the file, and its directories, if it is not there, and puts
	// a first entry into an empty one: Genesis(), or one with a new key of the
	// fingerprints if Genesis is nil.
	Create  bool
	Genesis func() Entry

	// InActions refuses a file inside a Git work tree, or inside Workspace.
	InActions bool
	Workspace string

	// Now is the clock of the entries that the home writes by itself; the
	// default is [time.Now].
	Now func() time.Time
}

// A File is a [Home] on a local file: JSON Lines, readable by its owner alone.
// It holds nothing open between calls. Every call takes a lock on the file, so
// that any number of processes on the machine may use it; network file systems
// on which flock(2) is not honoured are no place for it.
//
// An append is one write, followed by fsync(2). If the machine or the process
// dies in it, what it left at the end of the file is never read as entries; the
// next append moves it to a file of its own (see [Torn]) and records that. A
// last entry that lacks nothing but its newline counts, and gets it.
type File struct {
	path string
	now  func() time.Time
	turn chan struct{} // one goroutine at a time

	recent recents // the last entries that this File has seen
	torn   []Torn
}

var _ Home = (*File)(nil)

// Open returns the journal in a file, after verifying it from the first entry
// to the last: the error of a broken chain is a [*Fault], that of a path where
// no journal can be kept a [*PlaceError]. A file that is not there is
// [fs.ErrNotExist] unless the options create it.
func Open(path string, o Options) (*File, error) {
	j, err := open(path, o)
	if err != nil {
		return nil, fmt.Errorf("opening journal %q: %w", path, placed(err))
	}
	return j, nil
}

func open(path string, o Options) (*File, error) {
	if path == "" {
		return nil, errors.New("the path is empty")
	}
	real, err := resolve(path)
	if err != nil {
		return nil, err
	}
	if o.InActions {
		if err := refuseCheckout(real, o.Workspace); err != nil {
			return nil, err
		}
	}
	j := &File{path: real, now: o.Now, turn: make(chan struct{}, 1)}
	if j.now == nil {
		j.now = time.Now
	}
	if o.Create {
		if err := j.create(); err != nil {
			return nil, err
		}
	}
	if err := j.check(); err != nil {
		return nil, err
	}
	if o.Create {
		return j, j.begin(context.Background(), o.Genesis)
	}
	_, err = j.head(context.Background())
	return j, err
}

// Path returns where the journal is, with symbolic links resolved.
func (j *File) Path() string { return j.path }

// create makes the file, and its directories, unless it is there.
func (j *File) create() error {
	dir := filepath.Dir(j.path)
	if err := makeDir(dir); err != nil {
		return err
	}
	f, err := os.OpenFile(j.path, os.O_CREATE|os.O_EXCL|os.O_RDWR, 0o600)
	if errors.Is(err, fs.ErrExist) {
		return nil
	}
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close(), syncDir(dir))
}

// check refuses what is no journal of the owner's alone.
func (j *File) check() error {
	info, err := os.Stat(j.path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return &hinted{err, "nothing was recorded there yet; is the path of the journal right, and is this the machine that keeps it?"}
	case err != nil:
		return err
	case !info.Mode().IsRegular():
		return &PlaceError{hinted{fmt.Errorf("it is not a regular file (%v)", info.Mode().Type()),
			"name the file itself, such as /var/lib/keyturn/journal.jsonl"}}
	case info.Mode().Perm()&0o022 != 0:
		return &PlaceError{hinted{fmt.Errorf("others may write it (mode %04o)", info.Mode().Perm()),
			fmt.Sprintf("see who changed it, then: chmod 600 %s", j.path)}}
	}
	return nil
}

// begin puts the first entry into an empty journal.
func (j *File) begin(ctx context.Context, genesis func() Entry) error {
	head, err := j.head(ctx)
	if err != nil || head.Seq > 0 {
		return err
	}
	first := Genesis(j.now(), NewKey())
	if genesis != nil {
		first = genesis()
	}
	_, err = j.put(ctx, head, first)
	if errors.Is(err, ErrConflict) { // another process has begun it
		_, err = j.head(ctx)
	}
	return err
}

// Read returns every entry, verified from the first to the last.
func (j *File) Read(ctx context.Context) ([]Entry, error) { return j.Since(ctx, Head{}) }

// Since returns the entries after one that is known. After one of the last
// thousand that this File returned or appended, only what follows it is read.
func (j *File) Since(ctx context.Context, after Head) (entries []Entry, err error) {
	if err := j.each(ctx, after, func(e Entry) { entries = append(entries, e) }); err != nil {
		return nil, err
	}
	return entries, nil
}

// Each implements [Streamer]. The journal is locked meanwhile: take may not use it.
func (j *File) Each(ctx context.Context, take func(Entry)) error { return j.each(ctx, Head{}, take) }

func (j *File) each(ctx context.Context, after Head, take func(Entry)) error {
	err := j.locked(ctx, unix.LOCK_SH, func(f *os.File) error {
		_, err := j.load(f, after.norm(), take)
		return err
	})
	if err != nil {
		return fmt.Errorf("reading journal %q: %w", j.path, err)
	}
	return nil
}

// Head returns the head of the chain, and verifies what is new.
func (j *File) Head(ctx context.Context) (Head, error) {
	head, err := j.head(ctx)
	if err != nil {
		return Head{}, fmt.Errorf("reading journal %q: %w", j.path, err)
	}
	return head, nil
}

func (j *File) head(ctx context.Context) (head Head, err error) {
	err = j.locked(ctx, unix.LOCK_SH, func(f *os.File) error {
		s, err := j.load(f, j.recent.head(), nothing)
		if err == nil {
			head = s.end.head
		}
		return err
	})
	return head, err
}

// locked calls do with the file open and locked.
func (j *File) locked(ctx context.Context, how int, do func(*os.File) error) (err error) {
	select {
	case j.turn <- struct{}{}:
		defer func() { <-j.turn }()
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	flag := os.O_RDONLY
	if how == unix.LOCK_EX {
		flag = os.O_RDWR
	}
	for {
		f, err := os.OpenFile(j.path, flag, 0)
		if err != nil {
			return err
		}
		err = flock(ctx, f, how)
		named := false
		if err == nil {
			named, err = stillNamed(f, j.path)
		}
		if err == nil && named {
			return errors.Join(do(f), f.Close())
		}
		f.Close()
		if err != nil {
			return err
		}
	}
}

// load reads what follows after, verified, and hands it to take; if an error is
// returned, that counts for nothing. The scan's end and torn say how the file
// ends. It begins at the entry that after names if that is one of the last, and at
// the first if not, or if something is wrong, to name the first fault.
func (j *File) load(f *os.File, after Head, take func(Entry)) (*scanned, error) {
	if start, ok := j.recent.find(after); ok {
		var fresh []placedEntry
		known := &waypoint{at: j.recent.head()}
		s := scan(io.NewSectionReader(f, start.offset, 1<<62), start, func(e Entry, at mark) {
			known.pass(e.Head())
			fresh = append(fresh, placedEntry{e, at})
		})
		if s.err == nil && len(fresh) > 0 && fresh[0].Head() == after && known.judge() == nil {
			for _, e := range fresh[1:] {
				j.recent.add(e.Head(), e.start)
				take(e.Entry)
			}
			return s, nil
		}
	}
	var seen recents
	known := []*waypoint{{at: j.recent.head()}, {at: after}}
	s := scan(io.NewSectionReader(f, 0, 1<<62), mark{}, func(e Entry, at mark) {
		for _, w := range known {
			w.pass(e.Head())
		}
		seen.add(e.Head(), at)
		if e.Seq > after.Seq {
			take(e)
		}
	})
	if s.err != nil {
		return nil, s.err
	}
	for _, w := range known {
		if err := w.judge(); err != nil {
			return nil, err
		}
	}
	j.recent = seen
	return s, nil
}

// nothing takes entries of which only the last place counts.
func nothing(Entry) {}
