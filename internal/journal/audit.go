package journal

import (
	"context"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// An Audit is what a whole journal holds.
type Audit struct {
	Entries int
	Head    Head

	// Unfinished says how the file ends behind its last entry, as after a crash
	// in an append; "" if it ends with that entry. Nobody was told that what
	// stands there was kept.
	Unfinished string
}

// Audit verifies every entry. A journal without any is a [*Fault] of kind
// [Truncated], for each begins with an entry of its own.
func (j *File) Audit(ctx context.Context) (a Audit, err error) {
	err = j.locked(ctx, unix.LOCK_SH, func(f *os.File) error {
		s, err := j.load(f, Head{}, nothing)
		if err != nil {
			return err
		}
		info, err := f.Stat()
		if err != nil {
			return err
		}
		a = Audit{Entries: int(s.end.head.Seq), Head: s.end.head}
		if s.torn != nil {
			a.Unfinished = fmt.Sprintf("%d bytes after it are no entry: %s", info.Size()-s.torn.from, s.torn.reason)
		}
		if a.Entries == 0 {
			return &Fault{Seq: 1, Line: 1, Kind: Truncated,
				Detail: fmt.Sprintf("the file has %d bytes and not even the first entry, with which every journal begins", info.Size())}
		}
		return nil
	})
	if err != nil {
		return Audit{}, fmt.Errorf("reading journal %q: %w", j.path, err)
	}
	return a, nil
}
