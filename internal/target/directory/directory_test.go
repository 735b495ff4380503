package directory_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/keyturn/keyturn/internal/rotation"
	"github.com/keyturn/keyturn/internal/secret"
	"github.com/keyturn/keyturn/internal/target/directory"
)

const credential = "orders-db"

// newRoot returns a directory that only its owner may write to.
func newRoot(t *testing.T) string {
	t.Helper()
	root := t.TempDir()
	if err := os.Chmod(root, 0o755); err != nil {
		t.Fatal(err)
	}
	return root
}

func newTarget(t *testing.T, o directory.Options) *directory.Target {
	t.Helper()
	target, err := directory.New(o)
	if err != nil {
		t.Fatal(err)
	}
	return target
}

func version(n int) rotation.Version {
	return rotation.Version{Credential: credential, Number: n, Public: map[string]string{"username": user(n)}}
}

func user(n int) string     { return fmt.Sprintf("orders_%d", n) }
func password(n int) string { return fmt.Sprintf("canary-%04d-password", n) }

func material(n int) rotation.Material {
	return rotation.Material{"username": secret.FromString(user(n)), "password": secret.FromString(password(n))}
}

func put(t *testing.T, target *directory.Target, n int) rotation.Version {
	t.Helper()
	v, err := target.Put(t.Context(), version(n), material(n))
	if err != nil {
		t.Fatal(err)
	}
	return v
}

func shift(main rotation.Version, known ...rotation.Version) rotation.Shift {
	return rotation.Shift{Placement: rotation.Placement{Credential: main.Credential}, Main: main, Known: known}
}

