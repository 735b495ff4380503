package rotation_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"pgregory.net/rapid"

	"github.com/keyturn/keyturn/internal/rotation"
)

func raw(v any) json.RawMessage {
	b, err := json.Marshal(v)
	if err != nil {
		panic(err)
	}
	return b
}

// machine writes random records, legal and illegal, and keeps a model of its own
// of what must never be.
type machine struct {
	ledger   *rotation.Ledger
	taken    []rotation.Record
	now      time.Time
	epoch    int64
	rotation int

	burnt     int
	undone    int // rotations
	proven    map[int]bool
	ended     map[int]bool
	validated map[int]bool
}

const start = "2026-03-01T12:00:00Z"

func newMachine() *machine {
	now, _ := time.Parse(time.RFC3339, start)
	return &machine{ledger: rotation.NewLedger(), now: now, proven: map[int]bool{}, ended: map[int]bool{}, validated: map[int]bool{}}
}

var (
	phases   = []rotation.Phase{rotation.Prepare, rotation.Validate, rotation.Cutover, rotation.Cleanup, rotation.Rollback, rotation.Adopt}
	statuses = []rotation.RecordStatus{rotation.RecordIntent, rotation.RecordStarted, rotation.RecordDone, rotation.RecordObserved,
		rotation.RecordWaiting, rotation.RecordFailed, rotation.RecordUndoing, rotation.RecordUndone, rotation.RecordNote}
	steps = map[string]rotation.Effect{"put": rotation.Put, "arm": rotation.Arm, "mount": rotation.Beside, "move": rotation.Move, "activate": rotation.Activate,
		"end": rotation.End, "proof": rotation.Prove, "remove": rotation.Remove, "move back": rotation.Move}
)

// likely returns the record that an engine would write next, mostly.
func (m *machine) likely(rt *rapid.T) rotation.Record {
	c := m.ledger.Credential("x")
	r := rotation.Record{Credential: "x", Rotation: fmt.Sprintf("r%d", m.rotation), Evidence: map[string]json.RawMessage{}}
	if c.Open == nil {
		m.rotation++
		r.Rotation = fmt.Sprintf("r%d", m.rotation)
		r.Phase, r.Status, r.Version = rotation.Prepare, rotation.RecordIntent, c.Burnt+1
		current, _ := c.In(rotation.Current)
		r.Evidence["from"] = raw(current.Number)
		r.Evidence["version"] = raw(rotation.Version{Credential: "x", Number: r.Version, Fingerprints: map[string]string{"p": fmt.Sprint(rapid.IntRange(0, 999).Draw(rt, "print"))}})
		return r
	}
	r.Rotation, r.Version = c.Open.ID, c.Open.To
	if c.Open.Complete || rapid.IntRange(0, 39).Draw(rt, "turn") == 39 {
		r.Phase, r.Status = rapid.SampledFrom(phases[1:5]).Draw(rt, "next"), rotation.RecordIntent
		if c.Open.Complete && rapid.IntRange(0, 9).Draw(rt, "straight") > 0 {
			r.Phase = rotation.NextPhase(c)
		}
		if r.Phase == rotation.Cleanup && rapid.IntRange(0, 3).Draw(rt, "wait") > 0 {
			m.now = c.OverlapUntil.Add(time.Second)
		}
		return r
	}
	order := map[rotation.Phase][]string{rotation.Prepare: {"put", "arm"}, rotation.Cutover: {"move"}, rotation.Cleanup: {"end", "proof", "remove"}, rotation.Rollback: {"move back"}}[c.Open.Phase]
	r.Phase = c.Open.Phase
	for _, name := range order {
		on := c.Open.To
		if r.Phase == rotation.Cleanup || r.Phase == rotation.Rollback {
			on = c.Open.From
		}
		s, ok := c.Open.Step(r.Phase, name, on)
		if ok && s.Done {
			continue
		}
		r.Step, r.Status = name, rotation.RecordStarted
		if ok && s.Status == rotation.RecordStarted {
			r.Status = rotation.RecordDone
		}
		r.Evidence["effect"], r.Evidence["on"] = raw(steps[name]), raw(on)
		return r
	}
	r.Status = rotation.RecordDone
	if r.Phase == rotation.Rollback {
		for _, done := range []struct {
			name  string
			phase rotation.Phase
		}{{"move", rotation.Cutover}, {"arm", rotation.Prepare}, {"put", rotation.Prepare}} {
			s, ok := c.Open.Step(done.phase, done.name, c.Open.To)
			if !ok || s.Status == rotation.RecordUndone {
				continue
			}
			r.Phase, r.Step, r.Status = done.phase, done.name, rotation.RecordUndone
			if done.name != "move" && s.Status != rotation.RecordUndoing {
				r.Status = rotation.RecordUndoing
			}
			r.Evidence["effect"], r.Evidence["on"] = raw(steps[done.name]), raw(c.Open.To)
			return r
		}
		r.Status = rotation.RecordUndone
	}
	r.Evidence["overlap_until"] = raw(m.now.Add(24 * time.Hour).Format(time.RFC3339))
	return r
}

