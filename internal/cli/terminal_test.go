package cli_test

import (
	"fmt"
	"io"
	"os"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// terminal opens a pseudo-terminal: what is written to it is read from master.
func terminal(t testing.TB) (master, slave *os.File) {
	t.Helper()
	master, err := os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY, 0)
	check(t, err)
	check(t, unix.IoctlSetPointerInt(int(master.Fd()), unix.TIOCSPTLCK, 0))
	n, err := unix.IoctlGetInt(int(master.Fd()), unix.TIOCGPTN)
	check(t, err)
	slave, err = os.OpenFile(fmt.Sprintf("/dev/pts/%d", n), os.O_RDWR|unix.O_NOCTTY, 0)
	check(t, err)
	return master, slave
}

// onTerminal runs keyturn with its stderr on a terminal, and returns what a
// person reads there in the end, and what was written.
func (s *shop) onTerminal(args ...string) (screen []string, raw string, code int) {
	s.t.Helper()
	master, slave := terminal(s.t)
	defer master.Close()
	cmd := s.command(s.t.Context(), args...)
	cmd.Stderr = slave
	s.must(cmd.Start())
	slave.Close()
	b, _ := io.ReadAll(master) // ends with an error of input when nobody has the terminal any more
	_ = cmd.Wait()             // its exit code is returned
	for line := range strings.Lines(string(b)) {
		shown := ""
		for part := range strings.SplitSeq(strings.TrimRight(line, "\r\n"), "\r") {
			if part != "" {
				shown = strings.TrimPrefix(part, "\x1b[K") // the rest of the line was erased
			}
		}
		screen = append(screen, shown)
	}
	return screen, string(b), cmd.ProcessState.ExitCode()
}

// TestTerminal rewrites the step in hand in place, and leaves a line for each
// that ended; in CI it writes lines alone, to a terminal too.
func TestTerminal(t *testing.T) {
	t.Parallel()
	s := newShop(t, servers.postgres.Get(t), quick)
	s.ok("adopt", s.name)
	screen, raw, code := s.onTerminal("prepare", s.name)
	if code != 0 || !strings.Contains(raw, "prepare  arm …\r\x1b[K") {
		t.Errorf("exit %d; the step in hand is not rewritten:\n%q", code, raw)
	}
	if want := fmt.Sprintf("  %s v2 prepare  preflight", s.name); len(screen) < 4 || !strings.HasPrefix(screen[0], want) {
		t.Errorf("a person reads %q, want %q first", screen, want)
	}
	for _, line := range screen {
		if strings.Contains(line, "…") {
			t.Errorf("the line %q of a step in hand stays", line)
		}
	}

	// A step that cannot be undone: its line does not stay half written before the error.
	s.sql("postgres", fmt.Sprintf("alter role %s_a superuser", s.name))
	screen, raw, code = s.onTerminal("validate", s.name)
	if code != 4 || !strings.Contains(raw, "undo arm …") {
		t.Errorf("exit %d; there was no undo:\n%q", code, raw)
	}
	found := false
	for _, line := range screen {
		found = found || strings.HasPrefix(line, "keyturn: ")
		if strings.Contains(line, "…") {
			t.Errorf("the line %q of a step in hand stays", line)
		}
	}
	if !found {
		t.Errorf("no line begins with the error: %q", screen)
	}
	s.sql("postgres", fmt.Sprintf("alter role %s_a nosuperuser", s.name))

	s.env = append(s.env, "CI=true")
	if _, raw, code = s.onTerminal("rollback", "--reason", "drill", s.name); code != 0 || strings.Contains(raw, "\x1b") {
		t.Errorf("exit %d; in CI it moves the cursor:\n%q", code, raw)
	}
}
