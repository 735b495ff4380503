package testserver

import (
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"time"
)

// stopLimit bounds one clean-up. A cluster of a hundred databases is tens of
// thousands of files, and takes its time on a disk that others use, too.
const stopLimit = 2 * time.Minute

// A guard is a shell process that waits for the end of this process and then
// cleans up after one server. Closing it does the same at once.
type guard struct {
	cmd   *exec.Cmd
	stdin io.Closer
	state string
	done  chan error
}

// cleanFolder removes the folders that are its arguments.
const cleanFolder = `rm -rf "$@" || { sleep 1; rm -rf "$@"; }`

// scripts are the clean-ups by name. Each is run by /bin/sh with its arguments,
// and may be run again.
func scripts(name string) string {
	return map[string]string{"postgres": cleanPostgres, "engine": cleanEngine, "folder": cleanFolder, "sshd": cleanSSHD}[name]
}

// startGuard starts the guard that runs the named clean-up with args at the end.
func startGuard(name string, args ...string) (*guard, error) {
	dir, err := stateDir()
	if err != nil {
		return nil, fmt.Errorf("starting a guard: %w", err)
	}
	state, err := os.CreateTemp(dir, name+"-*.json.new")
	if err != nil {
		return nil, fmt.Errorf("starting a guard: %w", err)
	}
	defer state.Close()
	g := &guard{state: strings.TrimSuffix(state.Name(), ".new"), done: make(chan error, 1)}

	// The first read ends when the last writer of the pipe is gone: us.
	script := "trap '' INT HUP TERM\ncat >/dev/null\n" + scripts(name) + "\nrm -f \"$KEYTURN_STATE\"\n"
	g.cmd = exec.Command("/bin/sh", append([]string{"-c", script, "keyturn-guard-" + name}, args...)...)
	g.cmd.Env = append(os.Environ(), "KEYTURN_STATE="+g.state)
	g.cmd.Dir = "/"
	g.cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if g.stdin, err = g.cmd.StdinPipe(); err != nil {
		return nil, fmt.Errorf("starting a guard: %w", err)
	}
	if err := g.cmd.Start(); err != nil {
		return nil, errors.Join(fmt.Errorf("starting a guard: %w", err), os.Remove(state.Name()))
	}
	go func() { g.done <- g.cmd.Wait() }()

	r := record{Guard: identify(g.cmd.Process.Pid), Owner: identify(os.Getpid()), Script: name, Args: args}
	if err := writeRecord(state, r, g.state); err != nil {
		return nil, errors.Join(fmt.Errorf("starting a guard: %w", err), g.close())
	}
	return g, nil
}

// close makes the guard clean up now, and waits for it.
func (g *guard) close() error {
	_ = g.stdin.Close()
	select {
	case err := <-g.done:
		g.done <- err
		if err != nil {
			return fmt.Errorf("cleaning up after a test server: %w", err)
		}
		return nil
	case <-time.After(stopLimit):
		return fmt.Errorf("cleaning up after a test server: guard %d is not done after %s", g.cmd.Process.Pid, stopLimit)
	}
}
