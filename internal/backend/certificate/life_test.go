package certificate_test

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/keyturn/keyturn/internal/backend/certificate"
	"github.com/keyturn/keyturn/internal/rotation"
)

// TestByRecord shows whose names are by DNS, with a program that sets records: of a name
// and of all below it, in one certificate.
func TestByRecord(t *testing.T) {
	t.Parallel()
	f := newFixture(t, shared.Get(t))
	const token = "token-of-the-dns"
	hook := filepath.Join(t.TempDir(), "hook")
	f.must(os.WriteFile(hook, []byte(fmt.Sprintf(`#!/bin/sh
set -eu
[ "$DNS_TOKEN" = %s ] && [ "$1" = zone ] && [ -z "${KEYTURN_ACME_KEY:-}" ]
case $KEYTURN_ACTION in
present) echo "$KEYTURN_VALUE" >>%[2]s/"$KEYTURN_RECORD" ;;
remove) rm -f %[2]s/"$KEYTURN_RECORD" ;;
esac
`, token, f.pebble.Records())), 0o755))
	b := f.backend(func(m made) {
		m.Names = append(m.Names, "*."+m.Names[0])
		m.ACME.HTTP01, m.ACME.DNS01 = nil, &certificate.DNS01{Hook: []string{hook, "zone"}, Env: []string{"DNS_TOKEN"}, Wait: "1ms"}
		account := m.Getenv
		m.Getenv = func(name string) string {
			if name == "DNS_TOKEN" {
				return token
			}
			return account(name)
		}
	})
	f.must(b.Preflight(t.Context(), rotation.Credential{}))
	v, m := f.issue(b, 1)
	if r := certificate.Login(t.Context(), b.ProbeSpec(v), m); r.Answer != rotation.Alive {
		t.Errorf("the certificate is %s: %s", r.Answer, r.Reason)
	}
	left, err := os.ReadDir(f.pebble.Records())
	f.must(err)
	if len(left) > 0 {
		t.Errorf("records are left: %v", left)
	}
	// A program that fails is said by its name; nothing is issued.
	failing := f.backend(func(m made) {
		m.Names = []string{"other-" + m.Names[0]} // of which nothing was shown yet
		m.ACME.HTTP01, m.ACME.DNS01 = nil, &certificate.DNS01{Hook: []string{"/bin/false"}}
	})
	v, err = failing.Identify(t.Context(), f.version(2, rotation.Pending), nil)
	f.must(err)
	v, err = failing.Order(t.Context(), v)
	f.must(err)
	if _, _, err := failing.Mint(t.Context(), v); err == nil || !strings.Contains(err.Error(), `the hook "/bin/false" (present)`) {
		t.Errorf("with a program that fails: %v", err)
	}
}

// TestRejectedChallenge is an authority that does not find the answer where it looks: it is
// said, the order is called off, and the next version goes well.
func TestRejectedChallenge(t *testing.T) {
	t.Parallel()
	f := newFixture(t, shared.Get(t))
	elsewhere := t.TempDir()
	b := f.backend(func(m made) { m.ACME.HTTP01.Directory = elsewhere })
	v, err := b.Identify(t.Context(), f.version(1, rotation.Pending), nil)
	f.must(err)
	v, err = b.Order(t.Context(), v)
	f.must(err)
	_, _, err = b.Mint(t.Context(), v)
	if rotation.ClassOf(err) != rotation.Failed || !strings.Contains(err.Error(), "showing whose "+f.name+".test is") || rotation.HintOf(err) == "" {
		t.Errorf("a rejected challenge: %v of class %d, want it to fail, with a hint", err, rotation.ClassOf(err))
	}
	f.must(b.End(t.Context(), v, rotation.ToDiscard))
	f.must(b.End(t.Context(), v, rotation.ToDiscard))
	left, err := os.ReadDir(elsewhere)
	f.must(err)
	if len(left) > 0 {
		t.Errorf("answers to challenges are left: %v", left)
	}
	if st, err := b.Observe(t.Context(), v); err != nil || st.Status != rotation.Absent {
		t.Errorf("after its end it is %+v, %v", st, err)
	}
	f.issue(f.backend(), 2)
}

