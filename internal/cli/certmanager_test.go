package cli_test

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/keyturn/keyturn/internal/cli/undertest/hooks"
	"github.com/keyturn/keyturn/internal/testserver"
)

// A managedShop is a certificate that cert-manager keeps, and two servers that serve it.
type managedShop struct {
	*shop
	manager *testserver.CertManager
}

// newManagedShop makes one. No target has it, so the configuration names none.
func newManagedShop(t *testing.T) *managedShop {
	t.Helper()
	dir := t.TempDir()
	s := &managedShop{manager: testserver.NewCertManager(t, 2, "orders.test"), shop: &shop{t: t, name: "orders-tls", config: filepath.Join(dir, "keyturn.yml"), journal: filepath.Join(dir, "state", "journal.jsonl")}}
	for name, content := range map[string][]byte{"ca.pem": s.manager.CA(), "roots.pem": s.manager.Roots()} {
		s.must(os.WriteFile(filepath.Join(dir, name), content, 0o644))
	}
	s.must(os.WriteFile(s.config, []byte(fmt.Sprintf(`version: 1
journal: file:%[1]s
credentials:
  orders-tls:
    certificate:
      names: [orders.test]
      roots: %[2]s/roots.pem
      probe: ["%[3]s"]
      trigger: cert-manager
      cert-manager: {api: "%[4]s", ca: %[2]s/ca.pem, token: {from-env: KUBE_TOKEN}, namespace: shop, certificate: orders-tls, wait: 2s}
    accept-gap: true
    minimum-age: 0s
    overlap: 1s
`, s.journal, dir, strings.Join(s.manager.Probe(), `", "`), s.manager.URL())), 0o600))
	s.env = append(os.Environ(), "CI=", "KUBE_TOKEN="+s.manager.Token)
	s.secrets = []string{s.manager.Token}
	return s
}

// done checks that a version is in service that has a revision, and that none of what
// must not leave Kubernetes stands on the record.
func (s *managedShop) done(current, revision int) {
	s.t.Helper()
	if p := s.status(); p.Current != current || p.Pending != 0 || p.Previous != 0 || p.Queue != 0 {
		s.t.Errorf("status is %+v, want only version %d", p, current)
	}
	if got := s.manager.Revision(); got != revision {
		s.t.Errorf("cert-manager has revision %d, want %d", got, revision)
	}
	s.ok("audit", "verify")
	b, err := os.ReadFile(s.journal)
	s.must(err)
	s.clean(string(b))
	for _, key := range s.manager.Keys() {
		for line := range strings.Lines(string(key)) { // the last one is of the public key
			if len(line) > 64 && strings.Contains(string(b), strings.TrimSpace(line)) {
				s.t.Error("a private key stands in the journal")
			}
		}
	}
}

// load makes verified connections to both servers all the time.
func (s *managedShop) load() (stop func() (tried int, failures []string)) {
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(s.manager.Roots())
	config := &tls.Config{RootCAs: roots, ServerName: "orders.test"}
	return again(20*time.Millisecond, func() (bool, error) {
		for _, p := range s.manager.Probe() {
			conn, err := tls.Dial("tcp", strings.TrimPrefix(p, "tls://"), config)
			if err != nil {
				return true, err
			}
			_ = conn.Close()
		}
		return true, nil
	})
}

// TestCertManager rotates twice while clients connect.
func TestCertManager(t *testing.T) {
	t.Parallel()
	s := newManagedShop(t)
	s.ok("adopt", s.name)
	s.manager.Calls()
	plan := s.ok("plan", s.name)
	for _, words := range []string{"cert-manager issues shop/orders-tls again", "no way back", "cert-manager revokes nothing"} {
		if !strings.Contains(plan, words) {
			t.Errorf("the plan does not say %q:\n%s", words, plan)
		}
	}
	for _, c := range s.manager.Calls() {
		if c.Method != "GET" && !strings.HasSuffix(c.Path, "selfsubjectaccessreviews") {
			t.Errorf("a plan asks for %s %s", c.Method, c.Path)
		}
	}
	s.ok("prepare", s.name)
	if back := s.run("rollback", "--dry-run", "--reason", "look", s.name).stdout; !strings.Contains(back, "once cert-manager has issued there is no way back") || strings.Contains(back, "remove") {
		t.Errorf("the plan of a rollback is\n%s", back)
	}
	s.ok("rollback", "--reason", "a drill", s.name)
	stop := s.load()
	for revision := 2; revision <= 3; revision++ {
		s.manager.Behave(func(b *testserver.Behaviour) { b.Takes = 300 * time.Millisecond })
		s.ok("rotate", "--wait", s.name)
		s.done(revision+1, revision) // version 2 was given up
	}
	if tried, failures := stop(); tried == 0 || len(failures) > 0 {
		t.Errorf("of %d connections failed: %q", tried, failures)
	}
	if got := s.manager.Triggered(); got != 2 {
		t.Errorf("cert-manager was told %d times, want 2", got)
	}
	s.ok("check", s.name)
	s.ok("doctor", s.name)
	b, err := os.ReadFile(s.journal)
	s.must(err)
	for _, words := range []string{`"served":`, `"revision":3`, `"fingerprint":"`, `"shown_ms":`, `"code":"superseded"`} {
		if !strings.Contains(string(b), words) {
			t.Errorf("the journal lacks %s", words)
		}
	}
	s.fails(3, []string{"no rotation"}, "rollback", "--reason", "too late", s.name)
}

