package directory_test

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/keyturn/keyturn/internal/rotation"
	"github.com/keyturn/keyturn/internal/target/directory"
)

// files writes files, as somebody did before there was Keyturn.
func files(t *testing.T, root string, content map[string]string) {
	t.Helper()
	for name, text := range content {
		path := filepath.Join(root, name)
		if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, []byte(text), 0o640)); err != nil {
			t.Fatal(err)
		}
	}
}

// TestAdopt takes over what applications read, rotates from it, and goes back
// to it and forward again.
func TestAdopt(t *testing.T) {
	for name, c := range map[string]struct {
		dir, link string
		after     []string // in the home, when version 1 is gone
	}{
		"a directory of any name":    {"initial", "initial", []string{"current", "v2"}},
		"a directory named as ours":  {"v1", "./v1/", []string{"current", "v2"}},
		"an absolute link":           {"initial", "absolute", []string{"current", "v2"}},
		"plain files behind a link":  {".", ".", []string{"current", "v2"}},
		"plain files without a link": {".", "", []string{"current", "v2"}},
	} {
		t.Run(name, func(t *testing.T) {
			root := newRoot(t)
			home := filepath.Join(root, credential)
			files(t, home, map[string]string{c.dir + "/username": user(1) + "\n", c.dir + "/password": password(1) + "\n"})
			link := c.link
			if link == "absolute" {
				link = filepath.Join(home, c.dir)
			}
			if link != "" {
				if err := os.Symlink(link, filepath.Join(home, "current")); err != nil {
					t.Fatal(err)
				}
			}
			before := names(t, home)
			target := newTarget(t, directory.Options{Root: root, Logins: fakeLogins, Public: map[string][]string{credential: {"username"}}})
			v1, err := target.Adopt(t.Context(), credential)
			if err != nil {
				t.Fatal(err)
			}
			if v1.Number != 1 || v1.Public["username"] != user(1) || len(v1.Objects) != 2 || !slices.Equal(before, names(t, home)) {
				t.Errorf("Adopt = %+v, home %q", v1, names(t, home))
			}
			if r := target.Probe(t.Context(), v1, rotation.ProbeSpec{Backend: "fake"}, rotation.Placement{}); r.Answer != rotation.Alive {
				t.Errorf("Probe = %+v, want alive", r)
			}
			if h, err := target.Observe(t.Context(), v1); err != nil || !h.Complete || len(h.Uses) != 1 {
				t.Errorf("Observe = %+v, %v, want complete and used", h, err)
			}
			if err := target.Remove(t.Context(), v1); !errors.Is(err, rotation.ErrInUse) {
				t.Errorf("Remove of what is read = %v, want ErrInUse", err)
			}
			v2 := put(t, target, 2)
			for _, s := range []rotation.Shift{shift(v2, v1), shift(v1, v2), shift(v2, v1)} {
				move(t, target, s)
				if got, want := readFile(t, home, "current", "password"), password(s.Main.Number); got != want && got != want+"\n" {
					t.Errorf("after the move to %d applications read %q", s.Main.Number, got)
				}
			}
			if err := target.Remove(t.Context(), v1); err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(c.after, names(t, home)); diff != "" {
				t.Errorf("home (-want +got):\n%s", diff)
			}
			fi, err := os.Stat(filepath.Join(home, "v2", "password"))
			if err != nil || fi.Mode().Perm() != 0o440 {
				t.Errorf("mode of the new password = %v, %v, want that of the old one, read-only", fi.Mode().Perm(), err)
			}
		})
	}
}

func TestAdoptRefuses(t *testing.T) {
	placements := []rotation.Placement{{Credential: credential, Service: "api", File: map[string]string{"F": "password"}}}
	for want, content := range map[string]map[string]string{
		"nothing to adopt":                        {"other/password": "canary"},
		"there is no file for password":           {"orders-db/initial/token": "canary"},
		`cannot be a field: [".hidden" "sub"]`:    {"orders-db/initial/password": "canary", "orders-db/initial/.hidden": "", "orders-db/initial/sub/x": ""},
		"there is no file for username":           {"orders-db/initial/password": "canary", "public": ""},
		`"username" is not one short line`:        {"orders-db/initial/password": "canary", "orders-db/initial/username": "canary\ncanary", "public": ""},
		`leads to "v7", whose name is that of an`: {"orders-db/v7/password": "canary"},
	} {
		root := newRoot(t)
		o := directory.Options{Root: root, Placements: placements}
		if _, ok := content["public"]; ok {
			o.Public = map[string][]string{credential: {"username"}}
		}
		files(t, root, content)
		to := "initial"
		if _, ok := content["orders-db/v7/password"]; ok {
			to = "v7"
		}
		_ = os.Symlink(to, filepath.Join(root, credential, "current"))
		_, err := newTarget(t, o).Adopt(t.Context(), credential)
		wantError(t, err, rotation.Invalid, want)
		if rotation.HintOf(err) == "" {
			t.Errorf("the error %q has no hint", err)
		}
	}
}

func TestPreflight(t *testing.T) {
	uid := "0"
	for want, c := range map[string]struct {
		change func(t *testing.T, home string)
		class  rotation.Class
		o      directory.Options
	}{
		"":                      {},
		"is there already":      {change: func(t *testing.T, home string) { files(t, home, map[string]string{"v2/x": ""}) }, class: rotation.Refused},
		"there is no symlink":   {change: func(t *testing.T, home string) { remove(t, home, "current") }, class: rotation.Refused},
		"it is not whole":       {change: func(t *testing.T, home string) { remove(t, home, "v1/password") }},
		"no live version":       {change: func(t *testing.T, home string) { remove(t, home, "current"); link(t, "v9", home) }, class: rotation.Refused},
		"is gone, with the cur": {change: func(t *testing.T, home string) { remove(t, home, "") }, class: rotation.Unknown},
		"written to by others":  {change: func(t *testing.T, home string) { _ = os.Chmod(home, 0o777) }, class: rotation.Refused},
		"finding the restart":   {class: rotation.Invalid, o: directory.Options{Restart: map[string]directory.Restart{credential: {Argv: []string{"/absent/program"}}}}},
	} {
		root := newRoot(t)
		c.o.Root = root
		c.o.Placements = []rotation.Placement{{Credential: credential, UID: &uid}}
		if os.Geteuid() != 0 {
			c.o.Placements = nil
		}
		target := newTarget(t, c.o)
		v1 := put(t, newTarget(t, directory.Options{Root: root}), 1)
		link(t, "v1", filepath.Join(root, credential))
		if c.change != nil {
			c.change(t, filepath.Join(root, credential))
		}
		v1.State = rotation.Current
		err := target.Preflight(t.Context(), rotation.Credential{Name: credential, Versions: []rotation.Version{v1}, Burnt: 1})
		if want == "" {
			if err != nil {
				t.Errorf("Preflight = %v", err)
			}
			continue
		}
		wantError(t, err, c.class, want)
	}
	fresh := newTarget(t, directory.Options{Root: newRoot(t)})
	if err := fresh.Preflight(t.Context(), rotation.Credential{Name: credential}); err != nil {
		t.Errorf("Preflight of a credential that has no version = %v", err)
	}
}

func remove(t *testing.T, parts ...string) {
	t.Helper()
	if err := os.RemoveAll(filepath.Join(parts...)); err != nil {
		t.Fatal(err)
	}
}

func link(t *testing.T, to, home string) {
	t.Helper()
	if err := os.Symlink(to, filepath.Join(home, "current")); err != nil {
		t.Fatal(err)
	}
}
