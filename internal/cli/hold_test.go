package cli_test

import (
	"bytes"
	"context"
	"errors"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/keyturn/keyturn/internal/cli/undertest/hooks"
)

// A running keyturn is one that was started and not waited for.
type running struct {
	t              testing.TB
	s              *shop
	cmd            *exec.Cmd
	stdout, stderr bytes.Buffer
	said           *os.File // from it
	gate           *os.File // closed: it goes on
	ended          chan struct{}
}

// start starts keyturn. With a point, it returns when the program is there.
func (s *shop) start(point string, args ...string) *running {
	s.t.Helper()
	r := &running{t: s.t, s: s, ended: make(chan struct{})}
	ctx, cancel := context.WithTimeout(context.Background(), 6*time.Minute)
	r.cmd = s.command(ctx, args...)
	r.cmd.Stdout, r.cmd.Stderr = &r.stdout, &r.stderr
	said, saidEnd, err := os.Pipe()
	s.must(err)
	gateEnd, gate, err := os.Pipe()
	s.must(err)
	r.said, r.gate = said, gate
	r.cmd.ExtraFiles = []*os.File{saidEnd, gateEnd}
	if point != "" {
		r.cmd.Env = append(r.cmd.Env, hooks.HoldAt+"="+point)
	}
	s.must(r.cmd.Start())
	saidEnd.Close()
	gateEnd.Close()
	go func() {
		_ = r.cmd.Wait() // its exit code is asked for later
		cancel()
		close(r.ended)
	}()
	s.t.Cleanup(func() {
		r.gate.Close()
		_ = r.cmd.Process.Kill() // no harm to one that has ended
		<-r.ended
		r.said.Close()
	})
	if point != "" {
		b := make([]byte, 200)
		if n, err := r.said.Read(b); err != nil || !strings.HasPrefix(string(b[:n]), point) {
			<-r.ended
			s.t.Fatalf("keyturn %v never came to %q: %v\n%s%s", args, point, err, r.stdout.String(), r.stderr.String())
		}
	}
	return r
}

// goOn lets the program go on from its point.
func (r *running) goOn() { r.gate.Close() }

func (r *running) signal(sig syscall.Signal) {
	r.t.Helper()
	if err := r.cmd.Process.Signal(sig); err != nil && !errors.Is(err, os.ErrProcessDone) {
		r.t.Fatal(err)
	}
}

// wait waits for the end.
func (r *running) wait() result {
	r.t.Helper()
	<-r.ended
	r.s.clean(r.stdout.String() + r.stderr.String())
	return result{stdout: r.stdout.String(), stderr: r.stderr.String(), code: r.cmd.ProcessState.ExitCode()}
}
