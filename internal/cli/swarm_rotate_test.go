package cli_test

import (
	"fmt"
	"slices"
	"testing"
)

// TestSwarmRotate adopts a stack that runs under plain names and rotates its
// credential twice in a row under load: no login fails, and only a cutover (in
// dual the preparation as well) replaces a task, each of them once.
func TestSwarmRotate(t *testing.T) {
	t.Parallel()
	for _, mounts := range []string{"switch", "dual"} {
		t.Run(mounts, func(t *testing.T) {
			sampled(t, mounts, "dual")
			t.Parallel()
			k := newStack(t, servers.postgres.Get(t), []string{"mounts: " + mounts}, replicas(3))
			before := k.tasks()
			k.ok("adopt", k.name)
			k.same("adopt", before)
			for version := 2; version <= 3; version++ {
				k.phases(mounts, version)
				k.done(version)
			}
			k.noneFailed()
			if got := k.totals(); len(got.BySession) != 3 {
				t.Errorf("logins were made as %v, want three different ones", got.BySession)
			}
			k.oneLogin()
		})
	}
}

// phases goes through one rotation, phase by phase, and checks which tasks were replaced.
func (k *stack) phases(mounts string, version int) {
	k.t.Helper()
	was := k.tasks()
	for _, phase := range []string{"prepare", "validate", "cutover", "cleanup"} {
		if phase == "cleanup" {
			k.goOn()
		} else {
			k.ok(phase, k.name)
		}
		if phase == "cutover" || phase == "prepare" && mounts == "dual" {
			k.settled()
			now := k.tasks()
			if slices.ContainsFunc(was, func(id string) bool { return slices.Contains(now, id) }) {
				k.t.Errorf("%s to version %d left a task as it was: %q, then %q", phase, version, was, now)
			}
			if all := k.everyTask(); all != len(was)*k.moves(mounts, version, phase) {
				k.t.Errorf("after %s of version %d there were %d tasks in all, want one for each of %d and each update", phase, version, all, len(was))
			}
			was = now
			continue
		}
		k.same(fmt.Sprintf("%s of version %d", phase, version), was)
	}
}

// moves is how many sets of tasks there were after a phase.
func (*stack) moves(mounts string, version int, phase string) int {
	if mounts == "switch" {
		return version
	}
	n := 1 + 2*(version-1)
	if phase == "prepare" {
		n--
	}
	return n
}

// everyTask counts the tasks that have tried to log in.
func (k *stack) everyTask() int {
	k.t.Helper()
	return k.totals().Tasks
}

// same checks that no task was replaced.
func (k *stack) same(what string, before []string) {
	k.t.Helper()
	if now := k.tasks(); !slices.Equal(now, before) {
		k.t.Errorf("%s replaced tasks: %q became %q", what, before, now)
	}
}
