package testserver

import (
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/keyturn/keyturn/internal/testserver/child"
)

// NewNamespace makes a network namespace that has a loopback device and nothing
// else, for as long as the test runs, and returns its path.
func NewNamespace(t testing.TB) string {
	t.Helper()
	if os.Geteuid() != 0 {
		Require(t, fmt.Errorf("making a network namespace needs root: %w", ErrMissing))
	}
	cmd := exec.Command("unshare", "--net", "/bin/sh", "-c", "ip link set lo up && echo up && exec sleep infinity")
	out, err := cmd.StdoutPipe()
	Require(t, err)
	Require(t, child.Start(cmd)) // it dies with us, and the namespace with it
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait() // it was killed
	})
	if _, err := out.Read(make([]byte, 2)); err != nil {
		t.Fatalf("making a network namespace: %v", err)
	}
	return fmt.Sprintf("/proc/%d/ns/net", cmd.Process.Pid)
}

// DialIn makes connections from a network namespace (such as
// /proc/PID/ns/net), whatever host an address names: that of the namespace itself.
func DialIn(netns string) func(ctx context.Context, network, address string) (net.Conn, error) {
	return func(ctx context.Context, network, address string) (net.Conn, error) {
		_, port, err := net.SplitHostPort(address)
		if err != nil {
			return nil, err
		}
		type made struct {
			net.Conn
			err error
		}
		out := make(chan made, 1)
		go func() {
			runtime.LockOSThread() // and never unlocked: the thread ends with the goroutine
			conn, err := dialHere(ctx, netns, network, net.JoinHostPort("127.0.0.1", port))
			out <- made{conn, err}
		}()
		m := <-out
		return m.Conn, m.err
	}
}

// dialHere moves the thread into the namespace and connects.
func dialHere(ctx context.Context, netns, network, address string) (net.Conn, error) {
	ns, err := os.Open(netns)
	if err != nil {
		return nil, err
	}
	defer ns.Close()
	if err := unix.Setns(int(ns.Fd()), unix.CLONE_NEWNET); err != nil {
		return nil, fmt.Errorf("entering %s: %w", netns, err)
	}
	var d net.Dialer
	d.SetMultipathTCP(false)
	return d.DialContext(ctx, network, address)
}

// within lets a command run in a network namespace, as its user.
func within(cmd *exec.Cmd, netns string) {
	args := []string{"nsenter", "--net=" + netns}
	if c := cmd.SysProcAttr.Credential; c != nil {
		args = append(args, "--setuid", strconv.FormatUint(uint64(c.Uid), 10), "--setgid", strconv.FormatUint(uint64(c.Gid), 10))
	}
	cmd.Args = append(append(args, "--", cmd.Path), cmd.Args[1:]...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: cmd.SysProcAttr.Pdeathsig}
	cmd.Path, cmd.Err = exec.LookPath("nsenter")
}
