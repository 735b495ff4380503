package testserver

import (
	"archive/tar"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
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
		Healthcheck: &Healthcheck{Cmd: []string{"/loginload", "health"}, Interval: time.Second, Timeout: 10 * time.Second, Retries: 3},
	})
	return tag, err
}
