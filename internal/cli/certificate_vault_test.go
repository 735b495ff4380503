package cli_test

import (
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/keyturn/keyturn/internal/backend/certificate"
	"github.com/keyturn/keyturn/internal/backend/remote"
	"github.com/keyturn/keyturn/internal/secret"
	"github.com/keyturn/keyturn/internal/testserver"
)

// newVaultCertificateShop makes an authority in a Vault, a token that has what the page says, and
// has a certificate signed by hand. Tell is the address where it is told what was revoked; "": the
// certificates do not say where.
func newVaultCertificateShop(t testing.TB, server *testserver.Vault, tell string) *certificateShop {
	t.Helper()
	mount := fmt.Sprintf("pki%d", serial.Add(1))
	p := server.PKI(t, mount, nil)
	if tell != "" {
		p.Tell(t, tell)
	}
	c := certificateShopOf(t, p)
	c.logs = append(c.logs, server.AuditFile())
	page, err := os.ReadFile("../../docs/backends/certificate.md")
	c.must(err)
	_, policy, _ := strings.Cut(string(page), "```hcl\n")
	policy, _, _ = strings.Cut(policy, "```")
	token := server.Admin(t, mount, strings.NewReplacer(`"pki/`, `"`+mount+"/", "/orders", "/"+mount).Replace(policy))
	c.secrets = append(c.secrets, token)
	c.env = append(os.Environ(), "KEYTURN_VAULT_TOKEN="+token, "CI=")
	c.byHand(certificate.Settings{Vault: &certificate.Vault{Servers: server.URLs(), CA: "ca", Token: secret.Source{Env: "TOKEN"}, Mount: mount, Role: mount}},
		remote.Options{CA: server.CA(), Dial: server.Dial(), Getenv: func(string) string { return token }},
		fmt.Sprintf(`vault: {servers: ["%s"], ca: %s, token: {from-env: KEYTURN_VAULT_TOKEN}, mount: %s, role: %s, ttl: 6h}`, strings.Join(server.URLs(), `", "`), server.CAFile(), mount, mount))
	return c
}

// TestVaultCertificateOnSwarm rotates a certificate that a Vault signs, as [TestCertificateOnSwarm].
func TestVaultCertificateOnSwarm(t *testing.T) {
	journey(t)
	t.Parallel()
	c := newVaultCertificateShop(t, servers.vault.Get(t), stackEngine(t).GatewayIP())
	k := c.onSwarm()
	k.ok("doctor")
	k.ok("adopt", k.name)
	t.Log(k.ok("plan", k.name))
	for version := 2; version <= 3; version++ {
		k.ok("-v", "rotate", k.name)
		time.Sleep(time.Second) // the overlap
		k.ok("-v", "cleanup", k.name)
		c.doneWith(k, version)
	}
	states := strings.Fields(c.states(c.issued()))
	if slices.Sort(states); strings.Join(states, " ") != "Revoked/0 Revoked/0 Valid" {
		t.Errorf("at the end the certificates are %s, want one valid", states)
	}
	k.noneFailed()
	k.ok("check")
}

// TestCertificateThroughSwarm rotates a certificate where only the overlay network reaches the Vault that
// signs it, killed in the middle: Keyturn asks through its relay, and the probes ask where they
// run. No handshake fails, and no relay is left.
func TestCertificateThroughSwarm(t *testing.T) {
	journey(t)
	t.Parallel()
	o, host := newOverlay(t)
	c := newVaultCertificateShop(t, testserver.NewVaultIn(t, o.netns, host), "")
	c.network, c.more = o.network, "    through: swarm\n"
	k := c.onSwarm()
	k.ok("adopt", k.name)
	k.ok("plan", k.name)
	k.dieIn("after effect: prepare mint")
	k.ok("rotate", "--wait", k.name)
	c.doneWith(k, k.status().Current)
	states := strings.Fields(c.states(c.issued()))
	if slices.Sort(states); strings.Join(states, " ") != "Revoked/0 Revoked/0 Valid" {
		t.Errorf("at the end the certificates are %s, want one valid, and one revoked that nobody got", states)
	}
	k.noneFailed()
	k.noRelay()
}

// TestCrashVaultCertificate is [TestCrashCertificate] with a Vault, which knows no orders: what nobody
// got is found by its public key.
func TestCrashVaultCertificate(t *testing.T) {
	t.Parallel()
	server := servers.vault.Get(t)
	everyCrash(t, oneOfSixteen, func(t *testing.T, at int) result {
		if at > 0 {
			t.Parallel()
		}
		return newVaultCertificateShop(t, server, "").crashed(at, false)
	})
}

// TestVaultCertificateOutage rotates while the Vault is sealed in each phase: services keep the
// certificate that works, it is said what is wrong, and it goes on when run again.
func TestVaultCertificateOutage(t *testing.T) {
	longRow(t)
	t.Parallel()
	server := testserver.NewVault(t, 1)
	c := newVaultCertificateShop(t, server, "")
	stop := c.asks(c.inDirectory())
	c.ok("adopt", c.name)
	for _, phase := range []string{"prepare", "validate", "cutover", "cleanup"} {
		server.Seal(t)
		time.Sleep(time.Second) // of cleanup: the overlap
		if r := c.run(phase, c.name); !slices.Contains([]int{1, 3, 4}, r.code) || !strings.Contains(r.stderr, "hint: ") {
			t.Errorf("%s while Vault is sealed: exit %d, want it to stop, with a hint\n%s%s", phase, r.code, r.stdout, r.stderr)
		}
		c.must(server.Unseal(t.Context(), 0))
		c.goesOn(phase)
	}
	if tried, failures := stop(); tried == 0 || len(failures) > 0 {
		t.Errorf("of %d handshakes failed: %q", tried, failures)
	}
	p := c.status()
	c.versions(p.Current)
	if got := c.states(c.issued()); strings.Count(got, "Valid") != 1 {
		t.Errorf("the certificates are %s, want one valid", got)
	}
}
