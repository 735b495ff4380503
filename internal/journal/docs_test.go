package journal_test

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/keyturn/keyturn/internal/journal"
)

const page = "../../docs/journal.md"

// The lines of Python on the page agree with Verify, on good chains and bad.
func TestPythonOnThePage(t *testing.T) {
	python, err := exec.LookPath("python3")
	if err != nil {
		if os.Getenv("CI") != "" {
			t.Fatal("python3 is not installed, and CI must run what the page shows")
		}
		t.Skip("python3 is not installed: the lines on the page are not run")
	}
	_, rest, _ := strings.Cut(string(bytesOf(t, page)), "```python\n")
	program, _, found := strings.Cut(rest, "```")
	if !found {
		t.Fatalf("%s shows no Python", page)
	}
	golden := bytesOf(t, "testdata/chain.jsonl")
	lines := linesOf(golden)
	run := func(text []byte) (string, error) {
		path := filepath.Join(t.TempDir(), "journal.jsonl")
		put(t, path, text)
		out, err := exec.Command(python, "-c", program, path).CombinedOutput()
		return strings.TrimSpace(string(out)), err
	}
	last := decode(t, "testdata/chain.jsonl")[len(lines)-1]
	if out, err := run(golden); err != nil || out != fmt.Sprintf("%d %s", last.Seq, last.Hash) {
		t.Errorf("Python says %q, %v, want entry %d, hash %s", out, err, last.Seq, last.Hash)
	}
	many := textOf(t, sealed(t, 50))
	if out, err := run(many); err != nil || !strings.HasPrefix(out, "50 ") {
		t.Errorf("Python says %q, %v of a chain of 50", out, err)
	}
	for name, bad := range map[string][]byte{
		"edited":    bytes.Replace(golden, []byte("orders_a"), []byte("orders_b"), 1),
		"gap":       bytes.Join([][]byte{lines[0], lines[2], lines[3]}, nil),
		"reordered": bytes.Join([][]byte{lines[0], lines[2], lines[1], lines[3]}, nil),
	} {
		_, want := journal.Decode(bytes.NewReader(bad))
		line := fmt.Sprintf("line %d is not", faultOf(t, want).Line)
		if out, err := run(bad); err == nil || !strings.Contains(out, line) {
			t.Errorf("Python says %q, %v of a chain that is %s, want %q", out, err, name, line)
		}
	}
}

func TestThePageKnowsEveryFault(t *testing.T) {
	text := string(bytesOf(t, page))
	for _, k := range []journal.Kind{journal.Edited, journal.Gap, journal.Reordered, journal.Fork, journal.Truncated, journal.Unreadable} {
		if !strings.Contains(text, "| `"+string(k)+"` |") {
			t.Errorf("%s does not explain %q", page, k)
		}
	}
}
