package cli_test

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/ProtonMail/go-crypto/openpgp"
	"github.com/ProtonMail/go-crypto/openpgp/armor"

	"github.com/keyturn/keyturn/internal/testserver"
)

// A sealShop is what makes the shares of a Vault's key anew, with the people who hold them.
type sealShop struct {
	*shop
	server  *testserver.Vault
	path    string // of the rekey
	backup  string // of the encrypted shares
	kind    string // seal or recovery
	holders []*openpgp.Entity
	keys    []string // paths of their public keys
	deliver string

	mu      sync.Mutex
	valid   []string            // shares that are in force, as far as people know
	next    []string            // that they got, and presented
	trial   map[string][]string // which shares they present to a trial in which phase
	phase   string
	seen    map[string]int // what they did, by kind
	refused []string
}

// newSealShop makes three people with keys of their own, and the administrator's token.
func newSealShop(t *testing.T, server *testserver.Vault, kind string) *sealShop {
	t.Helper()
	dir := t.TempDir()
	name := fmt.Sprintf("%s%d", kind, serial.Add(1))
	g := &sealShop{server: server, kind: kind, path: "/v1/sys/rekey", deliver: filepath.Join(dir, "shares"), seen: map[string]int{}, valid: slices.Clone(server.Shares),
		shop: &shop{t: t, name: name, root: filepath.Join(dir, "credentials"), config: filepath.Join(dir, "keyturn.yml"), journal: filepath.Join(dir, "state", "journal.jsonl")}}
	g.backup = "/v1/sys/rekey/backup"
	if kind == "recovery" {
		g.path, g.backup = "/v1/sys/rekey-recovery-key", "/v1/sys/rekey/recovery-key-backup"
	}
	if server.IsOpenBao() {
		g.path, g.backup = "/v1/sys/rotate/root", "/v1/sys/rotate/root/backup"
	}
	admin := server.Admin(t, name+"-admin", g.policy())
	g.secrets = append([]string{admin, server.Token}, server.Shares...)
	g.env = append(os.Environ(), "KEYTURN_VAULT_TOKEN="+admin, "CI=")
	for i := range 3 {
		path := filepath.Join(dir, fmt.Sprintf("holder%d.asc", i+1))
		one, err := openpgp.NewEntity(fmt.Sprintf("Holder %d", i+1), "", fmt.Sprintf("h%d@example.com", i+1), nil)
		g.must(err)
		var text bytes.Buffer
		w, err := armor.Encode(&text, openpgp.PublicKeyType, nil)
		g.must(err)
		g.must(one.Serialize(w))
		g.must(w.Close())
		g.must(os.WriteFile(path, text.Bytes(), 0o600))
		g.holders, g.keys = append(g.holders, one), append(g.keys, path)
	}
	g.configure("20s")
	return g
}

// policy is the administrator's, as the page has it.
func (g *sealShop) policy() string {
	g.t.Helper()
	page, err := os.ReadFile("../../docs/backends/vault.md")
	g.must(err)
	for _, block := range strings.Split(string(page), "```hcl\n")[1:] {
		if text, _, _ := strings.Cut(block, "```"); strings.Contains(text, strings.TrimPrefix(g.backup, "/v1/")+`"`) {
			return text
		}
	}
	g.t.Fatalf("the page has no policy for %s", g.backup)
	return ""
}

func (g *sealShop) configure(wait string) {
	g.t.Helper()
	g.must(os.WriteFile(g.config, []byte(fmt.Sprintf(`version: 1
journal: file:%s
directory: {path: %s}
credentials:
  %s:
    vault:
      servers: ["%s"]
      ca: %s
      token: {from-env: KEYTURN_VAULT_TOKEN}
      %s: {holders: ["%s"], threshold: 2, deliver: %s, wait: %s}
    minimum-age: 0s
`, g.journal, g.root, g.name, strings.Join(g.server.URLs(), `", "`), g.server.CAFile(), g.kind, strings.Join(g.keys, `", "`), g.deliver, wait)), 0o600))
}

// underWay is what Vault says of a rekey.
type underWay struct {
	Nonce             string
	Started, Backup   bool
	Progress          int
	VerificationNonce string `json:"verification_nonce"`
}

func (g *sealShop) rekey() (is underWay, err error) {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	return is, g.call(ctx, http.MethodGet, "/init", nil, &is)
}

// call asks for something of the rekey. OpenBao has what it says under data.
func (g *sealShop) call(ctx context.Context, method, path string, in, out any) error {
	if out == nil || !g.server.IsOpenBao() {
		return g.server.Call(ctx, method, g.path+path, in, out)
	}
	wrapped := struct{ Data any }{out}
	return g.server.Call(ctx, method, g.path+path, in, &wrapped)
}

