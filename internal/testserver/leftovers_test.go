package testserver_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/keyturn/keyturn/internal/testserver"
)

// traces lists what is left of a server: its folder, processes that name any of
// the words, mounts, interfaces, control groups, records.
func traces(t *testing.T, dir string, words ...string) []string {
	t.Helper()
	words = append(words, dir)
	var left []string
	if _, err := os.Stat(dir); !errors.Is(err, fs.ErrNotExist) {
		left = append(left, "folder "+dir)
	}
	lines, err := filepath.Glob("/proc/[0-9]*/cmdline")
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range append(lines, "/proc/self/mounts") {
		data, err := os.ReadFile(file)
		if err != nil {
			continue
		}
		for _, word := range words {
			if strings.Contains(string(data), word) {
				left = append(left, file+": "+strings.ReplaceAll(string(data), "\x00", " "))
			}
		}
	}
	for _, word := range words {
		for _, pattern := range []string{"/sys/class/net/" + word, "/sys/fs/cgroup/*" + word, "/sys/fs/cgroup/*/*" + word} {
			found, err := filepath.Glob(pattern)
			if err != nil {
				t.Fatal(err)
			}
			left = append(left, found...)
		}
	}
	return left
}

// TestOwner is no test: it is the process that the next test kills. It starts
// servers and says where they are.
func TestOwner(t *testing.T) {
	if os.Getenv("KEYTURN_TEST_OWNER") == "" {
		t.Skip("only for TestNothingIsLeftAfterAKill")
	}
	pg, err := testserver.StartPostgres(context.Background(), testserver.PostgresOptions{})
	if err != nil {
		t.Fatal(err)
	}
	fmt.Println("DIR", pg.Dir())
	if os.Geteuid() == 0 {
		e, err := testserver.StartEngine(context.Background(), testserver.EngineOptions{})
		if err != nil {
			t.Fatal(err)
		}
		fmt.Println("DIR", e.Dir())
	}
	fmt.Println("READY")
	time.Sleep(time.Minute)
}

func TestNothingIsLeftAfterAKill(t *testing.T) {
	probe, err := testserver.StartPostgres(t.Context(), testserver.PostgresOptions{})
	testserver.Require(t, err)
	if err := probe.Remove(); err != nil {
		t.Fatal(err)
	}
	for _, s := range []syscall.Signal{syscall.SIGKILL, syscall.SIGINT} {
		dirs := startAndKill(t, s)
		deadline := time.Now().Add(20 * time.Second)
		for _, dir := range dirs {
			for len(traces(t, dir)) > 0 && time.Now().Before(deadline) {
				time.Sleep(50 * time.Millisecond)
			}
			if left := traces(t, dir); len(left) > 0 {
				t.Errorf("after %v of the owner there is left: %q", s, left)
			}
		}
	}
}

// startAndKill runs TestOwner in a process of its own, ends it with the signal,
// and returns the folders of its servers.
func startAndKill(t *testing.T, s syscall.Signal) []string {
	t.Helper()
	owner := exec.Command(os.Args[0], "-test.run=^TestOwner$", "-test.v")
	owner.Env = append(os.Environ(), "KEYTURN_TEST_OWNER=1")
	out, err := owner.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := owner.Start(); err != nil {
		t.Fatal(err)
	}
	var dirs []string
	lines := bufio.NewScanner(out)
	ready := false
	for !ready && lines.Scan() {
		if dir, ok := strings.CutPrefix(lines.Text(), "DIR "); ok {
			dirs = append(dirs, dir)
		}
		ready = lines.Text() == "READY"
	}
	if err := owner.Process.Signal(s); err != nil {
		t.Fatal(err)
	}
	_ = owner.Wait() // its status is the signal
	if !ready {
		t.Fatalf("the owner did not start its servers, only %q", dirs)
	}
	return dirs
}