// TestCalledOff is an order of a run that was cut off: nothing can be made of it any more.
func TestCalledOff(t *testing.T) {
	f := newFixture(t, shared.Get(t))
	b := f.backend()
	v, err := b.Identify(t.Context(), f.version(1, rotation.Pending), nil)
	f.must(err)
	v, err = b.Order(t.Context(), v)
	f.must(err)
	f.must(b.End(t.Context(), v, rotation.ToDiscard))
	if _, m, err := b.Mint(t.Context(), v); err == nil || m != nil {
		t.Errorf("an order that was called off is still good: %v", err)
	}
}

// TestOrphan is a certificate whose key was lost with the run that had it made: it is found
// by the order on the record, and revoked.
func TestOrphan(t *testing.T) {
	t.Parallel()
	f := newFixture(t, shared.Get(t))
	b := f.backend()
	v, _ := f.issue(b, 1)
	before := v.Clone()
	before.Public = map[string]string{"order": v.Public["order"]}
	if st, err := b.Observe(t.Context(), before); err != nil || st.Status != rotation.Expiring {
		t.Errorf("an orphan is %+v, %v, want it found", st, err)
	}
	f.must(b.End(t.Context(), before, rotation.ToDiscard))
	if got := f.status(v); got != "Revoked 5" {
		t.Errorf("an orphan is %s, want it revoked as no longer needed", got)
	}
}

// TestReasons says why a certificate is revoked, and that its place is taken (RFC 9773).
func TestReasons(t *testing.T) {
	t.Parallel()
	f := newFixture(t, shared.Get(t))
	b := f.backend()
	one, m := f.issue(b, 1)
	one.State = rotation.Current
	two, _ := f.issue(b, 2, one)
	if two.Public["replaces"] == "" || two.Public["public-key"] == one.Public["public-key"] {
		t.Errorf("version 2 says that it replaces %q, and has the key %s", two.Public["replaces"], two.Public["public-key"])
	}
	// A second one that replaces it is ordered all the same.
	f.must(b.End(t.Context(), two, rotation.ToDiscard))
	three, _ := f.issue(b, 3, one)
	for why, want := range map[rotation.Why]string{rotation.ToRetire: "Revoked 4", rotation.ToRevoke: "Revoked 1"} {
		v := map[rotation.Why]rotation.Version{rotation.ToRetire: one, rotation.ToRevoke: three}[why]
		f.must(b.End(t.Context(), v, why))
		if got := f.status(v); got != want {
			t.Errorf("%s: the certificate is %s, want %s", why, got, want)
		}
	}
	said, err := os.ReadFile(f.pebble.LogFile())
	f.must(err)
	for _, c := range canaries(m) {
		if strings.Contains(string(said), c) {
			t.Error("the key stands in the authority's log")
		}
	}
}

// TestRenewAt is what the authority says of when to renew.
func TestRenewAt(t *testing.T) {
	t.Parallel()
	f := newFixture(t, shared.Get(t))
	b := f.backend()
	v, _ := f.issue(b, 1)
	at, err := b.RenewAt(t.Context(), v)
	f.must(err)
	again, err := b.RenewAt(t.Context(), v)
	f.must(err)
	// Pebble's window for a certificate of a day is the two days around a third before its end.
	if !at.After(time.Now().Add(-9*time.Hour)) || !at.Before(time.Now().Add(41*time.Hour)) || !at.Equal(again) {
		t.Errorf("a certificate of a day is to be renewed %s, then %s, want one time in the window", at, again)
	}
	now := time.Now()
	f.must(f.pebble.Suggest(t.Context(), leaf(t, v), now.Add(-2*time.Hour), now.Add(-time.Hour)))
	if at, err := b.RenewAt(t.Context(), v); err != nil || !at.Before(now) {
		t.Errorf("the authority wants it renewed at once, and RenewAt = %s, %v", at, err)
	}
	f.cut.Store(true)
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
	defer cancel()
	if _, err := f.backend().RenewAt(ctx, v); rotation.ClassOf(err) != rotation.Unknown {
		t.Errorf("an authority that does not answer: %v, want it unknown", err)
	}
}

