package directory_test

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/keyturn/keyturn/internal/target/directory"
)

// whole returns the number of the version that applications read, which must
// be whole; 0 if there is none yet.
func whole(t *testing.T, root string) int {
	t.Helper()
	dir, err := os.OpenRoot(filepath.Join(root, credential, "current"))
	if errors.Is(err, os.ErrNotExist) {
		if _, err := os.Lstat(filepath.Join(root, credential, "current")); err == nil {
			t.Fatal("current leads nowhere")
		}
		return 0
	}
	if err != nil {
		t.Fatal(err)
	}
	defer dir.Close()
	name, err := dir.ReadFile("username")
	if err != nil {
		t.Fatal(err)
	}
	text, err := dir.ReadFile("password")
	if err != nil {
		t.Fatal(err)
	}
	for n := range 100_000 {
		if user(n) == string(name) {
			if password(n) != string(text) {
				t.Fatalf("current holds the user %q and the password %q", name, text)
			}
			return n
		}
	}
	t.Fatalf("current holds the user %q", name)
	return 0
}

// wholeVersions checks that no version directory is a part of a version.
func wholeVersions(t *testing.T, root string) {
	t.Helper()
	for _, name := range names(t, root, credential) {
		if name[0] == 'v' {
			if diff := cmp.Diff([]string{"password", "username"}, names(t, root, credential, name)); diff != "" {
				t.Errorf("%s is not whole (-want +got):\n%s", name, diff)
			}
		}
	}
}

// TestKilledAtEveryEffect kills each operation after each of its effects.
// Applications always find a whole version, and the operation done again ends
// as if nothing had been, with nothing left over (hard problems 2 and 4).
func TestKilledAtEveryEffect(t *testing.T) {
	for _, c := range []struct {
		work  string
		end   []string // in the home
		reads int
	}{
		{"put", []string{"current", "v1", "v2"}, 1},
		{"move", []string{"current", "v1", "v2"}, 2},
		{"remove", []string{"current", "v2"}, 2},
	} {
		t.Run(c.work, func(t *testing.T) {
			for effect := 1; ; effect++ {
				root := newRoot(t)
				target := newTarget(t, directory.Options{Root: root})
				move(t, target, shift(put(t, target, 1)))
				if c.work != "put" {
					put(t, target, 2)
				}
				if c.work == "remove" {
					move(t, target, shift(recorded(2), recorded(1)))
				}
				out, err := command(t, c.work, root, effect).CombinedOutput()
				if err != nil && !killed(err) {
					t.Fatalf("effect %d: %v\n%s", effect, err, out)
				}
				if whole(t, root) == 0 {
					t.Errorf("effect %d: applications find nothing", effect)
				}
				wholeVersions(t, root)
				if err := operate(target, c.work); err != nil {
					t.Errorf("effect %d: again: %v", effect, err)
				}
				if diff := cmp.Diff(c.end, names(t, root, credential)); diff != "" {
					t.Errorf("effect %d: left (-want +got):\n%s", effect, diff)
				}
				if got := whole(t, root); got != c.reads {
					t.Errorf("effect %d: applications read version %d, want %d", effect, got, c.reads)
				}
				if err == nil { // it had no further effect
					if effect < 4 {
						t.Errorf("%s had only %d effects", c.work, effect-1)
					}
					return
				}
			}
		})
	}
}

