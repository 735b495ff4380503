package journal

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// staleRun is how long the file of a run that was killed is kept: far longer
// than any lease, so that its death stays known while it matters.
const staleRun = 30 * 24 * time.Hour

var runName = regexp.MustCompile(`^[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}$`)

// Enter makes it known, to the processes on this machine that use the same
// journal, that a run is alive: until release is called or the process ends,
// however it ends. A run that is there already is an error.
func (j *File) Enter(runID string) (release func() error, err error) {
	path, err := j.runFile(runID)
	if err != nil {
		return nil, err
	}
	if err := makeDir(filepath.Dir(path)); err != nil {
		return nil, fmt.Errorf("entering run %q: %w", runID, placed(err))
	}
	j.sweepRuns(filepath.Dir(path))
	f, err := takeRun(path)
	if err != nil {
		return nil, fmt.Errorf("entering run %q: %w", runID, placed(err))
	}
	return sync.OnceValue(func() error {
		// Removed before it is unlocked: nobody sees a free file of a run that
		// ended well, and takes it for a dead one.
		if err := errors.Join(os.Remove(path), f.Close()); err != nil {
			return fmt.Errorf("leaving run %q: %w", runID, err)
		}
		return nil
	}), nil
}

// takeRun opens and locks a run's file. [File.Alive] holds such a lock for an
// instant: that is waited for.
func takeRun(path string) (*os.File, error) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	for {
		f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o600)
		if err != nil {
			return nil, err
		}
		err = flock(ctx, f, unix.LOCK_EX)
		if errors.Is(err, context.DeadlineExceeded) {
			err = &hinted{errors.New("it is running already"), "wait for it, or name this run differently"}
		}
		named := false
		if err == nil {
			named, err = stillNamed(f, path)
		}
		if err == nil && named {
			now := time.Now()
			return f, os.Chtimes(path, now, now) // a killed run's file may be old
		}
		f.Close()
		if err != nil {
			return nil, err
		}
	}
}

// Alive reports whether a run is alive on this machine. It is not known of runs
// that never entered here, or that left: they may be alive elsewhere.
func (j *File) Alive(runID string) (alive, known bool) {
	path, err := j.runFile(runID)
	if err != nil {
		return false, false
	}
	return runAlive(path)
}

func runAlive(path string) (alive, known bool) {
	f, err := os.Open(path)
	if err != nil {
		return false, false
	}
	defer f.Close()
	free, err := tryFlock(f, unix.LOCK_SH)
	if err != nil {
		return false, false
	}
	if !free {
		return true, true
	}
	named, err := stillNamed(f, path) // it may have left since it was opened
	return false, err == nil && named
}

func (j *File) runFile(runID string) (string, error) {
	if !runName.MatchString(runID) {
		return "", fmt.Errorf("run id %q is not 1 to 128 letters, digits, '_', '.' and '-'", runID)
	}
	return filepath.Join(j.path+".runs", runID), nil
}

// sweepRuns removes the files of runs that were killed long ago. What cannot
// be removed is left for the next sweep.
func (j *File) sweepRuns(dir string) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return
	}
	for _, e := range entries {
		info, err := e.Info()
		if err != nil || !info.Mode().IsRegular() || j.now().Sub(info.ModTime()) < staleRun {
			continue
		}
		sweepRun(filepath.Join(dir, e.Name()))
	}
}

func sweepRun(path string) {
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return
	}
	defer f.Close()
	if free, err := tryFlock(f, unix.LOCK_EX); err != nil || !free {
		return
	}
	if named, err := stillNamed(f, path); err == nil && named {
		_ = os.Remove(path)
	}
}
