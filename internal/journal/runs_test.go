package journal_test

import (
	"bufio"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/keyturn/keyturn/internal/journal"
)

func wantAlive(t *testing.T, j *journal.File, run string, alive, known bool) {
	t.Helper()
	if a, k := j.Alive(run); a != alive || k != known {
		t.Errorf("Alive(%q) = alive %v, known %v, want %v, %v", run, a, k, alive, known)
	}
}

func TestRunsEnterAndLeave(t *testing.T) {
	j := create(t)
	wantAlive(t, j, "1-1", false, false)
	release, err := j.Enter("1-1")
	if err != nil {
		t.Fatalf("Enter: %v", err)
	}
	wantAlive(t, j, "1-1", true, true)
	wantAlive(t, j, "1-2", false, false)
	if _, err := j.Enter("1-1"); err == nil || !strings.Contains(err.Error(), "running already") {
		t.Errorf("Enter of a run that is there = %v, want an error", err)
	} else {
		wantHint(t, err)
	}
	for range 2 {
		if err := release(); err != nil {
			t.Errorf("release = %v", err)
		}
	}
	wantAlive(t, j, "1-1", false, false)
	for _, bad := range []string{"", ".", "..", "../x", "a/b", "a b", "-x", strings.Repeat("x", 129)} {
		if _, err := j.Enter(bad); err == nil {
			t.Errorf("Enter(%q) succeeded", bad)
		}
		wantAlive(t, j, bad, false, false)
	}
}

// A killed run is known dead, by others too, and may come again.
func TestKilledRun(t *testing.T) {
	j := create(t)
	cmd := command(t, "run", j.Path(), "77-1")
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	if line, err := bufio.NewReader(out).ReadString('\n'); line != "here\n" {
		t.Fatalf("the child said %q, %v", line, err)
	}
	wantAlive(t, j, "77-1", true, true)
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait() // killed
	wantAlive(t, j, "77-1", false, true)
	release, err := j.Enter("77-1")
	if err != nil {
		t.Fatalf("Enter after a kill: %v", err)
	}
	defer release()
	wantAlive(t, j, "77-1", true, true)
}

// Looking at a run never stops it from entering.
func TestLookingDoesNotHinder(t *testing.T) {
	j := create(t)
	stop := make(chan struct{})
	var lookers sync.WaitGroup
	for range 4 {
		lookers.Go(func() {
			for {
				select {
				case <-stop:
					return
				case <-time.After(time.Millisecond):
					j.Alive("r")
				}
			}
		})
	}
	for range 50 {
		release, err := j.Enter("r")
		if err != nil {
			t.Errorf("Enter while others look: %v", err)
			break
		}
		wantAlive(t, j, "r", true, true)
		if err := release(); err != nil {
			t.Errorf("release: %v", err)
		}
	}
	close(stop)
	lookers.Wait()
}

func TestStaleRunsAreSwept(t *testing.T) {
	j := create(t)
	live, err := j.Enter("live")
	if err != nil {
		t.Fatal(err)
	}
	defer live()
	dir := j.Path() + ".runs"
	old := time.Now().Add(-31 * 24 * time.Hour)
	for name, when := range map[string]time.Time{"dead-old": old, "dead-new": time.Now(), "live": old} {
		path := filepath.Join(dir, name)
		if name != "live" {
			put(t, path, nil)
		}
		if err := os.Chtimes(path, when, when); err != nil {
			t.Fatal(err)
		}
	}
	release, err := j.Enter("sweeper")
	if err != nil {
		t.Fatal(err)
	}
	defer release()
	wantAlive(t, j, "dead-old", false, false)
	wantAlive(t, j, "dead-new", false, true)
	wantAlive(t, j, "live", true, true)
}
