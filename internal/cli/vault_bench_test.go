package cli_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/keyturn/keyturn/internal/testserver"
)

// byScript does what teams do today: a new secret-id, a new secret, an update, and the old
// ones away. It returns the accessor of the new one. The command is OpenBao's, which is as
// Vault's own.
func (v *vaultShop) byScript(b *testing.B, k *stack, bao, old string, n int) (accessor string) {
	b.Helper()
	said := k.byScript(b, fmt.Sprintf(`
made=$("$BAO" write -format=json auth/approle/role/%[1]s/secret-id metadata='{"script": "%[2]d"}')
field() { printf %%s "$made" | sed -n "s/.*\"$1\": \"\([^\"]*\)\".*/\1/p"; }
printf %%s "$(field secret_id)" | docker secret create %[4]s -
docker service update --quiet --secret-rm %[3]s --secret-add source=%[4]s,target=secret_id,mode=0400 %[5]s
"$BAO" write auth/approle/role/%[1]s/secret-id-accessor/destroy secret_id_accessor=%[6]s
docker secret rm %[3]s
field secret_id_accessor
`, v.name, n, k.scripted(n-1), k.scripted(n), k.service, old),
		"BAO="+bao, "BAO_ADDR="+v.server.URLs()[0], "BAO_CACERT="+v.server.CAFile(), "BAO_TOKEN="+v.server.Token)
	words := strings.Fields(said)
	return words[len(words)-1]
}

// BenchmarkVaultSecretID rotates the secret-id of one service by Keyturn and that of another by
// a script, in turn, three times each: both log in and read a value all the time. At the end
// it counts the tokens that were made from secret-ids that are dead.
func BenchmarkVaultSecretID(b *testing.B) {
	for b.Loop() {
		bao, err := testserver.FetchOpenBao(b.Context())
		testserver.Require(b, err)
		server := testserver.NewVault(b, 3)
		ours, theirs := newVaultShop(b, server), newVaultShop(b, server)
		k, s := ours.onSwarm(""), theirs.onSwarm("")
		old := theirs.old.Accessor
		beside(b, k, s, "requests", func(n int) { old = theirs.byScript(b, s, bao, old, n) })
		ours.only(4)
		ids, tokens := theirs.marked("script")
		if !slices.Equal(ids, []string{"3"}) {
			b.Errorf("after the script Vault has the secret-ids %q, want that of its third time", ids)
		}
		b.ReportMetric(float64(len(slices.DeleteFunc(tokens, func(from string) bool { return from == "3" }))), "script-tokens-left")
	}
}
