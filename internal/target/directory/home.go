package directory

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/keyturn/keyturn/internal/rotation"
	"github.com/keyturn/keyturn/internal/secret"
)

// maxField is the largest file that is taken for a field, in bytes.
const maxField = 1 << 20

// lockWait is how long a change waits for another process to end its own.
const lockWait = 10 * time.Second

// A home is the open directory of one credential.
type home struct {
	*os.Root
	credential, base string
	at               func(point string)
	dir              *os.File // the same directory, for the lock and fsync
}

// open opens the home of a credential. The error is [fs.ErrNotExist] if there
// is none, and of class Unknown if the root itself is missing: then a file
// system may not be mounted, and nothing may be concluded.
func (t *Target) open(credential string, create bool) (_ *home, err error) {
	if err := checkName("credential", credential); err != nil {
		return nil, err
	}
	root, err := os.OpenRoot(t.Root)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, rotation.Errorf(rotation.Unknown, fmt.Sprintf("mount it, or create it: install -d -m 755 %s", t.Root),
			"the root %q is not there", t.Root)
	}
	if err != nil {
		return nil, fmt.Errorf("opening the root %q: %w", t.Root, err)
	}
	defer func() { err = errors.Join(err, root.Close()) }()
	if err := guarded(root, ".", t.Root); err != nil {
		return nil, err
	}
	if create {
		if err := t.createHome(root, credential); err != nil {
			return nil, err
		}
	}
	sub, err := openDir(root, credential)
	if err != nil {
		return nil, err
	}
	if err := guarded(sub, ".", path.Join(t.Root, credential)); err != nil {
		return nil, errors.Join(err, sub.Close())
	}
	dir, err := sub.Open(".")
	if err != nil {
		return nil, errors.Join(err, sub.Close())
	}
	return &home{Root: sub, credential: credential, base: t.Root, at: t.at, dir: dir}, nil
}

// createHome makes the home, which everyone may enter: the versions in it are
// what is closed. A note beside it says that its mode is still to be set,
// whatever the umask is, should this process be killed in between.
func (t *Target) createHome(root *os.Root, credential string) error {
	if err := t.makeHome(root, credential, "."+credential+".new"); err != nil {
		return fmt.Errorf("creating the directory of %q: %w", credential, err)
	}
	dir, err := root.Open(".")
	if err != nil {
		return err
	}
	return errors.Join(dir.Sync(), dir.Close())
}

