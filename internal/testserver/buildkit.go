package testserver

import (
	"context"
	"fmt"
	"os/exec"
	"path/filepath"
	"testing"
	"time"
)

// A BuildKit is a builder of images, of BuildKit's own sources, with runc of Debian.
// What it runs has this machine's network.
type BuildKit struct {
	socket, client string
}

// NewBuildKit starts a builder for as long as the test runs. It needs root.
func NewBuildKit(t testing.TB) *BuildKit {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Minute)
	defer cancel()
	if _, err := exec.LookPath("runc"); err != nil {
		Require(t, fmt.Errorf("no runc on the PATH, run .ci/install: %w", ErrMissing))
	}
	server, err := BuildTool(ctx, "tools/buildkit", "github.com/moby/buildkit/cmd/buildkitd")
	Require(t, err)
	client, err := BuildTool(ctx, "tools/buildkit", "github.com/moby/buildkit/cmd/buildctl")
	Require(t, err)
	dir := t.TempDir()
	b := &BuildKit{socket: "unix://" + filepath.Join(dir, "socket"), client: client}
	cmd := exec.Command(server, "--root", filepath.Join(dir, "root"), "--addr", b.socket, "--containerd-worker=false",
		"--oci-worker-net", "host", "--oci-worker-snapshotter", "native")
	cmd.Env = append(environment(dir), "XDG_RUNTIME_DIR="+dir)
	log := filepath.Join(dir, "log")
	p, err := startProcess(cmd, log)
	Require(t, err)
	t.Cleanup(func() {
		p.kill()
		<-p.done
	})
	for {
		if exec.CommandContext(ctx, client, "--addr", b.socket, "debug", "workers").Run() == nil {
			return b
		}
		select {
		case <-p.done:
			t.Fatalf("BuildKit ended: %v\n%s", p.err, tailOf(log))
		case <-ctx.Done():
			t.Fatalf("BuildKit does not answer\n%s", tailOf(log))
		case <-time.After(50 * time.Millisecond):
		}
	}
}

// Build is the command that builds the Dockerfile of a folder, as an image in a file of
// OCI's form, with more arguments such as --secret.
func (b *BuildKit) Build(folder, image string, more ...string) []string {
	return append([]string{b.client, "--addr", b.socket, "build", "--progress=plain", "--frontend", "dockerfile.v0", "--no-cache",
		"--local", "context=" + folder, "--local", "dockerfile=" + folder, "--output", "type=oci,dest=" + image}, more...)
}
