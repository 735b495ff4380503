package main

import (
	"bytes"
	"context"
	"errors"
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
	ours := func(old ...string) scenario.Rotation {
		r := scenario.Rotation{Phases: []scenario.Phase{{Name: "prepare", Took: 1500 * time.Millisecond}}, Tried: 1234}
		for _, login := range old {
			r.Old = append(r.Old, scenario.Answer{Login: login, Code: "28P01"})
		}
		return r
	}
	killed := ours("orders", "orders_a")
	killed.Killed = true
	theirs := scenario.Rotation{Phases: []scenario.Phase{{Name: "script", Took: 9 * time.Second}}, Tried: 400, Failed: 150, Lasted: 10 * time.Second}
	return &demo{
		out: out, scene: &scenario.Scenario{Options: scenario.Options{Mounts: "switch"}},
		keyturn: side{rotations: []scenario.Rotation{ours("orders"), killed}, restarts: map[string]int{"1": 2, "2": 2, "3": 2},
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
		{"the old one lives, and the journal says no", func(d *demo) { d.keyturn.rotations[1].Old[0].Code = "accepted" }, "after rotation 2 the old credentials were not refused: orders accepted, orders_a 28P01"},
		{"nobody tried the old one", func(d *demo) { d.keyturn.rotations[0].Old = nil }, "after rotation 1 the old credentials were not refused"},
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
		"Keyturn 1", "script 2", "1.5 s", "9.0 s", "1,234", "38 %", "logins per second",
		"Keyturn 3,000 tried, 0 failed · script 800 tried, 300 failed",
		"Keyturn 2, 2, 2 · script 3, 2, 2",
		"old credential orders       refused by db:5432 with 28P01; 0 sessions left (entry 7)",
		"logging in after Keyturn 2  the demo itself, with the old credentials: orders 28P01, orders_a 28P01",
		"cutover of Keyturn 2 was killed",
		"82 entries, the chain is whole",
	} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("the table lacks %q:\n%s", want, &out)
		}
	}
}

func TestFinish(t *testing.T) {
	running, stopped := func() error { return nil }, func() error { return context.Canceled }
	left := errors.Join(context.Canceled, errors.Join(scenario.ErrLeft, errors.New("bridge ktgw1")))
	tests := []struct {
		name    string
		stopped func() error
		err     error
		code    int
		want    string
	}{
		{"all went well", running, nil, 0, ""},
		{"something failed", running, errors.New("no disk"), 1, "no disk"},
		{"no server here", running, testserver.ErrMissing, 1, "make demo installs what is missing"},
		{"stopped", stopped, context.Canceled, 130, "everything that it made is removed"},
		{"stopped, and something is left", stopped, left, 130, "bridge ktgw1"},
		{"something is left", running, left, 1, "bridge ktgw1"},
	}
	for _, tt := range tests {
		var out bytes.Buffer
		if code := finish(&out, tt.stopped, tt.err); code != tt.code || !strings.Contains(out.String(), tt.want) {
			t.Errorf("%s: finish() = %d, %q, want %d, %q", tt.name, code, &out, tt.code, tt.want)
		}
		if claims := strings.Contains(out.String(), "everything"); claims && errors.Is(tt.err, scenario.ErrLeft) && !strings.Contains(out.String(), "not everything") {
			t.Errorf("%s: it claims %q", tt.name, &out)
		}
	}
}
