package cli_test

import (
	"context"
	"crypto"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/mholt/acmez/v3/acme"

	"github.com/keyturn/keyturn/internal/backend/certificate"
	"github.com/keyturn/keyturn/internal/backend/remote"
	"github.com/keyturn/keyturn/internal/rotation"
	"github.com/keyturn/keyturn/internal/secret"
	"github.com/keyturn/keyturn/internal/testserver"
)

// An accountShop rotates the key of an account, with a configuration, a journal and a folder of
// its own.
type accountShop struct {
	*shop
	pebble    *testserver.Pebble
	directory string // of the authority, or of what stands between
	account   acme.Account
	keys      map[string]crypto.Signer // every key that was seen, by its public half
	handle    atomic.Pointer[func(http.ResponseWriter, *http.Request, http.Handler)]
}

// newAccountShop makes an account by hand, whose key is in service.
func newAccountShop(t testing.TB, p *testserver.Pebble) *accountShop {
	t.Helper()
	dir := t.TempDir()
	a := &accountShop{pebble: p, keys: map[string]crypto.Signer{}, shop: &shop{t: t, name: fmt.Sprintf("acme%d", serial.Add(1)),
		root: filepath.Join(dir, "credentials"), config: filepath.Join(dir, "keyturn.yml"), journal: filepath.Join(dir, "state", "journal.jsonl")}}
	a.env = append(os.Environ(), "CI=")
	a.directory = "https://" + p.Between(t, func(w http.ResponseWriter, r *http.Request, pass http.Handler) {
		if handle := a.handle.Load(); handle != nil {
			(*handle)(w, r, pass)
			return
		}
		pass.ServeHTTP(w, r)
	}) + "/dir"
	key, err := p.AccountKey()
	a.must(err)
	a.must(os.MkdirAll(a.folder("initial"), 0o755))
	a.must(os.WriteFile(a.folder("initial", "key"), []byte(key), 0o400))
	a.must(os.Symlink("initial", a.folder("current")))
	a.account, err = a.client().NewAccount(context.Background(), acme.Account{PrivateKey: a.inService(), TermsOfServiceAgreed: true})
	a.must(err)
	a.must(os.WriteFile(a.config, []byte(fmt.Sprintf(`version: 1
journal: file:%s
directory: {path: %s}
credentials:
  %s:
    certificate:
      acme: {directory: "%s", ca: %s, account: {from-file: %s}, rollover: true}
    services: {keyturn: {path: {/key: key}}}
    accept-gap: true
    minimum-age: 0s
    overlap: 1s
    %s
`, a.journal, a.root, a.name, a.directory, p.CAFile(), a.folder("current", "key"), quick)), 0o600))
	return a
}

// folder is a path in the credential's folder.
func (a *accountShop) folder(parts ...string) string {
	return filepath.Join(append([]string{a.root, a.name}, parts...)...)
}

// between has what is asked handled so from now on; nil: it passes.
func (a *accountShop) between(handle func(http.ResponseWriter, *http.Request, http.Handler)) {
	if handle == nil {
		a.handle.Store(nil)
		return
	}
	a.handle.Store(&handle)
}

// client is another client of the authority.
func (a *accountShop) client() *acme.Client { return a.pebble.Client(a.directory) }

// inService is the key that the link leads to; its lines are remembered, to look for.
func (a *accountShop) inService() crypto.Signer {
	a.t.Helper()
	text, err := os.ReadFile(a.folder("current", "key"))
	a.must(err)
	signer := a.parsed(string(text))
	if public := fmt.Sprint(signer.Public()); a.keys[public] == nil {
		a.keys[public] = signer
		c := certificateShop{shop: a.shop}
		c.secret(string(text))
	}
	return signer
}

// parsed is a key in PEM form.
func (a *accountShop) parsed(text string) crypto.Signer {
	a.t.Helper()
	block, _ := pem.Decode([]byte(text))
	key, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	a.must(err)
	return key.(crypto.Signer)
}

// points leads the link to a version's folder.
func (a *accountShop) points(name string) {
	a.t.Helper()
	a.must(os.Remove(a.folder("current")))
	a.must(os.Symlink(name, a.folder("current")))
}

// owner is the account that has a key; "" if none has.
func (a *accountShop) owner(key crypto.Signer) string {
	a.t.Helper()
	owner, err := a.pebble.Owner(context.Background(), a.directory, key)
	a.must(err)
	return owner
}

// done checks that one version is in service, that the account has its key, and that every other
// key that was seen is nobody's.
func (a *accountShop) done() {
	a.t.Helper()
	a.versions(a.status().Current)
	now := fmt.Sprint(a.inService().Public())
	for public, key := range a.keys {
		want := map[bool]string{true: a.account.Location}[public == now]
		if got := a.owner(key); got != want {
			a.t.Errorf("a key (in service: %t) is that of %q, want %q", public == now, got, want)
		}
	}
	a.ok("audit", "verify")
	a.quiet(a.journal)
}

