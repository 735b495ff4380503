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

	"golang.org/x/sys/unix"
)

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
