package cli_test

import (
	"bytes"
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/keyturn/keyturn/internal/cli"
)

// The whole configuration is one that the program takes, with the defaults in
// it, and writing it out once more changes nothing.
func TestConfigFull(t *testing.T) {
	t.Parallel()
	print := func(file string) string {
		t.Helper()
		var out, errs bytes.Buffer
		p := cli.Program{Args: []string{"plan", "--config-full", "--config", file}, Stdout: &out, Stderr: &errs}
		if code := p.Run(context.Background()); code != 0 {
			t.Fatalf("plan --config-full of %s exits %d: %s", file, code, errs.String())
		}
		return out.String()
	}
	first := print("../config/testdata/ok/minimal.yml")
	for _, want := range []string{"every: 90d", "overlap: 1d", "mounts: switch", "order: start-first", "from-env: KEYTURN_PG_PASSWORD",
		"logins:\n        - orders_a\n        - orders_b\n        - orders_c", "host: unix:///var/run/docker.sock"} {
		if !strings.Contains(first, want) {
			t.Errorf("it lacks %q:\n%s", want, first)
		}
	}
	again := filepath.Join(t.TempDir(), "keyturn.yml")
	if err := os.WriteFile(again, []byte(first), 0o600); err != nil {
		t.Fatal(err)
	}
	if second := print(again); second != first {
		t.Errorf("written out again it is\n%s\nwant\n%s", second, first)
	}
}
