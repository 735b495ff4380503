package cli_test

import (
	"encoding/json"
	"errors"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// shows compares an output with a golden file.
func (s *shop) shows(file, got string) {
	s.t.Helper()
	got = s.normal(got)
	for _, r := range [][2]string{{`,\n *"age_seconds": \d+`, ""}} {
		got = regexp.MustCompile(r[0]).ReplaceAllString(got, r[1])
	}
	if strings.HasSuffix(file, ".txt") {
		got = regexp.MustCompile(` {3,}`).ReplaceAllString(got, "   ") // columns are as wide as names are
	}
	file = filepath.Join("testdata", "output", file)
	if *update {
		s.must(os.MkdirAll(filepath.Dir(file), 0o755))
		s.must(os.WriteFile(file, []byte(got), 0o644))
		return
	}
	want, err := os.ReadFile(file)
	s.must(err)
	if diff := cmp.Diff(string(want), got); diff != "" {
		s.t.Errorf("%s (-want +got):\n%s", file, diff)
	}
}

// TestOutput goes through a life and shows what people and programs read of it.
func TestOutput(t *testing.T) {
	t.Parallel()
	s := newShop(t, servers.postgres.Get(t), "overlap: 1h")
	s.shows("status-new.txt", s.ok("status"))
	s.shows("adopt-dry.txt", s.ok("adopt", "--dry-run", s.name))
	s.shows("adopt.txt", s.ok("adopt", s.name))
	s.shows("plan.txt", s.ok("plan", s.name))
	s.shows("plan.json", s.ok("plan", "-o", "json"))
	s.shows("plan-due.txt", s.ok("plan", "--due"))
	s.shows("prepare-dry.txt", s.ok("prepare", "--dry-run", s.name))
	s.shows("nothing-due.txt", s.ok("prepare", "--due"))
	s.shows("prepare.txt", s.ok("prepare", s.name))
	s.shows("prepare-again.txt", s.ok("prepare", s.name))
	s.shows("plan-prepared.txt", s.ok("plan"))
	s.shows("status-prepared.txt", s.ok("status"))
	s.shows("status-prepared.json", s.ok("status", "-o", "json"))
	s.shows("validate.txt", s.ok("validate", s.name))
	r := s.run("cutover", s.name)
	s.shows("cutover.txt", r.stdout)
	s.shows("cutover-progress.txt", r.stderr) // no terminal: plain lines
	s.shows("status-overlap.txt", s.ok("status"))
	s.shows("plan-overlap.txt", s.ok("plan"))
	s.shows("rollback-dry.txt", s.ok("rollback", "--dry-run", s.name))
	s.shows("rollback.txt", s.ok("rollback", "--reason", "drill", s.name))
	s.ok("rotate", s.name)
	s.shows("cleanup.txt", s.ok("cleanup", "--force", "drill", s.name))
	s.shows("cleanup-again.txt", s.ok("cleanup", s.name))
	s.shows("status-done.txt", s.ok("status"))
}

// TestJSON runs every command that prints with --output json: stdout is one
// JSON document, whatever the outcome.
func TestJSON(t *testing.T) {
	t.Parallel()
	s := newShop(t, servers.postgres.Get(t), "overlap: 1h")
	tests := []struct {
		code int
		args []string
		want []string // keys that must be there
	}{
		{0, []string{"version"}, []string{"version", "go", "platform"}},
		{0, []string{"setup", "postgres"}, []string{"credential", "sql"}},
		{0, []string{"status"}, []string{"name"}},
		{0, []string{"adopt", "--dry-run", s.name}, []string{"adopted", "identity"}},
		{0, []string{"adopt", s.name}, []string{"adopted", "identity"}},
		{3, []string{"adopt", s.name}, []string{"error", "hint", "exit"}},
		{0, []string{"plan"}, []string{"credential", "from", "to", "hash", "next", "overlap_ms"}},
		{0, []string{"rotate", "--dry-run", s.name}, []string{"hash"}},
		{0, []string{"prepare", "--dry-run", s.name}, []string{"hash"}},
		{0, []string{"prepare", "--due"}, nil},
		{0, []string{"prepare", s.name}, []string{"phase", "rotation", "credentials"}},
		{3, []string{"cutover", s.name}, []string{"error", "hint", "exit"}},
		{0, []string{"validate", s.name}, []string{"phase"}},
		{0, []string{"cutover", s.name}, []string{"phase"}},
		{3, []string{"cleanup", s.name}, []string{"for", "until", "hint"}},
		{0, []string{"cleanup", "--due"}, []string{"for", "until"}},
		{0, []string{"rollback", "--reason", "drill", s.name}, []string{"phase"}},
		{0, []string{"rotate", s.name}, []string{"phase"}},
		{0, []string{"audit", "verify"}, []string{"ok", "entries", "head"}},
		{2, []string{"rotate", "orders"}, []string{"error", "hint", "exit"}},
		{2, []string{"rotate", "--fast"}, []string{"error", "hint", "exit"}},
		{2, []string{"rotte", s.name}, []string{"error", "hint", "exit"}},
		{2, []string{"setup", "postgres", "orders"}, []string{"error", "hint", "exit"}},
		{2, []string{"audit", "verify", "--journal", "/nowhere/journal.jsonl"}, []string{"error", "hint", "exit"}},
	}
	for i, tt := range tests {
		// The output may be asked for before what is wrong, and behind it.
		args := append([]string{"--output", "json"}, tt.args...)
		if i%2 == 0 {
			args = append(slices.Clone(tt.args), "-o", "json")
		}
		r := s.run(args...)
		if r.code != tt.code {
			t.Errorf("keyturn %v: exit %d, want %d\n%s%s", tt.args, r.code, tt.code, r.stdout, r.stderr)
		}
		dec := json.NewDecoder(strings.NewReader(r.stdout))
		var doc any
		if err := dec.Decode(&doc); err != nil {
			t.Errorf("keyturn %v prints no JSON: %v\n%s", tt.args, err, r.stdout)
			continue
		}
		if err := dec.Decode(&doc); !errors.Is(err, io.EOF) {
			t.Errorf("keyturn %v prints more than one document (%v):\n%s", tt.args, err, r.stdout)
		}
		for _, key := range tt.want {
			if !strings.Contains(r.stdout, `"`+key+`":`) {
				t.Errorf("keyturn %v: no key %q in\n%s", tt.args, key, r.stdout)
			}
		}
	}
}

// TestOneDocumentOfSeveral prints one JSON document of several credentials, and
// another of those that were adopted before one failed.
func TestOneDocumentOfSeveral(t *testing.T) {
	t.Parallel()
	a, b := apart(t)
	var scripts []struct{ Credential, SQL string }
	a.must(json.Unmarshal([]byte(a.ok("setup", "postgres", "-o", "json")), &scripts))
	if len(scripts) != 2 || scripts[0].SQL == "" || scripts[0].Credential == scripts[1].Credential {
		t.Errorf("setup postgres prints %d scripts, want 2", len(scripts))
	}
	a.must(os.Remove(a.journal)) // the adoption is forgotten
	a.must(os.Rename(filepath.Join(b.root, b.name, "current"), filepath.Join(b.root, b.name, "away")))
	a.must(os.Rename(filepath.Join(b.root, b.name, "initial"), filepath.Join(b.root, b.name, "gone")))
	r := a.run("adopt", a.name, b.name, "-o", "json")
	var doc struct {
		Adopted []struct{ Credential, Identity string }
		Error   string
		Exit    int
	}
	a.must(json.Unmarshal([]byte(r.stdout), &doc))
	if r.code != 2 || doc.Exit != 2 || len(doc.Adopted) != 1 || doc.Adopted[0].Credential != a.name || !strings.Contains(doc.Error, b.name) {
		t.Errorf("adopt of one that can be and one that cannot: exit %d, %+v\n%s", r.code, doc, r.stderr)
	}
}

// TestNothingIsAdoptedBesideATypo checks every name before it adopts one.
func TestNothingIsAdoptedBesideATypo(t *testing.T) {
	t.Parallel()
	s := newShop(t, servers.postgres.Get(t))
	s.fails(2, []string{`no credential is called "typo"`}, "adopt", s.name, "typo")
	if p := s.status(); p.Current != 0 {
		t.Errorf("status is %+v, want nothing adopted", p)
	}
}

// TestFullDisk writes to a device that is always full: what nobody could read
// was not said, and the run failed.
func TestFullDisk(t *testing.T) {
	t.Parallel()
	s := newShop(t, servers.postgres.Get(t))
	s.ok("adopt", s.name)
	full, err := os.OpenFile("/dev/full", os.O_WRONLY, 0)
	s.must(err)
	defer full.Close()
	for _, args := range [][]string{{"version"}, {"--help"}, {"setup", "postgres"}, {"plan"}, {"plan", "-o", "json"}, {"status"},
		{"status", "-o", "json"}, {"audit", "verify"}, {"prepare", s.name}, {"cutover", "--due"}, {"rotate", s.name, "-o", "json"}} {
		cmd := s.command(t.Context(), args...)
		var stderr strings.Builder
		cmd.Stdout, cmd.Stderr = full, &stderr
		_ = cmd.Run() // its exit code is looked at
		if code := cmd.ProcessState.ExitCode(); code != 1 || !strings.Contains(stderr.String(), "writing the output: ") {
			t.Errorf("keyturn %v with a full disk: exit %d, want 1\n%s", args, code, stderr.String())
		}
	}
	if p := s.status(); p.Current != 2 {
		t.Errorf("status is %+v: a rotation whose output was lost was not gone on with", p)
	}
}

// TestRotateShowsItsCleanup prints what came of the cleanup that a rotation
// does first, too.
func TestRotateShowsItsCleanup(t *testing.T) {
	t.Parallel()
	s := newShop(t, servers.postgres.Get(t))
	s.ok("adopt", s.name)
	s.ok("rotate", s.name)
	time.Sleep(time.Second) // the overlap
	out := s.ok("rotate", s.name)
	i, j := strings.Index(out, "cleanup done"), strings.Index(out, "prepare done")
	if i < 0 || j < i {
		t.Errorf("rotate does not show its cleanup first:\n%s", out)
	}
}

// TestAuditTellsAnUnfinishedEnd says that a run was killed in an append.
func TestAuditTellsAnUnfinishedEnd(t *testing.T) {
	t.Parallel()
	s := newShop(t, servers.postgres.Get(t))
	s.ok("adopt", s.name)
	f, err := os.OpenFile(s.journal, os.O_APPEND|os.O_WRONLY, 0)
	s.must(err)
	_, err = f.WriteString(`{"actor":`)
	s.must(errors.Join(err, f.Close()))
	if out := s.ok("audit", "verify"); !strings.Contains(out, "the chain is whole") || !strings.Contains(out, "9 bytes after it are no entry") {
		t.Errorf("audit verify says:\n%s", out)
	}
	if out := s.ok("audit", "verify", "-o", "json"); !strings.Contains(out, `"unfinished": "9 bytes`) {
		t.Errorf("audit verify -o json says:\n%s", out)
	}
}

// TestJournalJSONOfAFault says as JSON which entry is bad.
func TestJournalJSONOfAFault(t *testing.T) {
	t.Parallel()
	s := newShop(t, servers.postgres.Get(t))
	s.ok("adopt", s.name)
	b, err := os.ReadFile(s.journal)
	s.must(err)
	s.must(os.WriteFile(s.journal, []byte(strings.Replace(string(b), `"identity":"`, `"identity":"x`, 1)), 0o600))
	r := s.run("audit", "verify", "-o", "json")
	var got struct {
		OK        bool
		Kind      string
		Seq, Line int
	}
	if err := json.Unmarshal([]byte(r.stdout), &got); err != nil || r.code != 5 || got.OK || got.Seq != 3 || got.Line != 3 {
		t.Errorf("audit verify: exit %d, %+v (%v), want 5 and entry 3 on line 3\n%s%s", r.code, got, err, r.stdout, r.stderr)
	}
}
