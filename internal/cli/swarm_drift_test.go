package cli_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/docker/docker/api/types/swarm"
)

// oldStackFile is a deployment of the stack file as it was before the first
// rotation.
func (k *stack) oldStackFile(was swarm.ServiceSpec) stackOption {
	return func(s *swarm.ServiceSpec) { *s = was }
}

// TestSwarmRollback goes back in the overlap, under load, and may not any more
// once the old version is dead.
func TestSwarmRollback(t *testing.T) {
	t.Parallel()
	for _, mounts := range []string{"switch", "dual"} {
		t.Run(mounts, func(t *testing.T) {
			sampled(t, mounts, "switch")
			t.Parallel()
			k := newStack(t, servers.postgres.Get(t), []string{"mounts: " + mounts, "overlap: 1h"})
			k.ok("adopt", k.name)
			k.ok("rotate", k.name)
			k.fails(3, []string{"the overlap"}, "cleanup", k.name)
			k.ok("rollback", "--reason", "orders are slow", k.name)
			k.undone()
			k.noneFailed()
			k.ok("rotate", k.name)
			k.ok("cleanup", "--force", "the test has no hour", k.name)
			before := k.tasks()
			k.fails(3, []string{"the version before is retired", "keyturn rotate"}, "rollback", "--reason", "too late", k.name)
			k.same("a rollback that was refused", before)
			k.done(3)
			k.noneFailed()
		})
	}
}

// TestSwarmOldStackFile deploys the old stack file after the cutover: cleanup
// waits, the expiry of the old login is put off and that is said, and no login
// fails, however long it takes until the right file is deployed.
func TestSwarmOldStackFile(t *testing.T) {
	journey(t)
	t.Parallel()
	const life = 30 * time.Second // overlap and grace
	k := newStack(t, servers.postgres.Get(t), []string{"overlap: 2s", "grace: 28s"})
	was := k.inspect().Spec
	k.ok("adopt", k.name)
	k.ok("rotate", k.name)
	right := k.inspect().Spec
	k.change(k.oldStackFile(was))

	said := false
	for end := time.Now().Add(life + life/4); time.Now().Before(end); time.Sleep(time.Second) {
		r := k.run("cleanup", k.name)
		if r.code != 3 {
			t.Fatalf("cleanup while the old login is used: exit %d, want 3\n%s%s", r.code, r.stdout, r.stderr)
		}
		said = said || strings.Contains(r.stdout+r.stderr, "put off")
	}
	k.steady()
	k.noneFailed()
	if !said {
		t.Error("nobody was told that the expiry was put off")
	}
	if r := k.run("cleanup", k.name); !strings.Contains(r.stderr, k.service) || !strings.Contains(r.stdout+r.stderr, "deploy the stack file") {
		t.Errorf("cleanup says %q, want which service and what to do", r.stdout+r.stderr)
	}
	k.noneFailed()

	right.Labels["release"] = "43"
	k.settle(k.oldStackFile(right))
	k.goOn()
	k.done(2)
	k.noneFailed()
	k.oneLogin()
}

// TestSwarmStrippedMount deploys the old stack file between prepare and
// cutover, which takes the pending mount away: it is there again before the
// tasks are moved.
func TestSwarmStrippedMount(t *testing.T) {
	journey(t)
	t.Parallel()
	k := newStack(t, servers.postgres.Get(t), []string{"mounts: dual"})
	was := k.inspect().Spec
	k.ok("adopt", k.name)
	k.ok("prepare", k.name)
	if _, secrets := k.reads(); !strings.Contains(secrets, k.secret+"_v2") {
		t.Fatalf("after prepare the service names %q, want version 2 as well", secrets)
	}
	k.settle(k.oldStackFile(was))
	k.ok("validate", k.name)
	moving := k.start("before effect: cutover move", "cutover", k.name)
	if _, secrets := k.reads(); !strings.Contains(secrets, k.secret+"_v2") {
		t.Errorf("before the cutover moves it the service names %q, want version 2 again", secrets)
	}
	moving.goOn()
	if r := moving.wait(); r.code != 0 {
		t.Fatalf("cutover after the mount was stripped: exit %d\n%s%s", r.code, r.stdout, r.stderr)
	}
	k.goOn()
	k.done(2)
	k.noneFailed()
}

// TestSwarmTwoRuns starts a second run beside one that is under way, with the
// same journal and from a machine that has another.
func TestSwarmTwoRuns(t *testing.T) {
	journey(t)
	t.Parallel()
	k := newStack(t, servers.postgres.Get(t), nil)
	k.ok("adopt", k.name)
	first := k.start("before effect: cutover move", "rotate", k.name)
	k.fails(3, []string{"--take-over"}, "rotate", k.name)

	// Elsewhere: a copy of the journal, where nobody can tell whether the first lives.
	elsewhere := filepath.Join(t.TempDir(), "journal.jsonl")
	b, err := os.ReadFile(k.journal)
	k.must(err)
	k.must(os.WriteFile(elsewhere, b, 0o600))
	text, err := os.ReadFile(k.config)
	k.must(err)
	other := filepath.Join(t.TempDir(), "keyturn.yml")
	k.must(os.WriteFile(other, []byte(strings.Replace(string(text), k.journal, elsewhere, 1)), 0o600))
	k.fails(3, []string{"--take-over"}, "--config", other, "cutover", k.name)

	first.goOn()
	if r := first.wait(); r.code != 0 {
		t.Fatalf("the first run: exit %d\n%s%s", r.code, r.stdout, r.stderr)
	}
	if n := k.totals().Tasks; n != 4 {
		t.Errorf("%d tasks in all, want 2 before and 2 after one cutover", n)
	}
	k.goOn()
	k.done(2)
	k.noneFailed()
}

// TestSwarmReleaseAmidMove ships a release while the tasks are being replaced:
// both come through.
func TestSwarmReleaseAmidMove(t *testing.T) {
	t.Parallel()
	k := newStack(t, servers.postgres.Get(t), nil)
	k.ok("adopt", k.name)
	k.ok("prepare", k.name)
	k.ok("validate", k.name)
	moving := k.start("after request: POST /services/ID/update", "cutover", k.name)
	k.change(release)
	moving.goOn()
	if r := moving.wait(); r.code != 0 {
		t.Fatalf("the cutover: exit %d\n%s%s", r.code, r.stdout, r.stderr)
	}
	k.goOn()
	k.done(2)
	k.released()
	k.noneFailed()
}
