package certificate_test

import (
	"encoding/json"
	"os"
	"path/filepath"
	"reflect"
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

// TestSetIssuing sets the condition as cert-manager's own code does: make lint holds the same
// files against it.
func TestSetIssuing(t *testing.T) {
	files, err := filepath.Glob("testdata/issuing/*.json")
	if err != nil || len(files) < 3 {
		t.Fatalf("there are %d files, %v", len(files), err)
	}
	for _, file := range files {
		b, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		var c struct{ Before, After json.RawMessage }
		if err := json.Unmarshal(b, &c); err != nil {
			t.Fatal(err)
		}
		set, err := certificate.SetIssuing(c.Before, time.Date(2026, 11, 29, 4, 0, 0, 999, time.FixedZone("", 3600)))
		if err != nil {
			t.Fatal(err)
		}
		var got, want any
		if err := json.Unmarshal(set, &got); err != nil {
			t.Fatal(err)
		}
		if err := json.Unmarshal(c.After, &want); err != nil {
			t.Fatal(err)
		}
		if !reflect.DeepEqual(got, want) {
			t.Errorf("%s: it became %s", file, set)
		}
	}
}

const managed = `names: [orders.example.com]
probe: ["tls://orders.example.com:443"]
trigger: cert-manager
cert-manager: {api: "https://kubernetes:6443", token: {from-env: A}, namespace: shop, certificate: orders-tls}
`

func TestManagedSection(t *testing.T) {
	const canary = "hunter2-hunter2"
	with := func(old, new string) string { return strings.Replace(managed, old, new, 1) }
	for name, text := range map[string]string{"least": managed, "more": with("certificate: orders-tls", "certificate: orders.tls, wait: 30s, ca: ca.pem, insecure-tls: [tls-1.2]") + "roots: r.pem\ncrl: http://ca/crl\n",
		"in plain text": with("https://kubernetes:6443", "http://127.0.0.1:8001") + ""} {
		if name == "in plain text" {
			text = strings.Replace(text, "namespace:", "insecure-tls: [plaintext], namespace:", 1)
		}
		s, err := certificate.Section(rotationtest.Decoder(text))
		if err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if s := s.(certificate.Settings); len(s.Fields()) != 0 || s.Gap() == "" || s.Elsewhere() == "" {
			t.Errorf("%s: fields %q, gap %q, elsewhere %q", name, s.Fields(), s.Gap(), s.Elsewhere())
		}
	}
	rotationtest.Refuses(t, certificate.Section, canary, map[string][3]string{
		"another trigger":     {with("trigger: cert-manager", "trigger: "+canary), "trigger", "cert-manager that can be told"},
		"no trigger":          {with("trigger: cert-manager\n", ""), "trigger", "cert-manager that can be told"},
		"nothing named":       {"names: [a.example]\nprobe: [\"tls://a:1\"]\ntrigger: cert-manager\n", "cert-manager", "which Certificate it is"},
		"no probe":            {with("probe: [\"tls://orders.example.com:443\"]\n", ""), "probe", "where the certificate is served"},
		"two issuers":         {managed + "acme: {directory: https://ca/d}\n", "acme", "cert-manager issues the certificate"},
		"a kind of key":       {managed + "key-type: rsa-2048\n", "key-type", "decides that"},
		"adopted from a file": {managed + "adopt: a.pem\n", "adopt", "decides that"},
		"no API":              {with("https://kubernetes:6443", canary), "cert-manager.api", "no URL"},
		"in plain text":       {with("https://kubernetes", "http://kubernetes"), "cert-manager.api", "has no TLS"},
		"a token in it":       {with("https://kubernetes:6443", "https://kubernetes/?token="+canary), "cert-manager.api", "a user, a query"},
		"no token":            {with("token: {from-env: A}, ", ""), "cert-manager.token", "has no place"},
		"two tokens":          {with("{from-env: A}", "{from-env: A, from-file: /a}"), "cert-manager.token", "has two places"},
		"no namespace":        {with("namespace: shop, ", ""), "cert-manager.namespace", "no name of a namespace"},
		"a path for it":       {with("namespace: shop", "namespace: ../"+canary), "cert-manager.namespace", "no name of a namespace"},
		"a bad name":          {with("orders-tls", canary+"/x"), "cert-manager.certificate", "no name of a Certificate"},
		"wait":                {with("orders-tls", "orders-tls, wait: soon"), "cert-manager.wait", "no time from 1s to 1h"},
		"too long a wait":     {with("orders-tls", "orders-tls, wait: 2h"), "cert-manager.wait", "no time from 1s to 1h"},
		"a weakening":         {with("orders-tls", "orders-tls, insecure-tls: [skip]"), "cert-manager.insecure-tls.0", "unknown weakening"},
		"an unknown key":      {with("orders-tls", "orders-tls, context: prod"), "", "context"},
	})
}

// newManaged is the backend of a Certificate that is served twice.
func newManaged(t *testing.T, change ...func(*certificate.Settings, *certificate.Options)) (*certificate.Managed, *testserver.CertManager) {
	t.Helper()
	k := testserver.NewCertManager(t, 2, "orders.test")
	s := certificate.Settings{Names: []string{"orders.test"}, Roots: "roots.pem", Probe: k.Probe(), Trigger: "cert-manager",
		CertManager: &certificate.CertManager{API: k.URL(), CA: "ca.pem", Token: secret.Source{Env: "TOKEN"}, Namespace: k.Namespace, Certificate: k.Name, Wait: "2s"}}
	o := certificate.Options{Credential: "orders", Roots: k.Roots(), Overlap: time.Hour, Options: remote.Options{CA: k.CA(), Timeout: 6 * time.Second, Getenv: func(string) string { return k.Token }}}
	for _, c := range change {
		c(&s, &o)
	}
	m, err := certificate.NewManaged(s, o, false)
	if err != nil {
		t.Fatal(err)
	}
	return m, k
}

// TestManagedClaims writes its line of docs/backends/README.md.
func TestManagedClaims(t *testing.T) {
	m, _ := newManaged(t)
	rotationtest.Claim(t, rotationtest.Setup{Backend: m, Claims: &rotationtest.Claims{Kind: "Certificates by cert-manager", Page: "certificate.md#in-kubernetes-cert-manager",
		Dead: "cert-manager has the next one in its place, every address serves that, and none this one"}})
}

// TestManagedProbe asks what is served, of the version in service and of one before.
func TestManagedProbe(t *testing.T) {
	m, k := newManaged(t)
	first, err := m.Adopt(t.Context(), rotation.Version{Credential: "orders", Number: 1})
	if err != nil {
		t.Fatal(err)
	}
	first.State = rotation.Current
	probe := func(v rotation.Version) rotation.ProbeResult {
		return m.Place().Probe(t.Context(), v, m.ProbeSpec(v), rotation.Placement{})
	}
	want := func(doing string, v rotation.Version, answer rotation.Answer, words string) {
		t.Helper()
		p := probe(v)
		said := p.Reason + "; "
		for _, e := range p.Endpoints {
			said += string(e.Answer) + ": " + e.Reason + "; "
		}
		if p.Answer != answer || !strings.Contains(said, words) {
			t.Errorf("%s: it is %s (%s), want %s (%s)", doing, p.Answer, said, answer, words)
		}
	}
	want("in service", first, rotation.Alive, "")
	k.Behave(func(b *testserver.Behaviour) { b.Holds = true })
	k.Renew()
	want("replaced", first, rotation.Dead, "by itself: the next rotation takes it over")
	first.State = rotation.Previous
	want("replaced, and served", first, rotation.Alive, "still serves it")
	k.Reload(0)
	want("replaced, and served by one", first, rotation.Inconclusive, "still serves it")
	holding, err := m.Place().Observe(t.Context(), first)
	if err != nil || len(holding.Uses) != 1 || !strings.Contains(holding.Uses[0].Hint, "reload it") {
		t.Errorf("it is used by %+v, %v, want one address", holding.Uses, err)
	}
	next, err := m.Adopt(t.Context(), rotation.Version{Credential: "orders", Number: 2, State: rotation.Current})
	if err != nil {
		t.Fatal(err)
	}
	want("half way", next, rotation.Unfit, "serves another certificate")
	k.Reload(1)
	want("served nowhere", first, rotation.Dead, "cert-manager has revision 2 in its place")
	want("in service", next, rotation.Alive, "")
	if got, err := m.Observe(t.Context(), first); err != nil || got.Status != rotation.Absent {
		t.Errorf("of the one before it is said %+v, %v, want absent", got, err)
	}
	if err := m.End(t.Context(), next, rotation.ToRevoke); rotation.ClassOf(err) != rotation.Refused || !strings.Contains(rotation.HintOf(err), "--mode fast") {
		t.Errorf("End of the one in service = %v, want it refused", err)
	}
	if err := m.End(t.Context(), first, rotation.ToRetire); err != nil {
		t.Errorf("End of the one before = %v", err)
	}
	k.Stop(0)
	want("one address is down", first, rotation.Inconclusive, "connection refused")
	k.Behave(func(b *testserver.Behaviour) { b.Down = true })
	want("the API is down", first, rotation.Inconclusive, "503")
	if _, err := m.Observe(t.Context(), first); rotation.ClassOf(err) != rotation.Unknown {
		t.Errorf("Observe without the API = %v, want it unknown", err)
	}
}

// TestManagedToken is refused, and shown to nobody.
func TestManagedToken(t *testing.T) {
	for token, want := range map[string]rotation.Class{"": rotation.Invalid, "two words": rotation.Invalid, "hunter2": rotation.Refused} {
		m, _ := newManaged(t, func(_ *certificate.Settings, o *certificate.Options) { o.Getenv = func(string) string { return token } })
		err := m.Preflight(t.Context(), rotation.Credential{})
		if rotation.ClassOf(err) != want || rotation.HintOf(err) == "" && token != "" || strings.Contains(err.Error(), "hunter2") {
			t.Errorf("with the token %q: %v, want class %v", token, err, want)
		}
	}
	m, _ := newManaged(t, func(s *certificate.Settings, _ *certificate.Options) { s.CertManager.Certificate = "orders-tsl" })
	if err := m.Preflight(t.Context(), rotation.Credential{}); rotation.ClassOf(err) != rotation.Refused || !strings.Contains(err.Error(), `"orders-tsl" not found`) {
		t.Errorf("a Certificate that is not there: %v", err)
	}
	m, _ = newManaged(t, func(_ *certificate.Settings, o *certificate.Options) { o.CA = o.Roots })
	if err := m.Preflight(t.Context(), rotation.Credential{}); rotation.ClassOf(err) != rotation.Unknown || !strings.Contains(err.Error(), "unknown authority") {
		t.Errorf("an API server of another authority: %v", err)
	}
}

// TestManagedRenewal is due before cert-manager would renew, and once it has.
func TestManagedRenewal(t *testing.T) {
	m, k := newManaged(t)
	v, err := m.Adopt(t.Context(), rotation.Version{Credential: "orders", Number: 1, State: rotation.Current})
	if err != nil {
		t.Fatal(err)
	}
	life := 7*24*time.Hour + time.Hour
	at, err := m.RenewAt(t.Context(), v)
	if want := time.Now().Add(5*24*time.Hour - life/20); err != nil || at.Sub(want).Abs() > time.Minute {
		t.Errorf("it is to be renewed at %s, %v, want %s", at, err, want)
	}
	k.Renew()
	if at, err := m.RenewAt(t.Context(), v); err != nil || at.IsZero() || at.After(time.Now()) {
		t.Errorf("one that cert-manager has renewed is to be followed at %s, %v, want at once", at, err)
	}
	next, err := m.Identify(t.Context(), rotation.Version{Credential: "orders", Number: 2, State: rotation.Pending}, []rotation.Version{v})
	if err != nil || next.Public["revision-before"] != "1" {
		t.Errorf("the next one is %+v, %v, want what was issued since revision 1", next, err)
	}
}