// TestCertManagerRevoke has a new one issued, also where cert-manager has renewed by itself: that
// key may be known, too.
func TestCertManagerRevoke(t *testing.T) {
	t.Parallel()
	s := newManagedShop(t)
	s.ok("adopt", s.name)
	s.manager.Renew()
	s.ok("revoke", "--mode", "fast", "--reason", "the node was stolen", s.name)
	s.done(2, 3)
	r := s.run("revoke", "--mode", "immediate", "--reason", "it was stolen again", s.name)
	if want := "cert-manager revokes none"; !strings.Contains(r.stderr, want) || r.code == 0 {
		t.Errorf("exit %d, and it does not say %q:\n%s%s", r.code, want, r.stdout, r.stderr)
	}
	s.done(3, 4)
}

// TestCertManagerCrash kills keyturn with -9 around every record and effect.
func TestCertManagerCrash(t *testing.T) {
	t.Parallel()
	everyCrash(t, oneOfSixteen, func(t *testing.T, at int) result {
		s := newManagedShop(t)
		s.ok("adopt", s.name)
		stop := s.load()
		r := s.runWith([]string{fmt.Sprintf("%s=%d", hooks.CrashAt, at)}, "rotate", "--wait", s.name)
		if want := map[bool]int{true: 0, false: -1}[at == 0]; r.code != want {
			t.Fatalf("exit %d, want %d\n%s%s", r.code, want, r.stdout, r.stderr)
		}
		s.goOn()
		if tried, failures := stop(); tried == 0 || len(failures) > 0 {
			t.Errorf("of %d connections failed: %q", tried, failures)
		}
		s.done(s.status().Current, 2)
		if got := s.manager.Triggered(); got != 1 {
			t.Errorf("cert-manager was told %d times, want once", got)
		}
		return r
	})
}