// present hands Vault a share, as its holder does.
func (g *sealShop) present(what, nonce, share string) error {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	err := g.call(ctx, http.MethodPut, "/"+what, map[string]string{"key": share, "nonce": nonce}, nil)
	g.mu.Lock()
	defer g.mu.Unlock()
	g.seen[what]++
	if err != nil {
		g.refused = append(g.refused, err.Error())
	}
	return err
}

// fetched decrypts what was delivered of the newest version.
func (g *sealShop) fetched() ([]string, error) {
	files, err := filepath.Glob(filepath.Join(g.deliver, "*.gpg"))
	if err != nil || len(files) < len(g.holders) {
		return nil, fmt.Errorf("%d encrypted shares are there, %v", len(files), err)
	}
	slices.Sort(files)
	var shares []string
	for i, file := range files[len(files)-len(g.holders):] {
		b, err := os.ReadFile(file)
		if err != nil {
			return nil, err
		}
		message, err := openpgp.ReadMessage(bytes.NewReader(b), openpgp.EntityList{g.holders[i]}, nil, nil)
		if err != nil {
			return nil, fmt.Errorf("%s is not for holder %d: %w", file, i+1, err)
		}
		text, err := io.ReadAll(message.UnverifiedBody)
		if err != nil {
			return nil, err
		}
		raw, err := hex.DecodeString(string(text))
		if err != nil {
			return nil, err
		}
		shares = append(shares, base64.StdEncoding.EncodeToString(raw))
	}
	return shares, nil
}

// people are the holders: they do what each rekey asks of them, a share at a time. To a
// trial they present what the test says for the phase that it is in.
func (g *sealShop) people() (stop func()) {
	ended := again(350*time.Millisecond, func() (bool, error) {
		is, err := g.rekey()
		if err != nil || !is.Started {
			return false, nil
		}
		g.mu.Lock()
		phase := g.phase
		if phase == "" {
			phase = g.recordedPhase()
		}
		valid, trial := g.valid, g.trial[phase]
		g.mu.Unlock()
		switch {
		case is.Backup && is.VerificationNonce == "":
			_ = g.present("update", is.Nonce, valid[is.Progress])
		case is.Backup:
			shares, err := g.fetched()
			if err != nil {
				return false, nil // they are not delivered yet
			}
			var v struct{ Progress int }
			if err := g.call(context.Background(), http.MethodGet, "/verify", nil, &v); err != nil {
				return false, nil
			}
			err = g.present("verify", is.VerificationNonce, shares[v.Progress])
			if err == nil && v.Progress == 1 { // the last one
				g.mu.Lock()
				g.trial = map[string][]string{"cutover": shares, "cleanup": g.valid}
				g.valid, g.next = shares, g.valid
				g.mu.Unlock()
			}
		case is.VerificationNonce == "" && is.Progress < len(trial):
			_ = g.present("update", is.Nonce, trial[is.Progress])
		}
		return true, nil
	})
	return func() { ended() }
}

// during says which phase is under way.
func (g *sealShop) during(phase string) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.phase = phase
}

// inForce checks that Vault is opened by shares, and by no others.
func (g *sealShop) inForce(shares, dead []string) {
	g.t.Helper()
	for _, tr := range []struct {
		shares []string
		opens  bool
	}{{shares, true}, {dead, false}} {
		var is underWay
		g.must(g.call(context.Background(), http.MethodPut, "/init", map[string]any{"secret_shares": 3, "secret_threshold": 2, "require_verification": true}, &is))
		err := g.present("update", is.Nonce, tr.shares[0])
		g.must(err)
		if err = g.present("update", is.Nonce, tr.shares[1]); (err == nil) != tr.opens {
			g.t.Errorf("a set of shares: %v, want it taken %t", err, tr.opens)
		}
		g.must(g.call(context.Background(), http.MethodDelete, "/init", map[string]string{"nonce": is.Nonce}, nil))
	}
}

// nothing checks that no rekey is under way, and no share kept.
func (g *sealShop) nothing() {
	g.t.Helper()
	if is, err := g.rekey(); err != nil || is.Started {
		g.t.Errorf("a rekey is under way: %+v, %v", is, err)
	}
	if err := g.server.Call(context.Background(), http.MethodGet, g.backup, nil, nil); err == nil || !strings.Contains(err.Error(), "no backed-up keys") {
		g.t.Errorf("asking for encrypted shares: %v, want none", err)
	}
}