// any returns a record out of the blue.
func (m *machine) any(rt *rapid.T) rotation.Record {
	c := m.ledger.Credential("x")
	r := rotation.Record{Credential: "x", Phase: rapid.SampledFrom(phases).Draw(rt, "phase"), Status: rapid.SampledFrom(statuses).Draw(rt, "status"),
		Rotation: fmt.Sprintf("r%d", m.rotation), Version: rapid.IntRange(0, c.Burnt+2).Draw(rt, "version"), Evidence: map[string]json.RawMessage{}}
	r.Step = rapid.SampledFrom([]string{"", "put", "arm", "mount", "move", "activate", "end", "proof", "remove", "move back", "discard", "force", "park", "settled", "release"}).Draw(rt, "step")
	if r.Step == "force" && rapid.Bool().Draw(rt, "reasoned") {
		r.Evidence["reason"] = raw("it leaked")
	}
	if e, ok := steps[r.Step]; ok {
		r.Evidence["effect"], r.Evidence["on"] = raw(e), raw(r.Version)
	}
	r.Evidence["version"] = raw(rotation.Version{Credential: "x", Number: r.Version, Fingerprints: map[string]string{"p": fmt.Sprint(rapid.IntRange(0, 20).Draw(rt, "print"))}})
	return r
}

// step applies a record and holds it against the model.
func (m *machine) step(rt *rapid.T, r rotation.Record) {
	r.Seq, r.Time = int64(len(m.taken)+1), m.now
	stale := rapid.IntRange(0, 19).Draw(rt, "stale") == 0 && m.epoch > 0
	epoch := m.epoch
	if stale {
		epoch--
	}
	r.Evidence["epoch"] = raw(epoch)
	before, was := m.ledger.Credential("x"), m.ledger.Clone()
	err := m.ledger.Apply(r)
	after := m.ledger.Credential("x")
	if err != nil {
		if diff := diff(was, m.ledger); diff != "" {
			rt.Fatalf("the refused record %+v changed the ledger:\n%s", r, diff)
		}
		return
	}
	m.taken = append(m.taken, r)
	m.hold(rt, r, before, stale)
	m.burnt = max(m.burnt, after.Burnt)
	states := map[rotation.State]int{}
	for _, v := range after.Versions {
		states[v.State]++
	}
	if states[rotation.Pending] > 1 || states[rotation.Current] > 1 || states[rotation.Previous] > 1 {
		rt.Fatalf("after %+v: states %v", r, states)
	}
	if _, had := before.In(rotation.Current); had && states[rotation.Current] == 0 {
		rt.Fatalf("after %+v: no version is current", r)
	}
}

