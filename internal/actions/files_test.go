package actions_test

import (
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/keyturn/keyturn/internal/actions"
)

// outputs reads a file of outputs as the runner does (FileCommandManager.cs).
func outputs(text string) (map[string]string, error) {
	out := map[string]string{}
	lines := strings.Split(strings.TrimSuffix(text, "\n"), "\n")
	for i := 0; i < len(lines); i++ {
		name, delimiter, ok := strings.Cut(lines[i], "<<")
		if equal := strings.IndexByte(lines[i], '='); equal >= 0 && (!ok || equal < strings.Index(lines[i], "<<")) {
			name, value, _ := strings.Cut(lines[i], "=")
			out[name] = value
			continue
		}
		if !ok {
			return nil, fmt.Errorf("line %q is none", lines[i])
		}
		var value []string
		for i++; ; i++ {
			if i == len(lines) {
				return nil, fmt.Errorf("no end of %s", name)
			}
			if lines[i] == delimiter {
				break
			}
			value = append(value, lines[i])
		}
		out[name] = strings.Join(value, "\n")
	}
	return out, nil
}

// at returns a step whose files are in a folder.
func at(dir string) *actions.Step {
	return actions.New(io.Discard, func(name string) string {
		return map[string]string{"GITHUB_OUTPUT": filepath.Join(dir, "output"), "GITHUB_STEP_SUMMARY": filepath.Join(dir, "summary")}[name]
	})
}

func FuzzOutput(f *testing.F) {
	f.Add("state", "done")
	f.Add("for", "a\nstate=done\n_GitHubActionsFileCommandDelimeter_\nstate<<X\nfailed\nX")
	f.Add("until", "")
	f.Add("a\nb", "x")
	f.Fuzz(func(t *testing.T, name, value string) {
		dir := t.TempDir()
		s := at(dir)
		err := s.Output(name, value)
		if bad := name == "" || strings.ContainsAny(name, "\r\n=<"); bad != (err != nil) {
			t.Fatalf("Output(%q) = %v", name, err)
		}
		want := map[string]string{}
		if err == nil {
			want[name] = value
		}
		if err := s.Output("last", "one"); err != nil {
			t.Fatal(err)
		}
		want["last"] = "one"
		b, err := os.ReadFile(filepath.Join(dir, "output"))
		if err != nil {
			t.Fatal(err)
		}
		got, err := outputs(string(b))
		if err != nil || !maps.Equal(got, want) {
			t.Errorf("outputs are %q (%v), want %q", got, err, want)
		}
	})
}

func TestFilesThatAreNotThere(t *testing.T) {
	s := actions.New(io.Discard, none)
	if err := s.Output("state", "done"); err != nil {
		t.Errorf("a runner without outputs: %v", err)
	}
	if err := s.Summary("# x\n"); err != nil {
		t.Errorf("a runner without summaries: %v", err)
	}
	gone := at(filepath.Join(t.TempDir(), "gone"))
	if err := gone.Output("state", "done"); err == nil || !strings.Contains(err.Error(), "setting the output state") {
		t.Errorf("Output into a folder that is gone = %v", err)
	}
	if err := gone.Summary("x"); err == nil || !strings.Contains(err.Error(), "step summary") {
		t.Errorf("Summary into a folder that is gone = %v", err)
	}
}

func TestSummaryFits(t *testing.T) {
	dir := t.TempDir()
	s := at(dir)
	line := strings.Repeat("x", 1023) + "\n"
	for range 3 {
		if err := s.Summary(strings.Repeat(line, 600)); err != nil {
			t.Fatal(err)
		}
	}
	b, err := os.ReadFile(filepath.Join(dir, "summary"))
	if err != nil {
		t.Fatal(err)
	}
	if len(b) > 1<<20 || !strings.Contains(string(b), "\n(cut: ") || strings.Count(string(b), "(cut:") != 1 || strings.Count(string(b), line) != 1023 {
		t.Errorf("the summary has %d bytes and %d lines", len(b), strings.Count(string(b), line))
	}
}

func TestMarkdown(t *testing.T) {
	got := actions.Table([]string{"a", "b"}, [][]string{{"x|y", "<img src=x>\n**bold** `code` [l](u) @me"}})
	want := "| a | b |\n| --- | --- |\n| x\\|y | &lt;img src=x\\> \\*\\*bold\\*\\* \\`code\\` \\[l\\]\\(u\\) \\@me |\n\n"
	if got != want {
		t.Errorf("the table is\n%s\nwant\n%s", got, want)
	}
	if actions.Table([]string{"a"}, nil) != "" {
		t.Error("a table without rows is shown")
	}
	if got := actions.Code("a\n```\n# not a heading\n"); got != "````text\na\n```\n# not a heading\n````\n\n" {
		t.Errorf("code is %q", got)
	}
}

const inDocker = `1 0 0:50 / / rw,relatime - overlay overlay rw
2 1 0:51 / /proc rw - proc proc rw
3 1 0:52 / /dev/shm rw - tmpfs shm rw
4 1 8:1 /srv/key\040turn /var/lib/key\040turn rw - ext4 /dev/sda1 rw
5 1 8:1 /w /github/workspace rw - ext4 /dev/sda1 rw
6 3 0:30 /runner/state /dev/shm/state rw - tmpfs tmpfs rw
7 4 0:53 / /var/lib/key\040turn/scratch rw - tmpfs tmpfs rw
`

func TestLasting(t *testing.T) {
	container := fstest.MapFS{".dockerenv": {}, "proc/self/mountinfo": {Data: []byte(inDocker)}}
	for file, want := range map[string]string{
		"/var/lib/key turn/journal.jsonl":  "",
		"/var/lib/keyturn/journal.jsonl":   "in the container",
		"/var/lib/key turns/journal.jsonl": "in the container",
		"/dev/shm/journal.jsonl":           "in the container",
		"/dev/shm/state/journal.jsonl":     "",
		"/var/lib/key turn/scratch/j":      "in the container",
		"/github/home/.local/journal":      "for one job",
		"/github/../var/lib/journal":       "in the container",
	} {
		got, err := actions.Lasting(container, file)
		if err != nil || (want == "") != (got == "") || !strings.Contains(got, want) {
			t.Errorf("Lasting(%s) = %q, %v, want %q", file, got, err, want)
		}
	}
	if got, err := actions.Lasting(fstest.MapFS{}, "/anywhere"); err != nil || got != "" {
		t.Errorf("on a machine that is no container: %q, %v", got, err)
	}
	if _, err := actions.Lasting(fstest.MapFS{".dockerenv": {}}, "/anywhere"); err == nil {
		t.Error("what is mounted cannot be read, and that is no error")
	}
}