// canaries looks for shares in what Keyturn and Vault wrote.
func (g *sealShop) canaries() {
	g.t.Helper()
	g.mu.Lock()
	g.secrets = append(append(g.secrets, g.valid...), g.next...)
	g.mu.Unlock()
	journal, err := os.ReadFile(g.journal)
	g.must(err)
	g.clean(string(journal))
	for _, file := range []string{g.server.AuditFile(), g.server.LogFile(0)} {
		log, err := os.ReadFile(file)
		g.must(err)
		g.clean(strings.ReplaceAll(string(log), g.server.Token, ""))
	}
}

// TestVaultSeal makes the unseal key of a Vault anew twice, phase by phase and in one go: Vault is
// opened by the new shares and no longer by the old ones, also when it was started again, and
// no share is seen anywhere.
func TestVaultSeal(t *testing.T) {
	t.Parallel()
	server := testserver.NewVault(t, 1)
	g := newSealShop(t, server, "seal")
	g.ceremonies()
	server.Kill(0)
	g.must(server.Start(0))
	server.Shares = g.valid
	g.must(server.Unseal(t.Context(), 0))
	g.ok("check")
	g.canaries()
}

// TestVaultRecovery does the same with the recovery key of a Vault that unseals itself.
func TestVaultRecovery(t *testing.T) {
	journey(t)
	t.Parallel()
	g := newSealShop(t, testserver.NewAutoVault(t), "recovery")
	g.ceremonies()
	g.fails(3, []string{"the recovery key is ended by the next one alone"}, "revoke", "--mode", "immediate", "--reason", "a share was stolen", g.name)
	stolen := g.valid
	stop := g.people()
	g.during("") // the record says it
	g.ok("revoke", "--mode", "fast", "--reason", "a share was stolen", g.name)
	stop()
	g.inForce(g.valid, stolen)
	g.nothing()
	g.canaries()
}

// TestOpenBaoSeal does the same on OpenBao, which has paths and commands of its own for it.
func TestOpenBaoSeal(t *testing.T) {
	journey(t)
	t.Parallel()
	g := newSealShop(t, testserver.NewOpenBao(t, 1), "seal")
	g.ceremonies()
	g.canaries()
}

// ceremonies makes the key anew twice.
func (g *sealShop) ceremonies() {
	t := g.t
	t.Helper()
	command := "each runs: vault operator rekey"
	if g.server.IsOpenBao() {
		command = "each runs: bao operator rotate-keys -nonce="
	}
	noun := map[string]string{"seal": "unseal key", "recovery": "recovery key"}[g.kind]
	g.ok("adopt", g.name)
	g.ok("doctor")
	t.Log(g.ok("plan", g.name))
	g.fails(3, []string{"holders of the old " + noun + ": 0 of 2 shares presented", command}, phasesOf(g, "1s")...)
	g.configure("20s")
	first := g.valid
	stop := g.people()
	g.during("cutover")
	g.ok("cutover", g.name)
	g.during("cleanup")
	g.ok("cleanup", g.name)
	stop()
	g.inForce(g.valid, first)
	g.nothing()
	second := g.valid
	stop = g.people()
	g.during("cutover")
	g.ok("rotate", g.name)
	g.during("cleanup")
	g.ok("cleanup", g.name)
	stop()
	g.inForce(g.valid, second)
	g.nothing()
	g.ok("check")
	g.ok("audit", "verify")
	if p := g.status(); p.Current != 3 || p.Next != "" {
		t.Errorf("it stands at %+v, want version 3 and nothing open", p)
	}
}

// phasesOf prepares and validates, and returns the cutover with a time for holders.
func phasesOf(g *sealShop, wait string) []string {
	g.t.Helper()
	g.ok("prepare", g.name)
	g.ok("validate", g.name)
	g.configure(wait)
	return []string{"cutover", g.name}
}

// restart kills the server and starts it again, which loses a rekey.
func (g *sealShop) restart() {
	g.t.Helper()
	g.server.Kill(0)
	g.must(g.server.Start(0))
	g.must(g.server.Unseal(context.Background(), 0))
}

// presents hands shares to the rekey that is under way, once one is and as slowly as people do.
func (g *sealShop) presents(what string, shares ...string) (errs []error) {
	g.t.Helper()
	for _, share := range shares {
		var is underWay
		for end := time.Now().Add(time.Minute); ; time.Sleep(100 * time.Millisecond) {
			var err error
			if is, err = g.rekey(); err == nil && is.Started {
				break
			}
			if time.Now().After(end) {
				g.t.Fatalf("no rekey is under way: %v", err)
			}
		}
		nonce := is.Nonce
		if what == "verify" {
			nonce = is.VerificationNonce
		}
		errs = append(errs, g.present(what, nonce, share))
		time.Sleep(800 * time.Millisecond) // it is looked at twice meanwhile
	}
	return errs
}

