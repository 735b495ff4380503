package certificate_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/keyturn/keyturn/internal/backend/certificate"
	"github.com/keyturn/keyturn/internal/backend/remote"
	"github.com/keyturn/keyturn/internal/rotation"
	"github.com/keyturn/keyturn/internal/rotation/rotationtest"
	"github.com/keyturn/keyturn/internal/secret"
	"github.com/keyturn/keyturn/internal/testserver"
)

var sharedVault testserver.SharedVault

const tokenVariable = "KEYTURN_VAULT_TOKEN"

// A pkiFixture is an authority in a Vault, and a token that has what the page says.
type pkiFixture struct {
	t     testing.TB
	pki   *testserver.PKI
	name  string // of the credential, the mount and the role
	token string
}

func newPKI(t testing.TB, v *testserver.Vault, role map[string]any) *pkiFixture {
	t.Helper()
	f := &pkiFixture{t: t, name: fmt.Sprintf("pki%d", serial.Add(1))}
	f.pki = v.PKI(t, f.name, role)
	f.token = v.Admin(t, f.name, pkiPolicy(t, f.name))
	return f
}

// pkiPolicy is the token's, as the page has it, for a mount and a role of one name.
func pkiPolicy(t testing.TB, name string) string {
	t.Helper()
	page, err := os.ReadFile("../../../docs/backends/certificate.md")
	if err != nil {
		t.Fatal(err)
	}
	_, text, ok := strings.Cut(string(page), "```hcl\n")
	text, _, end := strings.Cut(text, "```")
	if !ok || !end {
		t.Fatal("the page has no policy")
	}
	return strings.NewReplacer(`"pki/`, `"`+name+"/", "/orders", "/"+name).Replace(text)
}

func (f *pkiFixture) must(err error) {
	f.t.Helper()
	if err != nil {
		f.t.Fatal(err)
	}
}

func (f *pkiFixture) backend(change ...func(made)) *certificate.Backend {
	f.t.Helper()
	s := certificate.Settings{Names: []string{f.name + ".test", "www." + f.name + ".test"}, Roots: "roots.pem",
		Vault: &certificate.Vault{Servers: f.pki.URLs(), Token: secret.Source{Env: tokenVariable}, Mount: f.name, Role: f.name, CA: "ca.pem"}}
	o := certificate.Options{Credential: f.name, Roots: f.pki.Roots(), Overlap: time.Hour, Options: remote.Options{CA: f.pki.CA(), Patience: 20 * time.Second,
		Getenv: func(name string) string { return map[string]string{tokenVariable: f.token}[name] }}}
	for _, c := range change {
		c(made{&s, &o})
	}
	b, err := certificate.New(s, o)
	f.must(err)
	return b
}

// asked is a version that was asked for, and not issued.
func (f *pkiFixture) asked(b *certificate.Backend, number int) rotation.Version {
	f.t.Helper()
	v, err := b.Identify(f.t.Context(), rotation.Version{Credential: f.name, Number: number, State: rotation.Pending}, nil)
	f.must(err)
	v, err = b.Order(f.t.Context(), v)
	f.must(err)
	return v
}

func (f *pkiFixture) issue(b *certificate.Backend, number int) (rotation.Version, rotation.Material) {
	f.t.Helper()
	v, m, err := b.Mint(f.t.Context(), f.asked(b, number))
	f.must(err)
	return v, m
}

// states says of all that was signed whether it is valid, sorted.
func (f *pkiFixture) states() string {
	f.t.Helper()
	serials, err := f.pki.Serials()
	f.must(err)
	var out []string
	for _, s := range serials {
		status, _, err := f.pki.Status(f.t.Context(), s)
		f.must(err)
		out = append(out, status)
	}
	slices.Sort(out)
	return strings.Join(out, " ")
}