// TestSameKey refuses a key whose public half an earlier version has.
func TestSameKey(t *testing.T) {
	t.Parallel()
	f := newFixture(t, ownPebble(t))
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	f.must(err)
	same := func(m made) { m.Generate = func() (crypto.Signer, error) { return key, nil } }
	one, _ := f.issue(f.backend(same), 1)
	b := f.backend(same)
	f.must(b.Preflight(t.Context(), rotation.Credential{Versions: []rotation.Version{one}}))
	two, err := b.Identify(t.Context(), f.version(2, rotation.Pending), nil)
	f.must(err)
	two, err = b.Order(t.Context(), two)
	f.must(err)
	serials, err := f.pebble.Serials()
	f.must(err)
	if _, _, err := b.Mint(t.Context(), two); err == nil || !strings.Contains(err.Error(), "is that of version 1") {
		t.Errorf("a key was used twice: %v", err)
	}
	if after, err := f.pebble.Serials(); err != nil || len(after) != len(serials) {
		t.Errorf("a certificate was issued for a key that was used before: %v", err)
	}
}

// TestNotWhatWasAsked refuses what an authority issues otherwise, before anybody gets it. What
// was issued all the same is found and revoked.
func TestNotWhatWasAsked(t *testing.T) {
	t.Parallel()
	f := newFixture(t, ownPebble(t))
	forged := func(change func(*x509.Certificate)) func(made) {
		return func(m made) {
			address := f.pebble.Forge(t, change)
			m.Dial = func(ctx context.Context, network, to string) (net.Conn, error) {
				if to == f.pebble.Addr() {
					to = address
				}
				return (&net.Dialer{}).DialContext(ctx, network, to)
			}
		}
	}
	for name, c := range map[string]struct {
		change func(made)
		want   string
	}{
		"the same":        {forged(func(*x509.Certificate) {}), ""},
		"wrong names":     {forged(func(c *x509.Certificate) { c.DNSNames = []string{"other.test"} }), "it is for other.test, and not for " + f.name + ".test"},
		"a name more":     {forged(func(c *x509.Certificate) { c.DNSNames = append(c.DNSNames, "other.test") }), "it is for " + f.name + ".test, other.test, and not"},
		"an address more": {forged(func(c *x509.Certificate) { c.IPAddresses = []net.IP{{192, 0, 2, 1}} }), "it is for 192.0.2.1, "},
		"a mail address":  {forged(func(c *x509.Certificate) { c.EmailAddresses = []string{"a@b.test"} }), "names of other kinds"},
		"for clients":     {forged(func(c *x509.Certificate) { c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth} }), "may not be used by servers"},
		"for programs": {forged(func(c *x509.Certificate) {
			c.ExtKeyUsage = append(c.ExtKeyUsage, x509.ExtKeyUsageCodeSigning)
		}), "may be used for more than connections"},
		"an authority":  {forged(func(c *x509.Certificate) { c.IsCA, c.KeyUsage = true, c.KeyUsage|x509.KeyUsageCertSign }), "it may sign others"},
		"not valid yet": {forged(func(c *x509.Certificate) { c.NotBefore = time.Now().Add(time.Minute) }), "a client refuses it at"},
		"ends too soon": {forged(func(c *x509.Certificate) { c.NotAfter = time.Now().Add(50 * time.Minute) }), "a client refuses it at"},
		"nobody tells":  {forged(func(c *x509.Certificate) { c.OCSPServer = nil }), "whether it is revoked, nobody could tell"},
		"must staple": {forged(func(c *x509.Certificate) {
			c.ExtraExtensions = []pkix.Extension{{Id: asn1.ObjectIdentifier{1, 3, 6, 1, 5, 5, 7, 1, 24}, Value: []byte{0x30, 3, 2, 1, 5}}}
		}), "an answer of OCSP"},
		"another root": {func(m made) { m.Options.Roots = f.pebble.CA() }, "a client refuses it at"},
		"another kind of key": {func(m made) {
			m.Generate = func() (crypto.Signer, error) { return ecdsa.GenerateKey(elliptic.P384(), rand.Reader) }
		}, "its key is not ecdsa-p256"},
	} {
		b := f.backend(c.change)
		v, err := b.Identify(t.Context(), f.version(1, rotation.Pending), nil)
		f.must(err)
		v, err = b.Order(t.Context(), v)
		f.must(err)
		_, m, err := b.Mint(t.Context(), v)
		if c.want == "" {
			f.must(err)
			continue
		}
		if rotation.ClassOf(err) != rotation.Failed || m != nil || !strings.Contains(err.Error(), c.want) || rotation.HintOf(err) == "" {
			t.Errorf("%s: %v, want %q and no certificate", name, err, c.want)
		}
		serials, err := f.pebble.Serials()
		f.must(err)
		f.must(f.backend().End(t.Context(), v, rotation.ToDiscard))
		if status, _, err := f.pebble.Status(t.Context(), serials[len(serials)-1]); err != nil || status != "Revoked" {
			t.Errorf("%s: the certificate is %s, %v, want it revoked", name, status, err)
		}
	}
}