func move(t *testing.T, target *directory.Target, s rotation.Shift) rotation.Report {
	t.Helper()
	r, err := target.Move(t.Context(), []rotation.Shift{s})
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func readFile(t *testing.T, parts ...string) string {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(parts...))
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// names returns what stands in a directory.
func names(t *testing.T, parts ...string) []string {
	t.Helper()
	entries, err := os.ReadDir(filepath.Join(parts...))
	if err != nil {
		t.Fatal(err)
	}
	var list []string
	for _, e := range entries {
		list = append(list, e.Name())
	}
	return list
}

// wantError checks class and text, and that no value stands in the error.
func wantError(t *testing.T, err error, class rotation.Class, text string) {
	t.Helper()
	if err == nil || !strings.Contains(err.Error(), text) {
		t.Fatalf("error = %v, want one with %q", err, text)
	}
	if got := rotation.ClassOf(err); got != class {
		t.Errorf("class of %q = %v, want %v", err, got, class)
	}
	if strings.Contains(err.Error()+rotation.HintOf(err), "canary") {
		t.Errorf("a value stands in the error %q", err)
	}
}

// TestLife takes a credential through two rotations in a row.
func TestLife(t *testing.T) {
	root := newRoot(t)
	target := newTarget(t, directory.Options{Root: root})
	v1 := put(t, target, 1)
	want := map[string]rotation.Object{
		"username": {ID: "orders-db/v1/username", Name: "orders-db/v1/username"},
		"password": {ID: "orders-db/v1/password", Name: "orders-db/v1/password"},
	}
	if diff := cmp.Diff(want, v1.Objects); diff != "" {
		t.Errorf("Put: objects (-want +got):\n%s", diff)
	}
	if r := move(t, target, shift(v1)); !r.Services[0].Updated || r.Services[0].Service != credential {
		t.Errorf("Move = %+v, want %q updated", r, credential)
	}
	last := v1
	for n := 2; n <= 3; n++ {
		next := put(t, target, n)
		if got := readFile(t, root, credential, "current", "password"); got != password(n-1) {
			t.Errorf("after Put(%d) applications read %q", n, got)
		}
		move(t, target, shift(next, last))
		if got := readFile(t, root, credential, "current", "password"); got != password(n) {
			t.Errorf("after Move(%d) applications read %q", n, got)
		}
		if r := move(t, target, shift(next, last)); r.Services[0].Updated {
			t.Errorf("Move again = %+v, want not updated", r)
		}
		if err := target.Remove(t.Context(), next); !errors.Is(err, rotation.ErrInUse) {
			t.Errorf("Remove of the current version = %v, want ErrInUse", err)
		}
		for range 2 {
			if err := target.Remove(t.Context(), last); err != nil {
				t.Errorf("Remove(%d) = %v", n-1, err)
			}
		}
		last = next
	}
	if diff := cmp.Diff([]string{"current", "v3"}, names(t, root, credential)); diff != "" {
		t.Errorf("left in the home (-want +got):\n%s", diff)
	}
}

func TestPutModes(t *testing.T) {
	root := newRoot(t)
	target := newTarget(t, directory.Options{Root: root})
	put(t, target, 1)
	for name, want := range map[string]fs.FileMode{".": 0o755, "v1": 0o500, "v1/password": 0o400, "v1/username": 0o400} {
		fi, err := os.Stat(filepath.Join(root, credential, name))
		if err != nil || fi.Mode().Perm() != want {
			t.Errorf("mode of %q = %v, %v, want %v", name, fi.Mode().Perm(), err, want)
		}
	}
}

// TestPutAgain: the same bytes are success, anything else is an error, and
// nothing is repaired.
func TestPutAgain(t *testing.T) {
	root := newRoot(t)
	target := newTarget(t, directory.Options{Root: root})
	v := put(t, target, 1)
	if again := put(t, target, 1); !cmp.Equal(again, v) {
		t.Errorf("Put again = %+v, want %+v", again, v)
	}
	if err := target.Verify(t.Context(), v, material(1)); err != nil {
		t.Errorf("Verify = %v", err)
	}
	other := material(1)
	other["password"] = secret.FromString("canary-other-password")
	_, err := target.Put(t.Context(), version(1), other)
	wantError(t, err, rotation.Failed, `field "password" holds other bytes already`)
	wantError(t, target.Verify(t.Context(), v, other), rotation.Failed, "other bytes")
	other["password"], other["dsn"] = secret.FromString(password(1)), secret.FromString("canary-dsn")
	_, err = target.Put(t.Context(), version(1), other)
	wantError(t, err, rotation.Failed, `field "dsn"`)
	_, err = target.Put(t.Context(), version(1), rotation.Material{"username": secret.FromString(user(1))})
	wantError(t, err, rotation.Refused, `did not put there: ["password"]`)
	if got := readFile(t, root, credential, "v1", "password"); got != password(1) {
		t.Errorf("the version was changed to %q", got)
	}
}

func TestPutRefuses(t *testing.T) {
	text := secret.FromString("canary-value")
	for name, c := range map[string]struct {
		v    rotation.Version
		m    rotation.Material
		want string
	}{
		"field with a slash":    {version(1), rotation.Material{"../x": text, "password": text}, "cannot be the name of a file"},
		"hidden field":          {version(1), rotation.Material{".x": text, "password": text}, "cannot be the name of a file"},
		"credential with dots":  {rotation.Version{Credential: "../x", Number: 1}, rotation.Material{"password": text}, "cannot be the name of a file"},
		"no number":             {rotation.Version{Credential: credential}, rotation.Material{"password": text}, "start at 1"},
		"empty value":           {version(1), rotation.Material{"password": secret.Value{}}, `field "password" is empty`},
		"field that is missing": {version(1), rotation.Material{"token": text}, `field "password" is read by a service`},
		"public field differs":  {version(1), rotation.Material{"password": text, "username": text}, `public field "username" differs`},
	} {
		t.Run(name, func(t *testing.T) {
			root := newRoot(t)
			target := newTarget(t, directory.Options{Root: root, Placements: []rotation.Placement{
				{Credential: credential, Service: "api", File: map[string]string{"PASSWORD_FILE": "password"}}}})
			_, err := target.Put(t.Context(), c.v, c.m)
			wantError(t, err, rotation.Invalid, c.want)
			if left := names(t, root); len(left) > 0 {
				t.Errorf("Put left %q", left)
			}
		})
	}
}

func TestNewRefuses(t *testing.T) {
	uid, name, mode := "1000", "app", fs.FileMode(0o640)
	other := "1001"
	for want, o := range map[string]directory.Options{
		"not an absolute path":     {Root: "here"},
		"not an absolute path be":  {Root: "/"},
		"cannot set the variable":  {Root: "/r", Placements: []rotation.Placement{{Credential: "c", Env: map[string]string{"PGUSER": "username"}}}},
		`uid "app" is not a num`:   {Root: "/r", Placements: []rotation.Placement{{Credential: "c", UID: &name}}},
		"not read-only files":      {Root: "/r", Placements: []rotation.Placement{{Credential: "c", Mode: &mode}}},
		"want different uid":       {Root: "/r", Placements: []rotation.Placement{{Credential: "c", UID: &uid}, {Credential: "c", UID: &other}}},
		"restart command of \"c\"": {Root: "/r", Restart: map[string]directory.Restart{"c": {}}},
	} {
		_, err := directory.New(o)
		wantError(t, err, rotation.Invalid, want)
		if rotation.HintOf(err) == "" {
			t.Errorf("New: the error %q has no hint", err)
		}
	}
}

// TestOwnership: a placement's uid, gid and mode are honoured; without, the
// files of the next version are like those that applications read now (hard problem 50).
func TestOwnership(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("giving files away needs root")
	}
	uid, gid, mode := "1234", "2345", fs.FileMode(0o440)
	root := newRoot(t)
	given := newTarget(t, directory.Options{Root: root, Placements: []rotation.Placement{
		{Credential: credential, Service: "api", UID: &uid, GID: &gid, Mode: &mode, Path: map[string]string{"/run/p": "password"}}}})
	move(t, given, shift(put(t, given, 1)))
	kept := newTarget(t, directory.Options{Root: root})
	put(t, kept, 2)
	for _, name := range []string{"v1", "v1/password", "v2", "v2/password", "v2/username"} {
		fi, err := os.Stat(filepath.Join(root, credential, name))
		if err != nil {
			t.Fatal(err)
		}
		want := mode
		if fi.IsDir() {
			want = 0o550
		}
		if got := fmt.Sprint(owner(fi)); got != "1234:2345" || fi.Mode().Perm() != want {
			t.Errorf("%s belongs to %s with mode %v, want 1234:2345 and %v", name, got, fi.Mode().Perm(), want)
		}
	}
}