// TestContractOnVault is what every backend must keep, with the PKI engine of a Vault.
func TestContractOnVault(t *testing.T) {
	t.Parallel()
	rotationtest.Contract(t, func(t *testing.T) rotationtest.Setup {
		breaks := strings.HasSuffix(t.Name(), "no_answer_is_unknown")
		var server *testserver.Vault
		if breaks {
			server = testserver.NewVault(t, 1)
		} else {
			server = sharedVault.Get(t)
		}
		f := newPKI(t, server, nil)
		s := rotationtest.Setup{Backend: f.backend(func(m made) {
			if breaks {
				m.Patience, m.Timeout = 5*time.Second, time.Second
			}
		}), Credential: f.name, Login: certificate.Login, Patience: 10 * time.Second,
			Claims: &rotationtest.Claims{Kind: "Certificates by Vault's PKI engine", Page: "certificate.md#an-authority-of-your-own-vault", Value: "the key ours, the certificate theirs",
				Dead: "the engine says to everybody that it is revoked, and every task serves the next one"},
			Changes: func(t *testing.T) string { return f.states() },
		}
		if !breaks {
			return s
		}
		repair := func() { f.must(server.Unseal(context.Background(), 0)) }
		s.Break = map[string]func(*testing.T) func(){
			"stopped": func(*testing.T) func() {
				server.Kill(0)
				return func() {
					f.must(server.Start(0))
					repair()
				}
			},
			"paused": func(t *testing.T) func() {
				f.must(server.Pause(0))
				return func() {
					f.must(server.Continue(0))
					repair()
				}
			},
			"sealed": func(t *testing.T) func() {
				server.Seal(t)
				return repair
			},
		}
		return s
	})
}

// TestVaultLife is what the engine gets and gives: never the key, a chain in order, the names and
// the time that were asked for; it is due at two thirds of that.
func TestVaultLife(t *testing.T) {
	t.Parallel()
	server := sharedVault.Get(t)
	f := newPKI(t, server, map[string]any{"allow_ip_sans": true, "allow_wildcard_certificates": true, "use_csr_sans": false})
	long := strings.Repeat("a", 60) + "." + f.name + ".test" // too long for a common name
	b := f.backend(func(m made) {
		m.Names, m.KeyType, m.Vault.TTL = []string{long, "*." + f.name + ".test", "192.0.2.1", "2001:db8::1"}, "rsa-2048", "36h"
	})
	f.must(b.Preflight(t.Context(), rotation.Credential{}))
	v, m := f.issue(b, 1)
	if r := certificate.Login(t.Context(), b.ProbeSpec(v), m); r.Answer != rotation.Alive {
		t.Errorf("the certificate is %s: %s", r.Answer, r.Reason)
	}
	lives(t, m, 36*time.Hour)
	if due := (certificate.Settings{}).DueAt(v); !due.After(time.Now().Add(23*time.Hour)) || !due.Before(time.Now().Add(25*time.Hour)) {
		t.Errorf("it is due at %s, want it in a day", due)
	}
	if strings.Count(string(m["certificate"].Reveal()), "BEGIN CERTIFICATE") != 2 {
		t.Error("the chain is not leaf and intermediate")
	}
	if at, err := b.RenewAt(t.Context(), v); err != nil || !at.IsZero() {
		t.Errorf("RenewAt = %s, %v, want that the engine does not say", at, err)
	}
	f.must(b.End(t.Context(), v, rotation.ToRevoke))
	f.must(b.End(t.Context(), v, rotation.ToRevoke))
	st, err := b.Observe(t.Context(), v)
	if err != nil || st.Status != rotation.Ended || !strings.Contains(st.Detail, "revoked in Vault at ") || !strings.Contains(st.Detail, "revoked: unspecified, by OCSP") {
		t.Errorf("after its end it is %+v, %v", st, err)
	}
	for _, file := range []string{server.AuditFile(), server.LogFile(0)} {
		said, err := os.ReadFile(file)
		f.must(err)
		for _, c := range append(canaries(m), f.token) {
			if strings.Contains(string(said), c) {
				t.Errorf("a secret stands in %s", file)
			}
		}
	}
}