// beginsSeal makes a shop whose cutover is begun: a rekey is under way.
func beginsSeal(t *testing.T) *sealShop {
	t.Helper()
	g := newSealShop(t, testserver.NewVault(t, 1), "seal")
	g.ok("adopt", g.name)
	g.fails(3, []string{"0 of 2 shares presented"}, phasesOf(g, "0s")...)
	return g
}

// isStill checks that the shares of before are in force, and that nothing is open.
func (g *sealShop) isStill(current int, shares []string) {
	g.t.Helper()
	if p := g.status(); p.Current != current || p.Next != "" {
		g.t.Errorf("it stands at %+v, want version %d and nothing open", p, current)
	}
	g.inForce(shares, []string{shares[0], base64.StdEncoding.EncodeToString(bytes.Repeat([]byte{7}, 33))})
	g.ok("audit", "verify")
}

// TestVaultSealLost restarts the server amid a rekey: with the old shares that were presented, it
// is begun again; with the new ones made, they are tried, and are refused. The old ones are in force all
// the time, and people can go back to them.
func TestVaultSealLost(t *testing.T) {
	journey(t)
	t.Parallel()
	g := beginsSeal(t)
	g.presents("update", g.valid[0])
	g.restart()
	if r := g.run("cutover", g.name); r.code != 3 || !strings.Contains(r.stdout, "is gone from Vault") || !strings.Contains(r.stderr, "0 of 2 shares presented") {
		t.Errorf("exit %d\n%s%s, want it to say that the rekey is gone, and to begin it again", r.code, r.stdout, r.stderr)
	}
	g.presents("update", g.valid[:2]...)
	g.fails(3, []string{"holders of the new unseal key: 0 of 2 shares presented", "-verify -nonce="}, "cutover", g.name)
	shares, err := g.fetched()
	g.must(err)
	g.presents("verify", shares[0])
	g.fails(3, []string{"1 of 2 shares presented, of which the last is the switch"}, "cutover", g.name)
	g.restart()
	g.fails(3, []string{"holders of the new unseal key, to try it: 0 of 2"}, "cutover", g.name)
	g.fails(3, []string{"may be in force", "keyturn cutover " + g.name}, "rollback", "--reason", "drill", g.name)
	g.configure("8s")
	r := g.start("", "cutover", g.name)
	if errs := g.presents("update", shares[:2]...); errs[1] == nil {
		t.Error("Vault took new shares that never came into force")
	}
	if got := r.wait(); got.code != 3 || !strings.Contains(got.stderr, "those before were refused") || !strings.Contains(got.stderr, "keyturn rollback") {
		t.Errorf("exit %d\n%s%s, want it to say that they were refused", got.code, got.stdout, got.stderr)
	}
	g.ok("rollback", "--reason", "a node was started again", g.name)
	g.isStill(1, g.valid)
	g.fails(3, []string{"Vault keeps encrypted shares of another rekey", "vault operator rekey -backup-delete"}, "prepare", g.name)
	g.must(g.server.Call(context.Background(), http.MethodDelete, g.backup, nil, nil))
	g.ok("prepare", g.name)
}

// TestVaultSealBack gives a rekey up at every moment before the last new share: the old shares
// are in force, the new ones are not, and nothing is left. After it there is no way back.
func TestVaultSealBack(t *testing.T) {
	journey(t)
	t.Parallel()
	g := beginsSeal(t)
	g.ok("rollback", "--reason", "drill", g.name)
	g.nothing()
	g.isStill(1, g.valid)
	g.fails(3, []string{"0 of 2 shares presented"}, phasesOf(g, "0s")...)
	g.presents("update", g.valid[:2]...)
	g.fails(3, []string{"holders of the new unseal key"}, "cutover", g.name)
	shares, err := g.fetched()
	g.must(err)
	is, err := g.rekey()
	g.must(err)
	g.presents("verify", shares[0])
	g.ok("rollback", "--reason", "drill", g.name)
	if err := g.present("verify", is.VerificationNonce, shares[1]); err == nil {
		t.Error("the last new share was taken after the rekey was given up")
	}
	g.nothing()
	g.isStill(1, g.valid)
	g.fails(3, []string{"0 of 2 shares presented"}, phasesOf(g, "20s")...)
	stop := g.people()
	g.during("cutover")
	g.ok("cutover", g.name)
	stop()
	g.fails(3, []string{"is in force: Vault has no way back"}, "rollback", "--reason", "drill", g.name)
}

