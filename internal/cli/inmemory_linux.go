package cli

import (
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// inMemory returns a file that stands on no disk, and that nobody can change any more.
// Whoever may read our process's memory may read it, by /proc/PID/fd.
func inMemory(name string, content []byte) (*os.File, error) {
	fd, err := unix.MemfdCreate(name, unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING)
	if err != nil {
		return nil, fmt.Errorf("making a file in memory: %w", err)
	}
	f := os.NewFile(uintptr(fd), name)
	if err := f.Chmod(0o400); err != nil {
		return nil, fmt.Errorf("making a file in memory: %w", err)
	}
	if _, err := f.Write(content); err != nil {
		return nil, fmt.Errorf("writing a file in memory: %w", err)
	}
	if _, err := unix.FcntlInt(f.Fd(), unix.F_ADD_SEALS, unix.F_SEAL_WRITE|unix.F_SEAL_GROW|unix.F_SEAL_SHRINK|unix.F_SEAL_SEAL); err != nil {
		return nil, fmt.Errorf("sealing a file in memory: %w", err)
	}
	return f, nil
}
