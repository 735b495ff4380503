package cli_test

import (
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/keyturn/keyturn/internal/cli/undertest/hooks"
)

// crashKinds are the points at which one rotation is killed every time: after
// each kind of effect, and amid those that are more than one request.
var crashKinds = map[string][]string{
	"switch": {"after request: POST /secrets/create", "after effect: prepare put", "after effect: prepare arm",
		"after request: POST /services/create", "after effect: cutover lift bound", "after request: POST /services/ID/update",
		"after effect: cutover move", "after effect: cutover expire old", "after effect: cleanup end",
		"after effect: cleanup proof", "after effect: cleanup remove"},
	"dual": {"after request: POST /services/ID/update", "after effect: prepare mount", "after effect: validate probe",
		"after request: POST /services/ID/update", "before record: cutover  done", "after record: cleanup proof done"},
}

// TestSwarmCrash kills one rotation with -9 after each kind of effect, each
// time letting it go on from another folder with only the journal, under load:
// no login fails, and one version is left, with nothing of any other.
func TestSwarmCrash(t *testing.T) {
	t.Parallel()
	for mounts, points := range crashKinds {
		t.Run(mounts, func(t *testing.T) {
			sampled(t, mounts, "switch")
			t.Parallel()
			k := newStack(t, servers.postgres.Get(t), []string{"mounts: " + mounts})
			k.ok("adopt", k.name)
			for _, point := range points {
				k.dieIn(point)
			}
			k.goOn()
			k.done(k.status().Current)
			k.noneFailed()
			k.oneLogin()
		})
	}
}

// dieIn does what comes next until keyturn is killed at a point.
func (k *stack) dieIn(point string) {
	k.t.Helper()
	for range 10 {
		phase := k.status().Next
		if phase == "" {
			phase = "prepare"
		}
		r := k.runWith([]string{hooks.DieAt + "=" + point}, phase, k.name)
		if r.code == -1 {
			return
		}
		if r.code == 3 && phase == "cleanup" {
			time.Sleep(300 * time.Millisecond) // the overlap is not over
		} else if r.code != 0 {
			k.t.Fatalf("on the way to %q: keyturn %s: exit %d\n%s%s", point, phase, r.code, r.stdout, r.stderr)
		}
	}
	k.t.Fatalf("the rotation never came to %q: %+v", point, k.status())
}

// TestSwarmCrashMatrix kills one rotation after the other, each at one point:
// before and after every record, effect and request that changes the Swarm.
func TestSwarmCrashMatrix(t *testing.T) {
	if os.Getenv("KEYTURN_CRASH") != "all" {
		t.Skip("an hour's test; run it with: make crash")
	}
	for _, mounts := range []string{"switch", "dual"} {
		for i, row := range everyPoint(t, mounts) {
			t.Run(fmt.Sprintf("%s %d", mounts, i), func(t *testing.T) {
				t.Parallel()
				k := newStack(t, servers.postgres.Get(t), []string{"mounts: " + mounts})
				k.ok("adopt", k.name)
				missed := 0
				for _, point := range row {
					if !k.crash(point) {
						missed++
					}
				}
				if missed > len(row)/10 {
					t.Errorf("%d of %d points were not on the way: that is too many to say that all were tried", missed, len(row))
				}
				k.oneLogin()
			})
		}
	}
}

// crash kills a rotation at a point, goes on, and checks where that leads. It
// returns whether the rotation came to the point.
func (k *stack) crash(point string) bool {
	k.t.Helper()
	was, failed := k.status().Current, k.totals().Failed
	r := k.runWith([]string{hooks.DieAt + "=" + point}, "rotate", "--wait", k.name)
	switch {
	case r.code == 0 && (strings.Contains(point, "request: ") || !strings.HasSuffix(point, "#1")):
		// A request that is repeated until the engine takes it, or what stands in
		// the record of each look at an overlap that is not over.
		k.t.Logf("%q is not on the way of every run", point)
	case r.code != -1:
		k.t.Fatalf("at %q keyturn was not killed: exit %d\n%s%s", point, r.code, r.stdout, r.stderr)
	}
	k.goOn()
	now := k.status().Current
	if now < was || now > was+2 {
		k.t.Errorf("killed at %q: version %d became %d, want at most two numbers burnt", point, was, now)
	}
	k.done(now)
	if totals := k.totals(); totals.Failed > failed {
		k.t.Errorf("killed at %q: %d logins failed: %+v", point, totals.Failed-failed, totals.Failures[:min(3, len(totals.Failures))])
	}
	if k.t.Failed() {
		k.t.Fatalf("at %q the run that was killed said:\n%s%s", point, r.stdout, r.stderr)
	}
	return r.code == -1
}

// everyPoint goes through one rotation and returns all of its points, parted
// for several stacks.
func everyPoint(t *testing.T, mounts string) [][]string {
	k := newStack(t, servers.postgres.Get(t), []string{"mounts: " + mounts})
	k.ok("adopt", k.name)
	r := k.runWith([]string{hooks.DieAt + "=none"}, "rotate", "--wait", k.name)
	if r.code != 0 || len(r.points) < 100 {
		t.Fatalf("a rotation that is not killed: exit %d at %d points\n%s%s", r.code, len(r.points), r.stdout, r.stderr)
	}
	k.done(2)
	count := map[string]int{}
	rows := make([][]string, 4)
	for i, point := range r.points {
		count[point]++
		rows[i%4] = append(rows[i%4], fmt.Sprintf("%s#%d", point, count[point]))
	}
	return rows
}

// TestSwarmCrashInUndo kills the way back, too.
func TestSwarmCrashInUndo(t *testing.T) {
	journey(t)
	t.Parallel()
	k := newStack(t, servers.postgres.Get(t), []string{"overlap: 1h"})
	k.ok("adopt", k.name)
	for _, point := range []string{"after request: POST /services/ID/update", "after undo: prepare arm"} {
		k.ok("rotate", k.name)
		r := k.runWith([]string{hooks.DieAt + "=" + point}, "rollback", "--reason", "the test says so", k.name)
		if r.code != -1 {
			t.Fatalf("at %q keyturn was not killed: exit %d\n%s%s", point, r.code, r.stdout, r.stderr)
		}
		k.ok("rollback", "--reason", "the test says so", k.name)
		k.done(1)
		k.noneFailed()
	}
}
