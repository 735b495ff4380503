// Package child starts programs that do not outlive the process that started
// them: the kernel kills them when it dies, however that came, kill -9 and a panic
// included.
package child

import (
	"bytes"
	"errors"
	"os/exec"
	"runtime"
	"syscall"

	"golang.org/x/sys/unix"
)

// Start starts cmd as [exec.Cmd.Start] does. SIGKILL is sent to it when this
// process dies, unless cmd asks for another signal (Pdeathsig). The caller calls
// cmd.Wait. What the program itself has started is not reached.
//
// The kernel sends the signal when the *thread* that started the child ends
// (golang/go#27505), so one thread is kept for as long as the child lives.
func Start(cmd *exec.Cmd) error {
	if cmd.SysProcAttr == nil {
		cmd.SysProcAttr = &syscall.SysProcAttr{}
	}
	if cmd.SysProcAttr.Pdeathsig == 0 {
		cmd.SysProcAttr.Pdeathsig = syscall.SIGKILL
	}
	started := make(chan error, 1)
	go func() {
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		err := cmd.Start()
		if err != nil {
			started <- err
			return
		}
		pid := cmd.Process.Pid
		started <- nil
		awaitEnd(pid)
	}()
	return <-started
}

// Run is Start and cmd.Wait.
func Run(cmd *exec.Cmd) error {
	if err := Start(cmd); err != nil {
		return err
	}
	return cmd.Wait()
}

// CombinedOutput is Run, and returns what cmd has written to both of its streams.
func CombinedOutput(cmd *exec.Cmd) ([]byte, error) {
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	err := Run(cmd)
	return out.Bytes(), err
}

// awaitEnd blocks the thread until the child has ended, and leaves its status
// for cmd.Wait. Should that have been quicker, there is no such child any more.
func awaitEnd(pid int) {
	for {
		err := unix.Waitid(unix.P_PID, pid, nil, unix.WEXITED|unix.WNOWAIT, nil)
		if !errors.Is(err, unix.EINTR) {
			return
		}
	}
}
