package certificate_test

import (
	"context"
	"crypto/tls"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/keyturn/keyturn/internal/backend/certificate"
	"github.com/keyturn/keyturn/internal/rotation"
	"github.com/keyturn/keyturn/internal/rotation/rotationtest"
	"github.com/keyturn/keyturn/internal/secret"
	"github.com/keyturn/keyturn/internal/testserver"
)

const trusted = "names: [orders.test]\nprobe: [\"tls://web:443\"]\nrotate-ca: {trust: [a.pem, b.pem]}\n"

func TestTrustSection(t *testing.T) {
	s, err := certificate.Section(rotationtest.Decoder(trusted))
	if err != nil {
		t.Fatal(err)
	}
	if got := s.(certificate.Settings).Fields(); !slices.Equal(got, []string{"bundle"}) {
		t.Errorf("its fields are %q", got)
	}
	const canary = "hunter2-hunter2"
	rotationtest.Refuses(t, certificate.Section, canary, map[string][3]string{
		"no authority":    {strings.Replace(trusted, "[a.pem, b.pem]", "[]", 1), "rotate-ca.trust", "no authority is named"},
		"one twice":       {strings.Replace(trusted, "b.pem", "a.pem", 1), "rotate-ca.trust.1", "stands there already"},
		"no file":         {strings.Replace(trusted, "b.pem", `""`, 1), "rotate-ca.trust.1", "no file"},
		"too many":        {strings.Replace(trusted, "b.pem", "x"+strings.Repeat(", y", 20), 1), "", "more than 20 files"},
		"no probe":        {strings.Replace(trusted, "probe: [\"tls://web:443\"]\n", "", 1), "probe", "could not be tried"},
		"no name":         {strings.Replace(trusted, "[orders.test]", "[]", 1), "names", "no name is given"},
		"roots, too":      {trusted + "roots: " + canary + "\n", "roots", "what services trust"},
		"an issuer":       {trusted + "acme: {directory: https://ca/d}\n", "acme", "what services trust"},
		"a trigger":       {trusted + "trigger: cert-manager\n", "trigger", "what services trust"},
		"a kind of key":   {trusted + "key-type: rsa-2048\n", "key-type", "what services trust"},
		"an unknown key":  {strings.Replace(trusted, "trust:", "trusts: [x], trust:", 1), "", "trusts"},
		"not yet a value": {strings.Replace(trusted, "{trust: [a.pem, b.pem]}", "{}", 1), "rotate-ca.trust", "no authority is named"},
	})
}

// A world of authorities, and a server whose certificate one of them signed.
type authorities struct {
	t        *testing.T
	all      map[string]*testserver.Authority
	endpoint string
	serves   atomic.Pointer[tls.Certificate]
}

func newAuthorities(t *testing.T, names ...string) *authorities {
	t.Helper()
	a := &authorities{t: t, all: map[string]*testserver.Authority{}}
	for _, n := range names {
		one, err := testserver.NewAuthority()
		if err != nil {
			t.Fatal(err)
		}
		a.all[n] = one
	}
	a.serve(names[0], "orders.test")
	l, err := tls.Listen("tcp", "127.0.0.1:0", &tls.Config{MinVersion: tls.VersionTLS13, GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return a.serves.Load(), nil }})
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			_ = conn.SetDeadline(time.Now().Add(5 * time.Second))
			_ = conn.(*tls.Conn).Handshake() // who asks looks at the certificate alone
			_ = conn.Close()
		}
	}()
	t.Cleanup(func() {
		_ = l.Close()
		<-done
	})
	a.endpoint = "tls://" + l.Addr().String()
	return a
}

// serve has the server serve a certificate of an authority.
func (a *authorities) serve(by string, names ...string) {
	a.t.Helper()
	cert, key, err := a.all[by].Issue(testserver.Certificate{Names: names})
	if err != nil {
		a.t.Fatal(err)
	}
	pair, err := tls.X509KeyPair(cert, key)
	if err != nil {
		a.t.Fatal(err)
	}
	a.serves.Store(&pair)
}

// trust is the backend of a bundle.
func (a *authorities) trust(names ...string) *certificate.Trust {
	a.t.Helper()
	s := certificate.Settings{Names: []string{"orders.test"}, Probe: []string{a.endpoint}, RotateCA: &certificate.RotateCA{}}
	var files [][]byte
	for _, n := range names {
		s.RotateCA.Trust, files = append(s.RotateCA.Trust, n), append(files, a.all[n].PEM)
	}
	b, err := certificate.NewTrust(s, certificate.Options{Credential: "orders-ca"}, files)
	if err != nil {
		a.t.Fatal(err)
	}
	return b
}

// version is one that was drafted.
func (a *authorities) version(b *certificate.Trust, number int) (rotation.Version, rotation.Material) {
	a.t.Helper()
	v, err := b.Identify(a.t.Context(), rotation.Version{Credential: "orders-ca", Number: number, State: rotation.Pending}, nil)
	if err != nil {
		a.t.Fatal(err)
	}
	m, err := b.Draft(v)
	if err != nil {
		a.t.Fatal(err)
	}
	return v, m
}

