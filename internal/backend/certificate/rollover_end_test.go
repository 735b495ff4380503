package certificate_test

import (
	"context"
	"net/http"
	"os"
	"path/filepath"
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

// saysSo checks that an error is of a class, has words, and a hint.
func saysSo(t *testing.T, doing string, err error, class rotation.Class, words string) {
	t.Helper()
	if err == nil || rotation.ClassOf(err) != class || !strings.Contains(err.Error(), words) || rotation.HintOf(err) == "" {
		t.Errorf("%s: %v of class %d, want class %d: %q, with a hint", doing, err, rotation.ClassOf(err), class, words)
	}
}

// TestRolloverFirst makes an account for the first version, where that was agreed to, and
// ends it with the version that it was made for.
func TestRolloverFirst(t *testing.T) {
	t.Parallel()
	k := newKeyring(t, shared.Get(t))
	b := k.backend()
	nobody := rotation.Credential{Name: k.name}
	disagrees := k.backend(func(m made) { m.ACME.AgreeTerms = false })
	saysSo(t, "without a word on the terms", disagrees.Preflight(t.Context(), nobody), rotation.Refused, "knows no account")
	k.must(b.Preflight(t.Context(), nobody))
	v, m := b.stage(1)
	if k.accountOf(m) != "" {
		t.Error("there is an account before the cutover")
	}
	k.must(b.Preflight(t.Context(), rotation.Credential{Name: k.name, Versions: []rotation.Version{v}, Open: &rotation.Rotation{To: 1}}))
	saysSo(t, "activating without a word on the terms", disagrees.Activate(t.Context(), v), rotation.Refused, "knows no account")
	k.must(b.Activate(t.Context(), v))
	if k.accountOf(m) == "" {
		t.Error("there is no account after the cutover")
	}
	k.must(b.End(t.Context(), v, rotation.ToDiscard))
	k.must(b.End(t.Context(), v, rotation.ToDiscard))
	if got := b.status(v); got != rotation.Ended {
		t.Errorf("the version whose account was deactivated is %s", got)
	}
	saysSo(t, "activating it again", b.Activate(t.Context(), v), rotation.Refused, "is not active")

	// A version that is no first one makes no account, whatever the authority says.
	v.State, v.Number = rotation.Previous, 2
	m, err := b.Draft(v)
	k.must(err)
	v, err = b.Recognize(v, m)
	k.must(err)
	k.put(2, m)
	k.must(os.RemoveAll(filepath.Join(k.folder, "v1")))
	saysSo(t, "activating one whose account is gone", b.Activate(t.Context(), v), rotation.Failed, "none of the keys")
}

// TestRolloverEnds ends keys: one that is refused is ended already, and the account's own is ended by the
// one in service alone.
func TestRolloverEnds(t *testing.T) {
	t.Parallel()
	k := newKeyring(t, shared.Get(t))
	b := k.backend()
	v1, m1 := b.first()
	v2, m2 := b.stage(2, v1)
	v1.State = rotation.Current
	saysSo(t, "revoking the key in service", b.End(t.Context(), v1, rotation.ToRevoke), rotation.Refused, "is the account's key")
	saysSo(t, "retiring the key in service", b.End(t.Context(), v1, rotation.ToRetire), rotation.Refused, "no other one is in service")
	k.must(b.Activate(t.Context(), v2)) // and no link was moved
	k.must(b.End(t.Context(), v2, rotation.ToDiscard))
	if k.accountOf(m1) != v2.Public["account"] || k.accountOf(m2) != "" {
		t.Error("the version that was given up has the account, want the one in service to have it")
	}
	for _, why := range []rotation.Why{rotation.ToDiscard, rotation.ToRetire, rotation.ToRevoke} {
		k.must(b.End(t.Context(), v2, why))
	}
	if got := b.status(v2); got != rotation.Ended {
		t.Errorf("the version that was given up is %s", got)
	}
	k.must(os.Remove(filepath.Join(k.folder, "v2", "key")))
	k.must(b.End(t.Context(), v2, rotation.ToDiscard))
	if got := b.status(v2); got != rotation.Absent {
		t.Errorf("a version without a file is %s", got)
	}
	if err := b.End(t.Context(), v2, rotation.ToRevoke); err == nil || !strings.Contains(err.Error(), "no such file") {
		t.Errorf("revoking a key that nobody can try: %v", err)
	}
	if err := b.Activate(t.Context(), v2); err == nil || rotation.ClassOf(err) == rotation.Unknown {
		t.Errorf("activating a version without a file: %v", err)
	}
	if k.accountOf(m1) == "" {
		t.Error("the key in service lost its account")
	}
}

// TestRolloverElsewhere is a key that somebody else changed by hand, an account that somebody made with the
// next key, and a file that somebody wrote to: it is said, and nothing is ended.
func TestRolloverElsewhere(t *testing.T) {
	t.Parallel()
	k := newKeyring(t, shared.Get(t))
	b := k.backend()
	v1, m1 := b.first()
	v1.State = rotation.Current
	c := rotation.Credential{Name: k.name, Versions: []rotation.Version{v1}}
	k.must(b.Preflight(t.Context(), c))
	remarks, err := b.Examine(t.Context())
	k.must(err)
	if len(remarks) != 1 || remarks[0].Level != rotation.Fine || !strings.Contains(remarks[0].Text, k.accountOf(m1)) {
		t.Errorf("Examine says %+v", remarks)
	}
	v2, m2 := b.stage(2, v1)

	// Somebody makes an account with the next key.
	theirs, err := k.client().NewAccount(t.Context(), acme.Account{PrivateKey: signerOf(t, m2), TermsOfServiceAgreed: true})
	k.must(err)
	saysSo(t, "arming it", b.Arm(t.Context(), v2, m2, time.Time{}), rotation.Failed, "and not of "+v2.Public["account"])
	k.put(2, m2)
	saysSo(t, "activating it", b.Activate(t.Context(), v2), rotation.Failed, "that of the account "+theirs.Location)
	saysSo(t, "ending it", b.End(t.Context(), v2, rotation.ToDiscard), rotation.Failed, theirs.Location)
	if _, err := b.Observe(t.Context(), v2); err == nil {
		t.Error("Observe says nothing of it")
	}
	k.must(os.RemoveAll(filepath.Join(k.folder, "v2")))

	// A change that was cut off before the link was moved.
	v3, m3 := b.stage(3, v1)
	k.must(b.Activate(t.Context(), v3))
	remarks, err = b.Examine(t.Context())
	k.must(err)
	if len(remarks) != 1 || remarks[0].Level != rotation.Problem || !strings.Contains(remarks[0].Text, "has the key in v3, and the one in service is in v1") {
		t.Errorf("of a change that was cut off Examine says %+v", remarks)
	}
	k.must(b.Activate(t.Context(), v1))

	// Somebody changes the key.
	hand, err := b.Draft(k.version(9, rotation.Pending))
	k.must(err)
	_, err = k.client().AccountKeyRollover(t.Context(), acme.Account{Location: v3.Public["account"], PrivateKey: signerOf(t, m1)}, signerOf(t, hand))
	k.must(err)
	saysSo(t, "looking before a rotation", b.Preflight(t.Context(), c), rotation.Refused, "no version on the record has the account's key")
	if _, err := b.Identify(t.Context(), k.version(4, rotation.Pending), []rotation.Version{v1}); rotation.ClassOf(err) != rotation.Refused {
		t.Errorf("identifying the next version: %v, want it refused", err)
	}
	saysSo(t, "activating", b.Activate(t.Context(), v3), rotation.Failed, "none of the keys")
	for _, v := range []rotation.Version{v1, v3} {
		if got := b.status(v); got != rotation.Staged {
			t.Errorf("version %d is %s", v.Number, got)
		}
		k.must(b.End(t.Context(), v, rotation.ToRetire))
	}
	if k.accountOf(hand) != v3.Public["account"] {
		t.Error("the account was ended, or has another key")
	}
	k.put(3, m1)
	if _, err := b.Observe(t.Context(), v3); err == nil || !strings.Contains(err.Error(), "not the one on the record") {
		t.Errorf("a file that somebody wrote to: %v", err)
	}
	k.put(3, m3)
}

// TestRolloverRefused is an authority that changes no key: it is said, and nothing is changed.
func TestRolloverRefused(t *testing.T) {
	t.Parallel()
	k := newKeyring(t, shared.Get(t))
	b := k.backend()
	v1, m1 := b.first()
	v2, _ := b.stage(2, v1)
	for name, c := range map[string]struct {
		handle func(http.ResponseWriter, *http.Request, http.Handler)
		class  rotation.Class
		words  string
	}{
		"not built":    {problem(http.StatusNotImplemented, "notImplemented"), rotation.Failed, "cannot change the key of an account"},
		"overloaded":   {problem(http.StatusServiceUnavailable, "serverInternal"), rotation.Unknown, "changing the account's key"},
		"rate limited": {problem(http.StatusTooManyRequests, "rateLimited"), rotation.Unknown, "changing the account's key"},
		"refused":      {problem(http.StatusForbidden, "unauthorized"), rotation.Failed, "changing the account's key"},
	} {
		k.between(func(w http.ResponseWriter, r *http.Request, pass http.Handler) {
			if testserver.ChangesKey(r) {
				pass = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { c.handle(w, r, nil) })
			}
			pass.ServeHTTP(w, r)
		})
		err := b.Activate(t.Context(), v2)
		if err == nil || rotation.ClassOf(err) != c.class || !strings.Contains(err.Error(), c.words) {
			t.Errorf("%s: %v of class %d, want class %d: %q", name, err, rotation.ClassOf(err), c.class, c.words)
		}
	}
	k.between(nil)
	without := newKeyring(t, k.pebble)
	without.between(func(w http.ResponseWriter, r *http.Request, pass http.Handler) {
		if r.URL.Path == "/dir" {
			w.Header().Set("Content-Type", "application/json")
			_, _ = w.Write([]byte(`{"newNonce": "https://` + r.Host + `/nonce-plz", "newAccount": "https://` + r.Host + `/sign-me-up", "newOrder": "https://` + r.Host + `/order-plz"}`)) // who asked sees it
			return
		}
		pass.ServeHTTP(w, r)
	})
	fresh := k.backend(func(m made) { m.ACME.Directory = without.directory })
	saysSo(t, "a directory without it", fresh.Preflight(t.Context(), rotation.Credential{Versions: []rotation.Version{v1}}), rotation.Refused, "names no place where the key")
	delete(v2.Public, "account") // which is called otherwise there
	saysSo(t, "activating by it", fresh.Activate(t.Context(), v2), rotation.Refused, "names no place where the key")
	if k.accountOf(m1) == "" {
		t.Error("the key in service lost its account")
	}
}

