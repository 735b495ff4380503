package directory

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/keyturn/keyturn/internal/rotation"
)

// Preflight checks, without changing anything, that the next version can be
// put and moved to: the root and the home are there and ours to write, the
// next number is free, the links lead to versions on the record that are
// whole, the restart command exists, and applications can follow a move.
func (t *Target) Preflight(_ context.Context, c rotation.Credential) error {
	err := errors.Join(t.preflightHome(c), t.preflightOwner(c.Name), t.preflightRestart(c.Name))
	if err != nil {
		return fmt.Errorf("checking the directory of %q: %w", c.Name, err)
	}
	return nil
}

func (t *Target) preflightHome(c rotation.Credential) error {
	h, err := t.open(c.Name, false)
	if errors.Is(err, fs.ErrNotExist) {
		if _, adopted := c.In(rotation.Current); adopted {
			return rotation.Errorf(rotation.Unknown, "is its file system mounted?", "the directory %q is gone, with the current version", path.Join(t.Root, c.Name))
		}
		return writable(t.Root)
	}
	if err != nil {
		return err
	}
	defer h.close()
	if err := writable(path.Join(t.Root, c.Name)); err != nil {
		return err
	}
	next := versionName(c.Burnt + 1)
	if _, err := h.Lstat(next); err == nil {
		return rotation.Errorf(rotation.Refused, "look at it and move it elsewhere: Keyturn writes over nothing",
			"%q is there already, and no run on the record made it", path.Join(c.Name, next))
	}
	return t.preflightLinks(h, c)
}

// preflightLinks checks what applications read now.
func (t *Target) preflightLinks(h *home, c rotation.Credential) error {
	current, serving := c.In(rotation.Current)
	have, err := h.readLinks()
	if err != nil || !serving && have.Current == "" {
		return err
	}
	if have.Current == "" {
		return unreachable(t.Root, current)
	}
	for _, v := range c.Live() {
		p, err := placeOf(v)
		if err != nil {
			return err
		}
		if p.dir == have.Current {
			return t.whole(h, v)
		}
	}
	if !serving {
		return rotation.Errorf(rotation.Refused, "take it over first: keyturn adopt "+c.Name,
			"applications read %q already, and no version of %q is on the record", path.Join(c.Name, have.Current), c.Name)
	}
	return rotation.Errorf(rotation.Refused, "somebody else moved it: see who, and point it back to the version that Keyturn knows",
		"the symlink %q leads to %q, which is no live version on the record", path.Join(c.Name, currentLink), have.Current)
}

// unreachable is the error of a credential without the link that is moved.
func unreachable(root string, v rotation.Version) error {
	p, err := placeOf(v)
	if err != nil {
		return err
	}
	return rotation.Errorf(rotation.Refused,
		fmt.Sprintf("make it (ln -s %s %s) and let the applications read the fields below it", p.dir, path.Join(root, v.Credential, currentLink)),
		"there is no symlink %q: applications that read the files elsewhere would not follow a move", path.Join(v.Credential, currentLink))
}

// preflightOwner checks that files can be given to whom they are for.
func (t *Target) preflightOwner(credential string) error {
	o, err := t.owner(credential)
	if err != nil || os.Geteuid() == 0 {
		return err
	}
	if o.uid != nil && *o.uid != os.Geteuid() {
		return rotation.Errorf(rotation.Refused, "run as root, or as that user", "files cannot be given to user %d by user %d", *o.uid, os.Geteuid())
	}
	return nil
}

// preflightRestart checks that the restart command is there.
func (t *Target) preflightRestart(credential string) error {
	r, ok := t.Restart[credential]
	if !ok {
		return nil
	}
	if _, err := exec.LookPath(r.Argv[0]); err != nil {
		return rotation.Classify(rotation.Invalid, "give the path of the program", fmt.Errorf("finding the restart command: %w", err))
	}
	return nil
}

// writable checks that names can be made in a directory, and that there is room.
func writable(dir string) error {
	if err := unix.Access(dir, unix.W_OK|unix.X_OK); err != nil {
		return fmt.Errorf("writing in %q is not possible: %w", dir, err)
	}
	var st unix.Statfs_t
	if err := unix.Statfs(dir, &st); err != nil {
		return fmt.Errorf("asking for the room in %q: %w", dir, err)
	}
	const few = 16 // blocks, and inodes where they are counted
	if st.Bavail < few || st.Files > 0 && st.Ffree < few {
		return rotation.Errorf(rotation.Failed, "make room first", "the file system of %q is full", strings.TrimSuffix(dir, "/"))
	}
	return nil
}
