package testserver

import (
	"archive/tar"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/docker/docker/api/types/image"
)

// ImageConfig is what a container of an image runs by itself.
type ImageConfig struct {
	Entrypoint  []string
	Cmd         []string
	Env         map[string]string
	User        string // uid or uid:gid: such an image has no /etc/passwd
	Healthcheck *Healthcheck
}

// Healthcheck is an image's HEALTHCHECK.
type Healthcheck struct {
	Cmd                            []string
	Interval, Timeout, StartPeriod time.Duration
	Retries                        int
}

// BuildScratch makes an image with nothing in it but the given files (path in
// the image to path here; all executable by everyone) and an empty /tmp, and
// names it tag. It reads nothing from any registry. Services that use it are
// created with QueryRegistry false.
func (e *Engine) BuildScratch(ctx context.Context, tag string, files map[string]string, config ImageConfig) (id string, err error) {
	var b bytes.Buffer
	if err := writeLayer(&b, files); err != nil {
		return "", fmt.Errorf("building image %q: %w", tag, err)
	}
	answer, err := e.client.ImageImport(ctx, image.ImportSource{Source: &b, SourceName: "-"}, tag, image.ImportOptions{Changes: config.changes()})
	if err != nil {
		return "", fmt.Errorf("building image %q: %w", tag, err)
	}
	_, err = io.Copy(io.Discard, answer)
	if err := errors.Join(err, answer.Close()); err != nil {
		return "", fmt.Errorf("building image %q: %w", tag, err)
	}
	built, err := e.client.ImageInspect(ctx, tag)
	if err != nil {
		return "", fmt.Errorf("building image %q: %w", tag, err)
	}
	return built.ID, nil
}

// changes is the configuration in the words of a Dockerfile.
func (c ImageConfig) changes() []string {
	var lines []string
	if len(c.Entrypoint) > 0 {
		lines = append(lines, "ENTRYPOINT "+jsonText(c.Entrypoint))
	}
	if len(c.Cmd) > 0 {
		lines = append(lines, "CMD "+jsonText(c.Cmd))
	}
	for _, name := range slices.Sorted(maps.Keys(c.Env)) {
		lines = append(lines, "ENV "+name+"="+jsonText(c.Env[name]))
	}
	if c.User != "" {
		lines = append(lines, "USER "+c.User)
	}
	if h := c.Healthcheck; h != nil {
		line := "HEALTHCHECK"
		for _, o := range []struct {
			name  string
			value time.Duration
		}{{"interval", h.Interval}, {"timeout", h.Timeout}, {"start-period", h.StartPeriod}} {
			if o.value > 0 {
				line += fmt.Sprintf(" --%s=%s", o.name, o.value)
			}
		}
		if h.Retries > 0 {
			line += fmt.Sprintf(" --retries=%d", h.Retries)
		}
		lines = append(lines, line+" CMD "+jsonText(h.Cmd))
	}
	return lines
}

// jsonText is v as JSON: strings and lists of them always have one.
func jsonText(v any) string {
	data, err := json.Marshal(v)
	if err != nil {
		panic(err)
	}
	return string(data)
}

// writeLayer writes the files of an image as a tar archive.
func writeLayer(w io.Writer, files map[string]string) error {
	archive := tar.NewWriter(w)
	if err := archive.WriteHeader(&tar.Header{Typeflag: tar.TypeDir, Name: "tmp/", Mode: 0o1777}); err != nil {
		return err
	}
	for _, path := range slices.Sorted(maps.Keys(files)) {
		data, err := os.ReadFile(files[path])
		if err != nil {
			return err
		}
		header := &tar.Header{Typeflag: tar.TypeReg, Name: strings.TrimPrefix(path, "/"), Mode: 0o755, Size: int64(len(data))}
		if err := archive.WriteHeader(header); err != nil {
			return err
		}
		if _, err := archive.Write(data); err != nil {
			return err
		}
	}
	return archive.Close()
}

// BuildGo builds the package of this module (such as "./cmd/keyturn", from the
// module's root) as a static program that runs in an empty image, and returns
// its path, which is in the user's cache and the same for every build.
func BuildGo(ctx context.Context, pkg string) (string, error) {
	root, err := moduleRoot(ctx)
	if err != nil {
		return "", fmt.Errorf("building %q: %w", pkg, err)
	}
	sum := sha256.Sum256([]byte(root))
	dir, err := cacheDir("bin", hex.EncodeToString(sum[:6]))
	if err != nil {
		return "", fmt.Errorf("building %q: %w", pkg, err)
	}
	out, err := os.CreateTemp(dir, "new-")
	if err != nil {
		return "", fmt.Errorf("building %q: %w", pkg, err)
	}
	defer os.Remove(out.Name())
	if err := out.Close(); err != nil {
		return "", fmt.Errorf("building %q: %w", pkg, err)
	}
	cmd := exec.CommandContext(ctx, "go", "build", "-trimpath", "-buildvcs=false", "-ldflags=-s -w", "-o", out.Name(), pkg)
	cmd.Dir = root
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOOS=linux")
	if said, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("building %q: %w: %s", pkg, err, bytes.TrimSpace(said))
	}
	path := filepath.Join(dir, filepath.Base(pkg))
	if err := os.Chmod(out.Name(), 0o755); err != nil {
		return "", fmt.Errorf("building %q: %w", pkg, err)
	}
	if err := os.Rename(out.Name(), path); err != nil {
		return "", fmt.Errorf("building %q: %w", pkg, err)
	}
	return path, nil
}

// moduleRoot is the folder of the go.mod that holds for the working folder.
func moduleRoot(ctx context.Context) (string, error) {
	out, err := exec.CommandContext(ctx, "go", "env", "GOMOD").Output()
	if err != nil {
		return "", fmt.Errorf("asking go for the module: %w", err)
	}
	mod := strings.TrimSpace(string(out))
	if mod == "" || mod == os.DevNull {
		return "", errors.New("not inside the module")
	}
	return filepath.Dir(mod), nil
}

// LoginLoadImage builds the load application (internal/testserver/loginload)
// and returns the image's tag. Its HEALTHCHECK runs once a second.
func (e *Engine) LoginLoadImage(ctx context.Context) (string, error) {
	const tag = "keyturn-loginload:test"
	program, err := BuildGo(ctx, "./internal/testserver/loginload")
	if err != nil {
		return "", err
	}
	_, err = e.BuildScratch(ctx, tag, map[string]string{"/loginload": program}, ImageConfig{
		Entrypoint:  []string{"/loginload"},
		Healthcheck: &Healthcheck{Cmd: []string{"/loginload", "health"}, Interval: time.Second, Timeout: 3 * time.Second, Retries: 3},
	})
	return tag, err
}
