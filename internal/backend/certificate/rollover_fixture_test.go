package certificate_test

import (
	"context"
	"crypto"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
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

// A keyring is the key of an account in a folder, as the directory target lays it out.
type keyring struct {
	*fixture
	folder    string
	directory string // of the authority, or of what stands between
	changes   atomic.Int32
	handle    atomic.Pointer[func(http.ResponseWriter, *http.Request, http.Handler)] // nil: everything passes
}

func newKeyring(t testing.TB, p *testserver.Pebble) *keyring {
	t.Helper()
	k := &keyring{fixture: newFixture(t, p)}
	k.folder = filepath.Join(t.TempDir(), k.name)
	k.must(os.Mkdir(k.folder, 0o755))
	k.directory = "https://" + p.Between(t, func(w http.ResponseWriter, r *http.Request, pass http.Handler) {
		if testserver.ChangesKey(r) {
			k.changes.Add(1)
		}
		if handle := k.handle.Load(); handle != nil {
			(*handle)(w, r, pass)
			return
		}
		pass.ServeHTTP(w, r)
	}) + "/dir"
	return k
}

// between has what is asked handled so from now on; nil: it passes.
func (k *keyring) between(handle func(http.ResponseWriter, *http.Request, http.Handler)) {
	if handle == nil {
		k.handle.Store(nil)
		return
	}
	k.handle.Store(&handle)
}

// silent is an authority that cannot be reached.
func silent(http.ResponseWriter, *http.Request, http.Handler) { panic(http.ErrAbortHandler) }

// problem is an authority that answers everything so.
func problem(status int, kind string) func(http.ResponseWriter, *http.Request, http.Handler) {
	return func(w http.ResponseWriter, r *http.Request, pass http.Handler) {
		if r.Method != http.MethodPost {
			pass.ServeHTTP(w, r)
			return
		}
		w.Header().Set("Content-Type", "application/problem+json")
		w.WriteHeader(status)
		fmt.Fprintf(w, `{"type": "urn:ietf:params:acme:error:%s", "detail": "for a test", "status": %d}`, kind, status)
	}
}

func (k *keyring) settings() certificate.Settings {
	return certificate.Settings{ACME: &certificate.ACME{Directory: k.directory, Account: secret.Source{File: filepath.Join(k.folder, "current", "key")}, AgreeTerms: true, CA: "ca.pem", Rollover: true}}
}

func (k *keyring) backend(change ...func(made)) stored {
	k.t.Helper()
	s := k.settings()
	o := certificate.Options{Credential: k.name, Options: remote.Options{CA: k.pebble.CA(), Timeout: 6 * time.Second, Getenv: func(string) string { return "" }}}
	for _, c := range change {
		c(made{&s, &o})
	}
	b, err := certificate.NewAccountKey(s, o)
	k.must(err)
	return stored{b, k}
}

// put writes the key of a version as the directory target does.
func (k *keyring) put(number int, m rotation.Material) {
	k.t.Helper()
	folder := filepath.Join(k.folder, fmt.Sprintf("v%d", number))
	k.must(os.MkdirAll(folder, 0o755))
	k.must(os.WriteFile(filepath.Join(folder, "key"), m["key"].Reveal(), 0o600))
}

// moves leads the link to a version.
func (k *keyring) moves(number int) {
	k.t.Helper()
	link := filepath.Join(k.folder, "current")
	k.must(errors.Join(os.Symlink(fmt.Sprintf("v%d", number), link+".new"), os.Rename(link+".new", link)))
}

// A stored backend has each version put into the folder before it is armed, as a rotation does.
type stored struct {
	*certificate.AccountKey
	k *keyring
}

func (s stored) Arm(ctx context.Context, v rotation.Version, m rotation.Material, until time.Time) error {
	s.k.put(v.Number, m)
	err := s.AccountKey.Arm(ctx, v, m, until)
	if err != nil {
		s.k.must(os.RemoveAll(filepath.Join(s.k.folder, fmt.Sprintf("v%d", v.Number))))
	}
	return err
}

// stage prepares a version.
func (s stored) stage(number int, others ...rotation.Version) (rotation.Version, rotation.Material) {
	s.k.t.Helper()
	v, err := s.Identify(s.k.t.Context(), s.k.version(number, rotation.Pending), others)
	s.k.must(err)
	m, err := s.Draft(v)
	s.k.must(err)
	v, err = s.Recognize(v, m)
	s.k.must(err)
	s.k.must(s.Arm(s.k.t.Context(), v, m, time.Time{}))
	return v, m
}

// first makes an account for version 1, which is in service then.
func (s stored) first() (rotation.Version, rotation.Material) {
	s.k.t.Helper()
	v, m := s.stage(1)
	s.k.must(s.Activate(s.k.t.Context(), v))
	s.k.moves(1)
	return v, m
}

// status is what the backend says of a version.
func (s stored) status(v rotation.Version) rotation.Status {
	s.k.t.Helper()
	st, err := s.Observe(s.k.t.Context(), v)
	s.k.must(err)
	return st.Status
}

// client is another client of the authority.
func (k *keyring) client() *acme.Client { return k.pebble.Client(k.directory) }

// signerOf is the key of a version.
func signerOf(t testing.TB, m rotation.Material) crypto.Signer {
	t.Helper()
	block, _ := pem.Decode(m["key"].Reveal())
	key, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		t.Fatal(err)
	}
	return key.(crypto.Signer)
}

// accountOf is the account that has a key; "" if none has.
func (k *keyring) accountOf(m rotation.Material) string {
	k.t.Helper()
	owner, err := k.pebble.Owner(k.t.Context(), k.directory, signerOf(k.t, m))
	k.must(err)
	return owner
}
