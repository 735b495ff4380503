package scenario_test

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/keyturn/keyturn/internal/scenario"
	"github.com/keyturn/keyturn/internal/testserver"
)

// ways are the mounts of Keyturn, and the update settings that it and the script
// share: one task at a time, Docker's own monitor. The promise on time is for switch:
// dual replaces every task twice.
var ways = []struct {
	mounts         string
	monitor, delay time.Duration
	limit          float64 // of Keyturn's time, in times of the script's; 0 is none
}{
	{"switch", 5 * time.Second, 0, 1.5},
	{"dual", 5 * time.Second, 0, 0},
}

// measured is how many rotations of each way the median is of.
const measured = 3

// phases are what has to happen until the new credential is in service.
var phases = []string{"prepare", "validate", "cutover"}

// BenchmarkRotation compares the time of prepare, validate and cutover with that
// of the script that people use today, and the logins that fail meanwhile. Both
// stacks are under the same load, have the same update settings, and are rotated
// in turn. It fails if Keyturn takes more than 1.5 times as long in switch.
func BenchmarkRotation(b *testing.B) {
	for _, w := range ways {
		b.Run(fmt.Sprintf("mounts=%s,monitor=%s,delay=%s", w.mounts, w.monitor, w.delay), func(b *testing.B) {
			for b.Loop() {
				compare(b, scenario.Options{Mounts: w.mounts, Monitor: w.monitor, Delay: w.delay}, w.limit)
			}
		})
	}
}

func compare(b *testing.B, o scenario.Options, limit float64) {
	ctx := b.Context()
	s := start(b, o)
	ours, err := s.Deploy(ctx, "orders")
	must(b, err)
	must(b, ours.Adopt(ctx))
	theirs, err := s.Deploy(ctx, "billing")
	must(b, err)
	var keyturn, script []scenario.Rotation
	var ratios []float64
	for n := range measured { // in turn: a machine that gets busy is so for both
		k, err := ours.Rotate(ctx, false)
		must(b, err)
		t, err := theirs.RunScript(ctx, n+1)
		must(b, err)
		keyturn, script = append(keyturn, k), append(script, t)
		ratios = append(ratios, k.Took(phases...).Seconds()/t.Took().Seconds())
	}
	record, err := s.Journal(ctx)
	must(b, err)
	slices.Sort(ratios)
	ratio := ratios[len(ratios)/2]
	report(b, keyturn, script, ratio)
	// Not by b.Log, which cuts it off after ten lines.
	fmt.Fprintf(os.Stderr, "%s: where the time of prepare, validate and cutover went, and that of the script:\n%s", b.Name(), breakdown(record, keyturn, script))
	if limit > 0 && ratio > limit {
		b.Errorf("prepare, validate and cutover took %.2f times as long as the script, want %.1f at most", ratio, limit)
	}
	if failed(keyturn) > 0 || failed(script) < 25 {
		b.Errorf("failed logins: Keyturn %.1f %%, script %.1f %%, want 0 and 25 or more", failed(keyturn), failed(script))
	}
}

// report gives the benchmark its figures.
func report(b *testing.B, keyturn, script []scenario.Rotation, ratio float64) {
	k, t := median(keyturn, phases...), median(script, "script")
	b.ReportMetric(0, "ns/op") // the whole scene: says nothing
	b.ReportMetric(k.Seconds(), "keyturn-s")
	b.ReportMetric(t.Seconds(), "script-s")
	b.ReportMetric(ratio, "ratio")
	b.ReportMetric(failed(keyturn), "%keyturn-failed")
	b.ReportMetric(failed(script), "%script-failed")
	b.ReportMetric(perSecond(keyturn), "keyturn-logins/s")
	b.ReportMetric(perSecond(script), "script-logins/s")
}

func median(rotations []scenario.Rotation, phases ...string) time.Duration {
	var times []time.Duration
	for _, r := range rotations {
		times = append(times, r.Took(phases...))
	}
	slices.Sort(times)
	return times[len(times)/2]
}

