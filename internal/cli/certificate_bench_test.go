package cli_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/keyturn/keyturn/internal/rotation"
	"github.com/keyturn/keyturn/internal/testserver"
)

// byScript does what teams do today: a new certificate by an ACME client, which is the same as
// Keyturn's, new secrets, one update, and the old ones away.
func (c *certificateShop) byScript(b *testing.B, k *stack, order string, n int) {
	b.Helper()
	was := ""
	if n > 1 {
		was = fmt.Sprintf("_%d", n)
	}
	v, err := c.hand.Order(b.Context(), rotation.Version{Credential: c.name, Number: n + 1})
	c.must(err)
	_, m, err := c.hand.Mint(b.Context(), v)
	c.must(err)
	dir := b.TempDir()
	for _, field := range []string{"certificate", "key"} {
		c.must(os.WriteFile(filepath.Join(dir, field), m[field].Reveal(), 0o600))
	}
	k.byScript(b, fmt.Sprintf(`
for field in certificate key; do docker secret create %[1]s_${field}_%[2]d "$FIELDS/$field"; done
docker service update --quiet --update-order %[5]s --secret-rm %[1]s_certificate%[3]s --secret-rm %[1]s_key%[3]s \
	--secret-add source=%[1]s_certificate_%[2]d,target=certificate.pem,mode=0400 --secret-add source=%[1]s_key_%[2]d,target=key.pem,mode=0400 %[4]s
docker secret rm %[1]s_certificate%[3]s %[1]s_key%[3]s
`, k.name, n+1, was, k.service, order), "FIELDS="+dir)
}

// BenchmarkCertificate rotates the certificate of one service by Keyturn and that of another by a
// script, by Keyturn's order of tasks and by Docker's: the tasks of both shake hands with each other
// all the time.
func BenchmarkCertificate(b *testing.B) {
	for _, order := range []string{"start-first", "stop-first"} {
		b.Run(order, func(b *testing.B) { certificateBeside(b, order) })
	}
}

func certificateBeside(b *testing.B, order string) {
	for b.Loop() {
		pebble := testserver.NewPebble(b, testserver.PebbleOptions{Status: stackEngine(b).GatewayIP()})
		ours, theirs := newCertificateShop(b, pebble), newCertificateShop(b, pebble)
		k, s := ours.onSwarm(), theirs.onSwarm()
		beside(b, k, s, "handshakes", func(n int) { theirs.byScript(b, s, order, n) })
		// Of Keyturn the last one alone is valid, of the script all four.
		if got := strings.Fields(ours.states(ours.issued())); strings.Count(strings.Join(got, " "), "Valid") != 5 || len(got) != 8 {
			b.Errorf("the certificates are %s, want five of eight to be valid", got)
		}
	}
}
