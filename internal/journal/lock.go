package journal

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// flock locks an open file, shared (unix.LOCK_SH) or exclusive (unix.LOCK_EX),
// and waits for that until the context ends. The lock goes with the file: it is
// freed by closing it, and by the end of the process, however it ends.
func flock(ctx context.Context, f *os.File, how int) error {
	wait := time.Millisecond
	for {
		ok, err := tryFlock(f, how)
		if ok || err != nil {
			return err
		}
		timer := time.NewTimer(wait)
		select {
		case <-ctx.Done():
			timer.Stop()
			return fmt.Errorf("waiting for the lock: %w", context.Cause(ctx))
		case <-timer.C:
		}
		wait = min(2*wait, 20*time.Millisecond)
	}
}

// tryFlock locks an open file if nobody else holds it.
func tryFlock(f *os.File, how int) (bool, error) {
	for {
		err := unix.Flock(int(f.Fd()), how|unix.LOCK_NB)
		switch {
		case err == nil:
			return true, nil
		case errors.Is(err, unix.EWOULDBLOCK):
			return false, nil
		case !errors.Is(err, unix.EINTR):
			return false, os.NewSyscallError("flock", err)
		}
	}
}

// stillNamed reports whether the path names the open file: it could have been
// removed or replaced between its opening and its lock.
func stillNamed(f *os.File, path string) (bool, error) {
	opened, err := f.Stat()
	if err != nil {
		return false, err
	}
	named, err := os.Stat(path)
	if errors.Is(err, os.ErrNotExist) {
		return false, nil
	}
	return err == nil && os.SameFile(opened, named), err
}
