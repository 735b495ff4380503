package scenario_test

import (
	"bytes"
	"context"
	"testing"
	"time"

	"github.com/keyturn/keyturn/internal/scenario"
	"github.com/keyturn/keyturn/internal/testserver"
)

// start sets the scene for a test; what was done is logged if the test fails.
func start(t testing.TB, o scenario.Options) *scenario.Scenario {
	t.Helper()
	var out bytes.Buffer
	o.Out = &out
	s, err := scenario.Start(context.Background(), o)
	testserver.Require(t, err)
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("what was done:\n%s", &out)
		}
		if err := s.Stop(); err != nil {
			t.Errorf("stopping the servers: %v", err)
		}
	})
	return s
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// TestTwoRotationsWithoutAFailedLogin rotates a stack that runs as people
// deploy it, twice in a row, under a load that has no fallback: no login may
// fail, from the first to the last, though one cutover is killed in its middle.
func TestTwoRotationsWithoutAFailedLogin(t *testing.T) {
	for _, mounts := range []string{"switch", "dual"} {
		t.Run(mounts, func(t *testing.T) {
			ctx := t.Context()
			s := start(t, scenario.Options{Mounts: mounts, Monitor: 2 * time.Second, Overlap: 3 * time.Second})
			k, err := s.Deploy(ctx, "orders")
			must(t, err)
			must(t, k.Adopt(ctx))
			for _, kill := range []bool{false, true} {
				r, err := k.Rotate(ctx, kill)
				must(t, err)
				if r.Tried < 100 || r.Failed > 0 {
					t.Errorf("rotation with kill = %v: %d logins tried, %d failed, want hundreds and none", kill, r.Tried, r.Failed)
				}
			}
			audit, err := s.Keyturn(ctx, "audit", "verify")
			must(t, err)
			must(t, audit.OK())
			must(t, k.Remove(ctx))
			checkLoad(t, k)
			checkRestarts(t, s, k, 2)
			checkProofs(t, s)
		})
	}
}

// checkLoad checks the logins of the whole life of a stack, and that each of
// the three logins has had its turn.
func checkLoad(t *testing.T, k *scenario.Stack) {
	t.Helper()
	total, err := k.Load()
	must(t, err)
	if total.Failed != 0 {
		t.Errorf("%d of %d logins failed, want none; the first: %+v", total.Failed, total.Tried(), total.Failures[0])
	}
	if total.Ended != total.Tasks {
		t.Errorf("%d of %d tasks ended in peace, want all: the others may hide failures", total.Ended, total.Tasks)
	}
	for _, login := range []string{"orders", "orders_a", "orders_b"} {
		if total.BySession[login] == 0 {
			t.Errorf("no login as %s in %v, want all three logins used", login, total.BySession)
		}
	}
}

// checkRestarts checks that no task was replaced more often than was said.
func checkRestarts(t *testing.T, s *scenario.Scenario, k *scenario.Stack, rotations int) {
	t.Helper()
	slots, err := k.Restarts()
	must(t, err)
	if len(slots) != 3 {
		t.Errorf("slots %v, want three", slots)
	}
	for slot, n := range slots {
		if want := rotations * s.Restarted(); n != want {
			t.Errorf("the task of slot %s was replaced %d times in %d rotations, want %d", slot, n, rotations, want)
		}
	}
}

// checkProofs checks that both old logins are proven dead on the record.
func checkProofs(t *testing.T, s *scenario.Scenario) {
	t.Helper()
	record, err := s.Journal(t.Context())
	must(t, err)
	var dead []string
	for _, p := range record.Proofs {
		if !p.Dead() {
			t.Errorf("entry %d: version %d was %s where the current one was %s, want a proof of death", p.Seq, p.Version, p.Refused.Answer, p.Control.Answer)
		}
		dead = append(dead, p.Identity)
	}
	if len(dead) != 2 || dead[0] != "orders" || dead[1] != "orders_a" {
		t.Errorf("proven dead: %q, want orders and orders_a", dead)
	}
}

// TestScriptBreaksLogins holds the other side of the comparison: the load
// notices a rotation that breaks logins, and the script breaks a quarter or more.
func TestScriptBreaksLogins(t *testing.T) {
	ctx := t.Context()
	s := start(t, scenario.Options{Monitor: 2 * time.Second})
	k, err := s.Deploy(ctx, "billing")
	must(t, err)
	for n := 1; n <= 2; n++ {
		r, err := k.RunScript(ctx, n)
		must(t, err)
		t.Logf("script, time %d: %d of %d logins failed in %s", n, r.Failed, r.Tried, r.Took())
		if r.Tried < 100 || 4*r.Failed < r.Tried {
			t.Errorf("script, time %d: %d of %d logins failed, want a quarter or more", n, r.Failed, r.Tried)
		}
	}
	before, err := k.Load()
	must(t, err)
	if before.ByCode["28P01"] == 0 {
		t.Errorf("failures by code: %v, want refused passwords (28P01)", before.ByCode)
	}
}
