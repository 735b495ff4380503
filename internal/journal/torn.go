package journal

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
)

// Torn is the end of a journal that a crash left unfinished, and that an append
// moved away. It was never acknowledged to whoever wrote it.
type Torn struct {
	Path   string // the file that holds it now
	Bytes  int64
	Reason string
}

// The entry that records it.
const stepTorn = "journal-torn"

// Torn returns the ends that this File moved away.
func (j *File) Torn() []Torn {
	j.turn <- struct{}{}
	defer func() { <-j.turn }()
	return slices.Clone(j.torn)
}

// setAside copies an unfinished end into a file of its own, durably, cuts it
// off, and records that in an entry: a note of step "journal-torn" with the
// file's name, its size and its SHA-256 as evidence.
func (j *File) setAside(f *os.File, s *scanned) error {
	tail, err := io.ReadAll(io.NewSectionReader(f, s.torn.from, 1<<62))
	if err != nil {
		return err
	}
	path, err := j.keepTail(tail)
	if err != nil {
		return fmt.Errorf("setting the unfinished end aside: %w", err)
	}
	if err := errors.Join(f.Truncate(s.torn.from), f.Sync()); err != nil {
		return fmt.Errorf("cutting the unfinished end off: %w", err)
	}
	t := Torn{Path: path, Bytes: int64(len(tail)), Reason: s.torn.reason}
	j.torn = append(j.torn, t)
	_, err = j.write(f, s, []Entry{j.tornNote(t, tail)})
	return err
}

func (j *File) tornNote(t Torn, tail []byte) Entry {
	sum := sha256.Sum256(tail)
	e := Entry{Time: j.now(), Step: stepTorn, Status: statusNote, Run: Run{PID: os.Getpid()},
		Evidence: map[string]json.RawMessage{}}
	e.Run.Host, _ = os.Hostname() // empty if there is none
	for name, v := range map[string]any{"file": filepath.Base(t.Path), "bytes": t.Bytes, "reason": t.Reason,
		"sha256": hex.EncodeToString(sum[:])} {
		e.Evidence[name], _ = json.Marshal(v) // strings and integers
	}
	return e
}

// keepTail writes the bytes into a new file beside the journal.
func (j *File) keepTail(tail []byte) (string, error) {
	stem := j.path + ".torn-" + j.now().UTC().Format("20060102T150405.000Z")
	for n := 1; ; n++ {
		path := stem
		if n > 1 {
			path = fmt.Sprintf("%s-%d", stem, n)
		}
		f, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
		if errors.Is(err, fs.ErrExist) && n < 1000 {
			continue
		}
		if err != nil {
			return "", err
		}
		_, err = f.Write(tail)
		return path, errors.Join(err, f.Sync(), f.Close(), syncDir(filepath.Dir(path)))
	}
}