// hold holds a record that was taken against the model.
func (m *machine) hold(rt *rapid.T, r rotation.Record, before rotation.Credential, stale bool) {
	rt.Helper()
	effect := rotation.Effect("")
	_ = json.Unmarshal(r.Evidence["effect"], &effect)
	switch began := r.Status == rotation.RecordStarted && r.Step != ""; {
	case stale && r.Status != rotation.RecordNote && r.Step != "release":
		rt.Fatalf("%+v of an old epoch was taken", r)
	case stale && (r.Step == "force" || r.Step == "park" || r.Step == "settled"):
		rt.Fatalf("the note %+v of an old epoch was taken", r)
	case r.Phase == rotation.Prepare && r.Status == rotation.RecordIntent && r.Step == "":
		var v rotation.Version
		_ = json.Unmarshal(r.Evidence["version"], &v)
		if known, ok := before.Version(v.Number); v.Number <= m.burnt && (!ok || known.State != rotation.Pending) {
			rt.Fatalf("number %d is used again", v.Number)
		}
	case began && effect == rotation.End:
		if m.now.Before(before.OverlapUntil) && !before.Open.Forced && r.Version != 0 && before.Open.From != 0 {
			rt.Fatalf("version %d is ended inside the overlap", before.Open.From)
		}
		if v, _ := before.Version(before.Open.From); v.State == rotation.Current || before.Open.Phase != rotation.Cleanup {
			rt.Fatalf("the current version %+v is ended", v)
		}
	case began && effect == rotation.Remove:
		if !m.proven[before.Open.From] {
			rt.Fatalf("version %d is removed and not proven dead", before.Open.From)
		}
	case began && effect == rotation.Move && r.Phase == rotation.Cutover:
		if !m.validated[before.Open.To] {
			rt.Fatalf("services are moved to version %d, which is not validated", before.Open.To)
		}
	case began && effect == rotation.Move && r.Phase == rotation.Rollback:
		if m.ended[before.Open.From] {
			rt.Fatalf("services are moved back to version %d, which was ended", before.Open.From)
		}
	case r.Status == rotation.RecordUndone && (effect == rotation.End || effect == rotation.Prove || effect == rotation.Remove):
		rt.Fatalf("%+v: an end was undone", r)
	case r.Status == rotation.RecordUndone && (effect == rotation.Arm || effect == rotation.Put):
		if s, _ := before.Open.Step(r.Phase, r.Step, r.Version); s.Status != rotation.RecordUndoing {
			rt.Fatalf("%+v was taken, and its undo was not begun", r)
		}
	case r.Status == rotation.RecordUndone && r.Step == "" && r.Phase == rotation.Rollback:
		m.undone++
	case r.Step == "force" && r.Evidence["reason"] == nil:
		rt.Fatalf("%+v has no reason", r)
	case r.Step == "proof" && r.Status == rotation.RecordDone:
		if !m.ended[before.Open.From] {
			rt.Fatalf("version %d is proven dead and was not ended", before.Open.From)
		}
		m.proven[before.Open.From] = true
	case r.Step == "end" && (r.Status == rotation.RecordDone || r.Status == rotation.RecordObserved):
		m.ended[before.Open.From] = true
	case r.Phase == rotation.Validate && r.Step == "" && r.Status == rotation.RecordDone:
		m.validated[before.Open.To] = true
	}
	if r.Step == "proof" && r.Status == rotation.RecordObserved {
		m.proven[before.Open.From] = true
	}
}

func diff(a, b *rotation.Ledger) string {
	return cmp.Diff(a.Credential("x"), b.Credential("x"), cmp.AllowUnexported(rotation.Credential{}, rotation.Rotation{}), cmpopts.EquateEmpty())
}

func TestLedgerProperties(t *testing.T) {
	full, undone := 0, 0
	rapid.Check(t, func(rt *rapid.T) {
		m := newMachine()
		wild := rapid.IntRange(0, 3).Draw(rt, "wildness")
		for range rapid.IntRange(20, 120).Draw(rt, "length") {
			switch kind := rapid.IntRange(0, 19).Draw(rt, "kind"); {
			case kind == 19:
				m.epoch++
				lease := rotation.Record{Seq: int64(len(m.taken) + 1), Time: m.now, Credential: "x", Step: "lease", Status: rotation.RecordNote,
					Evidence: map[string]json.RawMessage{"holder": raw(rotation.Holder{Run: "r", Epoch: m.epoch})}}
				if err := m.ledger.Apply(lease); err != nil {
					rt.Fatalf("a lease: %v", err)
				}
				m.taken = append(m.taken, lease)
				if err := m.ledger.Apply(lease); !errors.Is(err, rotation.ErrLeaseLost) {
					rt.Fatalf("the same epoch twice = %v, want ErrLeaseLost", err)
				}
			case kind < 2*wild:
				m.step(rt, m.any(rt))
			default:
				m.step(rt, m.likely(rt))
			}
			m.now = m.now.Add(time.Minute)
		}
		again, err := rotation.Replay(m.taken)
		if err != nil {
			rt.Fatalf("Replay of what was taken: %v", err)
		}
		if diff := diff(m.ledger, again); diff != "" {
			rt.Fatalf("Replay differs:\n%s", diff)
		}
		for _, v := range m.ledger.Credential("x").Versions {
			if v.State == rotation.Retired {
				full++
			}
		}
		undone += m.undone
	})
	if full == 0 || undone == 0 {
		t.Errorf("%d versions were retired, %d rotations undone: the random records never get that far", full, undone)
	}
	t.Logf("%d versions were retired, %d rotations undone", full, undone)
}

