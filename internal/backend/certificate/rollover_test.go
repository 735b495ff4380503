package certificate_test

import (
	"bytes"
	"context"
	"crypto"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
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
	"github.com/keyturn/keyturn/internal/rotation/rotationtest"
	"github.com/keyturn/keyturn/internal/secret"
	"github.com/keyturn/keyturn/internal/testserver"
)

const rolling = "acme:\n  directory: https://ca.example.com/directory\n  account: {from-file: /srv/keyturn/acme/current/key}\n  rollover: true\n"

func TestRolloverSection(t *testing.T) {
	for name, text := range map[string]string{
		"the least":  rolling,
		"everything": rolling + "  agree-terms: true\n  contact: [ops@example.com]\n  external-account: {id: kid-1, key: {from-env: M}}\n  ca: ca.pem\nkey-type: rsa-3072\n",
	} {
		s, err := certificate.Section(rotationtest.Decoder(text))
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		of := s.(certificate.Settings)
		key, folder := of.Place()
		if !slices.Equal(of.Fields(), []string{"key"}) || !of.Own() || of.Gap() == "" || key != "acme.account" || folder != "/srv/keyturn/acme" {
			t.Errorf("%s: fields %q, own %t, gap %q, place %s %s", name, of.Fields(), of.Own(), of.Gap(), key, folder)
		}
	}
	const canary, no = "hunter2-hunter2", "the key of an account, and no certificate"
	account := func(with string) string {
		return strings.Replace(rolling, "{from-file: /srv/keyturn/acme/current/key}", with, 1)
	}
	rotationtest.Refuses(t, certificate.Section, canary, map[string][3]string{
		"a name":                {rolling + "names: [" + canary + ".example]\n", "names", no},
		"a place to probe":      {rolling + "probe: [\"tls://web:443\"]\n", "probe", no},
		"roots":                 {rolling + "roots: r.pem\n", "roots", no},
		"a list":                {rolling + "crl: http://ca/crl\n", "crl", no},
		"a certificate":         {rolling + "adopt: a.pem\n", "adopt", no},
		"a profile":             {rolling + "  profile: shortlived\n", "acme.profile", no},
		"a challenge":           {rolling + "  http-01: {directory: /srv/acme}\n", "acme.http-01", no},
		"a record":              {rolling + "  dns-01: {hook: [/bin/x]}\n", "acme.dns-01", no},
		"Vault":                 {rolling + "vault: {servers: [\"https://v\"], token: {from-env: T}, role: r}\n", "vault", no},
		"step-ca":               {rolling + "step-ca: {url: https://ca, provisioner: a, key: {from-env: K}}\n", "step-ca", no},
		"a trigger":             {rolling + "trigger: cert-manager\n", "trigger", no},
		"authorities":           {rolling + "rotate-ca: {trust: [a.pem]}\n", "rotate-ca", no},
		"a variable":            {account("{from-env: KEYTURN_ACME_KEY}"), "acme.rollover", "no place that the cutover moves"},
		"a file that stays":     {account("{from-file: /etc/keyturn/acme.pem}"), "acme.rollover", "no place that the cutover moves"},
		"a file of a version":   {account("{from-file: /srv/keyturn/acme/v1/key}"), "acme.rollover", "no place that the cutover moves"},
		"a folder from here":    {account("{from-file: acme/current/key}"), "acme.rollover", "no place that the cutover moves"},
		"no account":            {account("{}"), "acme.account", "has no place"},
		"plain text":            {strings.Replace(rolling, "https://ca", "http://ca", 1), "acme.directory", "no URL that begins with https://"},
		"an unknown kind":       {rolling + "key-type: ed25519\n", "key-type", "unknown kind of key"},
		"a customer":            {rolling + "  external-account: {id: a}\n", "acme.external-account.key", "has no place"},
		"a key that is unknown": {strings.Replace(rolling, "rollover:", "roll-over:", 1), "", "roll-over"},
	})
}

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
	o := certificate.Options{Credential: k.name, Options: remote.Options{CA: k.pebble.CA(), Timeout: 2 * time.Second, Getenv: func(string) string { return "" }}}
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

// TestRolloverContract is what every backend must keep.
func TestRolloverContract(t *testing.T) {
	t.Parallel()
	pebble := ownPebble(t)
	rotationtest.Contract(t, func(t *testing.T) rotationtest.Setup {
		k := newKeyring(t, pebble)
		return rotationtest.Setup{
			Backend:    k.backend(),
			Credential: k.name,
			Login:      certificate.Login,
			Patience:   time.Second,
			Claims: &rotationtest.Claims{Kind: "ACME account keys", Page: "certificate.md#rotating-the-accounts-key",
				Dead: "its authority knows no account with it, and knows the account by the next one"},
			Break: map[string]func(*testing.T) func(){
				"cut off": func(*testing.T) func() {
					k.between(silent)
					return func() { k.between(nil) }
				},
				"paused": func(*testing.T) func() {
					k.must(pebble.Pause())
					return func() { k.must(pebble.Continue()) }
				},
			},
			Changes: func(*testing.T) string {
				kept, err := pebble.Kept()
				k.must(err)
				return fmt.Sprint(kept, k.changes.Load())
			},
		}
	})
}

// client is another client of the authority.
func (k *keyring) client() *acme.Client { return k.pebble.Client(k.directory) }

