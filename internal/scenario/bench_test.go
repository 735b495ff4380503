package scenario_test

import (
	"fmt"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/keyturn/keyturn/internal/scenario"
	"github.com/keyturn/keyturn/internal/testserver"
)

// updates are the update settings that both ways use: Docker's own defaults,
// and others.
var updates = []struct {
	name           string
	monitor, delay time.Duration
}{
	{"monitor=5s", 5 * time.Second, 0},
	{"monitor=5s,delay=5s", 5 * time.Second, 5 * time.Second},
}

// measured is how many rotations of each way the median is of.
const measured = 3

// BenchmarkRotation compares the time of prepare, validate and cutover with that
// of the script that people use today, and the logins that fail meanwhile. Both
// stacks are under the same load, have the same update settings, and are rotated
// in turn. It fails if Keyturn takes more than 1.5 times as long.
func BenchmarkRotation(b *testing.B) {
	for _, u := range updates {
		b.Run(u.name, func(b *testing.B) {
			for b.Loop() {
				compare(b, scenario.Options{Monitor: u.monitor, Delay: u.delay})
			}
		})
	}
}

func compare(b *testing.B, o scenario.Options) {
	ctx := b.Context()
	s := start(b, o)
	ours, err := s.Deploy(ctx, "orders")
	must(b, err)
	must(b, ours.Adopt(ctx))
	theirs, err := s.Deploy(ctx, "billing")
	must(b, err)
	phases := []string{"prepare", "validate", "cutover"}
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

	k, t, ratio := median(keyturn, phases...), median(script, "script"), ratios[len(ratios)/2]
	steps, whole := costs(record, keyturn, phases)
	b.ReportMetric(0, "ns/op") // the whole scene: says nothing
	b.ReportMetric(k.Seconds(), "keyturn-s")
	b.ReportMetric(t.Seconds(), "script-s")
	b.ReportMetric(ratio, "ratio")
	b.ReportMetric(bySwarm(steps, whole), "%swarm")
	b.ReportMetric(failed(keyturn), "%keyturn-failed")
	b.ReportMetric(failed(script), "%script-failed")
	b.Logf("where the time of prepare, validate and cutover went:\n%s", breakdown(steps, whole))
	if ratio > 1.5 {
		b.Errorf("prepare, validate and cutover took %s, the script %s: %.2f times as long, want 1.5 at most", k, t, ratio)
	}
	if failed(keyturn) > 0 || failed(script) < 25 {
		b.Errorf("failed logins: Keyturn %.1f %%, script %.1f %%, want 0 and 25 or more", failed(keyturn), failed(script))
	}
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

// swarmSteps are those in which Swarm works and Keyturn waits: tasks are
// started, watched and replaced.
var swarmSteps = []string{"cutover move"}

// A cost is the mean time of a step in one rotation.
type cost struct {
	step string
	mean time.Duration
}

// costs says where the mean time of the phases went. What no step took is the
// start of the program, its reading and its journal.
func costs(record scenario.Record, rotations []scenario.Rotation, phases []string) (steps []cost, whole time.Duration) {
	for _, r := range rotations {
		whole += r.Took(phases...)
	}
	n := time.Duration(len(rotations))
	whole /= n
	rest := whole
	for _, s := range record.Steps {
		name := s.Phase + " " + s.Name
		if !slices.Contains(phases, s.Phase) || s.Name == "phase" {
			continue
		}
		i := slices.IndexFunc(steps, func(c cost) bool { return c.step == name })
		if i < 0 {
			steps, i = append(steps, cost{step: name}), len(steps)
		}
		steps[i].mean += s.Took / n
		rest -= s.Took / n
	}
	return append(steps, cost{"all else", rest}), whole
}

// bySwarm is the share of the time that is Swarm's own, in per cent.
func bySwarm(steps []cost, whole time.Duration) float64 {
	var sum time.Duration
	for _, c := range steps {
		if slices.Contains(swarmSteps, c.step) {
			sum += c.mean
		}
	}
	return 100 * sum.Seconds() / whole.Seconds()
}

func breakdown(steps []cost, whole time.Duration) string {
	var out strings.Builder
	for _, c := range steps {
		fmt.Fprintf(&out, "  %-20s %6.2f s  %3.0f %%\n", c.step, c.mean.Seconds(), 100*c.mean.Seconds()/whole.Seconds())
	}
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
