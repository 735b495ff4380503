package journal

import (
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
)

// ErrCopy is the error of an append to a copy: its home does not answer.
var ErrCopy = errors.New("the journal's home does not answer: this is a copy of it, which can be read alone")

// A Copy is a [Home] as it was when it was copied. It can be read.
type Copy struct{ entries []Entry }

var _ Home = (*Copy)(nil)

// A Part is some entries of a journal that follow each other, as small as they get: the
// numbers of the first and the last of them, and gzip of their lines.
type Part struct {
	First, Last int64
	Data        []byte
}

// Parts is where a copy of a journal is kept: in parts, because a place takes only so
// much at once.
type Parts interface {
	// Parts returns those that make a copy, each of which follows the one before.
	Parts(context.Context) ([]Part, error)

	// Put keeps one instead of those that begin with the same entry and are shorter.
	Put(context.Context, Part) error
}

// OpenCopy opens the copy that is kept somewhere. Its chain is verified.
func OpenCopy(ctx context.Context, p Parts) (*Copy, error) {
	parts, err := p.Parts(ctx)
	if err != nil {
		return nil, err
	}
	if len(parts) == 0 {
		return nil, errors.New("there is no copy of the journal")
	}
	var all bytes.Buffer
	for _, p := range parts {
		z, err := gzip.NewReader(bytes.NewReader(p.Data))
		if err != nil {
			return nil, fmt.Errorf("reading the copy of entries %d to %d: %w", p.First, p.Last, err)
		}
		if _, err := io.Copy(&all, z); err != nil {
			return nil, fmt.Errorf("reading the copy of entries %d to %d: %w", p.First, p.Last, err)
		}
	}
	entries, err := Decode(&all)
	if err != nil {
		return nil, err
	}
	return &Copy{entries}, nil
}

// Keep brings a copy up to date with every entry of a journal. A part has at most limit
// bytes; the last one is written again until it has half of that.
func Keep(ctx context.Context, p Parts, limit int, entries []Entry) error {
	parts, err := p.Parts(ctx)
	if err != nil {
		return err
	}
	all, first := int64(len(entries)), int64(1)
	if n := len(parts); n > 0 {
		first = parts[n-1].Last + 1
		if first <= all && len(parts[n-1].Data) < limit/2 {
			first = parts[n-1].First
		}
	}
	for end := all; first <= all; {
		data, err := pack(entries[first-1 : end])
		if err != nil {
			return err
		}
		if len(data) > limit && end > first { // of many, the first half
			end = first + (end-first)/2
			continue
		}
		if err := p.Put(ctx, Part{First: first, Last: end, Data: data}); err != nil {
			return err
		}
		first, end = end+1, all
	}
	return nil
}

// pack writes sealed entries as small as they get.
func pack(entries []Entry) ([]byte, error) {
	var b bytes.Buffer
	z, err := gzip.NewWriterLevel(&b, gzip.BestCompression)
	if err != nil {
		return nil, err
	}
	for _, e := range entries {
		line, err := Line(e)
		if err != nil {
			return nil, err
		}
		if _, err := z.Write(append(line, '\n')); err != nil {
			return nil, err
		}
	}
	if err := z.Close(); err != nil {
		return nil, err
	}
	return b.Bytes(), nil
}

// Read implements [Home].
func (c *Copy) Read(context.Context) ([]Entry, error) { return slices.Clone(c.entries), nil }

// Since implements [Home].
func (c *Copy) Since(_ context.Context, after Head) ([]Entry, error) {
	if err := Anchored(c.entries, after); err != nil {
		return nil, err
	}
	return slices.Clone(c.entries[after.Seq:]), nil
}

// Head implements [Home].
func (c *Copy) Head(context.Context) (Head, error) {
	if len(c.entries) == 0 {
		return Head{}, nil
	}
	return c.entries[len(c.entries)-1].Head(), nil
}

// Append implements [Home]: it refuses.
func (c *Copy) Append(context.Context, Head, ...Entry) ([]Entry, error) { return nil, ErrCopy }