// TestTrustLogin tries bundles by what is served.
func TestTrustLogin(t *testing.T) {
	a := newAuthorities(t, "old", "new")
	both := a.trust("old", "new")
	v, m := a.version(both, 2)
	_, other := a.version(a.trust("old"), 1)
	onlyNew, newMaterial := a.version(a.trust("new"), 3)
	spec := func(v rotation.Version, endpoints ...string) rotation.ProbeSpec {
		s := both.ProbeSpec(v)
		s.Endpoints = append(s.Endpoints, endpoints...)
		return s
	}
	dead := "tls://127.0.0.1:" + strconv.Itoa(testserver.DeadPort(t))
	for name, c := range map[string]struct {
		spec   rotation.ProbeSpec
		m      rotation.Material
		answer rotation.Answer
		words  string
	}{
		"it verifies what is served": {spec(v), m, rotation.Alive, ""},
		"it does not":                {spec(onlyNew), newMaterial, rotation.Unfit, `signed by "CN=Keyturn test authority", which these authorities do not verify`},
		"another one is mounted":     {spec(v), other, rotation.Unfit, "has other authorities (1) than the version (2)"},
		"none is mounted":            {spec(v), rotation.Material{"x": secret.FromString("y")}, rotation.Inconclusive, "mount bundle"},
		"nothing answers":            {spec(v, dead), m, rotation.Inconclusive, "connection refused"},
		"a name without address":     {spec(v, "tls://nowhere.invalid:1"), m, rotation.Inconclusive, "has no address here"},
	} {
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		p := certificate.Login(ctx, c.spec, c.m)
		cancel()
		if p.Answer != c.answer || !strings.Contains(p.Reason, c.words) {
			t.Errorf("%s: %s (%s), want %s (%s)", name, p.Answer, p.Reason, c.answer, c.words)
		}
	}
	a.serve("old", "another.test")
	if p := certificate.Login(t.Context(), spec(v), m); p.Answer != rotation.Unfit || !strings.Contains(p.Reason, "another.test") {
		t.Errorf("a certificate for another name: %s (%s), want it unfit", p.Answer, p.Reason)
	}
}

// TestTrust has a version for each set of authorities.
func TestTrust(t *testing.T) {
	a := newAuthorities(t, "old", "new")
	old, both := a.trust("old"), a.trust("old", "new")
	v, m := a.version(old, 1)
	if _, again := a.version(old, 3); string(again["bundle"].Reveal()) == string(m["bundle"].Reveal()) {
		t.Error("the same authorities make the same value in another version")
	}
	v.State = rotation.Current
	if at, err := old.RenewAt(t.Context(), v); err != nil || !at.IsZero() {
		t.Errorf("nothing changed, and it is due at %s, %v", at, err)
	}
	if at, err := both.RenewAt(t.Context(), v); err != nil || at.IsZero() || at.After(time.Now()) {
		t.Errorf("an authority was added, and it is due at %s, %v, want at once", at, err)
	}
	c := rotation.Credential{Name: "orders-ca", Versions: []rotation.Version{v}, Open: &rotation.Rotation{Phase: rotation.Prepare}}
	if err := old.Preflight(t.Context(), c); rotation.ClassOf(err) != rotation.Refused || !strings.Contains(err.Error(), "nothing to do") {
		t.Errorf("the same authorities: %v, want it refused", err)
	}
	if err := both.Preflight(t.Context(), c); err != nil {
		t.Errorf("one more authority: %v", err)
	}
	if err := old.End(t.Context(), v, rotation.ToRevoke); rotation.ClassOf(err) != rotation.Refused || rotation.HintOf(err) == "" {
		t.Errorf("revoking a bundle: %v, want it refused with a hint", err)
	}
	warnings, err := old.Warnings(t.Context(), "orders-ca")
	if err != nil || len(warnings) != 1 || !strings.Contains(warnings[0], "put the one that follows it beside it") {
		t.Errorf("an authority that ends in a week: %q, %v", warnings, err)
	}
	late, err := certificate.NewTrust(certificate.Settings{RotateCA: &certificate.RotateCA{Trust: []string{"a"}}}, certificate.Options{Now: func() time.Time { return time.Now().AddDate(1, 0, 0) }}, [][]byte{a.all["old"].PEM})
	if err != nil {
		t.Fatal(err)
	}
	if err := late.Preflight(t.Context(), rotation.Credential{}); rotation.ClassOf(err) != rotation.Refused || !strings.Contains(err.Error(), "is not valid now") {
		t.Errorf("an authority whose time is over: %v, want it refused", err)
	}
	leaf, key, err := a.all["old"].Issue(testserver.Certificate{Names: []string{"x"}})
	if err != nil {
		t.Fatal(err)
	}
	for content, want := range map[string]string{"": "no certificate in it", string(leaf): "is of no authority", string(key): "something else than certificates"} {
		_, err := certificate.NewTrust(certificate.Settings{RotateCA: &certificate.RotateCA{Trust: []string{"a.pem"}}}, certificate.Options{}, [][]byte{[]byte(content)})
		if rotation.ClassOf(err) != rotation.Invalid || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "MI") {
			t.Errorf("NewTrust of a file with %q: %v, want it invalid: %s", content, err, want)
		}
	}
}

// TestTrustClaims writes its line of docs/backends/README.md.
func TestTrustClaims(t *testing.T) {
	a := newAuthorities(t, "old")
	rotationtest.Claim(t, rotationtest.Setup{Backend: a.trust("old"), Claims: &rotationtest.Claims{Kind: "Certificates: what services trust", Page: "certificate.md#another-authority-what-services-trust",
		Dead: "no service and no task mounts it, and everything that is served is verified by the next one alone"}})
}