// TestRolloverLogin feeds the probe what a real authority answers, and what one may.
func TestRolloverLogin(t *testing.T) {
	t.Parallel()
	k := newKeyring(t, shared.Get(t))
	b := k.backend()
	v, m := b.first()
	v.Public["account"] = k.accountOf(m)
	other := newKeyring(t, k.pebble)
	_, others := other.backend().first()
	nobodys, err := b.Draft(k.version(9, rotation.Pending))
	k.must(err)
	gone := newKeyring(t, k.pebble)
	of := gone.backend()
	ended, endedKey := of.first()
	k.must(os.Remove(filepath.Join(gone.folder, "current")))
	k.must(of.End(t.Context(), ended, rotation.ToDiscard))
	spec := b.ProbeSpec(v)
	untrusting := spec
	untrusting.CA = k.pebble.Roots()
	nowhere := spec
	nowhere.Endpoints = []string{fmt.Sprintf("https://127.0.0.1:%d/dir", testserver.DeadPort(t))}
	for name, c := range map[string]struct {
		spec   rotation.ProbeSpec
		m      rotation.Material
		handle func(http.ResponseWriter, *http.Request, http.Handler)
		answer rotation.Answer
		words  string
	}{
		"its key":                    {spec, m, nil, rotation.Alive, ""},
		"nobody's key":               {spec, nobodys, nil, rotation.Dead, "knows no account with this key"},
		"another account's key":      {spec, others, nil, rotation.Unfit, "the key of another account"},
		"of an account that ended":   {spec, endedKey, nil, rotation.Unfit, "is not active"},
		"no key":                     {spec, rotation.Material{"key": secret.FromString("hunter2")}, nil, rotation.Inconclusive, "mount key"},
		"nothing":                    {spec, rotation.Material{}, nil, rotation.Inconclusive, "mount key"},
		"nothing answers":            {nowhere, m, nil, rotation.Inconclusive, "connection refused"},
		"another authority's TLS":    {untrusting, m, nil, rotation.Inconclusive, "certificate"},
		"cut off":                    {spec, nobodys, silent, rotation.Inconclusive, "EOF"},
		"overloaded":                 {spec, nobodys, problem(http.StatusServiceUnavailable, "serverInternal"), rotation.Inconclusive, "serverInternal"},
		"an error that says missing": {spec, nobodys, problem(http.StatusInternalServerError, "accountDoesNotExist"), rotation.Inconclusive, "accountDoesNotExist"},
		"rate limited":               {spec, nobodys, problem(http.StatusTooManyRequests, "rateLimited"), rotation.Inconclusive, "rateLimited"},
		"nonces that are all bad":    {spec, nobodys, problem(http.StatusBadRequest, "badNonce"), rotation.Inconclusive, "badNonce"},
		"malformed":                  {spec, nobodys, problem(http.StatusBadRequest, "malformed"), rotation.Inconclusive, "malformed"},
		"a page of a proxy": {spec, nobodys, func(w http.ResponseWriter, _ *http.Request, _ http.Handler) { http.NotFound(w, nil) },
			rotation.Inconclusive, "404"},
	} {
		k.between(c.handle)
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		p := certificate.Login(ctx, c.spec, c.m)
		cancel()
		if p.Answer != c.answer || !strings.Contains(p.Reason, c.words) || strings.Contains(p.Reason, "hunter2") {
			t.Errorf("%s: %s (%s), want %s (%s)", name, p.Answer, p.Reason, c.answer, c.words)
		}
	}
}

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

// TestRolloverLostAnswer is an authority whose answer to the change of a key, or to the making of an account, never comes:
// what it did is found.
func TestRolloverLostAnswer(t *testing.T) {
	t.Parallel()
	k := newKeyring(t, shared.Get(t))
	b := k.backend()
	lost := func(which func(*http.Request) bool) func(http.ResponseWriter, *http.Request, http.Handler) {
		return func(w http.ResponseWriter, r *http.Request, pass http.Handler) {
			if which(r) {
				testserver.LoseAnswer(w, r, pass)
				return
			}
			pass.ServeHTTP(w, r)
		}
	}
	v1, m1 := b.first()
	v2, m2 := b.stage(2, v1)
	k.between(lost(testserver.ChangesKey))
	if err := b.Activate(t.Context(), v2); err != nil {
		t.Fatalf("changing the key, whose answer is lost: %v", err)
	}
	k.between(nil)
	if old, now := k.accountOf(m1), k.accountOf(m2); old != "" || now != v2.Public["account"] {
		t.Errorf("the old key is that of %q, the new one of %q, want %q", old, now, v2.Public["account"])
	}
	if got := b.status(v1); got != rotation.Staged {
		t.Errorf("the old key is %s, want it kept for the way back", got)
	}
	k.must(b.Activate(t.Context(), v1))
	late := newKeyring(t, k.pebble)
	of := late.backend()
	v, m := of.stage(1)
	late.between(lost(makesAccount))
	if err := of.Activate(t.Context(), v); err == nil {
		t.Error("an account was made, and the answer came though it is lost")
	}
	made := late.accountOf(m)
	late.between(nil)
	k.must(of.Activate(t.Context(), v))
	if got := late.accountOf(m); got == "" || got != made {
		t.Errorf("the account is %q, want %q", got, made)
	}
}

// makesAccount reports whether a request is to make an account, and not to look for one.
func makesAccount(r *http.Request) bool {
	body, err := io.ReadAll(r.Body)
	r.Body = io.NopCloser(bytes.NewReader(body))
	var jws struct{ Payload string }
	if err != nil || json.Unmarshal(body, &jws) != nil {
		return false
	}
	payload, err := base64.RawURLEncoding.DecodeString(jws.Payload)
	return err == nil && bytes.Contains(payload, []byte("termsOfServiceAgreed"))
}
