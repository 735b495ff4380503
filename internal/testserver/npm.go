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

// FetchNPM returns a folder with the packages that a folder of this repository
// names, such as "tools/postgres": fetched by npm as its lock file has them, once,
// into the user's cache. Nothing that a package would run is run. Then, if given,
// is done to a fresh folder before it is used.
func FetchNPM(ctx context.Context, folder, cache string, then func(fresh string) error) (string, error) {
	root, err := moduleRoot(ctx)
	if err != nil {
		return "", err
	}
	lock, err := os.ReadFile(filepath.Join(root, folder, "package-lock.json"))
	if err != nil {
		return "", err
	}
	parent, err := cacheDir(cache)
	if err != nil {
		return "", err
	}
	dir := filepath.Join(parent, keyOf(lock))
	unlock, err := locked(dir)
	if err != nil {
		return "", err
	}
	defer unlock()
	if _, err := os.Stat(dir); err == nil {
		return dir, nil
	}
	npm, err := exec.LookPath("npm")
	if err != nil {
		return "", fmt.Errorf("%w, run .ci/install: %w", err, ErrMissing)
	}
	fresh := dir + ".new"
	if err := errors.Join(os.RemoveAll(fresh), os.Mkdir(fresh, 0o755)); err != nil {
		return "", err
	}
	for _, file := range []string{"package.json", "package-lock.json"} {
		if err := copyProgram(filepath.Join(root, folder, file), filepath.Join(fresh, file)); err != nil {
			return "", err
		}
	}
	if err := run(ctx, fresh, npm, "ci", "--ignore-scripts", "--no-audit", "--no-fund"); err != nil {
		return "", err
	}
	if then != nil {
		if err := then(fresh); err != nil {
			return "", err
		}
	}
	return dir, os.Rename(fresh, dir)
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
