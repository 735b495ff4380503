package rotated_test

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"syscall"
	"testing"

	"github.com/keyturn/keyturn/rotated"
)

// asNobody runs f on a thread that has no rights to files of root.
func asNobody(f func()) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		if os.Geteuid() == 0 {
			runtime.LockOSThread() // and never unlocked: the thread ends with the goroutine
			_ = syscall.Setfsuid(65534)
		}
		f()
	}()
	<-done
}

// A file that the application may not read is an error that says so, in
// whatever way it is named, and nothing is used in its place.
func TestPermissionSurfaces(t *testing.T) {
	v := versions(t)
	v.add(1)
	v.move(1)
	closed := filepath.Join(v.dir(1), "password")
	for _, dir := range []string{filepath.Dir(v.path), v.path, v.dir(1)} {
		must(t, os.Chmod(dir, 0o755))
	}
	must(t, os.Chmod(filepath.Join(v.dir(1), "username"), 0o444))
	must(t, os.Chmod(closed, 0o000))
	env := map[string]string{"DB_USER": "u", "DB_PASSWORD": "p", "DB_PASSWORD_FILE": closed}
	asNobody(func() {
		if _, err := rotated.Dir(v.path, "username").Current(t.Context()); err != nil {
			t.Errorf("a field that everybody may read: %v", err)
		}
	})
	for name, source := range map[string]*rotated.Source{
		"Env": rotated.EnvFunc(func(name string) (string, bool) { v, ok := env[name]; return v, ok }, login),
		"Dir": rotated.Dir(v.path, "username", "password"),
	} {
		var list []rotated.Credential
		var err error
		asNobody(func() { list, err = source.Candidates(t.Context()) })
		if len(list) > 0 || !errors.Is(err, fs.ErrPermission) || errors.Is(err, rotated.ErrMissing) {
			t.Errorf("%s: %v, %v, want fs.ErrPermission", name, pairs(list), err)
		}
	}
}
