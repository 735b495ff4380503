package directory_test

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/keyturn/keyturn/internal/rotation"
	"github.com/keyturn/keyturn/internal/secret"
	"github.com/keyturn/keyturn/internal/target/directory"
)

// TestPlanted: nothing that is planted in the tree leads a change or a read out
// of it, and what it points at is left alone.
func TestPlanted(t *testing.T) {
	ctx := t.Context()
	probe := func(target *directory.Target, v rotation.Version) error {
		r := target.Probe(ctx, v, rotation.ProbeSpec{Backend: "fake"}, rotation.Placement{})
		if r.Answer == rotation.Inconclusive {
			return errors.New(r.Reason)
		}
		return nil
	}
	for name, c := range map[string]struct {
		plant func(home, outside string) error
		do    func(*directory.Target) error
		want  string
	}{
		"the home is a symlink": {
			func(home, outside string) error { return errors.Join(os.RemoveAll(home), os.Symlink(outside, home)) },
			func(d *directory.Target) error { _, err := d.Put(ctx, version(3), material(3)); return err },
			"is a symlink, not a directory"},
		"the home is a symlink beside it": {
			func(home, _ string) error {
				return errors.Join(os.Rename(home, home+"2"), os.Symlink(credential+"2", home))
			},
			func(d *directory.Target) error { return d.Remove(ctx, recorded(2)) },
			"is a symlink, not a directory"},
		"the next version is a symlink": {
			func(home, outside string) error { return os.Symlink(outside, filepath.Join(home, "v3")) },
			func(d *directory.Target) error { _, err := d.Put(ctx, version(3), material(3)); return err },
			"is a symlink, not a directory"},
		"a version to move to is a symlink": {
			func(home, outside string) error { return os.Symlink(outside, filepath.Join(home, "v3")) },
			func(d *directory.Target) error {
				_, err := d.Move(ctx, []rotation.Shift{shift(recorded(3), recorded(1))})
				return err
			},
			"is a symlink, not a directory"},
		"a field to be removed is a symlink": {
			func(home, outside string) error { return replaceField(home, outside) },
			func(d *directory.Target) error { return d.Remove(ctx, recorded(2)) },
			"is a symlink, not a file"},
		"a field to be probed is a symlink": {
			func(home, outside string) error { return replaceField(home, outside) },
			func(d *directory.Target) error { return probe(d, recorded(2)) },
			"is a symlink, not a file"},
		"a field to be compared is a symlink": {
			func(home, outside string) error { return replaceField(home, outside) },
			func(d *directory.Target) error { return d.Verify(ctx, version(2), material(2)) },
			"is a symlink, not a file"},
		"a field to be probed is a pipe": {
			func(home, _ string) error {
				dir := filepath.Join(home, "v2")
				return errors.Join(os.Chmod(dir, 0o700), os.Remove(filepath.Join(dir, "password")),
					syscall.Mkfifo(filepath.Join(dir, "password"), 0o600))
			},
			func(d *directory.Target) error { return probe(d, recorded(2)) },
			"is a special file, not a file"},
		"current leads out": {
			func(home, outside string) error { return relink(home, outside) },
			func(d *directory.Target) error { _, err := d.Observe(ctx, recorded(1)); return err },
			"which is no directory beside it"},
		"current leads up": {
			func(home, _ string) error { return relink(home, "../..") },
			func(d *directory.Target) error { _, err := d.Adopt(ctx, credential); return err },
			"which is no directory beside it"},
		"current is a directory": {
			func(home, _ string) error {
				return errors.Join(os.Remove(filepath.Join(home, "current")), os.Mkdir(filepath.Join(home, "current"), 0o700))
			},
			func(d *directory.Target) error { return d.Remove(ctx, recorded(2)) },
			"is a directory, not a symlink"},
	} {
		t.Run(name, func(t *testing.T) {
			root, outside := newRoot(t), newRoot(t)
			for _, f := range []string{"password", "username"} {
				if err := os.WriteFile(filepath.Join(outside, f), []byte("theirs"), 0o400); err != nil {
					t.Fatal(err)
				}
			}
			target := newTarget(t, directory.Options{Root: root, Logins: fakeLogins})
			move(t, target, shift(put(t, target, 1)))
			put(t, target, 2)
			if err := c.plant(filepath.Join(root, credential), outside); err != nil {
				t.Fatal(err)
			}
			wantError(t, c.do(target), rotation.Failed, c.want)
			if diff := cmp.Diff([]string{"password", "username"}, names(t, outside)); diff != "" || readFile(t, outside, "password") != "theirs" {
				t.Errorf("outside was changed (-want +got):\n%s", diff)
			}
		})
	}
}

func replaceField(home, outside string) error {
	dir := filepath.Join(home, "v2")
	field := filepath.Join(dir, "password")
	return errors.Join(os.Chmod(dir, 0o700), os.Remove(field), os.Symlink(filepath.Join(outside, "password"), field))
}

