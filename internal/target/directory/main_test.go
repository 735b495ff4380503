package directory_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/keyturn/keyturn/internal/rotation"
	"github.com/keyturn/keyturn/internal/target/directory"
)

// childVariable tells a copy of this test binary what to do instead of testing:
// "<work> <root> <number>".
const childVariable = "KEYTURN_DIRECTORY_CHILD"

func TestMain(m *testing.M) {
	if order := os.Getenv(childVariable); order != "" {
		if err := child(strings.Fields(order)); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// child does one piece of work. For put, move and remove the number is the
// effect at which the process kills itself.
func child(order []string) error {
	n, err := strconv.Atoi(order[2])
	if err != nil {
		return err
	}
	target, err := directory.New(directory.Options{Root: order[1]})
	if err != nil {
		return err
	}
	switch order[0] {
	case "forever":
		return forever(target)
	case "rotate":
		return rotate(target)
	}
	if order[0] == "put" || order[0] == "move" || order[0] == "remove" {
		target.At(func(string) {
			if n--; n == 0 {
				_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
				select {}
			}
		})
	}
	return operate(target, order[0])
}

// operate makes one operation of a rotation from version 1 to version 2.
func operate(target *directory.Target, work string) error {
	ctx := context.Background()
	v1, v2 := recorded(1), recorded(2)
	var err error
	switch work {
	case "put", "put-once":
		_, err = target.Put(ctx, version(2), material(2))
	case "move":
		_, err = target.Move(ctx, []rotation.Shift{shift(v2, v1)})
	case "remove":
		err = target.Remove(ctx, v1)
	default:
		err = fmt.Errorf("unknown work %q", work)
	}
	return err
}

// recorded returns a version as the record has it after a Put.
func recorded(n int) rotation.Version {
	v := version(n)
	v.Objects = map[string]rotation.Object{}
	for _, f := range []string{"username", "password"} {
		v.Objects[f] = rotation.Object{Name: fmt.Sprintf("%s/v%d/%s", credential, n, f)}
	}
	return v
}

// forever rotates without end from wherever it finds the directory.
func forever(target *directory.Target) error {
	for {
		if err := rotate(target); err != nil {
			return err
		}
	}
}

// rotate takes the credential from the highest version that is there to the
// next one, and removes all others.
func rotate(target *directory.Target) error {
	ctx := context.Background()
	found, err := target.Orphans(ctx, credential)
	if err != nil {
		return err
	}
	last := 0
	var known []rotation.Version
	for _, o := range found {
		last = o.Version.Number
		known = append(known, o.Version)
	}
	next, err := target.Put(ctx, version(last+1), material(last+1))
	if err != nil {
		return err
	}
	if _, err := target.Move(ctx, []rotation.Shift{shift(next, known...)}); err != nil {
		return err
	}
	for _, v := range known {
		if err := target.Remove(ctx, v); err != nil {
			return err
		}
	}
	return nil
}

// command returns a copy of this test binary that does some work.
func command(t *testing.T, work, root string, number int) *exec.Cmd {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "/proc/self/exe")
	cmd.Env = append(os.Environ(), fmt.Sprintf("%s=%s %s %d", childVariable, work, root, number))
	return cmd
}

func killed(err error) bool {
	exit, ok := err.(*exec.ExitError)
	return ok && exit.Sys().(syscall.WaitStatus).Signal() == syscall.SIGKILL
}

func jitter(n int) int { return 1 + rand.IntN(n) }
