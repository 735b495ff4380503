package cli_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// twoShops is a configuration with two credentials that one service reads.
func twoShops(t *testing.T) (a, b *shop) {
	t.Helper()
	pg := servers.postgres.Get(t)
	a, b = newShop(t, pg), newShop(t, pg)
	a.must(os.Rename(filepath.Join(b.root, b.name), filepath.Join(a.root, b.name)))
	text, err := os.ReadFile(a.config)
	a.must(err)
	other, err := os.ReadFile(b.config)
	a.must(err)
	_, second, _ := strings.Cut(string(other), "credentials:\n")
	second = strings.ReplaceAll(second, "/run/secrets/", "/run/other/")
	a.must(os.WriteFile(a.config, append(text, second...), 0o600))
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