func TestObserve(t *testing.T) {
	root := newRoot(t)
	target := newTarget(t, directory.Options{Root: root, Placements: []rotation.Placement{
		{Credential: credential, Service: "api", File: map[string]string{"PASSWORD_FILE": "password"}},
		{Credential: credential, Service: "worker", Path: map[string]string{"/run/user": "username"}}}})
	absent, err := target.Observe(t.Context(), version(1))
	if err != nil || absent.Complete || len(absent.Objects) != 0 {
		t.Errorf("Observe of what was never put = %+v, %v", absent, err)
	}
	v1 := put(t, target, 1)
	bare := rotation.Version{Credential: credential, Number: 1} // as after a crash before the record
	for _, v := range []rotation.Version{v1, bare} {
		if got, err := target.Observe(t.Context(), v); err != nil || !got.Complete || !cmp.Equal(got.Objects, v1.Objects) || len(got.Uses) != 0 {
			t.Errorf("Observe = %+v, %v, want complete, unused", got, err)
		}
	}
	v2 := put(t, target, 2)
	move(t, target, rotation.Shift{Placement: rotation.Placement{Credential: credential, Service: "api"}, Main: v1, Beside: &v2})
	for link, v := range map[string]rotation.Version{"current": v1, "next": v2} {
		detail := "orders-db/" + link + " leads to it"
		want := []rotation.Use{{Kind: "spec", Name: "api", Detail: detail}, {Kind: "spec", Name: "worker", Detail: detail}}
		got, err := target.Observe(t.Context(), v)
		if diff := cmp.Diff(want, got.Uses); err != nil || diff != "" {
			t.Errorf("Observe(%d): %v, uses (-want +got):\n%s", v.Number, err, diff)
		}
	}
	if err := os.Remove(filepath.Join(root, credential, "v2", "password")); err != nil {
		t.Fatal(err)
	}
	if got, _ := target.Observe(t.Context(), v2); got.Complete || len(got.Objects) != 1 {
		t.Errorf("Observe of a part = %+v, want not complete", got)
	}
}

