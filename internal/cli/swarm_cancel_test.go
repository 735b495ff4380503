package cli_test

import (
	"syscall"
	"testing"
	"time"
)

// TestSwarmCancellation cancels a cutover in its midst, once right after its
// update of the service and once while it watches the tasks: nothing is undone,
// and the next run goes on from what has become of that update.
func TestSwarmCancellation(t *testing.T) {
	t.Parallel()
	k := newStack(t, servers.postgres.Get(t), []string{"overlap: 1h", "rollout: {monitor: 5s, health-timeout: 60s, timeout: 240s}"})
	k.ok("adopt", k.name)
	k.ok("prepare", k.name)
	k.ok("validate", k.name)
	k.start("after request: POST /services/ID/update", "cutover", k.name).cancelled(syscall.SIGINT)
	if _, secret := k.reads(); secret != k.secret+"_v2" {
		t.Errorf("after a cancelled cutover the service names %q, want version 2", secret)
	}
	watching := k.start("before effect: cutover move", "cutover", k.name)
	watching.goOn()
	time.Sleep(500 * time.Millisecond)
	watching.cancelled(syscall.SIGINT)
	k.ok("cutover", k.name)
	k.ok("cleanup", "--force", "the test has no hour", k.name)
	k.done(2)
	k.noneFailed()
	if n := k.totals().Tasks; n != 4 {
		t.Errorf("%d tasks in all, want 2 before and 2 after one cutover", n)
	}
}