// journalOf returns the records of n rotations of one credential, as an engine writes them.
func journalOf(tb testing.TB, rotations int) []rotation.Record {
	tb.Helper()
	var out []rotation.Record
	now, _ := time.Parse(time.RFC3339, start)
	add := func(id, version int, phase rotation.Phase, step string, status rotation.RecordStatus, evidence ...any) {
		r := rotation.Record{Seq: int64(len(out) + 1), Time: now, Rotation: fmt.Sprint(id), Credential: "orders", Version: version, Phase: phase, Step: step,
			Status: status, Evidence: map[string]json.RawMessage{"epoch": raw(0)}}
		for i := 0; i < len(evidence); i += 2 {
			r.Evidence[evidence[i].(string)] = raw(evidence[i+1])
		}
		out = append(out, r)
		now = now.Add(time.Second)
	}
	pair := func(id, version, on int, phase rotation.Phase, step string, evidence ...any) {
		evidence = append([]any{"effect", steps[step], "on", on}, evidence...)
		add(id, version, phase, step, rotation.RecordStarted, evidence[:4]...)
		add(id, version, phase, step, rotation.RecordDone, evidence...)
	}
	for n := 1; n <= rotations; n++ {
		v := rotation.Version{Credential: "orders", Number: n, Identity: "orders_a", Public: map[string]string{"username": "orders_a"},
			Fingerprints: map[string]string{"password": fmt.Sprintf("%064d", n)}}
		add(n, n, rotation.Prepare, "", rotation.RecordIntent, "version", v, "from", n-1, "batch", []string{"orders"}, "before", map[string]string{"api": "x", "worker": "y"})
		v.Objects = map[string]rotation.Object{"password": {ID: "id", Name: fmt.Sprintf("orders_password_v%d", n)}}
		pair(n, n, n, rotation.Prepare, "put", "version", v)
		pair(n, n, n, rotation.Prepare, "arm")
		add(n, n, rotation.Prepare, "", rotation.RecordDone)
		add(n, n, rotation.Validate, "", rotation.RecordIntent)
		add(n, n, rotation.Validate, "probe", rotation.RecordDone)
		add(n, n, rotation.Validate, "", rotation.RecordDone)
		add(n, n, rotation.Cutover, "", rotation.RecordIntent)
		pair(n, n, n, rotation.Cutover, "move")
		add(n, n, rotation.Cutover, "", rotation.RecordDone, "overlap_until", now.Add(time.Second).Format(time.RFC3339))
		now = now.Add(time.Minute)
		add(n, n, rotation.Cleanup, "", rotation.RecordIntent)
		pair(n, n, n-1, rotation.Cleanup, "end")
		pair(n, n, n-1, rotation.Cleanup, "proof")
		pair(n, n, n-1, rotation.Cleanup, "remove")
		add(n, n, rotation.Cleanup, "", rotation.RecordDone)
	}
	return out
}

// A journal of many years is read in well under a second.
func BenchmarkReplay100k(b *testing.B) {
	records := journalOf(b, 100_000/21+1)[:100_000]
	for b.Loop() {
		if _, err := rotation.Replay(records); err != nil {
			b.Fatal(err)
		}
	}
}

func TestReusedFingerprint(t *testing.T) {
	records := journalOf(t, 3)
	l, err := rotation.Replay(records)
	if err != nil {
		t.Fatal(err)
	}
	r := records[0]
	r.Seq, r.Rotation, r.Version, r.Time = int64(len(records)+1), "4", 4, records[len(records)-1].Time
	for print, fresh := range map[int]bool{1: false, 3: false, 4: true} {
		v := rotation.Version{Credential: "orders", Number: 4, Fingerprints: map[string]string{"password": fmt.Sprintf("%064d", print)}}
		r.Evidence = map[string]json.RawMessage{"version": raw(v), "from": raw(3)}
		err := l.Clone().Apply(r)
		if fresh && err != nil || !fresh && rotation.ClassOf(err) != rotation.Refused {
			t.Errorf("Apply of a value like that of version %d = %v, want taken %v", print, err, fresh)
		}
	}
}

// A ledger shares nothing with its clone that one of them changes.
func TestCloneIsItsOwn(t *testing.T) {
	records := journalOf(t, 2)
	for n := range records {
		l, err := rotation.Replay(records[:n])
		if err != nil {
			t.Fatal(err)
		}
		c := l.Clone()
		was := l.Credential("orders")
		if err := c.Apply(records[n]); err != nil {
			t.Fatal(err)
		}
		if d := cmp.Diff(was, l.Credential("orders"), cmp.AllowUnexported(rotation.Credential{}, rotation.Rotation{})); d != "" {
			t.Fatalf("record %d into the clone changed the ledger:\n%s", n+1, d)
		}
	}
}
