package testserver

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
)

// A record is what a guard has to do, kept on disk for [Reap] in case the
// guard is killed itself.
type record struct {
	Guard  identity `json:"guard"`
	Owner  identity `json:"owner"`  // the process that uses the server
	Script string   `json:"script"` // the name of the clean-up
	Args   []string `json:"args"`
}

// An identity tells a process from every other one. Process ids are used again,
// so the time of its start belongs to it.
type identity struct {
	Pid     int    `json:"pid"`
	Started string `json:"started"`
}

func identify(pid int) identity { return identity{Pid: pid, Started: startTime(pid)} }

// alive reports whether the process still runs.
func (i identity) alive() bool {
	now := startTime(i.Pid)
	return now != "" && now == i.Started
}

// Reap cleans up after servers whose guard was killed together with the process
// that used them, or whose machine went down. Every start of a server calls it;
// servers that are in use are left alone. One that cannot be cleaned up does not
// keep it from the others.
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
		if err := reapOne(file); err != nil {
			faults = append(faults, fmt.Errorf("reaping test servers: cleaning up after %q: %w", file, err))
		}
	}
	return errors.Join(faults...)
}

// reap is Reap before the start of a server, which a leftover does not hinder:
// it only says so.
func reap() {
	if err := Reap(); err != nil {
		fmt.Fprintf(os.Stderr, "testserver: going on, but something is left of an earlier run: %v\n", err)
	}
}

// reapOne runs the clean-up that file describes, if nobody else will.
func reapOne(file string) error {
	data, err := os.ReadFile(file)
	if errors.Is(err, fs.ErrNotExist) {
		return nil // its guard finished meanwhile
	}
	if err != nil {
		return err
	}
	var r record
	if err := json.Unmarshal(data, &r); err != nil {
		return err
	}
	if r.Guard.alive() || r.Owner.alive() {
		return nil
	}
	script := scripts(r.Script)
	if script == "" {
		return fmt.Errorf("nobody knows the clean-up %q", r.Script)
	}
	if out, err := exec.Command("/bin/sh", append([]string{"-c", script, "keyturn-reap"}, r.Args...)...).CombinedOutput(); err != nil {
		return fmt.Errorf("%w: %s", err, out)
	}
	if err := os.Remove(file); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
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

// stateDir is where the records of the guards lie.
func stateDir() (string, error) { return cacheDir("guards") }

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
