package cli_test

import (
	"encoding/csv"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/keyturn/keyturn/internal/cli/undertest/hooks"
	"github.com/keyturn/keyturn/internal/journal"
	"github.com/keyturn/keyturn/internal/testserver/githubfake"
)

// recorded makes a directory's credential with its journal on GitHub, as the
// smallest thing that has a whole record: adopted, and rotated once.
func recordedShop(t *testing.T) *forge {
	t.Helper()
	s := newShop(t, servers.postgres.Get(t))
	f := (&stack{shop: s}).onGitHub()
	f.ok("adopt", f.name)
	f.ok("rotate", "--wait", f.name)
	return f
}

// TestDirectoryOnGitHub rotates a directory's credential with the journal on
// GitHub: there every record is a commit.
func TestDirectoryOnGitHub(t *testing.T) {
	t.Parallel()
	f := recordedShop(t)
	if found := f.audit(); len(found) != 0 {
		t.Errorf("the audit finds %v", found)
	}
	f.oneLogin()
	f.exports()
	f.tampers()
}

// exports checks both forms of an export, the first one with the lines of
// docs/journal.md, which know nothing of Keyturn.
func (f *forge) exports() {
	f.t.Helper()
	lines := f.ok("audit", "export")
	if lines != f.log() {
		f.t.Error("the export is not what the branch holds")
	}
	file := filepath.Join(f.t.TempDir(), "export.jsonl")
	f.must(os.WriteFile(file, []byte(lines), 0o600))
	page, err := os.ReadFile("../../docs/journal.md")
	f.must(err)
	_, code, _ := strings.Cut(string(page), "```python\n")
	code, _, _ = strings.Cut(code, "```")
	if out, err := exec.Command("python3", "-c", code, file).CombinedOutput(); err != nil {
		f.t.Errorf("the verifier of docs/journal.md: %v\n%s", err, out)
	}
	f.ok("audit", "verify", "--journal", file)
	rows, err := csv.NewReader(strings.NewReader(f.ok("audit", "export", "--format", "csv"))).ReadAll()
	if want := strings.Count(lines, "\n") + 1; err != nil || len(rows) != want {
		f.t.Errorf("the table has %d rows, want %d; %v", len(rows), want, err)
	}
}

// resealed returns entries that were changed, sealed anew, so that the chain is whole.
func (f *forge) resealed(edit func([]journal.Entry) []journal.Entry) string {
	f.t.Helper()
	entries, err := journal.Decode(strings.NewReader(f.log()))
	f.must(err)
	var head journal.Head
	var b strings.Builder
	for _, e := range edit(entries) {
		e.Seq, e.Prev, e.Hash = 0, "", ""
		sealed, err := journal.Seal(head, e)
		f.must(err)
		line, err := journal.Line(sealed)
		f.must(err)
		b.Write(append(line, '\n'))
		head = sealed.Head()
	}
	return b.String()
}

// whole makes the branch hold a text, as one file.
func whole(text string) func([]githubfake.Kept) []githubfake.Kept {
	return func(all []githubfake.Kept) []githubfake.Kept {
		all[0].Files = map[string]string{"log/000000001.jsonl": text}
		return all[:1]
	}
}