// TestVaultLostAnswer is a certificate that was signed for a run that never heard of it, once or
// twice: it is found by its public key among all others, and revoked.
func TestVaultLostAnswer(t *testing.T) {
	t.Parallel()
	f := newPKI(t, sharedVault.Get(t), nil)
	var lose atomic.Bool
	between := f.pki.Between(t, func(r *http.Request) bool { return lose.Load() && strings.Contains(r.URL.Path, "/sign/") })
	through := func(m made) { m.Vault.Servers = []string{between, f.pki.URLs()[0]} }
	kept, _ := f.issue(f.backend(func(m made) { m.Vault.Servers = []string{"https://127.0.0.1:1", f.pki.URLs()[0]} }), 1) // who is not there did nothing
	b := f.backend(through)
	v := f.asked(b, 2)
	lose.Store(true)
	_, m, err := b.Mint(t.Context(), v)
	if rotation.ClassOf(err) != rotation.Unknown || m != nil || rotation.HintOf(err) == "" {
		t.Fatalf("an answer was lost, and Mint = %v of class %d, want it unknown, with a hint", err, rotation.ClassOf(err))
	}
	if got := f.states(); got != "Valid Valid" {
		t.Fatalf("the certificates are %s, want one that nobody has: it is asked for once", got)
	}
	lose.Store(false)
	if st, err := b.Observe(t.Context(), v); err != nil || st.Status != rotation.Expiring {
		t.Errorf("what was signed is %+v, %v, want it found", st, err)
	}
	next := f.backend() // of the next run
	f.must(next.End(t.Context(), v, rotation.ToDiscard))
	f.must(next.End(t.Context(), v, rotation.ToDiscard))
	if st, err := next.Observe(t.Context(), v); err != nil || st.Status != rotation.Ended {
		t.Errorf("after its end it is %+v, %v", st, err)
	}
	if _, m, err := next.Mint(t.Context(), v); err == nil || m != nil {
		t.Error("what another run asked for was issued")
	}
	if st, err := next.Observe(t.Context(), kept); err != nil || st.Status != rotation.Expiring || f.states() != "Revoked Valid" {
		t.Errorf("the other one is %+v, %v, and all are %s", st, err, f.states())
	}
	// One that comes while the version is ended is not overlooked.
	w := f.asked(b, 3)
	done := make(chan error, 1)
	go func() { done <- b.End(context.Background(), w, rotation.ToDiscard) }()
	time.Sleep(300 * time.Millisecond)
	if _, _, err := b.Mint(t.Context(), w); err != nil {
		t.Fatal(err)
	}
	if err := <-done; rotation.ClassOf(err) != rotation.Unknown {
		t.Errorf("it was signed while it was called off: %v, want that unknown", err)
	}
	f.must(b.End(t.Context(), w, rotation.ToDiscard))
	if got := f.states(); got != "Revoked Revoked Valid" {
		t.Errorf("the certificates are %s, want the first one alone valid", got)
	}
}

// TestVaultNotWhatWasAsked refuses what a role makes of a request, before anybody gets it.
func TestVaultNotWhatWasAsked(t *testing.T) {
	t.Parallel()
	server := sharedVault.Get(t)
	for name, c := range map[string]struct {
		role   map[string]any
		change func(made)
		want   string
		left   string
	}{
		"another root":        {nil, func(m made) { m.Options.Roots = server.CA() }, "a client refuses it at", "Revoked"},
		"no signature":        {map[string]any{"key_usage": "KeyAgreement"}, nil, "it may not be used by servers", "Revoked"},
		"for more":            {map[string]any{"ext_key_usage": "TimeStamping"}, nil, "may be used for more than connections", "Revoked"},
		"a name of others":    {nil, func(m made) { m.Names = []string{"orders.example.com"} }, "not allowed by this role", ""},
		"an unknown role":     {nil, func(m made) { m.Vault.Role = "nobody" }, "permission denied", ""},
		"not the bare domain": {nil, func(m made) { m.Names = []string{"test"} }, "not allowed by this role", ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f := newPKI(t, server, c.role)
			change := func(m made) {
				if c.change != nil {
					c.change(m)
				}
			}
			b := f.backend(change)
			v, err := b.Order(t.Context(), rotation.Version{Credential: f.name, Number: 1})
			f.must(err)
			_, m, err := b.Mint(t.Context(), v)
			if err == nil || m != nil || !strings.Contains(err.Error(), c.want) || rotation.HintOf(err) == "" || rotation.ClassOf(err) == rotation.Unknown {
				t.Errorf("%v of class %d, want %q and no certificate", err, rotation.ClassOf(err), c.want)
			}
			f.must(f.backend().End(t.Context(), v, rotation.ToDiscard))
			if got := f.states(); got != c.left {
				t.Errorf("the certificates are %q, want %q", got, c.left)
			}
		})
	}
}

