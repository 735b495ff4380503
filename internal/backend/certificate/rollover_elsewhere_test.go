package certificate_test

import (
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/mholt/acmez/v3/acme"

	"github.com/keyturn/keyturn/internal/backend/certificate"
	"github.com/keyturn/keyturn/internal/rotation"
	"github.com/keyturn/keyturn/internal/secret"
)

// register makes an account with a key, as any client with a copy of it can.
func (k *keyring) register(m rotation.Material) acme.Account {
	k.t.Helper()
	made, err := k.client().NewAccount(k.t.Context(), acme.Account{PrivateKey: signerOf(k.t, m), TermsOfServiceAgreed: true})
	k.must(err)
	return made
}

// deactivate ends the account of a key.
func (k *keyring) deactivate(m rotation.Material) {
	k.t.Helper()
	_, err := k.client().UpdateAccount(k.t.Context(), acme.Account{Location: k.accountOf(m), PrivateKey: signerOf(k.t, m), Status: acme.StatusDeactivated})
	k.must(err)
}

// remarks are what an examination finds, but for what is fine.
func (s stored) remarks() (all []rotation.Remark) {
	s.k.t.Helper()
	found, err := s.Examine(s.k.t.Context())
	s.k.must(err)
	for _, r := range found {
		if r.Level != rotation.Fine {
			all = append(all, r)
		}
	}
	return all
}

// TestRolloverCopied has somebody make an account with a copy of the old key, and end it: the old key is
// not the account's all the same, and that is proof enough, as long as the account is there.
func TestRolloverCopied(t *testing.T) {
	t.Parallel()
	k := newKeyring(t, shared.Get(t))
	b := k.backend()
	v1, m1 := b.first()
	v1.Public["account"], v1.State = k.accountOf(m1), rotation.Previous
	v2, m2 := b.stage(2, v1)
	k.must(b.Activate(t.Context(), v2))
	k.moves(2)
	v2.State = rotation.Current
	theirs := k.register(m1)
	is := func(when string, v rotation.Version, m rotation.Material, want rotation.Answer) {
		t.Helper()
		if p := certificate.Login(t.Context(), b.ProbeSpec(v), m); p.Answer != want {
			t.Errorf("%s version %d is %s (%s), want %s", when, v.Number, p.Answer, p.Reason, want)
		}
	}
	ends := func(when string) {
		t.Helper()
		is(when, v1, m1, rotation.Dead)
		is(when, v2, m2, rotation.Alive)
		for _, why := range []rotation.Why{rotation.ToRetire, rotation.ToRevoke} {
			k.must(k.backend().End(t.Context(), v1, why))
		}
		if got := k.backend().status(v1); got != rotation.Ended {
			t.Errorf("%s the old key is %s", when, got)
		}
		k.must(b.Preflight(t.Context(), rotation.Credential{Versions: []rotation.Version{v1, v2}}))
	}
	ends("once it is another account's,")
	if got := k.accountOf(m1); got != theirs.Location {
		t.Errorf("the account that somebody made is %q, want it left alone", got)
	}
	if r := b.remarks(); len(r) != 1 || r[0].Level != rotation.Warning || !strings.Contains(r[0].Text, theirs.Location) {
		t.Errorf("Examine says %+v", r)
	}
	current := v1
	current.State = rotation.Current
	is("in service", current, m1, rotation.Unfit)
	saysSo(t, "observing it in service", observes(t, b, current), rotation.Failed, theirs.Location)
	k.deactivate(m1)
	ends("once that account was ended,")
	is("in service", current, m1, rotation.Unfit)

	// Without the account on the record there is no control, and nothing is concluded.
	k.deactivate(m2)
	is("once the account was ended,", v2, m2, rotation.Unfit)
	saysSo(t, "observing the old key", observes(t, k.backend(), v1), rotation.Unknown, "is not active")
	saysSo(t, "ending it", k.backend().End(t.Context(), v1, rotation.ToRetire), rotation.Unknown, "is not active")
}

