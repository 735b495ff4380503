package cli_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/keyturn/keyturn/internal/testserver"
)

// byScript does what teams do today: a new token, a new secret, an update, and the old ones
// away. It returns the new token.
func (c *consulShop) byScript(b *testing.B, k *stack, old testserver.ConsulToken, n int) (made testserver.ConsulToken) {
	b.Helper()
	description := fmt.Sprintf("by script, %s %d", k.name, n)
	k.byScript(b, fmt.Sprintf(`
token=$("$CONSUL" acl token create -policy-name %[1]s -description '%[2]s' -format json | sed -n 's/.*"SecretID": "\([^"]*\)".*/\1/p')
printf %%s "$token" | docker secret create %[4]s -
docker service update --quiet --secret-rm %[3]s --secret-add source=%[4]s,target=consul_token,mode=0400 %[5]s
"$CONSUL" acl token delete -accessor-id %[6]s
docker secret rm %[3]s
`, k.name, description, k.scripted(n-1), k.scripted(n), k.service, old.AccessorID),
		"CONSUL="+c.dc.Program(), "CONSUL_HTTP_ADDR="+c.dc.URLs()[0], "CONSUL_CACERT="+c.dc.CAFile(), "CONSUL_HTTP_TOKEN="+c.secrets[0])
	found := c.dc.Tokens(b, description)
	if len(found) != 1 {
		b.Fatalf("the script made %d tokens, want 1", len(found))
	}
	return found[0]
}

// BenchmarkConsulToken rotates the token of one service by Keyturn and that of another by a
// script, in turn, three times each: both write to Consul and read from it all the time.
func BenchmarkConsulToken(b *testing.B) {
	for b.Loop() {
		dc := testserver.NewConsul(b, 3)
		ours, theirs := newConsulShop(b, dc), newConsulShop(b, dc)
		k, s := ours.onSwarm(""), theirs.onSwarm("")
		old := theirs.old
		beside(b, k, s, "requests", func(n int) { old = theirs.byScript(b, s, old, n) })
		if tokens := dc.Tokens(b, "keyturn "+k.name+" v"); len(tokens) != 1 || !strings.HasSuffix(tokens[0].Description, " v4") {
			b.Errorf("Consul has %+v, want version 4 alone", tokens)
		}
	}
}
