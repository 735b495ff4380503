package directory_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"

	"github.com/keyturn/keyturn/internal/rotation"
	"github.com/keyturn/keyturn/internal/target/directory"
)

// blocks returns the fenced blocks of the page in one language.
func blocks(t *testing.T, language string) []string {
	t.Helper()
	page := readFile(t, "../../../docs/targets/directory.md")
	var list []string
	for _, m := range regexp.MustCompile("(?s)```"+language+"\n(.*?)```").FindAllStringSubmatch(page, -1) {
		list = append(list, m[1])
	}
	if len(list) == 0 {
		t.Fatalf("the page has no block of %s", language)
	}
	return list
}

// TestPageCommands runs the commands of the page, in another root, and adopts
// and rotates what they set up.
func TestPageCommands(t *testing.T) {
	root := filepath.Join(newRoot(t), "credentials")
	for _, script := range blocks(t, "sh") {
		cmd := exec.CommandContext(t.Context(), "sh", "-euc", strings.ReplaceAll(script, "/srv/credentials", root))
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("%s: %v\n%s", script, err, out)
		}
	}
	target := newTarget(t, directory.Options{Root: root, Public: map[string][]string{"legacy": {"username"}}})
	v1, err := target.Adopt(t.Context(), "legacy")
	if err != nil || v1.Public["username"] != "orders" {
		t.Fatalf("Adopt = %+v, %v", v1, err)
	}
	v1.State = rotation.Current
	if err := target.Preflight(t.Context(), rotation.Credential{Name: "legacy", Versions: []rotation.Version{v1}, Burnt: 1}); err != nil {
		t.Fatal(err)
	}
	v2, err := target.Put(t.Context(), rotation.Version{Credential: "legacy", Number: 2}, material(2))
	if err != nil {
		t.Fatal(err)
	}
	move(t, target, shift(v2, v1))
	if got, err := os.Readlink(filepath.Join(root, "legacy", "current")); err != nil || got != "v2" {
		t.Errorf("current leads to %q, %v", got, err)
	}
}

// TestPageMount: the page mounts the parent of "current", and nothing in it.
func TestPageMount(t *testing.T) {
	found := false
	for _, text := range blocks(t, "yaml") {
		var doc struct {
			Services map[string]struct{ Volumes []string }
		}
		if err := yaml.Unmarshal([]byte(text), &doc); err != nil {
			t.Fatalf("%v in\n%s", err, text)
		}
		for _, s := range doc.Services {
			for _, v := range s.Volumes {
				found = true
				if from, _, _ := strings.Cut(v, ":"); filepath.Dir(from) != "/srv/credentials" {
					t.Errorf("the page mounts %q", from)
				}
			}
		}
	}
	if !found {
		t.Error("the page shows no mount")
	}
}
