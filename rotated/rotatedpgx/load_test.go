package rotatedpgx_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"github.com/keyturn/keyturn/rotated"
	"github.com/keyturn/keyturn/rotated/rotatedpgx"
)

// A task logs in anew again and again until it is stopped.
type task struct {
	stop  func()
	tries *atomic.Int64 // that came to their end
}

// A load is a service of some tasks, and what became of their logins.
type load struct {
	b       *bench
	connect client
	tasks   []task
	ok      atomic.Int64
	failed  atomic.Int64
	users   sync.Map // the users of the logins since it was cleared
}

// start starts a task. As a real task does, it has one source for its life.
func (l *load) start(s *rotated.Source) task {
	ctx, cancel := context.WithCancel(l.b.Context())
	done, tries := make(chan struct{}), new(atomic.Int64)
	go func() {
		defer close(done)
		for ctx.Err() == nil {
			user, err := l.connect(context.WithoutCancel(ctx), l.b, s)
			if err != nil {
				l.failed.Add(1)
				l.b.Errorf("a login failed: %v", err)
			} else {
				l.ok.Add(1)
				l.users.Store(user, true)
			}
			tries.Add(1)
			time.Sleep(5 * time.Millisecond)
		}
	}()
	return task{stop: func() { cancel(); <-done }, tries: tries}
}

func newLoad(b *bench, connect client, make func() *rotated.Source) *load {
	l := &load{b: b, connect: connect}
	for range 3 {
		l.tasks = append(l.tasks, l.start(make()))
	}
	b.Cleanup(l.stop)
	return l
}

// roll replaces the tasks one by one, the new one started first.
func (l *load) roll(make func() *rotated.Source) {
	for i := range l.tasks {
		next := l.start(make())
		l.settle()
		l.tasks[i].stop()
		l.tasks[i] = next
	}
}

// settle lets some logins happen.
func (l *load) settle() {
	for goal := l.ok.Load() + 6; l.ok.Load() < goal && l.failed.Load() == 0; {
		time.Sleep(2 * time.Millisecond)
	}
}

// eachAgain waits until what every task was about is over: one may be slow while
// the others log in.
func (l *load) eachAgain() {
	for _, t := range l.tasks {
		for goal := t.tries.Load() + 1; t.tries.Load() < goal; {
			time.Sleep(2 * time.Millisecond)
		}
	}
}

func (l *load) stop() {
	for _, task := range l.tasks {
		task.stop()
	}
	l.tasks = nil
}

// only checks that all logins from now on are those of one user.
func (l *load) only(user string) {
	l.b.Helper()
	l.eachAgain() // what was begun before
	l.users.Clear()
	l.settle()
	l.users.Range(func(name, _ any) bool {
		if name != user {
			l.b.Errorf("a login of %v, want only %s", name, user)
		}
		return true
	})
}

func (l *load) report() {
	l.b.Helper()
	l.stop()
	l.b.Logf("%d logins, %d failed", l.ok.Load(), l.failed.Load())
	if l.ok.Load() < 50 || l.failed.Load() > 0 {
		l.b.Errorf("%d logins, %d failed, want 50 at least and none failed", l.ok.Load(), l.failed.Load())
	}
}

// testDual makes two rotations in a row, as the Swarm does with mounts: dual,
// and in the second one ends the current login while it is still mounted first.
func testDual(b *bench, connect client) {
	b.arm(1)
	l := newLoad(b, connect, func() *rotated.Source { return source(b.one(1)) })
	for n := 1; n <= 2; n++ {
		b.arm(n + 1)
		l.roll(func() *rotated.Source { return source(b.two(n)) })
		l.only(login(n))
		if again := b.again.Load(); again > 0 {
			b.Errorf("%d logins needed a second attempt while both were accepted", again)
		}
		if n == 2 {
			b.end(n)
			l.only(login(n + 1))
			if again := b.again.Load(); again > int64(len(l.tasks)) {
				b.Errorf("%d logins needed a second attempt, want one for each task at most", again)
			}
		}
		l.roll(func() *rotated.Source { return source(b.one(n + 1)) })
		b.end(n)
		l.only(login(n + 1))
		if _, err := connect(b.Context(), b, source(b.one(n))); !rotatedpgx.IsRefused(err) {
			b.Errorf("version %d after its end: %v, want a refusal", n, err)
		}
	}
	l.report()
}

// testSwitch does the same with mounts: switch.
func testSwitch(b *bench, connect client) {
	b.arm(1)
	l := newLoad(b, connect, func() *rotated.Source { return source(b.one(1)) })
	for n := 1; n <= 2; n++ {
		b.arm(n + 1)
		l.only(login(n))
		l.roll(func() *rotated.Source { return source(b.one(n + 1)) })
		b.end(n)
		l.only(login(n + 1))
	}
	l.report()
}

// testDirectory moves the link under tasks that run on. The files of a version
// are removed at the very moment that its login ends.
func testDirectory(b *bench, connect client) {
	b.arm(1)
	b.put(1)
	l := newLoad(b, connect, func() *rotated.Source { return rotated.Dir(b.dir, "username", "password") })
	for n := 1; n <= 4; n++ {
		b.arm(n + 1)
		l.settle()
		b.put(n + 1)
		l.only(login(n + 1))
		b.end(n)
		if err := os.RemoveAll(filepath.Join(b.dir, fmt.Sprintf("v%d", n))); err != nil {
			b.Fatal(err)
		}
	}
	l.report()
}