// TestCertManagerFaults goes wrong in every way, and then goes on.
func TestCertManagerFaults(t *testing.T) {
	t.Parallel()
	behave := func(change func(*testserver.Behaviour)) func(*managedShop) {
		return func(s *managedShop) { s.manager.Behave(change) }
	}
	forbid := func(verb, resource string) func(*managedShop) {
		return behave(func(b *testserver.Behaviour) { b.Forbidden = map[string]string{verb: resource} })
	}
	well := behave(func(b *testserver.Behaviour) { *b = testserver.Behaviour{} })
	renewed := func(s *managedShop) {
		well(s)
		s.manager.Renew()
	}
	spec := func(key string, value any) func(*managedShop) {
		return func(s *managedShop) { s.manager.Edit(key, value) }
	}
	for name, c := range map[string]struct {
		at       string // before this phase
		breaks   func(*managedShop)
		code     int // 0: nothing is in its way
		words    []string
		mend     func(*managedShop)
		revision int // in the end
		told     int // how often cert-manager is told to issue
	}{
		"may not read":          {"prepare", forbid("get", "certificates"), 3, []string{"cannot get resource", "get on certificates, update on certificates/status, list on certificaterequests"}, well, 2, 1},
		"may not list":          {"prepare", forbid("list", "certificaterequests"), 3, []string{"cannot list resource", "list on certificaterequests"}, well, 2, 1},
		"may not update":        {"prepare", forbid("update", "certificates/status"), 3, []string{"may not update the status of Certificate shop/orders-tls", "update on certificates/status"}, well, 2, 1},
		"may update no more":    {"cutover", forbid("update", "certificates/status"), 3, []string{"update on certificates/status"}, well, 2, 1},
		"no API":                {"prepare", behave(func(b *testserver.Behaviour) { b.Down = true }), 4, []string{"503", "currently unable"}, well, 2, 1},
		"no API at the cutover": {"cutover", behave(func(b *testserver.Behaviour) { b.Down = true }), 4, []string{"503"}, well, 2, 1},
		"the answer is lost":    {"cutover", behave(func(b *testserver.Behaviour) { b.Loses = true }), 4, []string{"telling cert-manager to issue shop/orders-tls"}, well, 2, 1},
		"others are faster":     {"cutover", behave(func(b *testserver.Behaviour) { b.Rivals = 3 }), 0, nil, nil, 2, 1},
		"others never stop":     {"cutover", behave(func(b *testserver.Behaviour) { b.Rivals = 100 }), 4, []string{"409", "something else writes to it"}, well, 2, 1},
		"it fails": {"cutover", behave(func(b *testserver.Behaviour) { b.Fails = "the ACME account is gone" }), 1,
			[]string{"rolled back", "Failed: ", "the ACME account is gone", "services keep the certificate that they have"}, well, 2, 2},
		"it takes for ever": {"cutover", behave(func(b *testserver.Behaviour) { b.Takes = -1 }), 4, []string{"has not issued after 2s: ManuallyTriggered"},
			func(s *managedShop) { well(s); s.manager.Finish() }, 2, 1},
		"it is not ready": {"cutover", behave(func(b *testserver.Behaviour) { b.NotReady = true }), 4, []string{"revision 2 of Certificate shop/orders-tls is not ready", "SecretMismatch"}, renewed, 3, 1},
		"wrong names": {"cutover", behave(func(b *testserver.Behaviour) { b.Names = []string{"orders.test", "evil.test"} }), 4,
			[]string{"not as declared: it is for evil.test, orders.test, and not for orders.test"}, renewed, 3, 1},
		"the same key":          {"cutover", behave(func(b *testserver.Behaviour) { b.SameKey = true }), 4, []string{"its key is that of version 1"}, renewed, 3, 1},
		"nothing says which":    {"prepare", behave(func(b *testserver.Behaviour) { b.Forgets = true }), 3, []string{"no CertificateRequest is left of revision 1"}, well, 2, 1},
		"a server is down":      {"validate", func(s *managedShop) { s.manager.Stop(1) }, 4, []string{"revision 1, which cert-manager has issued, is not seen to be served", "connection refused"}, func(s *managedShop) { s.manager.Start(1) }, 2, 1},
		"servers do not reload": {"cutover", behave(func(b *testserver.Behaviour) { b.Holds = true }), 4, []string{"revision 2 in place, and not every address is seen to serve it", "reload it"}, well, 2, 1},
		"it is under way": {"cutover", func(s *managedShop) {
			behave(func(b *testserver.Behaviour) { b.Takes = time.Second })(s)
			s.manager.Begin()
		}, 0, nil, nil, 2, 0},
		"it renews by itself":    {"cutover", func(s *managedShop) { s.manager.Renew() }, 0, nil, nil, 2, 0},
		"it renewed by itself":   {"prepare", func(s *managedShop) { s.manager.Renew() }, 0, nil, nil, 2, 0},
		"it was made again":      {"cutover", func(s *managedShop) { s.manager.Make("orders.test"); s.manager.Renew() }, 1, []string{"was deleted and made again"}, well, 2, 1},
		"the key would stay":     {"prepare", spec("privateKey", nil), 3, []string{"spec.privateKey.rotationPolicy: Always"}, spec("privateKey", map[string]any{"rotationPolicy": "Always"}), 2, 1},
		"other names":            {"prepare", spec("dnsNames", []any{"other.test"}), 3, []string{"is for other.test, and not for orders.test"}, spec("dnsNames", []any{"orders.test"}), 2, 1},
		"an authority":           {"prepare", spec("isCA", true), 3, []string{"is of an authority"}, spec("isCA", false), 2, 1},
		"another common name":    {"prepare", spec("commonName", "x.test"), 3, []string{"common name"}, spec("commonName", ""), 2, 1},
		"a server goes on in it": {"cleanup", func(s *managedShop) { s.manager.GoBack(1) }, 3, []string{"services that still use version 1: address 127.0.0.1", "has not read the Secret again"}, well, 2, 1},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newManagedShop(t)
			s.ok("adopt", s.name)
			broke := false
			for _, phase := range []string{"prepare", "validate", "cutover", "cleanup"} {
				if phase == "cleanup" {
					time.Sleep(1100 * time.Millisecond) // the overlap
				}
				if phase == c.at {
					c.breaks(s)
				}
				r := s.run(phase, s.name)
				if r.code == 0 {
					continue
				}
				if phase != c.at || r.code != c.code {
					t.Fatalf("keyturn %s: exit %d, want %d at %s\n%s%s", phase, r.code, c.code, c.at, r.stdout, r.stderr)
				}
				for _, w := range c.words {
					if !strings.Contains(r.stdout+r.stderr, w) {
						t.Errorf("keyturn %s does not say %q:\n%s%s", phase, w, r.stdout, r.stderr)
					}
				}
				c.mend(s)
				s.goOn()
				broke = true
				break
			}
			if broke != (c.code != 0) {
				t.Errorf("it went wrong: %v, want exit %d", broke, c.code)
			}
			s.done(s.status().Current, c.revision)
			if got := s.manager.Triggered(); got != c.told {
				t.Errorf("cert-manager was told %d times, want %d", got, c.told)
			}
		})
	}
}
