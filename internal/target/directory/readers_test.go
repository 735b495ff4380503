package directory_test

import (
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/keyturn/keyturn/internal/rotation"
	"github.com/keyturn/keyturn/internal/target/directory"
	"github.com/keyturn/keyturn/rotated"
)

// TestReadersNeverSeeAMix: applications that read without pause while the
// credential moves a thousand times never miss a version, nor see two mixed
// (hard problem 45).
func TestReadersNeverSeeAMix(t *testing.T) {
	root := inMemory(t)
	target := newTarget(t, directory.Options{Root: root})
	a, b := put(t, target, 1), put(t, target, 2)
	move(t, target, shift(a))
	var stop atomic.Bool
	var reads, seen [3]atomic.Int64
	var group sync.WaitGroup
	for range 3 {
		group.Go(func() {
			for !stop.Load() {
				n := readWhole(t, root)
				seen[n].Add(1)
				reads[0].Add(1)
			}
		})
	}
	for i := range 1000 {
		from, to := a, b
		if i%2 == 1 {
			from, to = b, a
		}
		if _, err := target.Move(t.Context(), []rotation.Shift{shift(to, from)}); err != nil {
			t.Fatal(err)
		}
	}
	stop.Store(true)
	group.Wait()
	if seen[0].Load() > 0 || seen[1].Load() == 0 || seen[2].Load() == 0 {
		t.Errorf("of %d reads %d failed or were mixed, %d saw version 1, %d version 2",
			reads[0].Load(), seen[0].Load(), seen[1].Load(), seen[2].Load())
	}
}

// TestReadersWhileVersionsGo: the same while old versions are removed under
// the readers.
func TestReadersWhileVersionsGo(t *testing.T) {
	root := inMemory(t)
	target := newTarget(t, directory.Options{Root: root})
	move(t, target, shift(put(t, target, 1)))
	var stop atomic.Bool
	var group sync.WaitGroup
	for range 3 {
		group.Go(func() {
			for !stop.Load() {
				readWhole(t, root)
			}
		})
	}
	for range 150 {
		if err := rotate(target); err != nil {
			t.Fatal(err)
		}
	}
	stop.Store(true)
	group.Wait()
}

// readWhole reads as applications do, and returns 1 or 2 for an odd or even
// version, 0 for what must not be.
func readWhole(t *testing.T, root string) int {
	c, err := rotated.Dir(filepath.Join(root, credential), "username", "password").Current(t.Context())
	if err != nil {
		t.Errorf("reading: %v", err)
		return 0
	}
	number := strings.TrimPrefix(c.Field("username"), "orders_")
	if got := strings.TrimLeft(strings.TrimSuffix(strings.TrimPrefix(c.Field("password"), "canary-"), "-password"), "0"); got != number {
		t.Errorf("the user is that of version %s, the password that of %s", number, got)
		return 0
	}
	return 2 - int(number[len(number)-1]-'0')%2
}