// observes is what is wrong with observing a version.
func observes(t *testing.T, b stored, v rotation.Version) error {
	t.Helper()
	_, err := b.Observe(t.Context(), v)
	return err
}

// TestRolloverUnauthorized is an authority that calls something else "unauthorized", too.
func TestRolloverUnauthorized(t *testing.T) {
	t.Parallel()
	k := newKeyring(t, shared.Get(t))
	b := k.backend()
	v1, m1 := b.first()
	v1.State = rotation.Current
	v2, m2 := b.stage(2, v1)
	k.between(problem(http.StatusForbidden, "unauthorized"))
	for _, v := range []rotation.Version{v1, v2} {
		saysSo(t, "observing", observes(t, b, v), rotation.Unknown, "unauthorized")
		saysSo(t, "ending", b.End(t.Context(), v, rotation.ToDiscard), rotation.Unknown, "unauthorized")
	}
	orders := k.fixture.backend(func(m made) {
		m.ACME.Directory, m.ACME.Account = k.directory, secret.Source{File: filepath.Join(k.folder, "current", "key")}
	})
	k.between(func(w http.ResponseWriter, r *http.Request, pass http.Handler) {
		if strings.HasPrefix(r.URL.Path, "/order-plz") {
			problem(http.StatusForbidden, "unauthorized")(w, r, pass)
			return
		}
		pass.ServeHTTP(w, r)
	})
	if _, err := orders.Order(t.Context(), k.version(1, rotation.Pending)); err == nil || strings.Contains(rotation.HintOf(err), "port 80") {
		t.Errorf("an order that is refused: %v, hint %q", err, rotation.HintOf(err))
	}
	k.between(nil)

	// The next key is another account's, which was ended: the account is there, by the key in service.
	k.register(m2)
	if r := b.remarks(); len(r) != 1 || r[0].Level != rotation.Problem || !strings.Contains(r[0].Text, "with the next key, in v2") {
		t.Errorf("Examine says %+v", r)
	}
	k.deactivate(m2)
	if got := b.status(v2); got != rotation.Ended {
		t.Errorf("the next key is %s", got)
	}
	k.must(b.End(t.Context(), v2, rotation.ToDiscard))
	if k.accountOf(m1) == "" {
		t.Error("the key in service lost its account")
	}
}

// TestRolloverHeir gives the account no key that is another one's.
func TestRolloverHeir(t *testing.T) {
	t.Parallel()
	k := newKeyring(t, shared.Get(t))
	b := k.backend()
	v1, m1 := b.first()
	v1.Public["account"] = k.accountOf(m1)
	v2, m2 := b.stage(2, v1)
	k.must(b.Activate(t.Context(), v2))
	k.register(m1)
	err := b.End(t.Context(), v2, rotation.ToDiscard)
	saysSo(t, "giving the account a key that is another one's", err, rotation.Failed, "is that of another account")
	if strings.Contains(rotation.HintOf(err), "next version") {
		t.Errorf("the hint speaks of another key: %s", rotation.HintOf(err))
	}
	k.deactivate(m1)
	if err := b.End(t.Context(), v2, rotation.ToDiscard); err == nil {
		t.Error("the account was given a key whose account was ended")
	}
	if k.accountOf(m2) != v1.Public["account"] {
		t.Error("the account has another key")
	}
}

