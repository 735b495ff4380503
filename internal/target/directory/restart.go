package directory

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"time"

	"github.com/keyturn/keyturn/internal/rotation"
)

// restartTimeout is how long a restart command may take that names no timeout.
const restartTimeout = 2 * time.Minute

// inherited returns the variables that a restart command gets of ours: enough
// to find programs, the user's service manager and a container engine. All
// others stay here: one of them may hold a secret.
func inherited() []string {
	return []string{"PATH", "HOME", "USER", "LOGNAME", "LANG", "LC_ALL", "TZ", "XDG_RUNTIME_DIR",
		"DBUS_SESSION_BUS_ADDRESS", "DOCKER_HOST", "DOCKER_CONTEXT", "DOCKER_CONFIG"}
}

// due reports whether a restart of a former move has yet to run.
func (h *home) due() bool {
	_, err := h.Lstat(restartDue)
	return err == nil
}

// markDue notes, before a link changes, that a restart has to follow, so that
// a killed call does not leave the application on what it read at its start.
func (h *home) markDue() error {
	f, err := h.OpenFile(restartDue, os.O_WRONLY|os.O_CREATE, 0o600)
	if err != nil {
		return fmt.Errorf("noting that a restart is due: %w", err)
	}
	if err := f.Close(); err != nil {
		return err
	}
	h.at("marked restart")
	return h.sync()
}

// restart runs the commands of the credentials that are due, each distinct
// command once, and returns by credential what is wrong. Those that succeeded
// are due no more.
func (t *Target) restart(ctx context.Context, turns []*turn) (ill map[string]string, err error) {
	ill = map[string]string{}
	ran := map[string]error{}
	for _, n := range turns {
		if !n.due {
			continue
		}
		r := t.Restart[n.credential]
		key := strings.Join(r.Argv, "\x00")
		fault, again := ran[key]
		if !again {
			fault = t.run(ctx, r)
			ran[key] = fault
			t.at("ran restart")
		}
		if fault == nil {
			fault = t.settle(ctx, n.credential)
		} else if errors.Is(fault, rotation.ErrUnhealthy) {
			ill[n.credential] = fault.Error()
		}
		if fault != nil && !again {
			err = errors.Join(err, fmt.Errorf("restarting the readers of %q: %w", n.credential, fault))
		}
	}
	return ill, classed(err)
}

// classed gives a joined error the class Unknown if any part has it: then
// nothing may be concluded.
func classed(err error) error {
	if errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) {
		return rotation.Classify(rotation.Unknown, "run this again: the restart is made up for", err)
	}
	return err
}

// settle takes the note away that a restart is due.
func (t *Target) settle(ctx context.Context, credential string) error {
	h, err := t.open(credential, false)
	if err != nil {
		return err
	}
	defer h.close()
	if err := h.lock(ctx); err != nil {
		return err
	}
	return h.settled()
}

func (h *home) settled() error {
	if err := h.Remove(restartDue); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	h.at("settled restart")
	return h.sync()
}

// run runs one restart command. It is in a process group of its own, so that a
// signal to us does not end it half-way; when the context ends it runs on, for
// its own timeout at most, and only the watching stops. What it prints goes
// nowhere: it could be anything.
func (t *Target) run(ctx context.Context, r Restart) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	timeout := cmp.Or(r.Timeout, restartTimeout)
	own, cancel := context.WithTimeout(context.WithoutCancel(ctx), timeout)
	cmd := exec.CommandContext(own, r.Argv[0], r.Argv[1:]...)
	cmd.Env = []string{} // not nil, which would mean all of ours
	for _, name := range inherited() {
		if value := t.Getenv(name); value != "" {
			cmd.Env = append(cmd.Env, name+"="+value)
		}
	}
	cmd.Dir = "/"
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	if err := cmd.Start(); err != nil {
		cancel()
		return failedRestart(r, err.Error())
	}
	ended := make(chan error, 1)
	go func() { // ends with the command, which the timeout ends
		defer cancel()
		err := cmd.Wait()
		if err != nil && own.Err() != nil {
			err = fmt.Errorf("killed after %s", timeout)
		}
		ended <- err
	}()
	select {
	case <-ctx.Done():
		return fmt.Errorf("watching the command %q: %w", r.Argv[0], ctx.Err())
	case err := <-ended:
		if err != nil {
			return failedRestart(r, err.Error())
		}
		return nil
	}
}

// failedRestart is the error of a restart command that did not do its work. It
// holds the program's name and how it ended; arguments and output stay out.
func failedRestart(r Restart, how string) error {
	return rotation.Errorf(rotation.Failed, "run the command by hand to see what it prints: Keyturn keeps nothing of it",
		"%w: the command %q: %s", rotation.ErrUnhealthy, r.Argv[0], how)
}
