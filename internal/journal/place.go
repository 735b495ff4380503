package journal

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// resolve returns the absolute path of what path names, with every symbolic
// link resolved, also where the file or its directories do not exist yet.
func resolve(path string) (string, error) { return resolveLinks(path, 40) }

func resolveLinks(path string, links int) (string, error) {
	path, err := filepath.Abs(path)
	if err != nil {
		return "", err
	}
	real, err := filepath.EvalSymlinks(path)
	if !errors.Is(err, fs.ErrNotExist) {
		return real, err
	}
	if to, err := os.Readlink(path); err == nil { // a link to what is not there yet
		if links == 0 {
			return "", fmt.Errorf("too many symbolic links at %q", path)
		}
		if !filepath.IsAbs(to) {
			to = filepath.Join(filepath.Dir(path), to)
		}
		return resolveLinks(to, links-1)
	}
	parent := filepath.Dir(path)
	if parent == path {
		return path, nil
	}
	if parent, err = resolveLinks(parent, links); err != nil {
		return "", err
	}
	return filepath.Join(parent, filepath.Base(path)), nil
}

const hintCheckout = "a journal must outlive the job and be out of reach of what it checks out: name a path outside, " +
	"such as file:/var/lib/keyturn/journal.jsonl on a runner of your own"

// Outside refuses a path that is inside the workspace of a job, or in any Git
// work tree. The workspace may be "". Nothing needs to be there yet.
func Outside(path, workspace string) error {
	path, err := resolve(path)
	if err != nil {
		return err
	}
	return refuseCheckout(path, workspace)
}

// refuseCheckout refuses a resolved path inside a checkout: the workspace of
// the job, or any Git work tree. The next checkout would clean it away, and a
// pull request could bring another.
func refuseCheckout(path, workspace string) error {
	if workspace != "" {
		root, err := resolve(workspace)
		if err != nil {
			return fmt.Errorf("resolving the workspace %q: %w", workspace, err)
		}
		if within(path, root) {
			return &PlaceError{hinted{fmt.Errorf("it is inside the workspace %q of the job", root), hintCheckout}}
		}
	}
	for dir := filepath.Dir(path); ; dir = filepath.Dir(dir) {
		if _, err := os.Lstat(filepath.Join(dir, ".git")); err == nil {
			return &PlaceError{hinted{fmt.Errorf("it is inside the checkout %q", dir), hintCheckout}}
		}
		if dir == filepath.Dir(dir) {
			return nil
		}
	}
}

func within(path, root string) bool {
	rel, err := filepath.Rel(root, path)
	return err == nil && rel != ".." && !strings.HasPrefix(rel, ".."+string(filepath.Separator))
}

// makeDir makes a directory and its missing parents, for the owner alone, and
// makes them durable. Those that exist are left as they are.
func makeDir(dir string) error {
	if info, err := os.Stat(dir); err == nil {
		if !info.IsDir() {
			return fmt.Errorf("%q: %w", dir, unix.ENOTDIR)
		}
		return nil
	}
	if err := makeDir(filepath.Dir(dir)); err != nil {
		return err
	}
	if err := os.Mkdir(dir, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	return syncDir(filepath.Dir(dir))
}

// syncDir makes the names in a directory durable.
func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
