package cli_test

import (
	"os"
	"strings"
	"testing"
	"time"
)

// TestAfter rotates a credential after the one that it needs, though its name comes
// first: by one command, by a schedule, and in an emergency; and not while the other is
// on its way.
func TestAfter(t *testing.T) {
	t.Parallel()
	first, second := apart(t, "overlap: 1h")
	if first.name > second.name {
		first, second = second, first
	}
	text, err := os.ReadFile(first.config)
	first.must(err)
	entry := "  " + first.name + ":\n"
	first.must(os.WriteFile(first.config, []byte(strings.Replace(string(text), entry, entry+"    after: ["+second.name+"]\n", 1)), 0o600))
	inOrder := func(doing, out string, words ...string) {
		t.Helper()
		rest := out
		for _, word := range words {
			i := strings.Index(rest, word)
			if i < 0 {
				t.Fatalf("%s: want %q in this order in\n%s", doing, words, out)
			}
			rest = rest[i+len(word):]
		}
	}
	inOrder("the plan", first.ok("plan", first.name, second.name), second.name+" 1 → 2", first.name+" 1 → 2")

	first.ok("prepare", second.name)
	wait := "prepare waits for what it needs: " + first.name + " comes after " + second.name
	first.fails(3, []string{wait, "keyturn rotate " + second.name, "--emergency"}, "prepare", first.name)
	first.fails(3, []string{wait}, "rotate", first.name)
	if r := first.run("plan", first.name); r.code != 3 || !strings.Contains(r.stdout, first.name+" comes after "+second.name+", whose rotation is not cut over yet") {
		t.Errorf("plan: exit %d\n%s", r.code, r.stdout)
	}
	if p := first.status(); p.Pending != 0 {
		t.Fatalf("status is %+v, want nothing begun", p)
	}
	// Of a schedule it is no failure; the other goes on, and then it is its turn.
	env := first.env
	first.ahead(100 * 24 * time.Hour)
	if out := first.ok("prepare", "--due"); !strings.Contains(out, "prepare waiting") || !strings.Contains(out, "comes after "+second.name) {
		t.Errorf("prepare --due while the other is prepared says:\n%s", out)
	}
	first.env = env
	inOrder("rotate", first.ok("rotate", first.name, second.name), second.name+": v2 current", first.name+": v2 current")

	before, err := os.ReadFile(first.journal)
	first.must(err)
	got := first.revokes(0, "--all")
	if len(got) != 2 || got[0].Current != 3 || got[1].Current != 3 {
		t.Fatalf("revoke --all: %+v", got)
	}
	after, err := os.ReadFile(first.journal)
	first.must(err)
	var begun, ended int // lines of the one that comes later, and of the one before it
	for i, line := range strings.Split(string(after[len(before):]), "\n") {
		switch {
		case strings.Contains(line, `"credential":"`+first.name+`"`) && begun == 0:
			begun = i
		case strings.Contains(line, `"credential":"`+second.name+`"`):
			ended = i
		}
	}
	if begun == 0 || ended == 0 || begun < ended {
		t.Errorf("of what it needs the last entry of revoke is number %d, its own first is number %d:\n%s", ended, begun, after[len(before):])
	}
}
