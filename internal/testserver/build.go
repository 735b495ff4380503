package testserver

import (
	"bytes"
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/keyturn/keyturn/internal/testserver/child"
)

// BuildGo builds the package of this module (such as "./cmd/keyturn", from the
// module's root) as a static program that runs in an empty image, and returns
// its path, which is in the user's cache and the same for every build. The go
// command is that of the variable GO, if it is set.
func BuildGo(ctx context.Context, pkg string) (string, error) {
	path, err := buildGo(ctx, pkg)
	if err != nil {
		return "", fmt.Errorf("building %q: %w", pkg, err)
	}
	return path, nil
}

func buildGo(ctx context.Context, pkg string) (string, error) {
	root, err := moduleRoot(ctx)
	if err != nil {
		return "", err
	}
	dir, err := cacheDir("bin", keyOf([]byte(root)))
	if err != nil {
		return "", err
	}
	path := filepath.Join(dir, filepath.Base(pkg))
	unlock, err := locked(path) // the others find it built
	if err != nil {
		return "", err
	}
	defer unlock()
	// Go links anew only if something has changed, but then it may write into the
	// file in place. So the program that others run is a copy.
	cmd := exec.CommandContext(ctx, goCommand(), "build", "-trimpath", "-buildvcs=false", "-ldflags=-s -w", "-o", path+".built", pkg)
	cmd.Dir = root
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOOS=linux")
	if said, err := child.CombinedOutput(cmd); err != nil {
		return "", fmt.Errorf("%w: %s", err, bytes.TrimSpace(said))
	}
	if err := copyProgram(path+".built", path+".new"); err != nil {
		return "", err
	}
	return path, os.Rename(path+".new", path)
}

// BuildTool builds the program of another module of this repository (such as "act"
// of "tools/act"), once for each list of its modules and what the module itself has as
// source, and returns its path, which is in the user's cache.
func BuildTool(ctx context.Context, module, pkg string) (string, error) {
	path, err := buildTool(ctx, module, pkg)
	if err != nil {
		return "", fmt.Errorf("building %q of %s: %w", pkg, module, err)
	}
	return path, nil
}

func buildTool(ctx context.Context, module, pkg string) (string, error) {
	root, err := moduleRoot(ctx)
	if err != nil {
		return "", err
	}
	sums, err := os.ReadFile(filepath.Join(root, module, "go.sum"))
	if err != nil {
		return "", err
	}
	source, err := filepath.Glob(filepath.Join(root, module, "*.go"))
	if err != nil {
		return "", err
	}
	for _, file := range source { // in the order of their names
		text, err := os.ReadFile(file)
		if err != nil {
			return "", err
		}
		sums = append(sums, text...)
	}
	dir, err := cacheDir("tools", keyOf(sums))
	if err != nil {
		return "", err
	}
	path := filepath.Join(dir, filepath.Base(pkg))
	unlock, err := locked(path)
	if err != nil {
		return "", err
	}
	defer unlock()
	if _, err := os.Stat(path); err == nil {
		return path, nil
	}
	cmd := exec.CommandContext(ctx, goCommand(), "build", "-trimpath", "-buildvcs=false", "-ldflags=-s -w", "-o", path+".built", pkg)
	cmd.Dir = filepath.Join(root, module)
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if said, err := child.CombinedOutput(cmd); err != nil {
		return "", fmt.Errorf("%w: %s", err, bytes.TrimSpace(said))
	}
	return path, os.Rename(path+".built", path)
}

// keyOf is what something in the cache is called that hangs on a text.
func keyOf(text []byte) string {
	sum := sha256.Sum256(text)
	return hex.EncodeToString(sum[:6])
}

// locked lets one process at a time build a program. The lock ends with its holder.
func locked(path string) (unlock func(), err error) {
	lock, err := os.OpenFile(path+".lock", os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, err
	}
	if err := syscall.Flock(int(lock.Fd()), syscall.LOCK_EX); err != nil {
		return nil, errors.Join(err, lock.Close())
	}
	return func() { _ = lock.Close() }, nil // nothing was written to it
}

// copyProgram copies a file and lets everybody run the copy.
func copyProgram(from, to string) error {
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	defer in.Close()
	if err := os.RemoveAll(to); err != nil { // of a build that was killed
		return err
	}
	out, err := os.OpenFile(to, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o755)
	if err != nil {
		return err
	}
	_, err = io.Copy(out, in)
	return errors.Join(err, out.Chmod(0o755), out.Close())
}

// goCommand is the go command that the Makefile was given.
func goCommand() string { return cmp.Or(os.Getenv("GO"), "go") }

// moduleRoot is the folder of the go.mod that holds for the working folder.
func moduleRoot(ctx context.Context) (string, error) {
	out, err := exec.CommandContext(ctx, goCommand(), "env", "GOMOD").Output()
	if err != nil {
		return "", fmt.Errorf("asking go for the module: %w", err)
	}
	mod := strings.TrimSpace(string(out))
	if mod == "" || mod == os.DevNull {
		return "", errors.New("not inside the module")
	}
	return filepath.Dir(mod), nil
}
