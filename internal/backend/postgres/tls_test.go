package postgres_test

import (
	"context"
	"os"
	"os/exec"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/keyturn/keyturn/internal/backend/postgres"
	"github.com/keyturn/keyturn/internal/rotation"
	"github.com/keyturn/keyturn/internal/testserver"
)

// TestTLSIsVerified shows what the connection demands unless it is weakened by
// name, and that a name weakens nothing else.
func TestTLSIsVerified(t *testing.T) {
	server := testserver.NewPostgres(t, testserver.PostgresOptions{})
	f := newFixture(t, server)
	f.setup()
	v, m := f.prepared(f.backend(), 2)
	other, err := testserver.NewAuthority()
	if err != nil {
		t.Fatal(err)
	}
	foreign, _, err := other.Issue(testserver.Certificate{})
	if err != nil {
		t.Fatal(err)
	}
	own := f.options.CA
	ours := testserver.Certificate{Names: []string{"127.0.0.1"}}
	elsewhere := testserver.Certificate{Names: []string{"elsewhere.example"}}
	old := testserver.Certificate{Names: []string{"127.0.0.1"}, NotAfter: time.Now().Add(-time.Hour)}
	for _, tt := range []struct {
		name   string
		shown  testserver.Certificate
		weaker []string
		ca     []byte
		want   rotation.Answer
		reason string
	}{
		{"verified", ours, nil, own, rotation.Alive, ""},
		{"another authority", ours, nil, foreign, rotation.Inconclusive, "certificate"},
		{"the system's authorities", ours, nil, nil, rotation.Inconclusive, "certificate"},
		{"another authority, no-verify", ours, []string{"no-verify"}, foreign, rotation.Alive, ""},
		{"another authority, no-hostname", ours, []string{"no-hostname"}, foreign, rotation.Inconclusive, "certificate"},
		{"another authority, tls-1.2", ours, []string{"tls-1.2"}, foreign, rotation.Inconclusive, "certificate"},
		{"plaintext to a server that wants TLS", ours, []string{"plaintext"}, own, rotation.Unfit, "no encryption"},
		{"another name", elsewhere, nil, own, rotation.Inconclusive, "127.0.0.1"},
		{"another name, no-hostname", elsewhere, []string{"no-hostname"}, own, rotation.Alive, ""},
		{"another name, tls-1.2", elsewhere, []string{"tls-1.2"}, own, rotation.Inconclusive, "127.0.0.1"},
		{"expired", old, nil, own, rotation.Inconclusive, "expired"},
		{"expired, no-hostname", old, []string{"no-hostname"}, own, rotation.Inconclusive, "expired"},
	} {
		f.must(server.SetCertificate(tt.shown))
		f.settings.InsecureTLS, f.options.CA = tt.weaker, tt.ca
		if r := f.probe(f.backend(), v, m); r.Answer != tt.want || !strings.Contains(r.Reason, tt.reason) {
			t.Errorf("%s: Login = %q (%s), want %q (…%s…)", tt.name, r.Answer, r.Reason, tt.want, tt.reason)
		}
	}
	f.must(server.SetCertificate(ours))
	own64 := "sha256/" + strings.Repeat("A", 43) + "="
	f.settings.InsecureTLS, f.options.CA, f.settings.Pins = nil, own, postgres.Pins{Current: own64}
	r := f.probe(f.backend(), v, m)
	saw := regexp.MustCompile(`sha256/[A-Za-z0-9+/]{43}=`).FindString(r.Reason)
	if r.Answer != rotation.Inconclusive || saw == "" || saw == own64 {
		t.Errorf("another key than the pinned one: Login = %q (%s), want unknown, and the key", r.Answer, r.Reason)
	}
	if _, err := f.backend().Identify(context.Background(), version(3), nil); rotation.ClassOf(err) != rotation.Unknown ||
		!strings.Contains(err.Error(), saw) || !strings.Contains(rotation.HintOf(err), "write it under pins as next") {
		t.Errorf("another key than the pinned one: Identify = %v (hint %q)", err, rotation.HintOf(err))
	}
	page, err := os.ReadFile("../../../docs/backends/postgres.md")
	f.must(err)
	_, command, _ := strings.Cut(string(page), "```bash\nopenssl ")
	command, _, _ = strings.Cut(command, "\n```")
	cmd := exec.Command("bash", "-o", "pipefail", "-c", "openssl "+command)
	cmd.Dir = server.Dir()
	out, err := cmd.Output()
	if err != nil || "sha256/"+strings.TrimSpace(string(out)) != saw {
		t.Errorf("the command of the page says %q (%v), the server's key is %s", out, err, saw)
	}
	for _, pins := range []postgres.Pins{{Current: saw}, {Current: own64, Next: saw}} {
		f.settings.Pins = pins
		if r := f.probe(f.backend(), v, m); r.Answer != rotation.Alive {
			t.Errorf("with the pins %+v: Login = %q (%s), want alive", pins, r.Answer, r.Reason)
		}
		f.settings.InsecureTLS, f.options.CA = []string{"no-verify"}, foreign
		if r := f.probe(f.backend(), v, m); r.Answer != rotation.Alive {
			t.Errorf("with the pins %+v and no-verify: Login = %q (%s), want alive", pins, r.Answer, r.Reason)
		}
		f.settings.InsecureTLS, f.options.CA = nil, foreign
		if r := f.probe(f.backend(), v, m); r.Answer != rotation.Inconclusive || !strings.Contains(r.Reason, "certificate") {
			t.Errorf("with a pin and another authority: Login = %q (%s), want unknown", r.Answer, r.Reason)
		}
		f.options.CA = own
	}
	f.must(server.SetCertificate(old))
	f.settings.InsecureTLS, f.options.CA, f.settings.Pins = nil, own, postgres.Pins{}
	_, err = f.backend().Identify(context.Background(), version(3), nil)
	if rotation.ClassOf(err) != rotation.Unknown || !strings.Contains(err.Error(), "expired") {
		t.Errorf("expired certificate: Identify = %v, want unknown", err)
	}
}

// TestTLS12: a server that speaks nothing newer is refused unless that is
// accepted by name.
func TestTLS12(t *testing.T) {
	f := newFixture(t, testserver.NewPostgres(t, testserver.PostgresOptions{Settings: map[string]string{
		"ssl_min_protocol_version": "TLSv1.2", "ssl_max_protocol_version": "TLSv1.2"}}))
	f.setup()
	ctx := context.Background()
	strict := f.backend()
	_, err := strict.Identify(ctx, version(2), nil)
	if rotation.ClassOf(err) != rotation.Unknown || !strings.Contains(err.Error(), "protocol version") || !strings.Contains(rotation.HintOf(err), "insecure-tls: [tls-1.2]") {
		t.Errorf("Identify = %v (hint %q), want TLS 1.2 refused, with a hint", err, rotation.HintOf(err))
	}
	f.settings.InsecureTLS = []string{"tls-1.2"}
	b := f.backend()
	v, m := f.prepared(b, 2)
	if r := f.probe(b, v, m); r.Answer != rotation.Alive {
		t.Errorf("with tls-1.2 Login = %q (%s), want alive", r.Answer, r.Reason)
	}
	if r := postgres.Login(ctx, strict.ProbeSpec(v), m); r.Answer != rotation.Inconclusive || !strings.Contains(r.Reason, "protocol version") {
		t.Errorf("Login = %q (%s), want unknown", r.Answer, r.Reason)
	}
}
