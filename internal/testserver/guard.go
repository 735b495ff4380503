package testserver

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// stopLimit bounds the clean-up of one server.
const stopLimit = 30 * time.Second

// A guard is a shell process that waits for the end of this process and then
// cleans up after one server. Closing it does the same at once.
type guard struct {
	cmd   *exec.Cmd
	stdin io.Closer
	state string
	done  chan error
}

// A record is what a guard has to do, kept on disk for [Reap] in case the
// guard is killed itself.
type record struct {
	Guard   int      `json:"guard"`   // the guard's process id
	Started string   `json:"started"` // its start time in ticks: process ids are used again
	Script  string   `json:"script"`  // the name of the clean-up
	Args    []string `json:"args"`
}

// scripts are the clean-ups by name. Each is run by /bin/sh with its arguments,
// and may be run again.
func scripts(name string) string {
	return map[string]string{"postgres": cleanPostgres, "engine": cleanEngine}[name]
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

	r := record{Guard: g.cmd.Process.Pid, Started: startTime(g.cmd.Process.Pid), Script: name, Args: args}
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

// Reap cleans up after servers whose guard was killed, or whose machine went
// down. Every start of a server calls it; servers that are in use are left alone.
func Reap() error {
	dir, err := stateDir()
	if err != nil {
		return fmt.Errorf("reaping test servers: %w", err)
	}
	files, err := filepath.Glob(filepath.Join(dir, "*.json"))
	if err != nil {
		return fmt.Errorf("reaping test servers: %w", err)
	}
	var faults []error
	for _, file := range files {
		faults = append(faults, reapOne(file))
	}
	return errors.Join(faults...)
}

// reapOne runs the clean-up that file describes, if its guard is dead.
func reapOne(file string) error {
	data, err := os.ReadFile(file)
	if errors.Is(err, os.ErrNotExist) {
		return nil // its guard finished meanwhile
	}
	if err != nil {
		return fmt.Errorf("reaping test servers: %w", err)
	}
	var r record
	if err := json.Unmarshal(data, &r); err != nil {
		return fmt.Errorf("reaping test servers: reading %q: %w", file, err)
	}
	if started := startTime(r.Guard); started != "" && started == r.Started {
		return nil
	}
	if out, err := exec.Command("/bin/sh", append([]string{"-c", scripts(r.Script), "keyturn-reap"}, r.Args...)...).CombinedOutput(); err != nil {
		return fmt.Errorf("reaping test servers: cleaning up after %q: %w: %s", file, err, out)
	}
	if err := os.Remove(file); err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("reaping test servers: %w", err)
	}
	return nil
}

// writeRecord fills the open file and gives it its final name.
func writeRecord(f *os.File, r record, name string) error {
	data, err := json.Marshal(r)
	if err != nil {
		return err
	}
	if _, err := f.Write(data); err != nil {
		return err
	}
	return os.Rename(f.Name(), name)
}

// stateDir is where the records of running servers lie.
func stateDir() (string, error) { return cacheDir("servers") }

// cacheDir is a folder of ours in the user's cache, made when it is missing.
func cacheDir(name ...string) (string, error) {
	base, err := os.UserCacheDir()
	if err != nil {
		return "", err
	}
	dir := filepath.Join(append([]string{base, "keyturn"}, name...)...)
	return dir, os.MkdirAll(dir, 0o700)
}

// startTime is the time at which the process started, in clock ticks since
// boot, together with the boot's identity; empty when there is none (a zombie
// counts as none).
func startTime(pid int) string {
	stat, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	if err != nil {
		return ""
	}
	_, after, _ := strings.Cut(string(stat), ") ")
	fields := strings.Fields(after)
	if len(fields) < 20 || fields[0] == "Z" {
		return ""
	}
	boot, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(boot)) + "/" + fields[19]
}

// tempDir makes a folder for one server. Unix sockets below it must have short
// paths (108 bytes), so a long TMPDIR is not used.
func tempDir(name string) (string, error) {
	base := os.TempDir()
	if len(base) > 40 {
		base = "/tmp"
	}
	dir, err := os.MkdirTemp(base, "keyturn-"+name+"-")
	if err != nil {
		return "", err
	}
	return dir, os.Chmod(dir, 0o755)
}
