package testserver

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// Promtool runs Prometheus' promtool, and returns what it prints.
func Promtool(t testing.TB, args ...string) (string, error) {
	t.Helper()
	program, err := exec.LookPath("promtool")
	if err != nil {
		Require(t, fmt.Errorf("no promtool on the PATH, run .ci/install: %w", ErrMissing))
	}
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	out, err := exec.CommandContext(ctx, program, args...).CombinedOutput()
	return string(out), err
}

// Firing checks, by promtool, which alerts of a file of rules fire at a moment, and that no
// other does. Series have a value every minute, in promtool's notation, from the moment 0 on.
func Firing(t testing.TB, rules string, series map[string]string, at time.Duration, alerts ...string) {
	t.Helper()
	var b strings.Builder
	fmt.Fprintf(&b, "rule_files: [%q]\nevaluation_interval: 1m\ntests:\n  - interval: 1m\n    input_series:\n", rules)
	if len(series) == 0 {
		series = map[string]string{"nothing": "0x0"}
	}
	for name, values := range series {
		fmt.Fprintf(&b, "      - {series: '%s', values: '%s'}\n", strings.ReplaceAll(name, "'", "''"), values)
	}
	fmt.Fprintf(&b, "    promql_expr_test:\n      - expr: group by (alertname) (ALERTS{alertstate=\"firing\"})\n        eval_time: %ds\n", int(at.Seconds()))
	slices.Sort(alerts)
	if len(alerts) > 0 {
		b.WriteString("        exp_samples:\n")
	}
	for _, a := range alerts {
		fmt.Fprintf(&b, "          - {labels: '{alertname=%q}', value: 1}\n", a)
	}
	file := filepath.Join(t.TempDir(), "alerts.test.yml")
	if err := os.WriteFile(file, []byte(b.String()), 0o600); err != nil {
		t.Fatal(err)
	}
	if out, err := Promtool(t, "test", "rules", file); err != nil {
		t.Errorf("alerts at %s, want %v: %v\n%s", at, alerts, err, out)
	}
}
