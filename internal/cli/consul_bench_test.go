package cli_test

import (
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/keyturn/keyturn/internal/testserver"
)

// byScript does what teams do today: a new token, a new secret, an update, and the old ones
// away. It returns the new token.
func (k *stack) byScript(b *testing.B, c *consulShop, old testserver.ConsulToken, n int) (made testserver.ConsulToken) {
	b.Helper()
	was := k.secret
	if n > 1 {
		was += fmt.Sprintf("_%d", n)
	}
	description := fmt.Sprintf("by script, %s %d", k.name, n+1)
	cmd := exec.CommandContext(b.Context(), "/bin/sh", "-euc", fmt.Sprintf(`
token=$("$CONSUL" acl token create -policy-name %[1]s -description '%[2]s' -format json | sed -n 's/.*"SecretID": "\([^"]*\)".*/\1/p')
printf %%s "$token" | docker secret create %[3]s_%[4]d -
docker service update --quiet --secret-rm %[5]s --secret-add source=%[3]s_%[4]d,target=consul_token,mode=0400 %[6]s
"$CONSUL" acl token delete -accessor-id %[7]s
docker secret rm %[5]s
`, k.name, description, k.secret, n+1, was, k.service, old.AccessorID))
	cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "HOME=" + b.TempDir(), "DOCKER_HOST=" + k.engine.Host(), "CONSUL=" + c.dc.Program(),
		"CONSUL_HTTP_ADDR=" + c.dc.URLs()[0], "CONSUL_CACERT=" + c.dc.CAFile(), "CONSUL_HTTP_TOKEN=" + c.secrets[0]}
	if out, err := cmd.CombinedOutput(); err != nil {
		b.Fatalf("the script: %v\n%s", err, out)
	}
	found := c.dc.Tokens(b, description)
	if len(found) != 1 {
		b.Fatalf("the script made %d tokens, want 1", len(found))
	}
	return found[0]
}

// made returns how many tasks the service ever had.
func (k *stack) made() int {
	k.t.Helper()
	tasks, err := k.engine.Tasks(k.t.Context(), k.service)
	k.must(err)
	return len(tasks)
}

// beside rotates the credential of one service by Keyturn and that of another by a script, in turn,
// three times each, while both use theirs all the time: what they do is called so. It reports what
// each took, and fails if a use of Keyturn's failed.
func beside(b *testing.B, k, s *stack, uses string, byScript func(n int)) {
	b.Helper()
	k.ok("adopt", k.name)
	var keyturn, dead, script []float64
	before := [2]int{k.made(), s.made()}
	for n := 1; n <= 3; n++ {
		began := time.Now()
		for _, phase := range []string{"prepare", "validate", "cutover"} {
			k.ok(phase, k.name)
		}
		keyturn = append(keyturn, time.Since(began).Seconds())
		began = time.Now()
		k.ok("cleanup", "--force", "bench", k.name)
		dead = append(dead, time.Since(began).Seconds())
		began = time.Now()
		byScript(n)
		script = append(script, time.Since(began).Seconds())
	}
	k.settled()
	s.settled()
	time.Sleep(2 * time.Second) // what the last tasks have to say
	ourLoad, theirLoad := k.totals(), s.totals()
	middle := func(times []float64) float64 { return slices.Sorted(slices.Values(times))[1] }
	b.ReportMetric(0, "ns/op") // the whole scene: says nothing
	b.ReportMetric(middle(keyturn), "keyturn-s")
	b.ReportMetric(middle(dead), "keyturn-cleanup-s")
	b.ReportMetric(middle(script), "script-s")
	b.ReportMetric(float64(k.made()-before[0])/6, "keyturn-restarts/task")
	b.ReportMetric(float64(s.made()-before[1])/6, "script-restarts/task")
	b.ReportMetric(float64(ourLoad.Failed), "keyturn-failed")
	b.ReportMetric(float64(theirLoad.Failed), "script-failed")
	fmt.Fprintf(os.Stderr, "Keyturn: %d %s, %d failed %v; script: %d, %d failed %v\n", ourLoad.OK+ourLoad.Failed, uses, ourLoad.Failed, ourLoad.ByCode, theirLoad.OK+theirLoad.Failed, theirLoad.Failed, theirLoad.ByCode)
	if ourLoad.Failed > 0 || ourLoad.OK == 0 {
		b.Errorf("of %d %s %d failed: %v", ourLoad.OK+ourLoad.Failed, uses, ourLoad.Failed, ourLoad.ByCode)
	}
}

// BenchmarkConsulToken rotates the token of one service by Keyturn and that of another by a
// script: both write to Consul and read from it all the time.
func BenchmarkConsulToken(b *testing.B) {
	for b.Loop() {
		dc := testserver.NewConsul(b, 3)
		ours, theirs := newConsulShop(b, dc), newConsulShop(b, dc)
		k, s, old := ours.onSwarm(""), theirs.onSwarm(""), theirs.old
		beside(b, k, s, "requests", func(n int) { old = s.byScript(b, theirs, old, n) })
		if tokens := dc.Tokens(b, "keyturn "+k.name+" v"); len(tokens) != 1 || !strings.HasSuffix(tokens[0].Description, " v4") {
			b.Errorf("Consul has %+v, want version 4 alone", tokens)
		}
	}
}
