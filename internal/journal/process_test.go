package journal_test

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/keyturn/keyturn/internal/journal"
)

// These tests run the test binary again as another process. The variable says
// what it does then.
const childVar = "KEYTURN_JOURNAL_CHILD"

func TestMain(m *testing.M) {
	if what := os.Getenv(childVar); what != "" {
		if err := child(what, os.Args[1:]); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

func child(what string, args []string) error {
	j, err := journal.Open(args[0], journal.Options{Create: true})
	if err != nil {
		return err
	}
	switch what {
	case "append": // name, how many
		n, _ := strconv.Atoi(args[2])
		return appendAs(j, args[1], n)
	case "run":
		if _, err := j.Enter(args[1]); err != nil {
			return err
		}
		fmt.Println("here")
		select {} // until it is killed
	case "full-disk":
		return fullDisk(j)
	}
	return fmt.Errorf("no child is called %q", what)
}

// appendAs appends pairs of entries, and says on stdout which are durable.
func appendAs(j *journal.File, name string, n int) error {
	log := journal.Follow(j)
	for i := range n {
		if _, err := log.Append(context.Background(), func([]journal.Entry, journal.Head) ([]journal.Entry, error) {
			e := sample(1)
			e.Actor.Name, e.Version = name, i+1
			e.Step = "first"
			other := e
			other.Step = "second"
			return []journal.Entry{e, other}, nil
		}); err != nil {
			return err
		}
		fmt.Println(i + 1)
	}
	return nil
}

// fullDisk limits the size of files of this process, so that a write stops in
// the middle as on a full disk.
func fullDisk(j *journal.File) error {
	signal.Ignore(syscall.SIGXFSZ)
	before, err := os.ReadFile(j.Path())
	if err != nil {
		return err
	}
	limit := uint64(len(before) + 300) // within the first entry of two
	if err := unix.Setrlimit(unix.RLIMIT_FSIZE, &unix.Rlimit{Cur: limit, Max: limit}); err != nil {
		return err
	}
	head, err := j.Head(context.Background())
	if err != nil {
		return err
	}
	_, err = j.Append(context.Background(), head, sample(1), sample(2))
	if !errors.Is(err, unix.EFBIG) {
		return fmt.Errorf("Append = %w, want EFBIG", err)
	}
	after, err := os.ReadFile(j.Path())
	if err != nil || !bytes.Equal(before, after) {
		return fmt.Errorf("the file grew from %d to %d bytes, %w", len(before), len(after), err)
	}
	small, err := j.Append(context.Background(), head, journal.Entry{Time: day})
	if err != nil || len(small) != 1 {
		return fmt.Errorf("Append of what has room = %w", err)
	}
	fmt.Println("as it was")
	return nil
}

func command(t *testing.T, what string, args ...string) *exec.Cmd {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(self, args...)
	cmd.Env = append(os.Environ(), childVar+"="+what)
	cmd.Stderr = os.Stderr
	return cmd
}

func runChild(t *testing.T, what string, args ...string) string {
	t.Helper()
	out, err := command(t, what, args...).Output()
	if err != nil {
		t.Fatalf("child %q: %v", what, err)
	}
	return string(out)
}

func TestProcessesAppendTogether(t *testing.T) {
	const processes, each = 3, 40
	path := filepath.Join(t.TempDir(), "journal.jsonl") // made by whoever is first
	var running []*exec.Cmd
	for i := range processes {
		cmd := command(t, "append", path, fmt.Sprintf("p%d", i), strconv.Itoa(each))
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		running = append(running, cmd)
	}
	for i, cmd := range running {
		if err := cmd.Wait(); err != nil {
			t.Errorf("process %d: %v", i, err)
		}
	}
	entries := decode(t, path)
	if len(entries) != 1+2*processes*each {
		t.Errorf("the journal has %d entries, want %d", len(entries), 1+2*processes*each)
	}
	checkPairs(t, entries, "", 0)
	for i := range processes {
		checkPairs(t, entries, fmt.Sprintf("p%d", i), each)
	}
}

// checkPairs checks that the entries of a name are its pairs 1, 2, …, whole and
// in order, at least so many.
func checkPairs(t *testing.T, entries []journal.Entry, name string, atLeast int) {
	t.Helper()
	n := 0
	for i, e := range entries {
		if e.Actor.Name != name || e.Step != "first" {
			continue
		}
		n++
		if e.Version != n || i+1 == len(entries) || entries[i+1].Step != "second" || entries[i+1].Version != n ||
			entries[i+1].Actor.Name != name {
			t.Fatalf("pair %d of %q is not whole or not in its order at entry %d", n, name, e.Seq)
		}
	}
	if n < atLeast {
		t.Errorf("the journal has %d pairs of %q, want at least the %d that were acknowledged", n, name, atLeast)
	}
}

// Killed at any moment, a process loses nothing that it was told is durable,
// and leaves nothing that stops the next.
func TestKilledWhileAppending(t *testing.T) {
	path := filepath.Join(t.TempDir(), "journal.jsonl")
	for round := range 12 {
		name := fmt.Sprintf("k%d", round)
		cmd := command(t, "append", path, name, "100000")
		stdout, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		out := bufio.NewReader(stdout)
		first, err := out.ReadString('\n')
		if err != nil {
			t.Fatalf("the process said %q, %v", first, err)
		}
		time.Sleep(rand.N(60 * time.Millisecond))
		if err := cmd.Process.Kill(); err != nil {
			t.Fatal(err)
		}
		rest, _ := io.ReadAll(out) // to the end, which the kill brings
		if err := cmd.Wait(); err == nil {
			t.Fatal("the process ended by itself")
		}
		acknowledged := 1 + strings.Count(string(rest), "\n")
		j, err := journal.Open(path, journal.Options{Create: true})
		if err != nil {
			t.Fatalf("Open after a kill: %v", err)
		}
		// What the kill left unfinished is set aside by the first append, which notes
		// that before anything else: for the appender that is a conflict like another's.
		log := journal.Follow(j)
		if _, err := log.Append(t.Context(), func([]journal.Entry, journal.Head) ([]journal.Entry, error) {
			return []journal.Entry{sample(1)}, nil
		}); err != nil {
			t.Fatalf("Append after a kill: %v", err)
		}
		checkPairs(t, read(t, j), name, acknowledged)
	}
}

// holdLock holds the lock of a journal, as another process would.
func holdLock(t *testing.T, path string) (release func()) {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX); err != nil {
		t.Fatal(err)
	}
	return func() { f.Close() }
}