// quiet checks that no key stands in files, nor in the authority's log.
func (a *accountShop) quiet(files ...string) {
	a.t.Helper()
	for _, file := range append(files, a.pebble.LogFile()) {
		b, err := os.ReadFile(file)
		a.must(err)
		a.clean(string(b))
	}
}

// accounts is how many accounts were made at the authority.
func (a *accountShop) accounts() int {
	a.t.Helper()
	made, err := a.pebble.Accounts()
	a.must(err)
	return made
}

// orders is a certificate of the account, which is in service in a folder.
func (a *accountShop) orders() *certificateShop {
	a.t.Helper()
	c := certificateShopOf(a.t, a.pebble)
	c.pebble, c.env = a.pebble, a.env
	account := secret.Source{File: a.folder("current", "key")}
	c.byHand(certificate.Settings{ACME: &certificate.ACME{Directory: a.directory, CA: "ca", Account: account, HTTP01: &certificate.HTTP01{Directory: a.pebble.Challenges()}}},
		remote.Options{CA: a.pebble.CA()},
		fmt.Sprintf(`acme: {directory: "%s", ca: %s, agree-terms: true, account: {from-file: %s}, http-01: {directory: %s}}`, a.directory, a.pebble.CAFile(), account.File, a.pebble.Challenges()))
	return c
}

// TestAccountKey adopts an account's key and rotates it twice, and once back: a certificate that
// was ordered before is revoked after that, and another one ordered, by the key in service.
func TestAccountKey(t *testing.T) {
	journey(t)
	t.Parallel()
	a := newAccountShop(t, testserver.NewPebble(t, testserver.PebbleOptions{}))
	c := a.orders()
	stop := c.asks(c.inDirectory())
	c.ok("adopt", c.name)
	if out := a.ok("doctor"); !strings.Contains(out, a.account.Location) {
		t.Errorf("doctor does not name the account:\n%s", out)
	}
	a.ok("adopt", a.name)
	if out := a.ok("plan", a.name); !strings.Contains(out, "an account has one key at its authority") || !strings.Contains(out, "a copy of the account's key that stands elsewhere") {
		t.Errorf("the plan does not announce the gap, or what becomes of copies:\n%s", out)
	}
	a.ok("prepare", a.name)
	a.ok("validate", a.name)
	a.ok("cutover", a.name)
	second := a.inService()
	if got := a.owner(second); got != a.account.Location {
		t.Errorf("after the cutover the key in service is that of %q", got)
	}
	a.ok("rollback", "--reason", "drill", a.name)
	if got := a.owner(a.inService()); got != a.account.Location || a.owner(second) != "" {
		t.Errorf("after the rollback the key in service is that of %q, the other one of %q", got, a.owner(second))
	}
	for range 2 {
		a.ok("rotate", a.name)
		a.inService()
		time.Sleep(time.Second) // the overlap
		a.ok("cleanup", a.name)
		a.done()
	}
	c.ok("rotate", c.name)
	time.Sleep(time.Second) // the overlap
	c.ok("cleanup", c.name)
	if got := c.states(c.issued()); got != "Revoked/4 Valid" {
		t.Errorf("the certificates are %s, want the one from before the first rotation revoked", got)
	}
	if tried, failures := stop(); tried == 0 || len(failures) > 0 {
		t.Errorf("of %d handshakes failed: %q", tried, failures)
	}
	if n := a.accounts(); n != 1 {
		t.Errorf("%d accounts were made, want 1", n)
	}
	a.ok("check")
	for mode, code := range map[string]int{"immediate": 3, "fast": 0} {
		r := a.run("revoke", "--mode", mode, "--reason", "drill", a.name)
		if r.code != code || !strings.Contains(r.stdout, "there is a gap") || strings.Contains(r.stdout, "fail from now on") ||
			code != 0 && (!strings.Contains(r.stderr, "is the account's key") || !strings.Contains(r.stderr, "--mode fast")) {
			t.Errorf("revoke --mode %s: exit %d, want %d\n%s%s", mode, r.code, code, r.stdout, r.stderr)
		}
		a.done()
	}
	if journal, err := os.ReadFile(a.journal); err != nil || strings.Contains(string(journal), `"revoked":[`) {
		t.Errorf("a version that was not ended at once is on the record as one that was (%v)", err)
	}
	a.done()
	a.quiet(a.journal, c.journal)
}

