package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/keyturn/keyturn/internal/scenario"
	"github.com/keyturn/keyturn/internal/testserver"
	"github.com/keyturn/keyturn/internal/testserver/child"
)

func TestMain(m *testing.M) { os.Exit(testserver.Main(m)) }

// TestPlay plays the demo to its end, a little quicker and with fewer logins: a stack
// that runs as people deploy it is rotated twice in a row, under a load that has no
// fallback, and though one cutover is killed in its middle no login may fail, from the
// first to the last. The script beside it breaks a quarter or more: so the load notices.
func TestPlay(t *testing.T) {
	for _, mounts := range []string{"switch", "dual"} {
		t.Run(mounts, func(t *testing.T) {
			if mounts == "dual" && os.Getenv("KEYTURN_JOURNEYS") != "all" {
				t.Skip("it is long: make journeys")
			}
			t.Parallel()
			var out bytes.Buffer
			d := &demo{out: &out, options: scenario.Options{Mounts: mounts, Monitor: 2 * time.Second, Overlap: 3 * time.Second, Every: 150 * time.Millisecond, Out: &out}}
			scene, err := scenario.Start(t.Context(), d.options)
			testserver.Require(t, err)
			d.scene = scene
			t.Cleanup(func() {
				if t.Failed() {
					t.Logf("what was done:\n%s", &out)
				}
				if err := d.scene.Stop(); err != nil {
					t.Errorf("stopping the servers: %v", err)
				}
			})
			if err := d.play(t.Context()); err != nil {
				t.Fatal(err)
			}
			checkLogins(t, d)
			checkProofs(t, d.record)
		})
	}
}

// checkLogins checks that each of the three logins has had its turn, and that
// the script's logins failed for the reason that is said.
func checkLogins(t *testing.T, d *demo) {
	t.Helper()
	for _, login := range []string{"orders", "orders_a", "orders_b"} {
		if sessions := d.keyturn.total.BySession; sessions[login] == 0 {
			t.Errorf("no login as %s in %v, want all three logins used", login, sessions)
		}
	}
	if codes := d.script.total.ByCode; codes["28P01"] == 0 {
		t.Errorf("failures of the script by code: %v, want refused passwords (28P01)", codes)
	}
}

// checkProofs checks that both old logins are proven dead on the record, in
// their order.
func checkProofs(t *testing.T, record scenario.Record) {
	t.Helper()
	var dead []string
	for _, p := range record.Proofs {
		dead = append(dead, p.Identity)
	}
	if len(dead) != 2 || dead[0] != "orders" || dead[1] != "orders_a" {
		t.Errorf("proven dead: %q, want orders and orders_a", dead)
	}
}

// TestStoppedDemoLeavesNothing stops the demo while its servers run and a command
// is under way, as Ctrl-C does and as kill -9 does: its servers, its folder and
// the command must end with it.
func TestStoppedDemoLeavesNothing(t *testing.T) {
	for name, s := range map[string]syscall.Signal{"Ctrl-C": syscall.SIGINT, "kill -9": syscall.SIGKILL} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
			defer cancel()
			cmd, folder, said := stopDemo(ctx, t, s)
			if code := cmd.ProcessState.ExitCode(); s == syscall.SIGINT && code != 130 {
				t.Errorf("the stopped demo ended with status %d, want 130; it said %s", code, said)
			}
			deadline := time.Now().Add(time.Minute)
			for len(left(t, folder)) > 0 && time.Now().Before(deadline) {
				time.Sleep(50 * time.Millisecond)
			}
			if left := left(t, folder); len(left) > 0 {
				t.Errorf("after its end there is left: %q", left)
			}
		})
	}
}

// stopDemo runs the demo, sends it the signal when keyturn is at work, and
// returns its folder and what it said on stderr.
func stopDemo(ctx context.Context, t *testing.T, s syscall.Signal) (cmd *exec.Cmd, folder, said string) {
	t.Helper()
	program, err := testserver.BuildGo(ctx, "./internal/demo")
	if err != nil {
		t.Fatal(err)
	}
	var stderr bytes.Buffer
	cmd = exec.CommandContext(ctx, program)
	cmd.Stderr = &stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := child.Start(cmd); err != nil {
		t.Fatal(err)
	}
	lines := bufio.NewScanner(out)
	for lines.Scan() {
		if fields := strings.Fields(lines.Text()); len(fields) == 2 && fields[0] == "folder" {
			folder = fields[1]
		}
		if strings.HasPrefix(lines.Text(), "$ keyturn adopt") {
			break // it runs for a second or two
		}
	}
	if err := cmd.Process.Signal(s); err != nil {
		t.Log(err) // it has ended by itself, which the next lines tell
	}
	for lines.Scan() { // until it has closed its output
	}
	_ = cmd.Wait() // its status is looked at by the caller
	if folder == "" && strings.Contains(stderr.String(), testserver.ErrMissing.Error()) {
		testserver.Require(t, errors.Join(testserver.ErrMissing, errors.New(stderr.String())))
	}
	if folder == "" {
		t.Fatalf("the demo did not say its folder; it said %s", &stderr)
	}
	return cmd, folder, stderr.String()
}

// left lists what is left of the demo with that folder: the folder of its engine
// with all that is in it, and processes that work there.
func left(t *testing.T, folder string) []string {
	t.Helper()
	var left []string
	if _, err := os.Stat(filepath.Dir(folder)); !errors.Is(err, fs.ErrNotExist) {
		left = append(left, filepath.Dir(folder))
	}
	processes, err := filepath.Glob("/proc/[0-9]*/cwd")
	if err != nil {
		t.Fatal(err)
	}
	for _, cwd := range processes {
		if at, err := os.Readlink(cwd); err == nil && strings.HasPrefix(at, folder) {
			left = append(left, cwd+": "+at)
		}
	}
	return left
}
