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
func newVaultCertificateShop(t *testing.T, server *testserver.Vault, tell string) *certificateShop {
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
	c.env = append(os.Environ(), asProgram+"=1", "KEYTURN_VAULT_TOKEN="+token, "CI=")
	c.byHand(certificate.Settings{Vault: &certificate.Vault{Servers: server.URLs(), CA: "ca", Token: secret.Source{Env: "TOKEN"}, Mount: mount, Role: mount}},
		remote.Options{CA: server.CA(), Getenv: func(string) string { return token }},
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

// TestCrashVaultCertificate is [TestCrashCertificate] with a Vault, which knows no orders: what nobody
// got is found by its public key.
func TestCrashVaultCertificate(t *testing.T) {
	t.Parallel()
	server := servers.vault.Get(t)
	everyCrash(t, oneOfEight, func(t *testing.T, at int) result {
		if at > 0 {
			t.Parallel()
		}
		return newVaultCertificateShop(t, server, "").crashed(at)
	})
}