func relink(home, to string) error {
	link := filepath.Join(home, "current")
	return errors.Join(os.Remove(link), os.Symlink(to, link))
}

// TestSweepStaysInside: a symlink that is named like a leftover is unlinked,
// and nothing behind it is touched.
func TestSweepStaysInside(t *testing.T) {
	root, outside := newRoot(t), newRoot(t)
	target := newTarget(t, directory.Options{Root: root})
	put(t, target, 1)
	keep := filepath.Join(outside, "keep")
	plant := filepath.Join(root, credential, ".v2.tmp-0123456789abcdef")
	if err := errors.Join(os.WriteFile(keep, nil, 0o600), os.Symlink(outside, plant)); err != nil {
		t.Fatal(err)
	}
	put(t, target, 2)
	if _, err := os.Stat(keep); err != nil {
		t.Error(err)
	}
	if diff := cmp.Diff([]string{"v1", "v2"}, names(t, root, credential)); diff != "" {
		t.Errorf("home (-want +got):\n%s", diff)
	}
}

// TestOthersMayWrite: whoever can write to the root or the home can choose
// what applications read.
func TestOthersMayWrite(t *testing.T) {
	for _, sub := range []string{".", credential} {
		for _, mode := range []fs.FileMode{0o777, 0o775, 0o777 | fs.ModeSticky} {
			root := newRoot(t)
			target := newTarget(t, directory.Options{Root: root})
			put(t, target, 1)
			if err := os.Chmod(filepath.Join(root, sub), mode); err != nil {
				t.Fatal(err)
			}
			_, err := target.Put(t.Context(), version(2), material(2))
			wantError(t, err, rotation.Refused, "may be written to by others")
		}
	}
}

// TestPermission works as a user who may do nothing here: errors are clear, and
// hold no value.
func TestPermission(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("becoming another user needs root")
	}
	root := newRoot(t)
	if err := os.Chmod(filepath.Dir(root), 0o755); err != nil {
		t.Fatal(err)
	}
	target := newTarget(t, directory.Options{Root: root})
	move(t, target, shift(put(t, target, 1)))
	put(t, target, 2)
	put(t, target, 3)
	for _, work := range []string{"put-once", "move", "remove"} {
		if work == "remove" {
			move(t, target, shift(recorded(3), recorded(1)))
		}
		cmd := command(t, work, root, 1_000_000)
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
		out, err := cmd.CombinedOutput()
		if err == nil || !strings.Contains(string(out), "permission denied") || strings.Contains(string(out), "canary") {
			t.Errorf("%s as nobody: %v, %s", work, err, out)
		}
	}
	if got := whole(t, root); got != 3 {
		t.Errorf("applications read version %d", got)
	}
	wholeVersions(t, root)
	if err := os.Chown(filepath.Join(root, credential), 65534, 65534); err != nil {
		t.Fatal(err)
	}
	_, err := target.Put(t.Context(), version(3), material(3))
	wantError(t, err, rotation.Refused, "belongs to user 65534")
}

// TestUnprivileged rotates as a user who is not root: its own closed
// directories are no obstacle.
func TestUnprivileged(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("the other tests run unprivileged already")
	}
	root := newRoot(t)
	if err := errors.Join(os.Chmod(filepath.Dir(root), 0o755), os.Chown(root, 65534, 65534)); err != nil {
		t.Fatal(err)
	}
	for range 3 {
		cmd := command(t, "rotate", root, 0)
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("rotating as nobody: %v\n%s", err, out)
		}
	}
	if diff := cmp.Diff([]string{"current", "v3"}, names(t, root, credential)); diff != "" {
		t.Errorf("home (-want +got):\n%s", diff)
	}
}

// TestFullDisk: a version that does not fit leaves nothing, and the current one
// stays whole.
func TestFullDisk(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("mounting a small file system needs root")
	}
	for _, limit := range []string{"size=64k", "size=64k,nr_inodes=10"} {
		root := newRoot(t)
		if err := syscall.Mount("tmpfs", root, "tmpfs", 0, "mode=755,"+limit); err != nil {
			t.Skipf("a tmpfs cannot be mounted here: %v", err)
		}
		t.Cleanup(func() {
			if err := syscall.Unmount(root, 0); err != nil {
				t.Error(err)
			}
		})
		target := newTarget(t, directory.Options{Root: root})
		move(t, target, shift(put(t, target, 1)))
		big := rotation.Material{}
		for i := range 4 {
			big[fmt.Sprintf("field%d", i)] = secret.FromString(strings.Repeat("canary", 3000))
		}
		_, err := target.Put(t.Context(), rotation.Version{Credential: credential, Number: 2}, big)
		wantError(t, err, rotation.Failed, "no space left on device")
		if diff := cmp.Diff([]string{"current", "v1"}, names(t, root, credential)); diff != "" {
			t.Errorf("left (-want +got):\n%s", diff)
		}
		if got := whole(t, root); got != 1 {
			t.Errorf("applications read version %d", got)
		}
	}
}
