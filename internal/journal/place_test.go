package journal_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/keyturn/keyturn/internal/journal"
)

func TestCheckoutIsRefused(t *testing.T) {
	root := t.TempDir()
	dirs := map[string]string{}
	for _, name := range []string{"checkout/.git", "checkout/deep/er", "worktree/sub", "workspace/sub", "outside"} {
		dirs[name] = filepath.Join(root, name)
		if err := os.MkdirAll(dirs[name], 0o700); err != nil {
			t.Fatal(err)
		}
	}
	put(t, filepath.Join(root, "worktree/.git"), []byte("gitdir: elsewhere\n"))
	for link, to := range map[string]string{"into": "checkout/deep", "space": "workspace", "outside/dangling": "../checkout/j.jsonl"} {
		if err := os.Symlink(to, filepath.Join(root, link)); err != nil {
			t.Fatal(err)
		}
	}
	for name, c := range map[string]struct {
		path, workspace, want string
	}{
		"a checkout":                {"checkout/j.jsonl", "", "inside the checkout"},
		"deep in it":                {"checkout/deep/er/new/j.jsonl", "", "inside the checkout"},
		"in its .git":               {"checkout/.git/j.jsonl", "", "inside the checkout"},
		"a linked work tree":        {"worktree/sub/j.jsonl", "", "inside the checkout"},
		"a directory linked there":  {"into/j.jsonl", "", "inside the checkout"},
		"a file linked there":       {"outside/dangling", "", "inside the checkout"},
		"by way of dots":            {"outside/../checkout/j.jsonl", "", "inside the checkout"},
		"the workspace":             {"workspace/sub/j.jsonl", "workspace", "inside the workspace"},
		"the workspace by a link":   {"workspace/j.jsonl", "space", "inside the workspace"},
		"a link into the workspace": {"space/j.jsonl", "workspace", "inside the workspace"},
		"outside":                   {"outside/j.jsonl", "workspace", ""},
		"a name alike":              {"workspace-2/j.jsonl", "workspace", ""},
		"no workspace":              {"workspace/sub/k.jsonl", "", ""},
	} {
		t.Run(name, func(t *testing.T) {
			o := journal.Options{Create: true, InActions: true}
			if c.workspace != "" {
				o.Workspace = filepath.Join(root, c.workspace)
			}
			path := root + "/" + c.path
			_, err := journal.Open(path, o)
			if c.want == "" {
				if err != nil {
					t.Errorf("Open = %v, want nil", err)
				}
				return
			}
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Fatalf("Open = %v, want an error with %q", err, c.want)
			}
			wantHint(t, err)
			if _, err := os.Stat(path); err == nil {
				t.Error("a refused journal was made")
			}
		})
	}
	// At a desk, a journal may stand where its owner wants it.
	if _, err := journal.Open(filepath.Join(root, "checkout/desk.jsonl"), journal.Options{Create: true}); err != nil {
		t.Errorf("Open in a checkout outside Actions = %v", err)
	}
}