func (t *Target) makeHome(root *os.Root, credential, note string) error {
	if _, err := root.Lstat(credential); errors.Is(err, fs.ErrNotExist) {
		if err := root.WriteFile(note, nil, 0o600); err != nil {
			return err
		}
		if err := root.Mkdir(credential, 0o755); err != nil && !errors.Is(err, fs.ErrExist) {
			return err
		}
		t.at("made home")
	}
	if _, err := root.Lstat(note); errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err := root.Chmod(credential, 0o755); err != nil {
		return err
	}
	if err := root.Remove(note); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// openDir opens a directory that must be one itself, not a symlink to one.
func openDir(root *os.Root, name string) (*os.Root, error) {
	before, err := root.Lstat(name)
	if err != nil {
		return nil, err
	}
	if !before.IsDir() {
		return nil, fmt.Errorf("%q is %s, not a directory", path.Join(root.Name(), name), kind(before))
	}
	sub, err := root.OpenRoot(name)
	if err != nil {
		return nil, err
	}
	after, err := sub.Stat(".")
	if err == nil && !os.SameFile(before, after) {
		err = fmt.Errorf("%q was replaced while it was opened", name)
	}
	if err != nil {
		return nil, errors.Join(err, sub.Close())
	}
	return sub, nil
}

// guarded refuses a directory that others may write to: whoever can rename in
// it decides what applications read.
func guarded(root *os.Root, name, shown string) error {
	fi, err := root.Stat(name)
	if err != nil {
		return err
	}
	if fi.Mode()&0o022 != 0 {
		return rotation.Errorf(rotation.Refused, fmt.Sprintf("take the right away: chmod go-w %s", shown),
			"the directory %q may be written to by others than its owner (mode %04o)", shown, fi.Mode().Perm())
	}
	if uid, _ := ownerOf(fi); uid != 0 && uid != os.Geteuid() {
		return rotation.Errorf(rotation.Refused, fmt.Sprintf("run as user %d, or: chown %d %s", uid, os.Geteuid(), shown),
			"the directory %q belongs to user %d, neither to root nor to us (%d)", shown, uid, os.Geteuid())
	}
	return nil
}

// ownerOf returns the user and group of a file.
func ownerOf(fi fs.FileInfo) (uid, gid int) {
	st := fi.Sys().(*syscall.Stat_t)
	return int(st.Uid), int(st.Gid)
}

// close lets the lock go and closes the home.
func (h *home) close() { _, _ = h.dir.Close(), h.Root.Close() }

// lock keeps other processes from changing the home until it is closed or the
// process ends.
func (h *home) lock(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, lockWait)
	defer cancel()
	for {
		err := unix.Flock(int(h.dir.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		if err == nil {
			return nil
		}
		if !errors.Is(err, unix.EWOULDBLOCK) && !errors.Is(err, unix.EINTR) {
			return fmt.Errorf("locking the directory of %q: %w", h.credential, err)
		}
		select {
		case <-ctx.Done():
			return rotation.Errorf(rotation.Unknown, "wait for the other run to end, then run this again",
				"another process is changing the directory of %q: %w", h.credential, context.Cause(ctx))
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// sync makes what was renamed, made or removed in the home durable.
func (h *home) sync() error {
	if err := h.dir.Sync(); err != nil {
		return fmt.Errorf("syncing the directory of %q: %w", h.credential, err)
	}
	h.at("synced home")
	return nil
}

// sweep removes what killed calls left. The lock must be held: then whoever
// made it is dead.
func (h *home) sweep() error {
	entries, err := fs.ReadDir(h.FS(), ".")
	if err != nil {
		return err
	}
	for _, e := range entries {
		if leftover(e.Name()) {
			if err := h.discard(e.Name()); err != nil {
				return fmt.Errorf("removing what a killed run left: %w", err)
			}
		}
	}
	return nil
}

// discard removes a leftover. A directory that is closed to its owner is opened first.
func (h *home) discard(name string) error {
	fi, err := h.Lstat(name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	if fi.IsDir() {
		if err := h.Chmod(name, 0o700); err != nil {
			return err
		}
	}
	h.at("discarding")
	return h.RemoveAll(name)
}

// link returns where a symlink of the home leads: the name of a directory in
// the home, "." for the home itself, or "" if there is no such link.
func (h *home) link(name string) (string, error) {
	fi, err := h.Lstat(name)
	if errors.Is(err, fs.ErrNotExist) {
		return "", nil
	}
	if err != nil {
		return "", err
	}
	if fi.Mode()&fs.ModeSymlink == 0 {
		return "", fmt.Errorf("%q is %s, not a symlink", path.Join(h.credential, name), kind(fi))
	}
	text, err := h.Readlink(name)
	if err != nil {
		return "", err
	}
	return linked(h.base, h.credential, name, text)
}

// openPlace opens the directory of a place.
func (h *home) openPlace(p place) (*os.Root, error) {
	if p.plain() {
		return h.OpenRoot(".")
	}
	return openDir(h.Root, p.dir)
}

// readField reads the file of a field, which must be a regular file.
func readField(dir *os.Root, field string) (secret.Value, error) {
	before, err := regular(dir, field)
	if err != nil {
		return secret.Value{}, err
	}
	f, err := dir.OpenFile(field, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return secret.Value{}, err
	}
	defer f.Close()
	if after, err := f.Stat(); err != nil || !os.SameFile(before, after) {
		return secret.Value{}, errors.Join(fmt.Errorf("file %q was replaced while it was opened", field), err)
	}
	b, err := io.ReadAll(io.LimitReader(f, maxField+1))
	defer clear(b)
	if err == nil && len(b) > maxField {
		err = fmt.Errorf("file %q is larger than %d bytes", field, maxField)
	}
	if err != nil {
		return secret.Value{}, err
	}
	return secret.New(b), nil
}

// regular returns what is known of the file of a field, or an error if it is
// not a file.
func regular(dir *os.Root, field string) (fs.FileInfo, error) {
	fi, err := dir.Lstat(field)
	if err != nil {
		return nil, err
	}
	if !fi.Mode().IsRegular() {
		return nil, fmt.Errorf("%q is %s, not a file", path.Join(dir.Name(), field), kind(fi))
	}
	return fi, nil
}

// kind says what a file is, for messages.
func kind(fi fs.FileInfo) string {
	switch m := fi.Mode(); {
	case m.IsRegular():
		return "a file"
	case m.IsDir():
		return "a directory"
	case m&fs.ModeSymlink != 0:
		return "a symlink"
	}
	return "a special file"
}

// temporary returns a new name for what takes, or gave up, the place of name.
func temporary(name, what string) string {
	b := make([]byte, nonceDigits/2)
	_, _ = rand.Read(b)
	return "." + name + "." + what + "-" + hex.EncodeToString(b)
}
