package directory_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"testing"

	"pgregory.net/rapid"

	"github.com/keyturn/keyturn/internal/rotation"
	"github.com/keyturn/keyturn/internal/target/directory"
)

// TestAnyOrder makes random calls in any order and compares the directory with
// a model of it. Whatever is called, from its first move on "current" leads to
// a whole version, and it is the one that was last moved to.
func TestAnyOrder(t *testing.T) {
	memory := inMemory(t)
	rapid.Check(t, func(rt *rapid.T) {
		root, err := os.MkdirTemp(memory, "root")
		if err != nil {
			rt.Fatal(err)
		}
		target, err := directory.New(directory.Options{Root: root})
		if err != nil {
			rt.Fatal(err)
		}
		ctx := context.Background()
		there := map[int]bool{} // the model
		current, next := 0, 0
		number := rapid.IntRange(1, 4)
		known := []rotation.Version{recorded(1), recorded(2), recorded(3), recorded(4)}
		rt.Repeat(map[string]func(*rapid.T){
			"put": func(rt *rapid.T) {
				n := number.Draw(rt, "number")
				if _, err := target.Put(ctx, version(n), material(n)); err != nil {
					rt.Fatalf("Put(%d) = %v", n, err)
				}
				there[n] = true
			},
			"put other bytes": func(rt *rapid.T) {
				n := number.Draw(rt, "number")
				m := material(n)
				m["password"] = material(n + 1)["password"]
				if there[n] {
					if _, err := target.Put(ctx, version(n), m); err == nil {
						rt.Fatalf("Put(%d) overwrote", n)
					}
				}
			},
			"move": func(rt *rapid.T) {
				n, b := number.Draw(rt, "number"), rapid.IntRange(0, 4).Draw(rt, "beside")
				s := shift(recorded(n), known...)
				if b > 0 {
					v := recorded(b)
					s.Beside = &v
				}
				_, err := target.Move(ctx, []rotation.Shift{s})
				if can := there[n] && (b == 0 || there[b]); can != (err == nil) {
					rt.Fatalf("Move(%d, %d) = %v with %v there", n, b, err, there)
				}
				if err == nil {
					current, next = n, b
				}
			},
			"remove": func(rt *rapid.T) {
				n := number.Draw(rt, "number")
				err := target.Remove(ctx, recorded(n))
				if used := n == current || n == next; used != errors.Is(err, rotation.ErrInUse) || !used && err != nil {
					rt.Fatalf("Remove(%d) = %v with current %d, next %d", n, err, current, next)
				}
				if err == nil {
					delete(there, n)
				}
			},
			"": func(rt *rapid.T) {
				for n := 1; n <= 4; n++ {
					if h, err := target.Observe(ctx, recorded(n)); err != nil || h.Complete != there[n] {
						rt.Fatalf("Observe(%d) = %+v, %v, want complete %v", n, h, err, there[n])
					}
				}
				got, err := os.ReadFile(filepath.Join(root, credential, "current", "password"))
				if current == 0 && err == nil || current != 0 && string(got) != password(current) {
					rt.Fatalf("current holds %q, %v, want version %d", got, err, current)
				}
			},
		})
	})
}

// inMemory returns a directory in memory where there is one: on a disk, the
// thousands of calls would wait for nothing but its syncs.
func inMemory(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("/dev/shm", "keyturn-directory-")
	if err != nil {
		return t.TempDir()
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	return dir
}