// TestRefusals is what is refused before anything is ordered.
func TestRefusals(t *testing.T) {
	t.Parallel()
	f := newFixture(t, shared.Get(t))
	look := func(change func(made)) error { return f.backend(change).Preflight(t.Context(), rotation.Credential{}) }
	adopt := func(text string) error {
		_, err := f.backend(func(m made) { m.Adopt, m.Adopted = "today.pem", []byte(text) }).Adopt(t.Context(), f.version(1, rotation.Current))
		return err
	}
	_, nothing := f.backend().Adopt(t.Context(), f.version(1, rotation.Current))
	v, m := f.issue(f.backend(), 1)
	mine := string(m["certificate"].Reveal())
	alone := string(leaf(t, v))
	f.must(adopt(mine))
	f.must(f.backend().End(t.Context(), v, rotation.ToRetire))
	order := func() error {
		_, err := f.backend(func(m made) { m.Names = []string{"blocked.test"} }).Order(t.Context(), rotation.Version{Credential: f.name, Number: 1})
		return err
	}
	elsewhere := f.version(4, rotation.Pending)
	elsewhere.Public = map[string]string{"public-key": "asked of a Vault"}
	for name, c := range map[string]struct {
		err  error
		want string
	}{
		"asked of others":       {f.backend().End(t.Context(), elsewhere, rotation.ToDiscard), "ordered from no ACME server"},
		"nothing to adopt":      {nothing, "nothing says which certificate services serve today"},
		"no certificate":        {adopt("-----BEGIN"), "there is no certificate in it"},
		"without its chain":     {adopt(alone), "who signed certificate"},
		"revoked":               {adopt(mine), "is revoked: superseded"},
		"no folder":             {look(func(m made) { m.ACME.HTTP01.Directory = "/nowhere/at/all" }), "the folder for challenges"},
		"no program":            {look(func(m made) { m.ACME.HTTP01.Directory, m.ACME.HTTP01.Hook = "", []string{"/etc/passwd"} }), "the hook: it is no program"},
		"no such profile":       {look(func(m made) { m.ACME.Profile = "longlived" }), `has no profile "longlived"`},
		"an account is missing": {newFixture(t, f.pebble).backend(func(m made) { m.ACME.AgreeTerms = false }).Preflight(t.Context(), rotation.Credential{}), "knows no account with this key"},
	} {
		if rotation.ClassOf(c.err) != rotation.Refused || c.err == nil || !strings.Contains(c.err.Error(), c.want) || rotation.HintOf(c.err) == "" {
			t.Errorf("%s: %v, want a refusal with a hint: %q", name, c.err, c.want)
		}
	}
	if err := order(); rotation.ClassOf(err) != rotation.Failed || !strings.Contains(err.Error(), "rejectedIdentifier") {
		t.Errorf("a name that the authority takes from nobody: %v, want it to fail", err)
	}
	// What another account ordered cannot be revoked by this one.
	theirs, _ := f.issue(f.backend(), 2)
	if err := newFixture(t, f.pebble).backend().End(t.Context(), theirs, rotation.ToRetire); err == nil || rotation.HintOf(err) == "" {
		t.Errorf("End of another account's certificate = %v, want an error with a hint", err)
	}
}