// failed is the share of logins that failed, in per cent.
func failed(rotations []scenario.Rotation) float64 {
	tried, bad := 0, 0
	for _, r := range rotations {
		tried, bad = tried+r.Tried, bad+r.Failed
	}
	return 100 * float64(bad) / float64(tried)
}

// perSecond is the rate of the logins that the load tried.
func perSecond(rotations []scenario.Rotation) float64 {
	tried, lasted := 0, time.Duration(0)
	for _, r := range rotations {
		tried, lasted = tried+r.Tried, lasted+r.Lasted
	}
	return float64(tried) / lasted.Seconds()
}

// A cost is the mean time of something in one rotation.
type cost struct {
	name string
	mean time.Duration
}

// costs says where the mean time of the phases went. What a move takes is Swarm's
// update, watched to its end; what Swarm takes for the same update of the script
// stands beside it. What no step took is the start of the program, its reading and
// its journal.
func costs(record scenario.Record, rotations []scenario.Rotation) (all []cost, whole time.Duration) {
	n := time.Duration(len(rotations))
	for _, r := range rotations {
		whole += r.Took(phases...) / n
	}
	rest := whole
	add := func(name string, sum time.Duration) {
		i := slices.IndexFunc(all, func(c cost) bool { return c.name == name })
		if i < 0 {
			all, i = append(all, cost{name: name}), len(all)
		}
		all[i].mean += sum / n
		rest -= sum / n
	}
	for _, s := range record.Steps {
		if !slices.Contains(phases, s.Phase) {
			continue
		}
		add(s.Phase+" "+s.Name, s.Took)
	}
	return append(all, cost{"all else", rest}), whole
}

// breakdown prints the costs of Keyturn, and what of the script is Swarm's.
func breakdown(record scenario.Record, keyturn, script []scenario.Rotation) string {
	var out strings.Builder
	row := func(name string, part, whole time.Duration) {
		fmt.Fprintf(&out, "  %-26s %6.2f s  %3.0f %%\n", name, part.Seconds(), 100*part.Seconds()/whole.Seconds())
	}
	steps, whole := costs(record, keyturn)
	for _, c := range steps {
		row(c.name, c.mean, whole)
	}
	var all, swarm time.Duration
	for _, r := range script {
		p := r.Phases[0]
		all += p.Took / time.Duration(len(script))
		swarm += p.Update.Within(p.Began, p.Began.Add(p.Took)) / time.Duration(len(script))
	}
	row("script, by Swarm", swarm, all)
	row("script, all else", all-swarm, all)
	return out.String()
}

// BenchmarkVersion measures the start of the program: "keyturn version" must be
// done in 50 milliseconds.
func BenchmarkVersion(b *testing.B) {
	program, err := testserver.BuildGo(b.Context(), "./cmd/keyturn")
	must(b, err)
	var times []time.Duration
	for b.Loop() {
		times = times[:0]
		for range 20 {
			begun := time.Now()
			must(b, exec.Command(program, "version").Run())
			times = append(times, time.Since(begun))
		}
	}
	slices.Sort(times)
	half := times[len(times)/2]
	b.ReportMetric(0, "ns/op")
	b.ReportMetric(float64(half.Microseconds())/1000, "ms/start")
	if half > 50*time.Millisecond {
		b.Errorf("keyturn version takes %s, want 50ms at most", half)
	}
}

func TestMain(m *testing.M) { os.Exit(testserver.Main(m)) }

// start sets the scene; what was done is logged if the benchmark fails.
func start(t testing.TB, o scenario.Options) *scenario.Scenario {
	t.Helper()
	var out bytes.Buffer
	o.Out = &out
	s, err := scenario.Start(context.Background(), o)
	testserver.Require(t, err)
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("what was done:\n%s", &out)
		}
		if err := s.Stop(); err != nil {
			t.Errorf("stopping the servers: %v", err)
		}
	})
	return s
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
