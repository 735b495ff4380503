package certificate_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/keyturn/keyturn/internal/backend/certificate"
	"github.com/keyturn/keyturn/internal/backend/remote"
	"github.com/keyturn/keyturn/internal/rotation"
	"github.com/keyturn/keyturn/internal/rotation/rotationtest"
	"github.com/keyturn/keyturn/internal/secret"
	"github.com/keyturn/keyturn/internal/testserver"
)

// A stepFixture is a step-ca, and the key of its JWK provisioner.
type stepFixture struct {
	t     testing.TB
	ca    *testserver.StepCA
	key   string
	roots []byte
}

func newStep(t testing.TB, ca *testserver.StepCA) *stepFixture {
	t.Helper()
	key, err1 := ca.ProvisionerKey()
	roots, err2 := os.ReadFile(ca.RootsFile())
	if err1 != nil || err2 != nil {
		t.Fatal(err1, err2)
	}
	return &stepFixture{t, ca, string(key), roots}
}

func (f *stepFixture) must(err error) {
	f.t.Helper()
	if err != nil {
		f.t.Fatal(err)
	}
}

func (f *stepFixture) backend(change ...func(made)) *certificate.Backend {
	f.t.Helper()
	s := certificate.Settings{Names: []string{"orders.test", "192.0.2.1"}, Roots: "roots.pem",
		StepCA: &certificate.StepCA{URL: f.ca.URL(), Provisioner: "keyturn", Key: secret.Source{Env: "KEY"}, CA: "ca.pem"}}
	o := certificate.Options{Credential: "orders", Roots: f.roots, Overlap: time.Hour, Options: remote.Options{CA: f.roots, Patience: 10 * time.Second,
		Getenv: func(name string) string { return map[string]string{"KEY": f.key}[name] }}}
	for _, c := range change {
		c(made{&s, &o})
	}
	b, err := certificate.New(s, o)
	f.must(err)
	return b
}

func (f *stepFixture) issue(b *certificate.Backend, number int) (rotation.Version, rotation.Material) {
	f.t.Helper()
	v, err := b.Identify(f.t.Context(), rotation.Version{Credential: "orders", Number: number, State: rotation.Pending}, nil)
	f.must(err)
	v, err = b.Order(f.t.Context(), v)
	f.must(err)
	v, m, err := b.Mint(f.t.Context(), v)
	f.must(err)
	return v, m
}

// TestContractOnStep is what every backend must keep, with step-ca's own API.
func TestContractOnStep(t *testing.T) {
	t.Parallel()
	rotationtest.Contract(t, func(t *testing.T) rotationtest.Setup {
		f := newStep(t, testserver.NewStepCA(t))
		breaks := func(m made) {
			if strings.HasSuffix(t.Name(), "no_answer_is_unknown") {
				m.Timeout = time.Second
			}
		}
		return rotationtest.Setup{Backend: f.backend(breaks), Credential: "orders", Login: certificate.Login, Patience: 10 * time.Second,
			Claims: &rotationtest.Claims{Kind: "Certificates by step-ca", Page: "certificate.md#an-authority-of-your-own-step-ca", Value: "the key ours, the certificate theirs",
				Dead: "its list says to everybody that it is revoked, and every task serves the next one"},
			Break: map[string]func(*testing.T) func(){
				"paused": func(t *testing.T) func() {
					f.must(f.ca.Pause())
					return func() { f.must(f.ca.Continue()) }
				},
			},
		}
	})
}

// TestStepLife is what the authority gets and gives: never a key, the names and the time that were
// asked for, the reason of a revocation.
func TestStepLife(t *testing.T) {
	t.Parallel()
	f := newStep(t, testserver.NewStepCA(t))
	b := f.backend(func(m made) { m.StepCA.TTL = "36h" })
	f.must(b.Preflight(t.Context(), rotation.Credential{}))
	v, m := f.issue(b, 1)
	if r := certificate.Login(t.Context(), b.ProbeSpec(v), m); r.Answer != rotation.Alive {
		t.Errorf("the certificate is %s: %s", r.Answer, r.Reason)
	}
	lives(t, m, 36*time.Hour)
	// One that was asked for by a run that is gone is issued to nobody, and ends nothing.
	asked, err := b.Order(t.Context(), rotation.Version{Credential: "orders", Number: 2})
	f.must(err)
	next := f.backend()
	if _, m, err := next.Mint(t.Context(), asked); err == nil || m != nil {
		t.Error("what another run asked for was issued")
	}
	if st, err := next.Observe(t.Context(), asked); err != nil || st.Status != rotation.Absent {
		t.Errorf("what was asked for and not signed is %+v, %v", st, err)
	}
	f.must(next.End(t.Context(), asked, rotation.ToDiscard))
	for range 2 {
		f.must(next.End(t.Context(), v, rotation.ToRevoke))
	}
	if st, err := next.Observe(t.Context(), v); err != nil || st.Status != rotation.Ended || !strings.Contains(st.Detail, "keyCompromise, by its list") {
		t.Errorf("after its end it is %+v, %v", st, err)
	}
	said, err := os.ReadFile(f.ca.LogFile())
	f.must(err)
	for _, c := range append(canaries(m), strings.Split(f.key, "\n")[1]) {
		if strings.Contains(string(said), c) {
			t.Error("a key stands in the authority's log")
		}
	}
}