// TestAnswers is what a probe makes of what is mounted, of what is served, and of what the
// authority says.
func TestAnswers(t *testing.T) {
	t.Parallel()
	pebble := ownPebble(t)
	f := newFixture(t, pebble)
	b := f.backend()
	one, m1 := f.issue(b, 1)
	_, m2 := f.issue(b, 2)
	gone, mGone := f.issue(b, 3)
	f.must(b.End(t.Context(), gone, rotation.ToRetire))
	serves := func(m rotation.Material, minimum uint16) string {
		pair, err := tls.X509KeyPair(m["certificate"].Reveal(), m["key"].Reveal())
		f.must(err)
		s := httptest.NewUnstartedServer(http.NotFoundHandler())
		s.Config.ErrorLog = log.New(io.Discard, "", 0) // it is asked for what it does not have
		s.TLS = &tls.Config{Certificates: []tls.Certificate{pair}, MinVersion: minimum, MaxVersion: minimum}
		s.StartTLS()
		t.Cleanup(s.Close)
		return "tls://" + s.Listener.Addr().String()
	}
	atOne, atTwo, atGone, old := serves(m1, tls.VersionTLS13), serves(m2, tls.VersionTLS13), serves(mGone, tls.VersionTLS13), serves(m1, tls.VersionTLS12)
	const closed = "tls://127.0.0.1:1"
	spec := func(v rotation.Version, state rotation.State, endpoints ...string) rotation.ProbeSpec {
		v.State = state
		s := b.ProbeSpec(v)
		if len(endpoints) > 0 {
			s.Endpoints = endpoints
		}
		return s
	}
	mixed := rotation.Material{"certificate": m1["certificate"], "key": m2["key"]}
	for name, c := range map[string]struct {
		spec rotation.ProbeSpec
		m    rotation.Material
		want rotation.Answer
		code string
	}{
		"pending":                        {spec(one, rotation.Pending), m1, rotation.Alive, ""},
		"pending, served nowhere":        {spec(one, rotation.Pending, atTwo), m1, rotation.Alive, ""},
		"in one file":                    {spec(one, rotation.Pending), rotation.Material{"bundle": joined(m1)}, rotation.Alive, ""},
		"another key":                    {spec(one, rotation.Pending), mixed, rotation.Unfit, ""},
		"another certificate":            {spec(one, rotation.Pending), m2, rotation.Unfit, ""},
		"half of it":                     {spec(one, rotation.Pending), rotation.Material{"key": m1["key"]}, rotation.Inconclusive, ""},
		"in service":                     {spec(one, rotation.Current, atOne), m1, rotation.Alive, ""},
		"one task serves another":        {spec(one, rotation.Current, atOne, atTwo), m1, rotation.Unfit, ""},
		"one task is down":               {spec(one, rotation.Current, atOne, closed), m1, rotation.Inconclusive, ""},
		"no such name":                   {spec(one, rotation.Current, "tls://tasks.nobody.invalid:1"), m1, rotation.Inconclusive, ""},
		"TLS 1.2 alone":                  {spec(one, rotation.Current, old), m1, rotation.Inconclusive, ""},
		"to go back to":                  {spec(one, rotation.Previous, atTwo), m1, rotation.Alive, ""},
		"revoked":                        {spec(gone, rotation.Previous, atOne, atTwo), mGone, rotation.Dead, "revoked"},
		"revoked, and served":            {spec(gone, rotation.Previous, atGone), mGone, rotation.Alive, ""},
		"revoked, served by one":         {spec(gone, rotation.Previous, atGone, atOne), mGone, rotation.Inconclusive, ""},
		"revoked, and one task is down":  {spec(gone, rotation.Previous, atOne, closed), mGone, rotation.Inconclusive, ""},
		"revoked while it is in service": {spec(gone, rotation.Current, atGone), mGone, rotation.Dead, "revoked"},
	} {
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
		got := certificate.Login(ctx, c.spec, c.m)
		cancel()
		if got.Answer != c.want || c.code != "" && got.Endpoints[0].Code != c.code {
			t.Errorf("%s: %s (%s), want %s", name, got.Answer, got.Reason, c.want)
		}
		if got.Answer != rotation.Alive && got.Reason == "" {
			t.Errorf("%s: no reason is given", name)
		}
	}
	pebble.Mute(true)
	if got := certificate.Login(t.Context(), spec(gone, rotation.Previous), mGone); got.Answer != rotation.Inconclusive {
		t.Errorf("nobody says whether it is revoked: %s, want unknown", got.Answer)
	}
	if _, err := b.Observe(t.Context(), gone); rotation.ClassOf(err) != rotation.Unknown || errors.Is(err, context.Canceled) {
		t.Errorf("nobody says whether it is revoked: %v, want it unknown", err)
	}
}
