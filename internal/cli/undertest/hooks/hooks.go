// Package hooks lets tests stop keyturn where they want: they set variables of its
// environment, which the released program does not know.
package hooks

import (
	"io"
	"os"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/keyturn/keyturn/internal/cli"
)

// The variables.
const (
	// CrashAt makes the program kill itself at the n-th record or effect.
	CrashAt = "KEYTURN_TEST_CRASH_AT"
	// DieAt makes the program kill itself at a point: its name, and after a # how many times
	// it must have been there. Every point is said on file descriptor 3, as by CrashAt.
	DieAt = "KEYTURN_TEST_DIE_AT"
	// HoldAt makes the program say on file descriptor 3 that it has come to a point, and wait
	// there until file descriptor 4 ends.
	HoldAt = "KEYTURN_TEST_HOLD_AT"
	// PanicAt makes the program panic at a point.
	PanicAt = "KEYTURN_TEST_PANIC_AT"
	// Version is the version that the program is linked as.
	Version = "KEYTURN_TEST_VERSION"
	// ClockAhead moves the program's clock, by a duration.
	ClockAhead = "KEYTURN_TEST_CLOCK"
	// AtOnce lets the program write to GitHub without a pause between two writes.
	AtOnce = "KEYTURN_TEST_AT_ONCE"
)

// Program returns the program as the variables ask for it.
func Program(args []string) cli.Program {
	cli.Version = os.Getenv(Version)
	p := cli.Program{Args: args, Stdout: os.Stdout, Stderr: os.Stderr, Hook: held(os.Getenv(HoldAt), os.Getenv(PanicAt))}
	if d, err := time.ParseDuration(os.Getenv(ClockAhead)); err == nil {
		p.Now = func() time.Time { return time.Now().Add(d) }
	}
	if os.Getenv(AtOnce) != "" {
		p.Between = -1
	}
	if n, err := strconv.ParseInt(os.Getenv(CrashAt), 10, 64); err == nil {
		p.Hook = dieAt(n)
	}
	if at := os.Getenv(DieAt); at != "" {
		p.Hook = dieAtNamed(at)
	}
	return p
}

// held returns the hook that waits at one point and panics at another, or nil.
func held(hold, fall string) func(string) {
	if hold == "" && fall == "" {
		return nil
	}
	var once sync.Once
	return func(at string) {
		if at == fall {
			panic("at " + at)
		}
		if at == hold {
			once.Do(func() {
				_, _ = os.NewFile(3, "said").WriteString(at + "\n")
				_, _ = io.Copy(io.Discard, os.NewFile(4, "go on"))
			})
		}
	}
}

// dieAt returns a hook that says at which point it is, and kills the process at the n-th.
func dieAt(n int64) func(string) {
	var count atomic.Int64
	points := os.NewFile(3, "points")
	return func(at string) {
		_, _ = points.WriteString(at + "\n") // read by the test; a closed pipe shows there
		if count.Add(1) == n {
			die()
		}
	}
}

// dieAtNamed returns a hook that says at which point it is, and kills the process at one.
func dieAtNamed(want string) func(string) {
	name, count, _ := strings.Cut(want, "#")
	nth, err := strconv.Atoi(count)
	if err != nil {
		nth = 1
	}
	points := os.NewFile(3, "points")
	var mu sync.Mutex
	seen := 0
	return func(at string) {
		mu.Lock()
		defer mu.Unlock()
		_, _ = points.WriteString(at + "\n")
		if at == name {
			seen++
		}
		if at == name && seen == nth {
			die()
		}
	}
}

// die ends the process as kill -9 does.
func die() {
	_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
	select {}
}
