package cli_test

import (
	"encoding/json"
	"errors"
	"io"
	"os/exec"
	"slices"
	"strings"
	"testing"
)

const module = "github.com/keyturn/keyturn/"

// arrows says which packages of ours a package may import: the longest prefix counts.
var arrows = map[string][]string{
	"rotated":                          {"rotated"},
	"cmd/keyturn":                      {"internal/cli"},
	"internal/secret":                  {},
	"internal/config":                  {"internal/secret"},
	"internal/actions":                 {"internal/secret"},
	"internal/journal":                 {"internal/secret"},
	"internal/journal/branch":          {"internal/journal", "internal/githubapp", "internal/secret"},
	"internal/rotation":                {"internal/secret"},
	"internal/rotation/rotationtest":   {"internal/rotation", "internal/secret"},
	"internal/backend":                 {"internal/rotation", "internal/secret"},
	"internal/backend/certificate":     {"internal/rotation", "internal/secret", "internal/backend/remote", "internal/backend/remote/vaultapi"},
	"internal/backend/consul":          {"internal/rotation", "internal/secret", "internal/backend/remote"},
	"internal/backend/kafka":           {"internal/rotation", "internal/secret", "internal/backend/remote"},
	"internal/backend/remote":          {"internal/rotation"},
	"internal/backend/remote/vaultapi": {"internal/rotation", "internal/secret", "internal/backend/remote"},
	"internal/backend/vault":           {"internal/rotation", "internal/secret", "internal/backend/remote", "internal/backend/remote/vaultapi"},
	"internal/backend/github":          {"internal/rotation", "internal/secret", "internal/githubapp"},
	"internal/target":                  {"internal/rotation", "internal/secret"},
	"internal/target/swarm/stackfile":  {},
	"internal/target/actionsecrets":    {"internal/rotation", "internal/secret", "internal/githubapp"},
	"internal/store":                   {"internal/rotation", "internal/secret"},
	"internal/githubapp":               {"internal/secret"},
	"internal/mirror":                  {"internal/journal", "internal/githubapp", "internal/secret"},
	"internal/approval":                {"internal/journal", "internal/githubapp", "internal/secret"},
	"internal/protection":              {"internal/githubapp", "internal/secret"},
	"internal/proposal":                {"internal/githubapp", "internal/secret"},
	"internal/notify":                  {"internal/secret"},
	"internal/telemetry":               {"internal/rotation", "internal/secret"},
	"internal/scaffold":                {},
	"workflows-examples":               {},
	"internal/testserver":              {"internal/testserver", "internal/secret"},
}

// free may import anything of ours: the wiring, and programs that only tests
// and the demo run.
var free = []string{"internal/cli", "internal/demo", "internal/scenario"}

type listed struct {
	ImportPath string
	Imports    []string
}

func TestImportArrows(t *testing.T) {
	for _, p := range list(t) {
		name := strings.TrimPrefix(p.ImportPath, module)
		if slices.ContainsFunc(free, func(f string) bool { return name == f || strings.HasPrefix(name, f+"/") }) {
			continue
		}
		allowed, ok := allowedFor(name)
		if !ok {
			t.Errorf("%s stands in no row of the arrows: say what it may import", name)
			continue
		}
		for _, imp := range p.Imports {
			ours, is := strings.CutPrefix(imp, module)
			if is && !slices.ContainsFunc(allowed, func(a string) bool {
				return ours == a || a == "rotated" && strings.HasPrefix(ours, a) || a == "internal/testserver" && strings.HasPrefix(ours, a)
			}) {
				t.Errorf("%s imports %s, which it must not", name, ours)
			}
		}
	}
}

// TestCoresNeedNoLibrary keeps other people's code out of the two packages
// that everything rests on, and out of what applications import.
func TestCoresNeedNoLibrary(t *testing.T) {
	for _, p := range list(t) {
		name := strings.TrimPrefix(p.ImportPath, module)
		if name != "internal/secret" && name != "internal/rotation" && name != "rotated" {
			continue
		}
		for _, imp := range p.Imports {
			if strings.Contains(strings.Split(imp, "/")[0], ".") && !strings.HasPrefix(imp, module) {
				t.Errorf("%s imports %s: it may use the standard library only", name, imp)
			}
		}
	}
}

func allowedFor(name string) ([]string, bool) {
	for at := name; at != "."; {
		if allowed, ok := arrows[at]; ok {
			return allowed, true
		}
		i := strings.LastIndex(at, "/")
		if i < 0 {
			break
		}
		at = at[:i]
	}
	return nil, false
}

func list(t *testing.T) []listed {
	t.Helper()
	cmd := exec.Command("go", "list", "-json=ImportPath,Imports", module+"...")
	out, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	var all []listed
	for dec := json.NewDecoder(strings.NewReader(string(out))); ; {
		var p listed
		if err := dec.Decode(&p); errors.Is(err, io.EOF) {
			return all
		} else if err != nil {
			t.Fatal(err)
		}
		all = append(all, p)
	}
}