// TestVaultRefusals is what is refused before anything is asked for.
func TestVaultRefusals(t *testing.T) {
	t.Parallel()
	server := sharedVault.Get(t)
	f := newPKI(t, server, nil)
	look := func(role map[string]any, change ...func(made)) error {
		f.must(f.pki.Role(role))
		return f.backend(change...).Preflight(t.Context(), rotation.Credential{})
	}
	f.must(look(nil))
	weak := server.Admin(t, f.name+"-weak", strings.ReplaceAll(pkiPolicy(t, f.name), f.name+"/revoke", f.name+"/x"))
	with := func(token string) func(made) {
		return func(m made) { m.Getenv = func(string) string { return token } }
	}
	crl := func(disable bool) {
		f.must(server.Call(t.Context(), http.MethodPost, "/v1/"+f.name+"/config/crl", map[string]any{"disable": disable, "ocsp_disable": disable}, nil))
	}
	addresses := func(m made) { m.Names = []string{"192.0.2.1"} }
	for _, c := range []struct {
		name string
		err  error
		want string
	}{
		{"no revocation", look(nil, with(weak)), "lacks update on " + f.name + "/revoke"},
		{"no token", look(nil, with("s.nothing")), "permission denied"},
		{"no role", look(nil, func(m made) { m.Vault.Role = "nobody" }), "lacks read on " + f.name + "/roles/nobody"},
		{"no role, and every right", look(nil, with(server.Token), func(m made) { m.Vault.Role = "nobody" }), `there is no role "nobody"`},
		{"no mount", look(nil, with(server.Token), func(m made) { m.Vault.Mount = "nowhere" }), " at nowhere"},
		{"nothing kept", look(map[string]any{"no_store": true}), "keeps nothing of what it signs"},
		{"leases", look(map[string]any{"generate_lease": true}), "revoked when the token ends"},
		{"another kind of key", look(map[string]any{"key_type": "rsa"}), "signs keys of type rsa with 2048 bits, and the key is ecdsa-p256"},
		{"another curve", look(map[string]any{"key_type": "ec", "key_bits": 384}), "type ec with 384 bits"},
		{"not for servers", look(map[string]any{"server_flag": false}), "signs nothing for servers"},
		{"for programs", look(map[string]any{"code_signing_flag": true}), "more than connections"},
		{"an address", look(map[string]any{"allow_ip_sans": false}, addresses), "signs no IP addresses"},
		{"an address alone", look(nil, addresses), "wants a common name"},
		{"too long", look(nil, func(m made) { m.Vault.TTL = "90d" }), "lets certificates live for 2d, and ttl says 90d"},
		{"too short", look(nil, func(m made) { m.Overlap = 24 * time.Hour }), "would live for 1d, and the overlap is 24h0m0s"},
		{"nobody tells", func() error { crl(true); defer crl(false); return look(nil) }(), "tells nobody what it revoked"},
	} {
		if rotation.ClassOf(c.err) != rotation.Refused || !strings.Contains(fmt.Sprint(c.err), c.want) || rotation.HintOf(c.err) == "" {
			t.Errorf("%s: %v, want a refusal with a hint: %q", c.name, c.err, c.want)
		}
	}
	f.must(errors.Join(look(map[string]any{"key_type": "rsa"}, func(m made) { m.KeyType = "rsa-3072" }), look(map[string]any{"server_flag": false, "ext_key_usage": "ServerAuth"})))
	f.must(look(map[string]any{"require_cn": false}, addresses))
	ordered := rotation.Version{Credential: f.name, Number: 4, Public: map[string]string{"order": "https://ca/order/1"}}
	if err := f.backend().End(t.Context(), ordered, rotation.ToDiscard); rotation.ClassOf(err) != rotation.Refused || !strings.Contains(err.Error(), "ordered from an ACME server") {
		t.Errorf("End of what an ACME server was asked for = %v, want a refusal", err)
	}
	// What another authority issued is not revoked here, and that is said.
	theirs := newPKI(t, server, nil)
	theirs.pki.Tell(t, "127.0.0.1") // what it issues says where it is told
	v, _ := theirs.issue(theirs.backend(), 1)
	if err := f.backend().End(t.Context(), v, rotation.ToRetire); rotation.ClassOf(err) != rotation.Failed || !strings.Contains(rotation.HintOf(err), "where it was issued") {
		t.Errorf("End of another authority's certificate = %v, want it to fail with a hint", err)
	}
	// A list that is written from time to time, and no responder: people hear of it.
	f.must(server.Call(t.Context(), http.MethodPost, "/v1/"+f.name+"/config/crl", map[string]any{"auto_rebuild": true, "ocsp_disable": true}, nil))
	if said, err := f.backend().Warnings(t.Context(), f.name); err != nil || !slices.ContainsFunc(said, func(s string) bool { return strings.Contains(s, "auto_rebuild") }) {
		t.Errorf("Warnings = %q, %v, want one of auto_rebuild", said, err)
	}
}
