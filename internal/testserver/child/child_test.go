package child_test

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/keyturn/keyturn/internal/testserver/child"
)

const asOwner = "KEYTURN_TEST_OWNER"

// TestMain lets the test binary be the process that a test kills: it starts a
// child, says its id, and waits for ever.
func TestMain(m *testing.M) {
	if os.Getenv(asOwner) == "" {
		os.Exit(m.Run())
	}
	cmd := exec.Command("sleep", "300")
	if err := child.Start(cmd); err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
	fmt.Println(cmd.Process.Pid)
	select {}
}

func TestChildDiesWithItsOwner(t *testing.T) {
	for _, s := range []syscall.Signal{syscall.SIGKILL, syscall.SIGINT, syscall.SIGQUIT} {
		owner := exec.Command(os.Args[0])
		owner.Env = append(os.Environ(), asOwner+"=1")
		out, err := owner.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := child.Start(owner); err != nil {
			t.Fatal(err)
		}
		line, err := bufio.NewReader(out).ReadString('\n')
		if err != nil {
			t.Fatal(err)
		}
		if err := owner.Process.Signal(s); err != nil {
			t.Fatal(err)
		}
		_ = owner.Wait() // its status is the signal
		pid := strings.TrimSpace(line)
		for running(pid) {
			time.Sleep(10 * time.Millisecond) // the test's own limit ends this
		}
	}
}

// running reports whether the process runs; a zombie does not.
func running(pid string) bool {
	stat, err := os.ReadFile("/proc/" + pid + "/stat")
	_, after, _ := strings.Cut(string(stat), ") ")
	return err == nil && !strings.HasPrefix(after, "Z")
}

// TestChildOutlivesItsThread starts children from threads that end: the signal
// must not come before the process ends.
func TestChildOutlivesItsThread(t *testing.T) {
	var starting sync.WaitGroup
	commands := make([]*exec.Cmd, 8)
	for i := range commands {
		starting.Go(func() {
			runtime.LockOSThread() // and never unlocked: the thread ends with the goroutine
			commands[i] = exec.Command("sleep", "0.3")
			if err := child.Start(commands[i]); err != nil {
				t.Error(err)
			}
		})
	}
	starting.Wait()
	for _, cmd := range commands {
		if err := cmd.Wait(); err != nil {
			t.Errorf("a child whose starter's thread ended: Wait() = %v, want nil", err)
		}
	}
}

func TestRun(t *testing.T) {
	out, err := child.CombinedOutput(exec.Command("sh", "-c", "echo out; echo err >&2; exit 3"))
	if exit, ok := errors.AsType[*exec.ExitError](err); !ok || exit.ExitCode() != 3 || string(out) != "out\nerr\n" {
		t.Errorf("CombinedOutput = %q, %v, want both streams and status 3", out, err)
	}
	if err := child.Run(exec.Command("/no/such/program")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("Run of a missing program = %v, want it to say so", err)
	}
}
