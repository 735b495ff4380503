package cli_test

import (
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"

	"github.com/keyturn/keyturn/internal/cli"
)

// An example is a workflow as far as the test looks at it.
type example struct {
	Permissions map[string]string
	Jobs        map[string]struct {
		Timeout     int `yaml:"timeout-minutes"`
		Environment string
		Env         map[string]string
		Steps       []struct {
			Uses string
			Run  string
			With map[string]string
		}
	}
}

// TestExamples holds the example workflows against the action: each input that they
// give is one of the command that they name, jobs end by themselves, secrets come from
// an environment, and a token of the job may no more than it must.
func TestExamples(t *testing.T) {
	t.Parallel()
	files, err := filepath.Glob("../../workflows-examples/*.yml")
	if err != nil || len(files) < 6 {
		t.Fatalf("%d examples, %v", len(files), err)
	}
	used := map[string]bool{}
	for _, file := range files {
		name := filepath.Base(file)
		if name == "cronjob.yml" {
			continue // make lint holds it against Kubernetes' own types
		}
		var e example
		if err := yaml.Unmarshal([]byte(page(t, "workflows-examples/"+name)), &e); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if len(e.Permissions) != 1 || e.Permissions["contents"] != "read" {
			t.Errorf("%s: permissions are %v", name, e.Permissions)
		}
		for job, j := range e.Jobs {
			if j.Timeout == 0 && name != "rotate.yml" {
				t.Errorf("%s: job %s never ends by itself", name, job)
			}
			if len(j.Env) > 0 && j.Environment == "" {
				t.Errorf("%s: job %s has secrets, and no environment", name, job)
			}
			for _, s := range j.Steps {
				if s.Uses != "keyturn/keyturn@v1" {
					continue
				}
				used[s.With["command"]] = true
				takes(t, name, s.With)
			}
		}
	}
	for _, command := range []string{"prepare", "validate", "propose", "cutover", "cleanup", "rollback", "audit verify"} {
		if !used[command] {
			t.Errorf("no example runs %s", command)
		}
	}
}

// takes asks the program whether a command takes the inputs.
func takes(t *testing.T, name string, with map[string]string) {
	t.Helper()
	for input := range with {
		if !slices.Contains(cli.ActionInputs(), input) {
			t.Errorf("%s: the action has no input %q", name, input)
		}
	}
	if err := cli.ActionTakes(with["command"], sortedWith(with)); err != nil {
		t.Errorf("%s: %v", name, err)
	}
}

func sortedWith(with map[string]string) []string {
	var out []string
	for input := range with {
		if input != "command" && input != "credential" && !strings.HasPrefix(input, "app-") && input != "private-key" && input != "github-token" {
			out = append(out, input)
		}
	}
	slices.Sort(out)
	return out
}

// TestOwnWorkflows has the project's own workflows use others' actions by their commit.
func TestOwnWorkflows(t *testing.T) {
	t.Parallel()
	files, err := filepath.Glob("../../.github/workflows/*.yml")
	if err != nil || len(files) < 2 {
		t.Fatalf("%d workflows, %v", len(files), err)
	}
	pinned := regexp.MustCompile(`^[a-z-]+/[a-z-]+@[0-9a-f]{40}$`)
	for _, file := range files {
		name := ".github/workflows/" + filepath.Base(file)
		var e example
		if err := yaml.Unmarshal([]byte(page(t, name)), &e); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		for job, j := range e.Jobs {
			if j.Timeout == 0 {
				t.Errorf("%s: job %s never ends by itself", name, job)
			}
			for _, s := range j.Steps {
				if s.Uses != "" && !pinned.MatchString(s.Uses) {
					t.Errorf("%s: job %s uses %s, which can be moved", name, job, s.Uses)
				}
			}
		}
	}
}