// TestVaultSealMistaken has people present the wrong shares to the trials: what is in force is found,
// whatever they say.
func TestVaultSealMistaken(t *testing.T) {
	journey(t)
	t.Parallel()
	g := beginsSeal(t)
	g.presents("update", g.valid[:2]...)
	g.fails(3, []string{"holders of the new unseal key"}, "cutover", g.name)
	g.restart() // the new shares are lost, and the old ones are presented as if they were new
	g.configure("20s")
	old := g.valid
	r := g.start("", "cutover", g.name)
	g.presents("update", old[:2]...)
	if got := r.wait(); got.code != 0 {
		t.Fatalf("exit %d\n%s%s", got.code, got.stdout, got.stderr)
	}
	r = g.start("", "cleanup", g.name)
	g.presents("update", old[:2]...)
	if got := r.wait(); got.code != 4 || !strings.Contains(got.stderr, "the shares that were presented as old ones are in force") || !strings.Contains(got.stderr, "keyturn rollback") {
		t.Errorf("exit %d\n%s%s, want it to say that the old shares are in force", got.code, got.stdout, got.stderr)
	}
	g.ok("rollback", "--reason", "the rekey was lost", g.name)
	g.isStill(1, old)
	g.must(g.server.Call(context.Background(), http.MethodDelete, g.backup, nil, nil))
	g.fails(3, []string{"0 of 2 shares presented"}, phasesOf(g, "0s")...)
	g.configure("20s")
	stop := g.people()
	g.during("cutover")
	g.ok("cutover", g.name)
	stop()
	r = g.start("", "cleanup", g.name)
	g.presents("update", g.valid[:2]...) // the new ones, for the old ones
	if got := r.wait(); got.code != 4 || !strings.Contains(got.stderr, "if it was the new ones") {
		t.Errorf("exit %d\n%s%s, want it to say whose shares are in force", got.code, got.stdout, got.stderr)
	}
	r = g.start("", "cleanup", g.name)
	g.presents("update", old[:2]...)
	if got := r.wait(); got.code != 0 {
		t.Errorf("exit %d\n%s%s", got.code, got.stdout, got.stderr)
	}
	g.nothing()
	g.isStill(3, g.valid)
}

// TestVaultSealForeign finds a rekey that somebody else began, and leaves it alone.
func TestVaultSealForeign(t *testing.T) {
	journey(t)
	t.Parallel()
	g := newSealShop(t, testserver.NewVault(t, 1), "seal")
	g.ok("adopt", g.name)
	begin := func() {
		g.must(g.call(context.Background(), http.MethodPut, "/init", map[string]any{"secret_shares": 5, "secret_threshold": 3, "require_verification": true}, nil))
	}
	cancel := func() {
		is, err := g.rekey()
		g.must(err)
		g.must(g.call(context.Background(), http.MethodDelete, "/init", map[string]string{"nonce": is.Nonce}, nil))
	}
	says := []string{"somebody else makes the unseal key anew", "vault operator rekey -cancel -nonce="}
	begin()
	g.fails(3, says, "prepare", g.name)
	cancel()
	g.ok("prepare", g.name)
	begin()
	g.fails(3, says, "validate", g.name)
	cancel()
	g.ok("validate", g.name)
	begin()
	g.fails(3, says, "cutover", g.name)
	g.ok("rollback", "--reason", "drill", g.name)
	if is, err := g.rekey(); err != nil || !is.Started {
		t.Errorf("somebody else's rekey: %+v, %v, want it still under way", is, err)
	}
}

// TestCrashVaultSeal kills keyturn before and after every record and every effect of a ceremony,
// and lets it go on: the shares that people hold are those in force, and nothing is left.
func TestCrashVaultSeal(t *testing.T) {
	t.Parallel()
	server := testserver.NewVault(t, 1)
	everyCrash(t, func(i int) bool { return i%16 == 13 }, func(t *testing.T, at int) result {
		g := newSealShop(t, server, "seal") // which has the shares that the last one left
		g.ok("adopt", g.name)
		first := g.valid
		stop := g.people()
		g.during("") // the record says it
		r := g.rotatedFrom(at)
		stop()
		g.nothing()
		g.isStill(g.status().Current, g.valid)
		g.inForce(g.valid, first)
		server.Shares = g.valid
		return r
	})
}

// recordedPhase is the phase of the last record.
func (g *sealShop) recordedPhase() string {
	text, err := os.ReadFile(g.journal)
	lines := bytes.Split(bytes.TrimSpace(text), []byte("\n"))
	var last struct{ Phase string }
	if err != nil || json.Unmarshal(lines[len(lines)-1], &last) != nil {
		return ""
	}
	return last.Phase
}
