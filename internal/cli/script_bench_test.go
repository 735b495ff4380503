package cli_test

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"testing"
	"time"
)

// byScript runs a script as an administrator's machine would, and returns what it says.
func (k *stack) byScript(b *testing.B, text string, env ...string) string {
	b.Helper()
	cmd := exec.CommandContext(b.Context(), "/bin/sh", "-euc", text)
	cmd.Env = append(env, "PATH="+os.Getenv("PATH"), "HOME="+b.TempDir(), "DOCKER_HOST="+k.engine.Host())
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		b.Fatalf("the script: %v\n%s%s", err, out, stderr.Bytes())
	}
	return string(out)
}

// scripted is the name of the secret that a script made the n-th time; 0: what was there.
func (k *stack) scripted(n int) string {
	if n == 0 {
		return k.secret
	}
	return fmt.Sprintf("%s_%d", k.secret, n)
}

// made returns how many tasks the service ever had.
func (k *stack) made() int {
	k.t.Helper()
	tasks, err := k.engine.Tasks(k.t.Context(), k.service)
	k.must(err)
	return len(tasks)
}

// beside rotates the credential of one stack by Keyturn and that of another by a script,
// in turn, three times each, while the tasks of both use theirs all the time: what they do is called so.
// It reports the times, the restarts, and what failed: for Keyturn nothing may.
func beside(b *testing.B, k, s *stack, uses string, byScript func(n int)) {
	b.Helper()
	k.ok("adopt", k.name)
	var keyturn, dead, script []float64
	timed := func(times *[]float64, do func()) {
		began := time.Now()
		do()
		*times = append(*times, time.Since(began).Seconds())
	}
	before := [2]int{k.made(), s.made()}
	for n := 1; n <= 3; n++ {
		timed(&keyturn, func() {
			for _, phase := range []string{"prepare", "validate", "cutover"} {
				k.ok(phase, k.name)
			}
		})
		time.Sleep(2 * time.Second) // the overlap, and the grace of what was made with the old one
		timed(&dead, func() { k.ok("cleanup", "--force", "bench", k.name) })
		timed(&script, func() { byScript(n) })
	}
	k.settled()
	s.settled()
	time.Sleep(2 * time.Second) // what the last tasks have to say
	ours, theirs := k.totals(), s.totals()
	middle := func(times []float64) float64 { return slices.Sorted(slices.Values(times))[1] }
	b.ReportMetric(0, "ns/op") // the whole scene: says nothing
	b.ReportMetric(middle(keyturn), "keyturn-s")
	b.ReportMetric(middle(dead), "keyturn-cleanup-s")
	b.ReportMetric(middle(script), "script-s")
	b.ReportMetric(float64(k.made()-before[0])/6, "keyturn-restarts/task")
	b.ReportMetric(float64(s.made()-before[1])/6, "script-restarts/task")
	b.ReportMetric(float64(ours.Failed), "keyturn-failed")
	b.ReportMetric(float64(theirs.Failed), "script-failed")
	fmt.Fprintf(os.Stderr, "Keyturn: %d %s, %d failed %v; script: %d, %d failed %v\n", ours.OK+ours.Failed, uses, ours.Failed, ours.ByCode, theirs.OK+theirs.Failed, theirs.Failed, theirs.ByCode)
	if ours.Failed > 0 || ours.OK == 0 {
		b.Errorf("of %d %s %d failed: %v", ours.OK+ours.Failed, uses, ours.Failed, ours.ByCode)
	}
}