// TestRolloverOnStepCA has step-ca say itself that it changes no key.
func TestRolloverOnStepCA(t *testing.T) {
	t.Parallel()
	ca := testserver.NewStepCA(t)
	roots, err := os.ReadFile(ca.RootsFile())
	if err != nil {
		t.Fatal(err)
	}
	k := &keyring{fixture: &fixture{t: t, name: "orders"}, folder: filepath.Join(t.TempDir(), "orders"), directory: ca.Directory()}
	k.must(os.Mkdir(k.folder, 0o755))
	a, err := certificate.NewAccountKey(k.settings(), certificate.Options{Credential: k.name, Options: remote.Options{CA: roots, Timeout: 6 * time.Second, Getenv: func(string) string { return "" }}})
	k.must(err)
	b := stored{a, k}
	v1, m1 := b.first()
	v2, m2 := b.stage(2, v1)
	saysSo(t, "step-ca", b.Activate(t.Context(), v2), rotation.Failed, "cannot change the key of an account")
	if p := certificate.Login(t.Context(), b.ProbeSpec(v1), m1); p.Answer != rotation.Alive {
		t.Errorf("the key in service is %s: %s", p.Answer, p.Reason)
	}
	if p := certificate.Login(t.Context(), b.ProbeSpec(v2), m2); p.Answer != rotation.Dead {
		t.Errorf("the next key is %s: %s", p.Answer, p.Reason)
	}
	k.must(b.End(t.Context(), v1, rotation.ToDiscard))
	if p := certificate.Login(t.Context(), b.ProbeSpec(v1), m1); p.Answer != rotation.Unfit {
		t.Errorf("the key of an account that was deactivated is %s: %s", p.Answer, p.Reason)
	}
}