// TestRootMissing: a file system that is not mounted proves nothing.
func TestRootMissing(t *testing.T) {
	target := newTarget(t, directory.Options{Root: filepath.Join(newRoot(t), "absent")})
	v := version(1)
	v.Objects = map[string]rotation.Object{"password": {Name: "orders-db/v1/password"}}
	_, err := target.Observe(t.Context(), v)
	wantError(t, err, rotation.Unknown, "is not there")
	wantError(t, target.Remove(t.Context(), v), rotation.Unknown, "is not there")
	_, err = target.Orphans(t.Context(), credential)
	wantError(t, err, rotation.Unknown, "is not there")
	_, err = target.Put(t.Context(), version(1), material(1))
	wantError(t, err, rotation.Unknown, "is not there")
}

// TestDual: the next version stands beside the current one from prepare to cutover.
func TestDual(t *testing.T) {
	root := newRoot(t)
	target := newTarget(t, directory.Options{Root: root})
	v1, v2 := put(t, target, 1), put(t, target, 2)
	move(t, target, shift(v1))
	both := shift(v1, v2)
	both.Beside = &v2
	move(t, target, both)
	if got := readFile(t, root, credential, "next", "password") + readFile(t, root, credential, "current", "password"); got != password(2)+password(1) {
		t.Errorf("next and current hold %q", got)
	}
	if err := target.Remove(t.Context(), v2); !errors.Is(err, rotation.ErrInUse) {
		t.Errorf("Remove of the next version = %v, want ErrInUse", err)
	}
	snapshot, err := target.Snapshot(t.Context(), []rotation.Placement{{Credential: credential}, {Credential: "absent", Service: credential}})
	want := map[string]json.RawMessage{credential: json.RawMessage(`{"absent":{},"orders-db":{"current":"v1","next":"v2"}}`)}
	if diff := cmp.Diff(want, snapshot); err != nil || diff != "" {
		t.Errorf("Snapshot: %v, (-want +got):\n%s", err, diff)
	}
	move(t, target, shift(v2, v1))
	if diff := cmp.Diff([]string{"current", "v1", "v2"}, names(t, root, credential)); diff != "" {
		t.Errorf("after cutover (-want +got):\n%s", diff)
	}
}

// TestMoveChecksFirst: if one shift of several cannot be made, none is begun.
func TestMoveChecksFirst(t *testing.T) {
	foreign := version(9)
	other := rotation.Version{Credential: "mail", Number: 1}
	absent := version(5)
	for want, c := range map[string]struct {
		shift rotation.Shift
		class rotation.Class
	}{
		"it is not there":                    {shift(absent, version(1)), rotation.Failed},
		`leads to "v1", which is no version`: {shift(version(2), foreign), rotation.Refused},
		`of "mail" cannot be read as "ord`:   {rotation.Shift{Placement: rotation.Placement{Credential: credential}, Main: other}, rotation.Invalid},
		"cannot set the variable": {rotation.Shift{Placement: rotation.Placement{Credential: credential, Env: map[string]string{"U": "username"}},
			Main: version(2)}, rotation.Invalid},
	} {
		root := newRoot(t)
		target := newTarget(t, directory.Options{Root: root})
		move(t, target, shift(put(t, target, 1)))
		put(t, target, 2)
		first := rotation.Version{Credential: "a-first", Number: 1}
		first, err := target.Put(t.Context(), first, rotation.Material{"token": secret.FromString("canary-token")})
		if err != nil {
			t.Fatal(err)
		}
		if c.shift.Main.Number == 5 {
			c.shift.Main.Public = nil
		}
		_, err = target.Move(t.Context(), []rotation.Shift{shift(first), c.shift})
		wantError(t, err, c.class, want)
		if slices.Contains(names(t, root, "a-first"), "current") {
			t.Errorf("%s: another credential was moved", want)
		}
		if got := readFile(t, root, credential, "current", "password"); got != password(1) {
			t.Errorf("%s: moved to %q", want, got)
		}
	}
}

