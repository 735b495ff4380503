package cli_test

import (
	"context"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/keyturn/keyturn/internal/testserver"
)

// TestVaultOutage rotates while Vault, or OpenBao, is sealed, or its leader was killed, between
// any two phases: what cannot be told is said, nothing is undone, and it goes on when it is back.
func TestVaultOutage(t *testing.T) {
	longRow(t)
	t.Parallel()
	for name, start := range vaults {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			vaultOutage(t, start(t, 3))
		})
	}
}

// vaults are what starts a cluster, by whose it is.
var vaults = map[string]func(testing.TB, int) *testserver.Vault{"Vault": testserver.NewVault, "OpenBao": testserver.NewOpenBao}

func vaultOutage(t *testing.T, cluster *testserver.Vault) {
	v := newVaultShop(t, cluster)
	v.inDirectory()
	v.ok("adopt", v.name)
	for _, phase := range []string{"prepare", "validate", "cutover", "cleanup"} {
		sealMost(t, cluster)
		time.Sleep(2 * time.Second) // of cleanup: the overlap, and the grace
		r := v.run(phase, v.name)
		said := slices.ContainsFunc([]string{"sealed", "redirection", "another node", "no node leads", "does not answer"}, func(w string) bool { return strings.Contains(r.stderr, w) })
		if r.code == 0 || r.code == 1 || !said || !strings.Contains(r.stderr, "hint: ") {
			t.Errorf("%s while Vault is sealed: exit %d\n%s%s", phase, r.code, r.stdout, r.stderr)
		}
		v.must(cluster.Unseal(context.Background(), 0, 1, 2))
		if leader := cluster.Active(t); phase == "cutover" { // and one that is killed is no matter to a cluster
			cluster.Kill(leader)
			v.must(cluster.Start(leader))
			v.must(cluster.Unseal(context.Background(), leader))
			cluster.Active(t)
		}
		if r := v.run(phase, v.name); r.code != 0 {
			t.Fatalf("%s when Vault is back: exit %d\n%s%s", phase, r.code, r.stdout, r.stderr)
		}
		if b, err := os.ReadFile(filepath.Join(v.root, v.name, "current", "secret_id")); err != nil || v.login(string(b), false) != nil {
			t.Errorf("after %s the service's secret-id does not work: %v", phase, err)
		}
	}
	v.versions(2)
	v.only(2)
}

// sealMost seals two nodes of three. The last one cannot lead alone.
func sealMost(t *testing.T, cluster *testserver.Vault) {
	for cluster.Sealed(t) < 2 {
		cluster.Seal(t)
	}
}

// TestVaultServerDown seals two nodes of three, kills the one that leads, or restarts all of
// them, amid each phase of a rotation (with KEYTURN_FAULTS=all; else it seals them amid the
// cutover): the run in hand finishes, or cannot tell and undoes nothing, the secret-id of services
// is never refused, and the same command finishes when they are back.
func TestVaultServerDown(t *testing.T) {
	t.Parallel()
	all := os.Getenv("KEYTURN_FAULTS") == "all"
	for name, start := range vaults {
		if name != "Vault" && !all {
			continue
		}
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			vaultServerDown(t, start(t, 3), all)
		})
	}
}

func vaultServerDown(t *testing.T, cluster *testserver.Vault, all bool) {
	v := newVaultShop(t, cluster)
	v.inDirectory()
	v.ok("adopt", v.name)
	stop := v.uses()
	start := func(nodes ...int) {
		for _, i := range nodes {
			v.must(cluster.Start(i))
		}
	}
	faults := []struct {
		name string
		do   func() (back func())
		ends bool // the run in hand may finish
	}{
		{"sealed", func() func() {
			sealMost(t, cluster)
			return func() {}
		}, false},
		{"its leader killed", func() func() {
			leader := cluster.Active(t)
			cluster.Kill(leader)
			return func() { start(leader) }
		}, true},
		{"restarted", func() func() {
			for i := range 3 {
				cluster.Kill(i)
			}
			return func() { start(0, 1, 2) }
		}, false},
	}
	if !all {
		faults = faults[:1]
	}
	for _, fault := range faults {
		for _, st := range []struct{ point, phase string }{
			{"before effect: prepare arm", "prepare"},
			{"before effect: validate probe", "validate"},
			{"before effect: cutover lift bound", "cutover"},
			{"before effect: cleanup end", "cleanup"},
		} {
			if st.phase == "cleanup" {
				time.Sleep(2 * time.Second) // the overlap, and the grace
			}
			if !all && st.phase != "cutover" {
				v.ok(st.phase, v.name)
				continue
			}
			r := v.start(st.point, st.phase, v.name)
			back := fault.do()
			r.goOn()
			got := r.wait()
			if got.code != 4 && !(got.code == 0 && fault.ends) || strings.Contains(got.stderr, "rolled back") || got.code == 4 && !strings.Contains(got.stderr, "hint: ") {
				t.Errorf("%s, %s: exit %d, want 4 with a hint, and nothing undone\n%s%s", fault.name, st.point, got.code, got.stdout, got.stderr)
			}
			back()
			v.must(cluster.Unseal(context.Background(), 0, 1, 2))
			cluster.Active(t)
			if got.code != 0 {
				v.ok(st.phase, v.name)
			}
		}
		v.only(v.status().Current)
	}
	tried, failures, met := stop()
	refused := slices.DeleteFunc(failures, func(text string) bool {
		return !strings.Contains(text, "invalid role or secret ID") && !strings.Contains(text, "permission denied")
	})
	if tried == 0 || len(refused) > 0 {
		t.Errorf("of %d logins were refused: %q", tried, refused)
	}
	v.versions(v.status().Current)
	v.secrets = append(v.secrets, met...)
	v.recorded()
	v.ok("audit", "verify")
}