// TestRolloverAdopts takes over a key that an account has, and no other.
func TestRolloverAdopts(t *testing.T) {
	t.Parallel()
	k := newKeyring(t, shared.Get(t))
	b := k.backend()
	m, err := b.Draft(k.version(1, rotation.Current))
	k.must(err)
	k.put(1, m)
	k.moves(1)
	saysSo(t, "preparing beside it", b.Preflight(t.Context(), rotation.Credential{Name: k.name, Open: &rotation.Rotation{}}), rotation.Refused, "is no version on the record")
	saysSo(t, "looking beforehand", b.Preflight(t.Context(), rotation.Credential{Name: k.name}), rotation.Refused, "knows no account with the key")
	_, err = b.Adopt(t.Context(), k.version(1, rotation.Current))
	saysSo(t, "nobody's key", err, rotation.Refused, "knows no account with the key")
	made, err := k.client().NewAccount(t.Context(), acme.Account{PrivateKey: signerOf(t, m), TermsOfServiceAgreed: true})
	k.must(err)
	k.must(b.Preflight(t.Context(), rotation.Credential{Name: k.name}))
	v, err := b.Adopt(t.Context(), k.version(1, rotation.Current))
	k.must(err)
	if v.Public["account"] != made.Location || v.Public["public-key"] == "" || v.Identity == "" {
		t.Errorf("Adopt = %+v", v)
	}
}

