package cli_test

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// twoShops is a configuration with two credentials that one service reads.
func twoShops(t *testing.T, more ...string) (a, b *shop) {
	t.Helper()
	return joined(t, func(text string) string { return strings.ReplaceAll(text, "/run/secrets/", "/run/other/") }, more...)
}

// apart is a configuration with two credentials that have no service in common.
func apart(t *testing.T, more ...string) (a, b *shop) {
	t.Helper()
	return joined(t, func(text string) string { return strings.ReplaceAll(text, "app:", "web:") }, more...)
}

// joined puts two shops into one configuration, the second after a change of its text.
func joined(t *testing.T, change func(string) string, more ...string) (a, b *shop) {
	t.Helper()
	pg := servers.postgres.Get(t)
	a, b = newShop(t, pg, more...), newShop(t, pg, more...)
	a.must(os.Rename(filepath.Join(b.root, b.name), filepath.Join(a.root, b.name)))
	text, err := os.ReadFile(a.config)
	a.must(err)
	other, err := os.ReadFile(b.config)
	a.must(err)
	_, second, _ := strings.Cut(string(other), "credentials:\n")
	a.must(os.WriteFile(a.config, append(text, change(second)...), 0o600))
	b.config, b.root, b.journal = a.config, a.root, a.journal
	a.ok("adopt", a.name, b.name)
	return a, b
}

// TestBatchGoesTogether rotates two credentials of one service as one: one
// rotation, and no phase for one of them alone.
func TestBatchGoesTogether(t *testing.T) {
	t.Parallel()
	a, b := twoShops(t)
	la := a.startLoad()
	a.ok("prepare", a.name, b.name)
	// Naming one of them is naming the batch.
	out := a.ok("rotate", "--wait", a.name)
	for _, s := range []*shop{a, b} {
		if !strings.Contains(out, s.name+": v2 current") {
			t.Errorf("the output does not say that version 2 of %s is current:\n%s", s.name, out)
		}
	}
	la.stop(t)
	a.finished(2)
}

// plans is what keyturn plan -o json prints.
type plans struct {
	Plans []struct {
		Credentials []struct{ Credential, Becomes string }
		Hash        string
	}
	Lost []string `json:"not_in_configuration"`
}

func (s *shop) plans(args ...string) plans {
	s.t.Helper()
	var p plans
	s.must(json.Unmarshal([]byte(s.ok(append([]string{"plan", "-o", "json"}, args...)...)), &p))
	return p
}

// TestBatchHasOnePlan looks at the plan of two credentials of one service: it
// has one hash, the same before and after prepare, and by it the batch is cut over.
func TestBatchHasOnePlan(t *testing.T) {
	t.Parallel()
	a, b := twoShops(t)
	la := a.startLoad()
	looked := a.plans()
	if len(looked.Plans) != 1 || len(looked.Plans[0].Credentials) != 2 {
		t.Fatalf("the plan is %+v, want one of both", looked)
	}
	text := a.ok("plan")
	if strings.Count(text, "plan "+looked.Plans[0].Hash) != 1 || strings.Count(text, "one atomic move") != 1 {
		t.Errorf("the plan shows its hash or its move more than once, or never:\n%s", text)
	}
	a.ok("prepare", a.name, b.name)
	a.ok("validate", b.name, a.name)
	if later := a.plans(b.name, a.name); later.Plans[0].Hash != looked.Plans[0].Hash {
		t.Errorf("the hash is %s before and %s after prepare", looked.Plans[0].Hash, later.Plans[0].Hash)
	}
	a.fails(3, []string{"the plan of " + a.name + " " + b.name + " is", "hint: look at it again"}, "cutover", "--plan", "0000", a.name, b.name)
	if got := a.inService(); got != "initial" {
		t.Errorf("current leads to %q after a cutover by another plan", got)
	}
	a.ok("cutover", "--plan", looked.Plans[0].Hash, b.name, a.name)
	a.recorded(`"plan":"` + looked.Plans[0].Hash)
	time.Sleep(time.Second) // the overlap
	a.ok("cleanup", a.name)
	la.stop(t)
	a.finished(2)
}

