package journal

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// Append seals the entries after the given head and writes them in one piece,
// followed by fsync(2). If it fails it has taken back what it wrote, unless the
// error says otherwise. A context that ends stops it before the write, never in
// it.
func (j *File) Append(ctx context.Context, after Head, entries ...Entry) ([]Entry, error) {
	sealed, err := j.put(ctx, after, entries...)
	if err != nil {
		return nil, fmt.Errorf("appending to journal %q: %w", j.path, err)
	}
	return sealed, nil
}

func (j *File) put(ctx context.Context, after Head, entries ...Entry) (sealed []Entry, err error) {
	err = j.locked(ctx, unix.LOCK_EX, func(f *os.File) error {
		sealed, err = j.append(ctx, f, after.norm(), entries)
		return err
	})
	if err != nil {
		return nil, err
	}
	return sealed, nil
}

func (j *File) append(ctx context.Context, f *os.File, after Head, entries []Entry) ([]Entry, error) {
	s, err := j.load(f, j.recent.head(), nothing)
	if err != nil {
		return nil, err
	}
	if s.torn != nil {
		if err := j.setAside(f, s); err != nil {
			return nil, err
		}
		if s, err = j.load(f, j.recent.head(), nothing); err != nil {
			return nil, err
		}
	}
	if s.end.head != after {
		return nil, fmt.Errorf("%w: the journal ends with %v, not with %v", ErrConflict, s.end.head, after)
	}
	if err := ctx.Err(); err != nil {
		return nil, context.Cause(ctx)
	}
	return j.write(f, s, entries)
}

// write appends entries at the end that a scan found.
func (j *File) write(f *os.File, s *scanned, entries []Entry) ([]Entry, error) {
	sealed, err := SealAll(s.end.head, entries...)
	if err != nil || len(sealed) == 0 {
		return nil, err
	}
	var text bytes.Buffer
	if s.unended {
		text.WriteByte('\n')
	}
	var starts []mark
	before := s.end.head
	for i, e := range sealed {
		starts = append(starts, mark{offset: s.end.offset + int64(text.Len()), line: s.end.line + i, head: before})
		before = e.Head()
		line, err := Line(e)
		if err != nil {
			return nil, err
		}
		text.Write(line)
		text.WriteByte('\n')
	}
	if err := put(f, text.Bytes(), s.end.offset); err != nil {
		return nil, err
	}
	for i, e := range sealed {
		j.recent.add(e.Head(), starts[i])
	}
	return sealed, nil
}

// put writes b at the end of the file, durably, or takes it back.
func put(f *os.File, b []byte, end int64) error {
	_, err := f.WriteAt(b, end)
	if err == nil {
		err = f.Sync()
	}
	if err == nil {
		return nil
	}
	if back := errors.Join(f.Truncate(end), f.Sync()); back != nil {
		return &hinted{
			fmt.Errorf("writing: %w; taking back what was written: %w", err, back),
			"it is not known whether the entries are kept: read the journal again before anything else",
		}
	}
	return &hinted{fmt.Errorf("writing: %w", err), "nothing was recorded; is the disk full or failing?"}
}
