package cli_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/docker/docker/api/types/swarm"
)

// A footprint is what rotations have left after so many of them.
type footprint struct {
	Secrets, Configs, Services, Tasks, Roles, Sessions, Queue, Files int
	Journal                                                          int64 // bytes
	Memory                                                           int64 // of the largest run of late, KiB
}

// footprint counts what there is.
func (k *stack) footprint() (f footprint) {
	k.t.Helper()
	ctx := context.Background()
	secrets, err := k.client.SecretList(ctx, swarm.SecretListOptions{})
	k.must(err)
	configs, err := k.client.ConfigList(ctx, swarm.ConfigListOptions{})
	k.must(err)
	services, err := k.client.ServiceList(ctx, swarm.ServiceListOptions{})
	k.must(err)
	f.Secrets, f.Configs, f.Services = len(secrets), len(configs), len(services)
	// The tasks of the last probe go a moment after it; the service keeps five of old.
	for range 50 {
		tasks, err := k.client.TaskList(ctx, swarm.TaskListOptions{})
		k.must(err)
		if f.Tasks = len(tasks); f.Tasks <= 5 {
			break
		}
		time.Sleep(200 * time.Millisecond)
	}
	k.must(k.pgScan("select count(*) from pg_roles", &f.Roles))
	k.must(k.pgScan("select count(*) from pg_stat_activity where usename = 'keyturn_"+k.name+"'", &f.Sessions))
	f.Queue = k.status().Queue
	info, err := os.Stat(k.journal)
	k.must(err)
	f.Journal = info.Size()
	runs, err := os.ReadDir(k.journal + ".runs")
	k.must(err)
	f.Files = len(runs)
	return f
}

// peakMemory runs a command and returns the most memory that it had, in KiB. The rusage of
// a child would not do: it counts what its parent had when it was started.
func peakMemory(cmd *exec.Cmd) (peak int64, err error) {
	if err := cmd.Start(); err != nil {
		return 0, err
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	for {
		select {
		case err := <-ended:
			if err == nil && peak == 0 {
				err = errors.New("the kernel does not say what memory it had")
			}
			return peak, err
		case <-time.After(20 * time.Millisecond):
			status, _ := os.ReadFile(fmt.Sprintf("/proc/%d/status", cmd.Process.Pid)) // gone when it has ended
			_, of, _ := strings.Cut(string(status), "VmHWM:")
			now := int64(0)
			_, _ = fmt.Sscanf(of, "%d kB", &now)
			peak = max(peak, now)
		}
	}
}

// TestSoak rotates one credential again and again on one Swarm: nothing may grow but the
// record, by the same each time. KEYTURN_SOAK says how often; make soak.
func TestSoak(t *testing.T) {
	most, err := strconv.Atoi(os.Getenv("KEYTURN_SOAK"))
	if err != nil {
		t.Skip("only by make soak")
	}
	if most < 20 {
		t.Fatal("a soak has 20 rotations at least")
	}
	k := newStack(t, servers.postgres.Get(t), nil, replicas(1))
	k.ok("adopt", k.name)
	largest := int64(0)
	var first, last footprint
	t.Log("rotations  secrets configs services tasks roles sessions queue files  journal KB  largest run MB")
	for i := 1; i <= most; i++ {
		cmd := k.command(context.Background(), "rotate", "--wait", k.name)
		var said strings.Builder
		cmd.Stdout, cmd.Stderr = &said, &said
		memory, err := peakMemory(cmd)
		if err != nil {
			t.Fatalf("rotation %d: %v\n%s", i, err, said.String())
		}
		largest = max(largest, memory)
		if i == 10 || i%(most/10) == 0 {
			last = k.footprint()
			last.Memory, largest = largest, 0
			if i == 10 {
				first = last
			}
			t.Logf("%9d  %7d %7d %8d %5d %5d %8d %5d %5d  %10d  %14.1f", i, last.Secrets, last.Configs, last.Services, last.Tasks, last.Roles, last.Sessions, last.Queue, last.Files, last.Journal/1000, float64(last.Memory)/1024)
		}
	}
	k.noneFailed()
	k.oneLogin()
	perRotation := float64(last.Journal-first.Journal) / float64(most-10)
	if early := float64(first.Journal) / 10; perRotation > 1.1*early {
		t.Errorf("the record grows by %.0f bytes a rotation, and by %.0f at first", perRotation, early)
	}
	if last.Memory > first.Memory+first.Memory/4 {
		t.Errorf("a run needs %d KiB, and %d at first", last.Memory, first.Memory)
	}
	first.Journal, last.Journal, first.Memory, last.Memory = 0, 0, 0, 0
	if first != last {
		t.Errorf("after %d rotations there is %s, after 10 there was %s", most, fmt.Sprintf("%+v", last), fmt.Sprintf("%+v", first))
	}
	k.ok("check")
	k.ok("audit", "verify")
}