// TestPlanOfTwoBatches refuses one hash for two of them, and moves neither.
func TestPlanOfTwoBatches(t *testing.T) {
	t.Parallel()
	a, b := apart(t)
	for _, phase := range []string{"prepare", "validate"} {
		a.ok(phase, a.name, b.name)
	}
	found := a.plans()
	if len(found.Plans) != 2 {
		t.Fatalf("the plan is %+v, want two", found)
	}
	a.fails(2, []string{"--plan is the plan of one batch"}, "cutover", "--plan", found.Plans[0].Hash, a.name, b.name)
	for _, s := range []*shop{a, b} {
		if got := s.inService(); got != "initial" {
			t.Errorf("current of %s leads to %q", s.name, got)
		}
	}
}

// TestBatchMemberLeft takes one of two credentials out of the configuration
// while their rotation is open: it is not gone on with, and is not forgotten.
func TestBatchMemberLeft(t *testing.T) {
	t.Parallel()
	a, b := twoShops(t)
	a.ok("prepare", a.name, b.name)
	whole, err := os.ReadFile(a.config)
	a.must(err)
	text, _, _ := strings.Cut(string(whole), "  "+b.name+":\n")
	a.must(os.WriteFile(a.config, []byte(text), 0o600))
	says := []string{fmt.Sprintf("also holds %q, which is not in the configuration", b.name), "hint: put"}
	for _, args := range [][]string{{"validate", a.name}, {"validate", "--due"}, {"rotate", a.name}, {"rotate", "--due"},
		{"rollback", "--reason", "drill", a.name}, {"plan"}, {"cutover", "--dry-run", a.name}} {
		a.fails(2, says, args...)
	}
	if out := a.ok("status"); !strings.Contains(out, b.name+": v1 current, v2 pending\n  it is not in the configuration") {
		t.Errorf("status does not list %s:\n%s", b.name, out)
	}
	a.ok("status", b.name)
	says = []string{fmt.Sprintf("note: the rotation of %q is not at its end, and %q is not in the configuration", b.name, b.name)}
	a.fails(2, says, "validate", "--due")
	a.must(os.WriteFile(a.config, whole, 0o600))
	a.ok("rotate", "--wait", a.name)
	a.finished(2)

	// Out of the configuration when all is closed, it is listed and in the way of nothing.
	a.must(os.WriteFile(a.config, []byte(text), 0o600))
	if out := a.ok("plan"); !strings.Contains(out, b.name+": on the record, and not in the configuration") {
		t.Errorf("plan does not list %s:\n%s", b.name, out)
	}
	if got := a.plans(); len(got.Lost) != 1 || got.Lost[0] != b.name {
		t.Errorf("plan -o json lists %q as lost, want %s", got.Lost, b.name)
	}
	a.ok("rotate", "--wait", a.name)
}

// TestBatchIsUndoneTogether makes the second of two credentials fail, in
// prepare and in validate: nothing of the first is left either.
func TestBatchIsUndoneTogether(t *testing.T) {
	t.Parallel()
	for _, phase := range []string{"prepare", "validate"} {
		t.Run(phase, func(t *testing.T) {
			t.Parallel()
			a, b := twoShops(t)
			if phase == "validate" {
				a.ok("prepare", a.name, b.name)
				b.sql("postgres", fmt.Sprintf("revoke %[1]s from %[1]s_a", b.name))
			} else {
				b.sql(b.name, "revoke all on all functions in schema keyturn from keyturn_"+b.name)
			}
			r := a.run(phase, a.name, b.name)
			if r.code == 0 {
				t.Fatalf("keyturn %s succeeded:\n%s%s", phase, r.stdout, r.stderr)
			}
			for _, s := range []*shop{a, b} {
				if _, err := os.Stat(filepath.Join(s.root, s.name, "v2")); err == nil {
					t.Errorf("version 2 of %s is left", s.name)
				}
			}
			var can int
			a.must(a.pgScan(fmt.Sprintf(`select count(*) from pg_roles where rolcanlogin and rolname in ('%s_a', '%s_a')`, a.name, b.name), &can))
			if can != 0 {
				t.Errorf("%d of the new logins can still log in", can)
			}
			if p := a.status(); p.Current != 1 || p.Pending != 0 || p.Next != "" {
				t.Errorf("after the failure: %+v, want version 1 and no rotation", p)
			}
		})
	}
}
