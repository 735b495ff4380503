package testserver

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"

	"github.com/keyturn/keyturn/internal/testserver/child"
)

// fetchOnce returns a folder of the user's cache that hangs on a text, such as a lock file. If
// it is not there, fill fills a fresh one, which takes its place when it is complete.
func fetchOnce(cache string, text []byte, fill func(fresh string) error) (string, error) {
	parent, err := cacheDir(cache)
	if err != nil {
		return "", err
	}
	dir := filepath.Join(parent, keyOf(text))
	unlock, err := locked(dir)
	if err != nil {
		return "", err
	}
	defer unlock()
	if _, err := os.Stat(dir); err == nil {
		return dir, nil
	}
	fresh := dir + ".new"
	if err := errors.Join(os.RemoveAll(fresh), os.Mkdir(fresh, 0o755)); err != nil {
		return "", err
	}
	if err := fill(fresh); err != nil {
		return "", err
	}
	return dir, os.Rename(fresh, dir)
}

// installed finds a program that .ci/install installs.
func installed(name string) (string, error) {
	path, err := exec.LookPath(name)
	if err != nil {
		return "", fmt.Errorf("%w, run .ci/install: %w", err, ErrMissing)
	}
	return path, nil
}

// run runs a program in a folder.
func run(ctx context.Context, dir, name string, args ...string) error {
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Dir = dir
	if said, err := child.CombinedOutput(cmd); err != nil {
		return fmt.Errorf("%s: %w: %s", filepath.Base(name), err, bytes.TrimSpace(said))
	}
	return nil
}