// TestStepRefusals is what is refused before anything is asked for, and what the authority refuses.
func TestStepRefusals(t *testing.T) {
	t.Parallel()
	f := newStep(t, testserver.NewStepCA(t))
	silent := newStep(t, testserver.NewSilentStepCA(t))
	look := func(change ...func(made)) error {
		return f.backend(change...).Preflight(t.Context(), rotation.Credential{})
	}
	with := func(key string) func(made) {
		return func(m made) { m.Getenv = func(string) string { return key } }
	}
	encoded := func(curve elliptic.Curve) string {
		key, err := ecdsa.GenerateKey(curve, rand.Reader)
		f.must(err)
		der, err := x509.MarshalPKCS8PrivateKey(key)
		f.must(err)
		return string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}))
	}
	mint := func(change ...func(made)) error {
		b := f.backend(change...)
		v, err := b.Order(t.Context(), rotation.Version{Credential: "orders", Number: 1})
		f.must(err)
		_, m, err := b.Mint(t.Context(), v)
		if m != nil {
			t.Error("a certificate is handed on")
		}
		return err
	}
	answers := func(status int, text string) func(made) {
		s := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { http.Error(w, text, status) }))
		t.Cleanup(s.Close)
		return func(m made) {
			m.StepCA.URL = s.URL
			m.Options.CA = pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: s.Certificate().Raw})
		}
	}
	for name, c := range map[string]struct {
		err   error
		class rotation.Class
		want  string
	}{
		"no key":                 {look(with("")), rotation.Invalid, "holds no value"},
		"no key in PEM form":     {look(with("hunter2")), rotation.Invalid, "no key in PEM form"},
		"another curve":          {look(with(encoded(elliptic.P384()))), rotation.Invalid, "no ECDSA key on P-256"},
		"another key":            {look(with(encoded(elliptic.P256()))), rotation.Refused, `the provisioner "keyturn" of ` + f.ca.URL() + " has another key"},
		"another provisioner":    {look(func(m made) { m.StepCA.Provisioner = "nobody" }), rotation.Refused, `has no JWK provisioner "nobody"`},
		"of another kind":        {look(func(m made) { m.StepCA.Provisioner = "acme" }), rotation.Refused, `has no JWK provisioner "acme"`},
		"too long":               {look(func(m made) { m.StepCA.TTL = "90d" }), rotation.Refused, "lets certificates live for 48h0m0s, and ttl says 90d"},
		"too short":              {look(func(m made) { m.StepCA.TTL = "30m" }), rotation.Refused, "would live for 30m, and the overlap is 1h0m0s"},
		"nobody tells":           {silent.backend().Preflight(t.Context(), rotation.Credential{}), rotation.Refused, "tells nobody what it revoked"},
		"too long, all the same": {mint(func(m made) { m.StepCA.TTL = "90d" }), rotation.Failed, "having a certificate signed: 403"},
		"another root":           {mint(func(m made) { m.Options.Roots = silent.roots }), rotation.Failed, "a client refuses it at"},
		"another server":         {look(answers(404, "no such page")), rotation.Refused, "404: Not Found"},
		"overloaded":             {look(answers(503, "hunter2")), rotation.Unknown, "503: Service Unavailable"},
		"too many requests":      {look(answers(429, "")), rotation.Unknown, "429"},
		"another page":           {look(answers(200, "<html>")), rotation.Unknown, "the answer cannot be read"},
		"nobody there":           {look(func(m made) { m.StepCA.URL = "https://127.0.0.1:1" }), rotation.Unknown, "connection refused"},
		"not trusted":            {look(func(m made) { m.Options.CA = silent.roots }), rotation.Unknown, "reading the provisioners"},
	} {
		if c.err == nil || rotation.ClassOf(c.err) != c.class || !strings.Contains(c.err.Error(), c.want) || name != "no key" && rotation.HintOf(c.err) == "" || strings.Contains(fmt.Sprint(c.err), "hunter2") {
			t.Errorf("%s: %v of class %d, want class %d: %q, with a hint", name, c.err, rotation.ClassOf(c.err), c.class, c.want)
		}
	}
}
