package cli_test

import (
	"context"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"testing"

	"github.com/keyturn/keyturn/internal/testserver"
)

// newBarrierShop makes a credential of the key with which a Vault encrypts.
func newBarrierShop(t *testing.T, server *testserver.Vault) *shop {
	t.Helper()
	dir := t.TempDir()
	name := fmt.Sprintf("barrier%d", serial.Add(1))
	s := &shop{t: t, name: name, root: filepath.Join(dir, "credentials"), config: filepath.Join(dir, "keyturn.yml"), journal: filepath.Join(dir, "state", "journal.jsonl")}
	admin := server.Admin(t, name, `path "sys/key-status" { capabilities = ["read"] } path "sys/rotate" { capabilities = ["update", "sudo"] }`)
	s.secrets = []string{admin}
	s.env = append(os.Environ(), "KEYTURN_VAULT_TOKEN="+admin, "CI=")
	s.must(os.WriteFile(s.config, []byte(fmt.Sprintf(`version: 1
journal: file:%s
directory: {path: %s}
credentials:
  %s:
    vault: {servers: ["%s"], ca: %s, token: {from-env: KEYTURN_VAULT_TOKEN}, barrier: {}}
    minimum-age: 0s
`, s.journal, s.root, name, server.URLs()[0], server.CAFile())), 0o600))
	return s
}

// termOf is the number of the key that a Vault encrypts with.
func termOf(t *testing.T, server *testserver.Vault) int {
	t.Helper()
	var is struct{ Data struct{ Term int } }
	if err := server.Call(context.Background(), http.MethodGet, "/v1/sys/key-status", nil, &is); err != nil {
		t.Fatal(err)
	}
	return is.Data.Term
}

// TestVaultBarrier makes the key anew twice, while what was written before is read.
func TestVaultBarrier(t *testing.T) {
	t.Parallel()
	server := testserver.NewVault(t, 1)
	s := newBarrierShop(t, server)
	s.must(server.Call(context.Background(), http.MethodPost, "/v1/secret/data/kept", map[string]any{"data": map[string]string{"value": "before"}}, nil))
	s.fails(3, []string{"keyturn adopt " + s.name}, "prepare", s.name)
	s.ok("adopt", s.name)
	s.ok("doctor")
	t.Log(s.ok("plan", s.name))
	s.ok("prepare", s.name)
	s.ok("rollback", "--reason", "drill", s.name)
	if term := termOf(t, server); term != 1 {
		t.Errorf("after a rollback the term is %d, want 1", term)
	}
	s.ok("rotate", s.name)
	s.fails(3, []string{"the new encryption key is in use"}, "rollback", "--reason", "drill", s.name)
	s.ok("cleanup", s.name)
	s.ok("rotate", "--wait", s.name)
	if term := termOf(t, server); term != 3 {
		t.Errorf("after two rotations the term is %d, want 3", term)
	}
	var is struct {
		Data struct{ Data map[string]string }
	}
	s.must(server.Call(context.Background(), http.MethodGet, "/v1/secret/data/kept", nil, &is))
	if is.Data.Data["value"] != "before" {
		t.Errorf("what was written before reads %v", is.Data.Data)
	}
	s.ok("check")
	s.must(server.Call(context.Background(), http.MethodPut, "/v1/sys/rotate", nil, nil))
	if got := s.ok("check"); got == "" {
		t.Error("check says nothing")
	}
	s.ok("rotate", "--wait", s.name)
	s.ok("audit", "verify")
}

// TestCrashVaultBarrier kills keyturn before and after every record and every effect, and lets it go
// on: the key was made anew once, or twice where nobody could tell.
func TestCrashVaultBarrier(t *testing.T) {
	t.Parallel()
	server := testserver.NewVault(t, 1)
	everyCrash(t, func(i int) bool { return i%16 == 8 }, func(t *testing.T, at int) result {
		s := newBarrierShop(t, server)
		s.ok("adopt", s.name)
		before := termOf(t, server)
		r := s.rotatedFrom(at)
		s.ok("audit", "verify")
		if made := termOf(t, server) - before; made != 1 {
			t.Errorf("the key was made anew %d times, want once", made)
		}
		return r
	})
}