// tampers changes the record in every way, one after the other, and has each found.
func (f *forge) tampers() {
	f.t.Helper()
	issue := f.gh.Issues()[0]
	comments := f.gh.Comments(issue.Number)
	last := comments[len(comments)-1]
	sha := f.gh.Head("main")
	status := "keyturn/" + f.name + "/cutover"
	rewrite := func(edit func(files map[string]string)) func() {
		return func() {
			f.gh.Rewrite(journalBranch, func(all []githubfake.Kept) []githubfake.Kept {
				edit(all[len(all)-1].Files)
				return all
			})
		}
	}
	names := f.gh.Files(journalBranch)
	third, fourth := names[3], names[4] // README.md is not among them: names[0] is
	for _, c := range []struct {
		what string
		do   func()
		want []string
	}{
		{"a word of an entry is changed", rewrite(func(m map[string]string) { m[third] = strings.Replace(m[third], f.name, "other", 1) }), []string{"edited"}},
		{"a file is removed", rewrite(func(m map[string]string) { delete(m, third) }), []string{"gap"}},
		{"two files change places", rewrite(func(m map[string]string) { m[third], m[fourth] = m[fourth], m[third] }), []string{"reordered"}},
		{"the end is cut off", func() {
			f.gh.Rewrite(journalBranch, func(all []githubfake.Kept) []githubfake.Kept { return all[:len(all)-4] })
		}, []string{"truncated"}},
		{"an entry is changed and everything sealed anew", func() {
			f.gh.Rewrite(journalBranch, whole(f.resealed(func(all []journal.Entry) []journal.Entry {
				all[5].Actor.Name = "mallory"
				return all
			})))
		}, []string{"fork"}},
		{"an entry is taken out and everything sealed anew", func() {
			f.gh.Rewrite(journalBranch, whole(f.resealed(func(all []journal.Entry) []journal.Entry { return slices.Delete(all, 5, 6) })))
		}, []string{"fork", "truncated"}},
		{"somebody else appends a sealed entry", func() {
			text := f.resealed(func(all []journal.Entry) []journal.Entry {
				return append(all, journal.Entry{Time: time.Now(), Credential: f.name, Step: "note", Status: "note"})
			})
			lines := strings.SplitAfter(text, "\n")
			f.gh.Commit(journalBranch, "mallory", "entry", map[string]string{fmt.Sprintf("log/%09d.jsonl", len(lines)-1): lines[len(lines)-2]})
		}, []string{"foreign-author"}},
		{"the branch is gone and begun anew", func() {
			f.gh.Rewrite(journalBranch, whole(f.resealed(func(all []journal.Entry) []journal.Entry { return all[:1] })))
		}, []string{"truncated"}},
		{"a comment is changed", func() { f.gh.EditComment(last.ID, strings.Replace(last.Body, f.name, "other", 1)) }, []string{"edited"}},
		{"a comment loses its mark", func() { f.gh.EditComment(last.ID, "nothing to see here") }, []string{"deleted"}},
		{"a comment is deleted", func() { f.gh.DeleteComment(last.ID) }, []string{"deleted"}},
		{"the first comment is deleted", func() { f.gh.DeleteComment(comments[0].ID) }, []string{"deleted"}},
		{"the issue is deleted", func() { f.gh.DeleteIssue(issue.Number) }, []string{"deleted", "mirror-missing"}},
		{"somebody else comments as we do", func() { f.gh.AddComment(issue.Number, "mallory", last.Body) }, []string{"foreign-author"}},
		{"somebody else opens an issue as ours", func() { f.gh.AddIssue("mallory", issue.Title, issue.Body, "keyturn") }, []string{"foreign-author"}},
		{"somebody else sets a status", func() { f.gh.AddStatus("mallory", sha, status, "success", "#12 aaaaaaaaaaaa cutover done") }, []string{"foreign-author"}},
		{"a status names what is not there", func() { f.gh.AddStatus("keyturn[bot]", sha, status, "success", "#9999 aaaaaaaaaaaa cutover done") }, []string{"truncated"}},
		{"a status knows another entry", func() { f.gh.AddStatus("keyturn[bot]", sha, status, "success", "#3 aaaaaaaaaaaa cutover done") }, []string{"fork"}},
		{"the statuses of a phase are gone", func() { f.gh.DropStatuses("") }, []string{"mirror-missing"}},
	} {
		back := f.gh.Snapshot()
		f.env = append(f.env, hooks.ClockAhead+"=4h") // what is fresh may still be on its way to its mirrors
		c.do()
		found := f.audit()
		f.env = f.env[:len(f.env)-1]
		for _, kind := range c.want {
			if !slices.ContainsFunc(found, func(x finding) bool { return x.Kind == kind }) {
				f.t.Errorf("%s: the audit finds %v, want %q", c.what, found, kind)
			}
		}
		back()
	}
	if found := f.audit(); len(found) != 0 {
		f.t.Errorf("after everything was put back, the audit finds %v", found)
	}
	f.complies(last)
}

// complies checks the issue about the record: opened, rewritten, closed.
func (f *forge) complies(c githubfake.Comment) {
	f.t.Helper()
	before := len(f.gh.Issues())
	back := f.gh.Snapshot()
	f.gh.DeleteComment(c.ID)
	for range 2 {
		if found := f.audit("--report"); len(found) == 0 {
			f.t.Error("nothing is found")
		}
	}
	issues := f.gh.Issues()
	if n := len(issues) - before; n != 1 || !strings.Contains(issues[len(issues)-1].Body, "deleted") {
		f.t.Errorf("two checks opened %d issues:\n%s", n, issues[len(issues)-1].Body)
	}
	if found := f.audit("--repair", "--report"); !slices.ContainsFunc(found, func(x finding) bool { return x.Kind == "deleted" }) {
		f.t.Errorf("a comment that was deleted and shown again: %v, want that a status knows of it", found)
	}
	back()
}