// TestOrderAmidRollover orders a certificate, and revokes one, between the change of the key and the
// move of the link: by the key that the account has then, and no account is made.
func TestOrderAmidRollover(t *testing.T) {
	t.Parallel()
	k := newKeyring(t, shared.Get(t))
	b := k.backend()
	v1, m1 := b.first()
	orders := func() *certificate.Backend {
		return k.fixture.backend(func(m made) {
			m.ACME.Directory, m.ACME.Account = k.directory, secret.Source{File: filepath.Join(k.folder, "current", "key")}
		})
	}
	before, _ := k.issue(orders(), 1)
	v2, _ := b.stage(2, v1)
	k.must(b.Activate(t.Context(), v2))
	k.issue(orders(), 2)
	k.must(orders().End(t.Context(), before, rotation.ToRetire))
	if got := k.status(before); got != "Revoked 4" {
		t.Errorf("the certificate from before the change is %s", got)
	}

	// The key is changed back while it is looked for.
	var asked atomic.Int32
	k.between(func(w http.ResponseWriter, r *http.Request, pass http.Handler) {
		if strings.HasSuffix(r.URL.Path, "/sign-me-up") && asked.Add(1) == 2 {
			k.between(nil)
			k.must(k.backend().Activate(context.WithoutCancel(t.Context()), v1))
		}
		pass.ServeHTTP(w, r)
	})
	disagrees := k.fixture.backend(func(m made) {
		m.ACME.Directory, m.ACME.Account, m.ACME.AgreeTerms = k.directory, secret.Source{File: filepath.Join(k.folder, "current", "key")}, false
	})
	k.must(disagrees.Preflight(t.Context(), rotation.Credential{}))
	k.must(k.backend().Activate(t.Context(), v2))
	k.put(2, rotation.Material{"key": secret.FromString("hunter2")})
	if err := orders().Preflight(t.Context(), rotation.Credential{}); rotation.ClassOf(err) != rotation.Invalid || strings.Contains(err.Error(), "hunter2") {
		t.Errorf("a key that is none: %v", err)
	}
	if got := k.accountOf(m1); got != "" {
		t.Errorf("an account was made with the old key: %s", got)
	}
}