// TestMoveSeveral: services that share a credential, and credentials that
// share a service.
func TestMoveSeveral(t *testing.T) {
	root := newRoot(t)
	target := newTarget(t, directory.Options{Root: root})
	v := put(t, target, 1)
	mail, err := target.Put(t.Context(), rotation.Version{Credential: "mail", Number: 4}, rotation.Material{"token": secret.FromString("canary")})
	if err != nil {
		t.Fatal(err)
	}
	at := func(v rotation.Version, service string) rotation.Shift {
		return rotation.Shift{Placement: rotation.Placement{Credential: v.Credential, Service: service}, Main: v}
	}
	r, err := target.Move(t.Context(), []rotation.Shift{at(v, "worker"), at(mail, "api"), at(v, "api")})
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, s := range r.Services {
		got = append(got, fmt.Sprint(s.Service, s.Updated))
	}
	if diff := cmp.Diff([]string{"apitrue", "workertrue"}, got); diff != "" {
		t.Errorf("Move: services (-want +got):\n%s", diff)
	}
	v2 := put(t, target, 2)
	_, err = target.Move(t.Context(), []rotation.Shift{at(v, "worker"), at(v2, "api")})
	wantError(t, err, rotation.Invalid, "different versions")
}

// TestRemoveForeign: where anything is in the directory that is not ours, it is
// named, and nothing is removed (hard problem 15).
func TestRemoveForeign(t *testing.T) {
	root := newRoot(t)
	target := newTarget(t, directory.Options{Root: root})
	v := put(t, target, 1)
	dir := filepath.Join(root, credential, "v1")
	if err := errors.Join(os.Chmod(dir, 0o700), os.WriteFile(filepath.Join(dir, "notes"), nil, 0o600)); err != nil {
		t.Fatal(err)
	}
	wantError(t, target.Remove(t.Context(), v), rotation.Refused, `did not put there: ["notes"]`)
	if diff := cmp.Diff([]string{"notes", "password", "username"}, names(t, dir)); diff != "" {
		t.Errorf("left (-want +got):\n%s", diff)
	}
	bare := v
	bare.Objects = nil
	if err := target.Remove(t.Context(), bare); err != nil || len(names(t, dir)) != 3 {
		t.Errorf("Remove of no object = %v, removed something", err)
	}
	evil := v.Clone()
	evil.Objects["password"] = rotation.Object{Name: "orders-db/../../x/password"}
	wantError(t, target.Remove(t.Context(), evil), rotation.Invalid, "none of a directory target")
}

func TestOrphans(t *testing.T) {
	root := newRoot(t)
	target := newTarget(t, directory.Options{Root: root})
	if got, err := target.Orphans(t.Context(), credential); err != nil || got != nil {
		t.Errorf("Orphans of nothing = %v, %v", got, err)
	}
	v10, v2 := put(t, target, 10), put(t, target, 2)
	for _, name := range []string{"v03", "vx", "v5"} { // other names, and an empty directory
		if err := os.Mkdir(filepath.Join(root, credential, name), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	got, err := target.Orphans(t.Context(), credential)
	if err != nil || len(got) != 2 || got[0].Version.Number != 2 || !cmp.Equal(got[1].Version.Objects, v10.Objects) {
		t.Fatalf("Orphans = %+v, %v, want 2 and 10", got, err)
	}
	for _, o := range got {
		if err := target.Remove(t.Context(), o.Version); err != nil {
			t.Error(err)
		}
	}
	if slices.Contains(names(t, root, credential), "v2") {
		t.Errorf("%v was not removed by what Orphans returned", slices.Sorted(maps.Keys(v2.Objects)))
	}
}

// TestLocked: two processes do not change one home at the same time.
func TestLocked(t *testing.T) {
	root := newRoot(t)
	first, second := newTarget(t, directory.Options{Root: root}), newTarget(t, directory.Options{Root: root})
	ctx, cancel := context.WithCancel(t.Context())
	var inside error
	first.At(func(point string) {
		if point == "synced file" && inside == nil {
			cancel()
			_, inside = second.Put(ctx, version(2), material(2))
		}
	})
	put(t, first, 1)
	wantError(t, inside, rotation.Unknown, "another process is changing")
	put(t, second, 2)
}