// TestKilledAtAnyMoment kills a process that rotates without end, again and
// again, at moments that nobody chose.
func TestKilledAtAnyMoment(t *testing.T) {
	root := newRoot(t)
	target := newTarget(t, directory.Options{Root: root})
	move(t, target, shift(put(t, target, 1)))
	last := 1
	for n := 0; n < 30 || last < 10 && n < 300; n++ { // on a busy machine many never begin
		cmd := command(t, "forever", root, 0)
		var log strings.Builder
		cmd.Stderr = &log
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Duration(jitter(60)) * time.Millisecond)
		_ = cmd.Process.Kill()
		if err := cmd.Wait(); !killed(err) {
			t.Fatalf("the rotating process ended by itself: %v\n%s", err, log.String())
		}
		n := whole(t, root)
		if n < last {
			t.Errorf("applications went back from version %d to %d", last, n)
		}
		last = n
		wholeVersions(t, root)
	}
	if err := rotate(target); err != nil {
		t.Fatal(err)
	}
	left := names(t, root, credential)
	if len(left) != 2 || left[0] != "current" {
		t.Errorf("left over: %q", left)
	}
	if last < 10 {
		t.Errorf("only %d versions were made, too few to say anything", last)
	}
}

// TestOrderOfSync: what a name leads to is durable before the name is.
func TestOrderOfSync(t *testing.T) {
	var points []string
	target := newTarget(t, directory.Options{Root: newRoot(t)})
	target.At(func(p string) { points = append(points, p) })
	v := put(t, target, 1)
	want := []string{"made home", "made temporary directory", "made file", "synced file", "made file", "synced file",
		"synced temporary directory", "renamed version", "synced home"}
	if diff := cmp.Diff(want, points); diff != "" {
		t.Errorf("Put (-want +got):\n%s", diff)
	}
	points = nil
	move(t, target, shift(v))
	if diff := cmp.Diff([]string{"made link", "renamed current", "synced home"}, points); diff != "" {
		t.Errorf("Move (-want +got):\n%s", diff)
	}
	v2 := put(t, target, 2)
	move(t, target, shift(v2, v))
	points = nil
	if err := target.Remove(t.Context(), v); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{"renamed away", "synced home", "discarding", "discarded", "synced home"}, points); diff != "" {
		t.Errorf("Remove (-want +got):\n%s", diff)
	}
	points = nil
	put(t, target, 2)
	if !slices.Contains(points, "synced home") {
		t.Error("Put again syncs nothing: the call before may have been killed before it did")
	}
}

// TestKilledBeforeTheHomeIsOpen: a process that is killed right after it made
// the directory of a credential, with a umask that closes it, leaves nothing
// that applications could not enter for ever.
func TestKilledBeforeTheHomeIsOpen(t *testing.T) {
	root := newRoot(t)
	cmd := exec.CommandContext(t.Context(), "/bin/sh", "-c", `umask 077; exec "$0"`, os.Args[0])
	cmd.Env = append(os.Environ(), fmt.Sprintf("%s=put %s 1", childVariable, root))
	if out, err := cmd.CombinedOutput(); !killed(err) {
		t.Fatalf("the child was not killed: %v\n%s", err, out)
	}
	if mode := modeOf(t, root, credential); mode != 0o700 {
		t.Fatalf("the directory has mode %04o when the process is killed, want 0700", mode)
	}
	put(t, newTarget(t, directory.Options{Root: root}), 1)
	if mode := modeOf(t, root, credential); mode != 0o755 {
		t.Errorf("the directory has mode %04o in the end, want 0755", mode)
	}
	if diff := cmp.Diff([]string{credential}, names(t, root)); diff != "" {
		t.Errorf("in the root (-want +got):\n%s", diff)
	}

	// One that somebody else has made and closed is left as it is.
	root = newRoot(t)
	if err := os.Mkdir(filepath.Join(root, credential), 0o700); err != nil {
		t.Fatal(err)
	}
	put(t, newTarget(t, directory.Options{Root: root}), 1)
	if mode := modeOf(t, root, credential); mode != 0o700 {
		t.Errorf("a directory that was there has mode %04o, want 0700 as before", mode)
	}
}

func modeOf(t *testing.T, parts ...string) os.FileMode {
	t.Helper()
	fi, err := os.Stat(filepath.Join(parts...))
	if err != nil {
		t.Fatal(err)
	}
	return fi.Mode().Perm()
}
