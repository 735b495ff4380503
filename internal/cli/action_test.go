package cli_test

import (
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"go.yaml.in/yaml/v3"

	"github.com/keyturn/keyturn/internal/cli"
)

// A actionFile is action.yml as GitHub reads it.
type actionFile struct {
	Inputs map[string]struct {
		Description, Default string
		Required             bool
	}
	Outputs map[string]struct{ Description string }
	Runs    struct {
		Using, Image string
		Args         []string
	}
}

func manifest(t testing.TB) actionFile {
	t.Helper()
	var f actionFile
	if err := yaml.Unmarshal([]byte(page(t, "action.yml")), &f); err != nil {
		t.Fatal(err)
	}
	return f
}

// TestActionFile holds action.yml against the program: the same inputs and outputs,
// each described, and defaults that mean nothing.
func TestActionFile(t *testing.T) {
	f := manifest(t)
	if got, want := slices.Sorted(maps.Keys(f.Inputs)), cli.ActionInputs(); !slices.Equal(got, want) {
		t.Errorf("action.yml has the inputs %q, the program reads %q", got, want)
	}
	if got, want := slices.Sorted(maps.Keys(f.Outputs)), cli.ActionOutputs(); !slices.Equal(got, want) {
		t.Errorf("action.yml has the outputs %q, the program writes %q", got, want)
	}
	for name, in := range f.Inputs {
		if in.Description == "" || in.Required != (name == "command") || name != "config" && name != "github-token" && in.Default != "" && in.Default != "false" {
			t.Errorf("input %s: %+v", name, in)
		}
	}
	for name, out := range f.Outputs {
		if out.Description == "" {
			t.Errorf("output %s has no description", name)
		}
	}
	if f.Runs.Using != "docker" || f.Runs.Image != "Dockerfile" || !slices.Equal(f.Runs.Args, []string{"action"}) {
		t.Errorf("action.yml runs %+v", f.Runs)
	}
}

// readmeConfiguration is the configuration that the README shows.
func readmeConfiguration(t *testing.T) string { return blocks(page(t, "README.md"), "yaml")[1] }

// aToken is what text of the log stands between.
var aToken = regexp.MustCompile(`(?m)^(::stop-commands::)?[a-z2-7]{26}|^::[a-z2-7]{26}::$`)

// TestActionMistakes runs the action with inputs that make no sense. What it says,
// and that it exits with the code that its output has, stands in testdata/action.
func TestActionMistakes(t *testing.T) {
	dir := t.TempDir()
	for name, text := range map[string]string{
		"no-journal.yml": strings.Replace(readmeConfiguration(t), "journal: file:/var/lib/keyturn/journal.jsonl\n", "", 1),
		"keyturn.yml":    readmeConfiguration(t), "typo.yml": "version: 1\ncredential: {}\n",
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	cases := map[string][]string{
		"outside-of-actions":      {"GITHUB_ACTIONS=", "INPUT_COMMAND=plan"},
		"no-command":              {"INPUT_COMMAND="},
		"unknown-command":         {"INPUT_COMMAND=rm -rf /"},
		"a-command-with-flags":    {"INPUT_COMMAND=cleanup --force=x"},
		"unknown-input":           {"INPUT_COMMAND=plan", "INPUT_DRY_RUN=true"},
		"not-a-switch":            {"INPUT_COMMAND=plan", "INPUT_DUE=yes"},
		"an-input-of-another":     {"INPUT_COMMAND=prepare", "INPUT_WAIT=true"},
		"both-named-and-due":      {"INPUT_COMMAND=prepare", "INPUT_DUE=true", "INPUT_CREDENTIAL=orders-db"},
		"a-name-like-a-flag":      {"INPUT_COMMAND=doctor", "INPUT_CREDENTIAL=--strict", "INPUT_CONFIG=keyturn.yml"},
		"rollback-without-reason": {"INPUT_COMMAND=rollback", "INPUT_CREDENTIAL=orders-db"},
		"names-for-the-audit":     {"INPUT_COMMAND=audit verify", "INPUT_CREDENTIAL=orders-db"},
		"no-configuration":        {"INPUT_COMMAND=status", "INPUT_CONFIG=gone.yml"},
		"a-typo":                  {"INPUT_COMMAND=status", "INPUT_CONFIG=typo.yml"},
		"no-place-for-a-journal":  {"INPUT_COMMAND=status", "INPUT_CONFIG=no-journal.yml", "HOME="},
		"a-newline-in-a-name":     {"INPUT_COMMAND=status", "INPUT_CONFIG=x\n::add-mask::e"},
	}
	for name, env := range cases {
		t.Run(name, func(t *testing.T) {
			files := t.TempDir()
			cmd := exec.Command(program(t), "action")
			cmd.Dir = dir
			cmd.Env = append([]string{"GITHUB_ACTIONS=true", "KEYTURN_PG_PASSWORD=" + adminPassword,
				"GITHUB_OUTPUT=" + files + "/output", "GITHUB_STEP_SUMMARY=" + files + "/summary"}, env...)
			out, err := cmd.CombinedOutput()
			if err == nil {
				t.Errorf("it worked:\n%s", out)
			}
			written, _ := os.ReadFile(files + "/output") // none outside of Actions
			outputs := readOutputs(t, string(written))
			summary, _ := os.ReadFile(files + "/summary")
			got := strings.NewReplacer(dir, "DIR").Replace(string(out) + "state " + outputs["state"] + ", exit " + outputs["exit"] + "\n" + string(summary))
			got = aToken.ReplaceAllString(got, "TOKEN")
			if code := cmd.ProcessState.ExitCode(); outputs["exit"] != "" && outputs["exit"] != "2" || code != 2 {
				t.Errorf("it exits with %d and says %q, want 2", code, outputs["exit"])
			}
			file := filepath.Join("testdata", "action", name+".txt")
			if *update {
				if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(string(want), got); diff != "" {
				t.Errorf("%s (-want +got):\n%s", file, diff)
			}
		})
	}
	files, err := filepath.Glob("testdata/action/*.txt")
	if err != nil || len(files) != len(cases) {
		t.Errorf("%d golden files for %d cases (%v)", len(files), len(cases), err)
	}
}
