package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/keyturn/keyturn/internal/rotation"
	"github.com/keyturn/keyturn/internal/scenario"
	"github.com/keyturn/keyturn/internal/testserver"
)

// promised is a demo in which everything went as promised.
func promised(out *bytes.Buffer) *demo {
	proof := scenario.Proof{Version: 1, Identity: "orders", Seq: 7,
		Refused: rotation.ProbeResult{Answer: rotation.Dead, Endpoints: []rotation.EndpointResult{{Endpoint: "db:5432", Code: "28P01"}}},
		Control: rotation.ProbeResult{Answer: rotation.Alive}}
	ours := scenario.Rotation{Phases: []scenario.Phase{{Name: "prepare", Took: 1500 * time.Millisecond}}, Tried: 1234}
	theirs := scenario.Rotation{Phases: []scenario.Phase{{Name: "script", Took: 9 * time.Second}}, Tried: 400, Failed: 150}
	return &demo{
		out: out, scene: &scenario.Scenario{Options: scenario.Options{Mounts: "switch"}},
		keyturn: side{rotations: []scenario.Rotation{ours, ours}, restarts: map[string]int{"1": 2, "2": 2, "3": 2},
			total: testserver.Totals{Tasks: 9, Ended: 9, OK: 3000}},
		script: side{rotations: []scenario.Rotation{theirs, theirs}, restarts: map[string]int{"1": 3, "2": 2, "3": 2},
			total: testserver.Totals{Tasks: 9, Ended: 9, OK: 500, Failed: 300}},
		record: scenario.Record{Proofs: []scenario.Proof{proof, proof}},
		audit:  scenario.Run{Output: "82 entries, the chain is whole\n"},
	}
}

func TestVerdict(t *testing.T) {
	tests := []struct {
		name   string
		change func(*demo)
		want   string
	}{
		{"as promised", func(*demo) {}, ""},
		{"a login failed", func(d *demo) { d.keyturn.total.Failed = 1 }, "1 logins failed under Keyturn"},
		{"the load stood still", func(d *demo) { d.keyturn.total.OK = 20 }, "was not whole: 20 logins"},
		{"a task was killed", func(d *demo) { d.keyturn.total.Ended = 8 }, "8 of 9 tasks"},
		{"one restart too many", func(d *demo) { d.keyturn.restarts["2"] = 3 }, "task 2 was replaced 3 times"},
		{"one restart too few", func(d *demo) { d.scene.Mounts = "dual" }, "task 1 was replaced 2 times, and not 4"},
		{"a proof is missing", func(d *demo) { d.record.Proofs = d.record.Proofs[:1] }, "1 proofs"},
		{"the old one lives", func(d *demo) { d.record.Proofs[1].Refused.Answer = rotation.Alive }, "version 1 is not proven dead"},
		{"nothing works", func(d *demo) { d.record.Proofs[1].Control.Answer = rotation.Dead }, "version 1 is not proven dead"},
		{"the journal was changed", func(d *demo) { d.audit.Code = 5 }, "the journal is not whole"},
		{"the script broke little", func(d *demo) { d.script.rotations[1].Failed = 99 }, "script 2 broke 25 % of its logins"},
	}
	for _, tt := range tests {
		d := promised(&bytes.Buffer{})
		tt.change(d)
		err := d.verdict()
		if tt.want == "" && err != nil || tt.want != "" && (err == nil || !strings.Contains(err.Error(), tt.want)) {
			t.Errorf("%s: verdict() = %v, want %q", tt.name, err, tt.want)
		}
	}
}

func TestTable(t *testing.T) {
	var out bytes.Buffer
	promised(&out).table()
	for _, want := range []string{
		"Keyturn 1", "script 2", "1.5 s", "9.0 s", "1,234", "38 %",
		"Keyturn 3,000 tried, 0 failed · script 800 tried, 300 failed",
		"Keyturn 2, 2, 2 · script 3, 2, 2",
		"old credential orders       refused by db:5432 with 28P01; 0 sessions left (entry 7)",
		"82 entries, the chain is whole",
	} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("the table lacks %q:\n%s", want, &out)
		}
	}
}

// TestStoppedDemoLeavesNothing stops the demo as Ctrl-C does, while its servers
// run: it must end soon, and its servers and folders with it.
func TestStoppedDemoLeavesNothing(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
	defer cancel()
	program, err := testserver.BuildGo(ctx, "./internal/demo")
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(ctx, program)
	var said bytes.Buffer
	cmd.Stderr = &said
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	folder := ""
	lines := bufio.NewScanner(out)
	for lines.Scan() {
		if fields := strings.Fields(lines.Text()); len(fields) == 2 && fields[0] == "folder" {
			folder = fields[1]
		}
		if strings.Contains(lines.Text(), "setup.sql") {
			break // everything runs, and a command is under way
		}
	}
	begun := time.Now()
	if err := cmd.Process.Signal(os.Interrupt); err != nil {
		t.Log(err) // it has ended by itself, which the next lines tell
	}
	for lines.Scan() { // until it has closed its output
	}
	waited := cmd.Wait()
	if folder == "" && strings.Contains(said.String(), testserver.ErrMissing.Error()) {
		testserver.Require(t, errors.Join(testserver.ErrMissing, errors.New(said.String())))
	}
	if code := cmd.ProcessState.ExitCode(); code != 130 || time.Since(begun) > 30*time.Second {
		t.Errorf("the stopped demo ended with %v after %s, want status 130 soon; it said %s", waited, time.Since(begun), &said)
	}
	if _, err := os.Stat(folder); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("its folder %q after its end: %v, want it gone", folder, err)
	}
}