// TestRolloverBeside has other keys beside that of the account: one of an account that was ended, one that
// cannot be read, one in no folder, and a link from elsewhere.
func TestRolloverBeside(t *testing.T) {
	t.Parallel()
	k := newKeyring(t, shared.Get(t))
	b := k.backend()
	v1, m1 := b.first()
	v2, m2 := b.stage(2, v1)
	stray, err := b.Draft(k.version(9, rotation.Pending))
	k.must(err)
	k.register(stray)
	k.deactivate(stray)
	k.put(9, stray)
	k.must(b.Activate(t.Context(), v2)) // from the key in service
	k.must(b.Activate(t.Context(), v1)) // from the one in v2, though v9 comes first
	k.must(b.Activate(t.Context(), v2))
	elsewhere := t.TempDir()
	k.must(os.Symlink(filepath.Join(k.folder, "current", "key"), filepath.Join(elsewhere, "first.pem")))
	k.must(os.Symlink("first.pem", filepath.Join(elsewhere, "acme.pem")))
	k.must(os.Symlink("circle.pem", filepath.Join(elsewhere, "circle.pem")))
	orders := func(file string) *certificate.Backend {
		return k.fixture.backend(func(m made) {
			m.ACME.Directory, m.ACME.Account = k.directory, secret.Source{File: file}
		})
	}
	for _, file := range []string{filepath.Join(k.folder, "current", "key"), filepath.Join(elsewhere, "acme.pem")} {
		if _, err := orders(file).Order(t.Context(), k.version(1, rotation.Pending)); err != nil {
			t.Errorf("ordering by %s: %v", file, err)
		}
	}
	if got := k.accountOf(m1); got != "" {
		t.Errorf("an account was made with the old key: %s", got)
	}
	if err := orders(filepath.Join(elsewhere, "circle.pem")).Preflight(t.Context(), rotation.Credential{}); rotation.ClassOf(err) != rotation.Invalid {
		t.Errorf("a link that leads to itself: %v", err)
	}
	k.deactivate(m2)
	saysSo(t, "ordering when all accounts were ended", orders(filepath.Join(k.folder, "current", "key")).Preflight(t.Context(), rotation.Credential{}), rotation.Refused, "is not active")

	// A folder that only looks like one of Keyturn's.
	other := newKeyring(t, k.pebble)
	m, err := b.Draft(k.version(1, rotation.Pending))
	k.must(err)
	other.put(1, m)
	other.moves(1)
	k.must(os.Mkdir(filepath.Join(other.folder, "shared"), 0o755))
	k.must(os.WriteFile(filepath.Join(other.folder, "shared", "key"), []byte("hunter2"), 0o600))
	k.must(orders(filepath.Join(other.folder, "current", "key")).Preflight(t.Context(), rotation.Credential{}))
}

// TestRolloverHomeless has the key stand beside the folders, where no link leads.
func TestRolloverHomeless(t *testing.T) {
	t.Parallel()
	k := newKeyring(t, shared.Get(t))
	b := k.backend()
	m, err := b.Draft(k.version(1, rotation.Current))
	k.must(err)
	k.register(m)
	k.must(os.WriteFile(filepath.Join(k.folder, "key"), m["key"].Reveal(), 0o600))
	const words = "stands in no folder"
	saysSo(t, "looking beforehand", b.Preflight(t.Context(), rotation.Credential{Name: k.name}), rotation.Refused, words)
	saysSo(t, "preparing beside it", b.Preflight(t.Context(), rotation.Credential{Name: k.name, Open: &rotation.Rotation{}}), rotation.Refused, words)
	v := k.version(1, rotation.Current)
	v.Objects = map[string]rotation.Object{"key": {Name: k.name + "/key"}}
	_, err = b.Adopt(t.Context(), v)
	saysSo(t, "adopting it", err, rotation.Refused, words)
	k.must(os.Mkdir(filepath.Join(k.folder, "initial"), 0o755))
	k.must(os.Rename(filepath.Join(k.folder, "key"), filepath.Join(k.folder, "initial", "key")))
	k.must(os.Symlink("initial", filepath.Join(k.folder, "current")))
	k.must(b.Preflight(t.Context(), rotation.Credential{Name: k.name}))
	v.Objects = map[string]rotation.Object{"key": {Name: k.name + "/initial/key"}}
	_, err = b.Adopt(t.Context(), v)
	k.must(err)
}