// TestCrashAccountKey kills keyturn before and after every record and every effect of a rotation
// of an account's key, and lets it go on: at every moment a run that orders certificates has a key
// that the authority takes, and at the end the account has the key in service, and no other key is
// anybody's. Without KEYTURN_CRASH=all it is a few of these points.
func TestCrashAccountKey(t *testing.T) {
	t.Parallel()
	p := servers.pebble.Get(t)
	var points []string
	few := []string{"after effect: cutover activate", "before effect: cutover move"} // the key was changed; the link is to be moved
	run := func(t *testing.T, at int) result {
		a := newAccountShop(t, p)
		a.ok("adopt", a.name)
		r := a.killedAt(at, a.works())
		if a.done(); at > 0 {
			return r
		}
		points = r.points
		for _, point := range few {
			if !slices.Contains(points, point) {
				t.Errorf("a rotation does not pass %q", point)
			}
		}
		return r
	}
	everyCrash(t, func(i int) bool { return slices.Contains(few, points[i]) }, run)
}

// works asks all the time, as a run that orders certificates does, for the account.
func (a *accountShop) works() (stop func() (tried int, failures []string)) {
	a.t.Helper()
	orders, err := certificate.New(certificate.Settings{Names: []string{a.name + ".test"}, Roots: "roots", ACME: &certificate.ACME{Directory: a.directory, CA: "ca",
		Account: secret.Source{File: a.folder("current", "key")}, HTTP01: &certificate.HTTP01{Directory: a.pebble.Challenges()}}},
		certificate.Options{Credential: a.name, Roots: a.pebble.Roots(), Options: remote.Options{CA: a.pebble.CA()}})
	a.must(err)
	return again(200*time.Millisecond, func() (bool, error) {
		return true, orders.Preflight(context.Background(), rotation.Credential{})
	})
}

// TestAccountKeyBack kills a rollback in its gap, and lets it go on.
func TestAccountKeyBack(t *testing.T) {
	t.Parallel()
	a := newAccountShop(t, servers.pebble.Get(t))
	a.ok("adopt", a.name)
	a.ok("rotate", "--wait", a.name)
	stop := a.works()
	for _, point := range []string{"after effect: rollback activate", "before effect: rollback move back"} {
		a.ok("rotate", a.name)
		before := a.inService()
		a.killed(point, "rollback", "--reason", "drill", a.name)
		if a.owner(before) != "" || a.owner(a.inService()) != "" {
			t.Errorf("%s: the key in service is the account's, want the one that is to come back", point)
		}
		a.ok("rollback", "--reason", "go on", a.name)
		a.done()
	}
	if tried, failures := stop(); tried == 0 || len(failures) > 0 {
		t.Errorf("of %d uses failed: %q", tried, failures)
	}
}

// TestAccountKeyCopied has somebody make an account with a copy of the old key, and end it: the rotation comes to its end.
func TestAccountKeyCopied(t *testing.T) {
	t.Parallel()
	a := newAccountShop(t, servers.pebble.Get(t))
	a.ok("adopt", a.name)
	for _, ended := range []bool{false, true} {
		old := a.inService()
		a.ok("rotate", a.name)
		theirs, err := a.client().NewAccount(t.Context(), acme.Account{PrivateKey: old, TermsOfServiceAgreed: true})
		a.must(err)
		if ended {
			theirs.Status = acme.StatusDeactivated
			_, err = a.client().UpdateAccount(t.Context(), theirs)
			a.must(err)
		} else if out := a.ok("check"); !strings.Contains(out, theirs.Location) {
			t.Errorf("check does not name the account that somebody made:\n%s", out)
		}
		time.Sleep(time.Second) // the overlap
		a.ok("cleanup", a.name)
		if !ended && a.owner(old) != theirs.Location {
			t.Error("the account that somebody made was not left alone")
		}
		delete(a.keys, fmt.Sprint(old.Public())) // it is theirs
		a.done()
	}
}

// TestAccountKeyFirst has Keyturn make the account, killed before and after that.
func TestAccountKeyFirst(t *testing.T) {
	t.Parallel()
	a := newAccountShop(t, servers.pebble.Get(t))
	a.must(os.RemoveAll(a.folder()))
	a.keys = map[string]crypto.Signer{}
	_, replaced := a.configuration()
	a.must(os.WriteFile(a.config, []byte(replaced("rollover: true", "rollover: true, agree-terms: true")), 0o600))
	a.killed("after effect: prepare arm", "rotate", "--wait", a.name)
	a.ok("doctor")
	a.killed("after effect: cutover activate", "rotate", "--wait", a.name)
	a.ok("cutover", a.name)
	a.account.Location = a.owner(a.inService())
	if journal, err := os.ReadFile(a.journal); err != nil || !strings.Contains(string(journal), a.account.Location) {
		t.Errorf("the account %s is not on the record (%v)", a.account.Location, err)
	}
	a.ok("cleanup", a.name)
	if out := a.ok("revoke", "--mode", "immediate", "--reason", "drill", "--dry-run", a.name); !strings.Contains(out, "there is a gap") || strings.Contains(out, "fail from now on") {
		t.Errorf("beforehand a revocation says\n%s", out)
	}
	a.ok("rotate", "--wait", a.name)
	a.done()
}
