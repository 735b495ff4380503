package scenario

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"time"

	"github.com/keyturn/keyturn/internal/testserver/child"
)

// A Run is one command that was run.
type Run struct {
	Command string // as a reader would type it
	Output  string // standard output and error, in the order in which they came
	Code    int    // -1 if a signal ended it
	Took    time.Duration
}

// OK returns an error that tells of the command unless it ended with 0.
func (r Run) OK() error {
	if r.Code == 0 {
		return nil
	}
	return fmt.Errorf("%s ended with status %d: %s", r.Command, r.Code, strings.TrimSpace(r.Output))
}

// command makes a command of the scene: run in its folder, shown to the reader.
func (s *Scenario) command(ctx context.Context, program string, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, program, args...)
	cmd.Dir = s.dir
	// A cancelled command may end in peace, as under a CI runner.
	cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) }
	cmd.WaitDelay = 10 * time.Second
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} // Ctrl-C comes through ctx, once; started by child
	return cmd
}

// run runs a command, shown as the text says, and streams what it prints.
func (s *Scenario) run(cmd *exec.Cmd, shown string) (Run, error) {
	wait, err := s.begin(cmd, shown)
	if err != nil {
		return Run{}, err
	}
	return wait()
}

// begin starts a command; wait is called once for its end.
func (s *Scenario) begin(cmd *exec.Cmd, shown string) (wait func() (Run, error), err error) {
	var output bytes.Buffer
	lines := &indented{w: s.Out, fresh: true}
	both := io.MultiWriter(&output, lines)
	cmd.Stdout, cmd.Stderr = both, both // the same writer: in order, without a race
	fmt.Fprintf(s.Out, "\n$ %s\n", strings.ReplaceAll(shown, "\n", "\n  "))
	start := time.Now()
	if err := child.Start(cmd); err != nil {
		return nil, fmt.Errorf("running %s: %w", shown, err)
	}
	return func() (Run, error) {
		err := cmd.Wait()
		r := Run{Command: shown, Output: output.String(), Took: time.Since(start)}
		if cmd.ProcessState != nil {
			r.Code = cmd.ProcessState.ExitCode()
		}
		lines.end()
		if _, ended := errors.AsType[*exec.ExitError](err); err != nil && !ended {
			return r, fmt.Errorf("running %s: %w", shown, err)
		}
		return r, nil
	}, nil
}

// indented writes lines a little to the right.
type indented struct {
	w     io.Writer
	fresh bool // at the start of a line
}

// Write never fails: the scene goes on if nobody looks.
func (i *indented) Write(p []byte) (int, error) {
	for line := range bytes.Lines(p) {
		if i.fresh {
			fmt.Fprint(i.w, "    ")
		}
		_, _ = i.w.Write(line)
		i.fresh = bytes.HasSuffix(line, []byte("\n"))
	}
	return len(p), nil
}

// end ends a line that has no end.
func (i *indented) end() {
	if !i.fresh {
		fmt.Fprintln(i.w)
		i.fresh = true
	}
}
