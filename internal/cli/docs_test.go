package cli_test

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/docker/docker/api/types/build"
	"go.yaml.in/yaml/v3"

	"github.com/keyturn/keyturn/internal/cli"
	"github.com/keyturn/keyturn/internal/config"
	"github.com/keyturn/keyturn/internal/testserver"
)

const top = "../../"

func page(t testing.TB, name string) string {
	t.Helper()
	b, err := os.ReadFile(top + name)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// blocks returns the fenced blocks of a language.
func blocks(text, language string) []string {
	var out []string
	for _, m := range regexp.MustCompile("(?s)```"+language+"\n(.*?)```").FindAllStringSubmatch(text, -1) {
		out = append(out, m[1])
	}
	return out
}

// TestPagesShowConfigurationsThatParse parses every configuration of the pages.
func TestPagesShowConfigurationsThatParse(t *testing.T) {
	parsed := 0
	for _, name := range pages(t) {
		for _, block := range blocks(page(t, name), "yaml") {
			if !strings.Contains(block, "credentials:") || !strings.Contains(block, "version: 1") {
				continue
			}
			if _, err := config.Parse(name, []byte(block), cli.Sections()); err != nil {
				t.Errorf("a configuration in %s: %v", name, err)
			}
			parsed++
		}
	}
	if parsed < 2 {
		t.Errorf("%d configurations were found, want at least 2", parsed)
	}
}

func pages(t *testing.T) []string {
	t.Helper()
	found := []string{"README.md", "CONTRIBUTING.md"}
	err := filepath.WalkDir(top+"docs", func(path string, _ os.DirEntry, err error) error {
		if strings.HasSuffix(path, ".md") {
			found = append(found, strings.TrimPrefix(path, top))
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return found
}

// TestReadmeShowsTheExample keeps the workflow of the README the one that is linted.
func TestReadmeShowsTheExample(t *testing.T) {
	if !strings.Contains(page(t, "README.md"), page(t, "workflows-examples/rotate.yml")) {
		t.Error("README.md does not show workflows-examples/rotate.yml as it is")
	}
}

// TestLinksLead checks the links between pages.
func TestLinksLead(t *testing.T) {
	link := regexp.MustCompile(`\]\(([^)#:]+)(#[^)]*)?\)`)
	for _, name := range pages(t) {
		for _, m := range link.FindAllStringSubmatch(page(t, name), -1) {
			if _, err := os.Stat(filepath.Join(filepath.Dir(top+name), m[1])); err != nil {
				t.Errorf("%s links to %s, which is not there", name, m[1])
			}
		}
	}
}

// TestPagesNameCommandsThatThereAre holds the other commands of the pages to
// what there is: targets of make, packages of go, scripts. What they do is run
// elsewhere: make test and make lint are what continuous integration runs.
func TestPagesNameCommandsThatThereAre(t *testing.T) {
	run := func(name string, args ...string) {
		t.Helper()
		cmd := exec.Command(name, args...)
		cmd.Dir = top
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Errorf("%s %s: %v\n%s", name, strings.Join(args, " "), err, out)
		}
	}
	found := 0
	for _, name := range pages(t) {
		text := page(t, name)
		for _, m := range regexp.MustCompile("(?m)(?:`|^)make (\\w+)").FindAllStringSubmatch(text, -1) {
			run("make", "-n", m[1])
			found++
		}
		for _, m := range regexp.MustCompile("(?m)(?:`|^)go (?:install|test|run) ([^`#\n]+)").FindAllStringSubmatch(text, -1) {
			for _, word := range strings.Fields(m[1]) {
				if path, _, _ := strings.Cut(word, "@"); strings.HasPrefix(path, "./internal/") || strings.HasPrefix(path, module) {
					run("go", "list", path)
					found++
				}
			}
		}
		for _, m := range regexp.MustCompile("`(\\.ci/\\w+)`").FindAllStringSubmatch(text, -1) {
			page(t, m[1])
			found++
		}
	}
	if found < 8 {
		t.Errorf("%d commands were found, want at least 8", found)
	}
	if script := page(t, ".ci/run"); !strings.Contains(script, " test") || !strings.Contains(script, " lint") {
		t.Error(".ci/run runs neither make test nor make lint")
	}
	if !strings.Contains(page(t, "internal/config/config_test.go"), `flag.Bool("update"`) {
		t.Error("the golden files of the configuration are not written by -update")
	}
}

// TestFirstSteps runs the commands for a configuration that was written by hand,
// in the order of the page, on one machine.
func TestFirstSteps(t *testing.T) {
	t.Parallel()
	s := newShop(t, servers.postgres.Get(t))
	s.firstSteps()
}

// TestFirstStepsOnASwarm runs the same on a Swarm, with an image of the probes
// that is made as the page of the configuration says.
func TestFirstStepsOnASwarm(t *testing.T) {
	t.Parallel()
	k := newStack(t, servers.postgres.Get(t), []string{"overlap: 1h"})
	const tag = "keyturn-page:1"
	k.build(tag)
	b, err := os.ReadFile(k.config)
	k.must(err)
	text := strings.Replace(string(b), `image: "`+probeImage+`"`, `image: "`+tag+`"`, 1)
	if text == string(b) {
		t.Fatal("the configuration names another image of the probes")
	}
	k.must(os.WriteFile(k.config, []byte(text), 0o600))
	if out := k.ok("plan", "--due"); !strings.Contains(out, k.service+" 2 tasks, start-first, one at a time") ||
		!strings.Contains(out, "login none → ") || strings.Contains(out, "the old one ends") {
		t.Errorf("the plan of a first version says:\n%s", out)
	}
	k.firstSteps()
	if out := k.ok("plan"); !strings.Contains(out, "an empty update per service, restarts nothing") {
		t.Errorf("the plan does not say when the empty update comes:\n%s", out)
	}
	k.noneFailed()
}

// firstSteps runs the last commands of docs/first-steps.md for a credential that is
// set up and not adopted.
func (s *shop) firstSteps() {
	s.t.Helper()
	steps := blocks(page(s.t, "docs/first-steps.md"), "sh")
	ran := 0
	for line := range strings.Lines(steps[len(steps)-1]) {
		words := strings.Fields(strings.Split(line, "#")[0])
		for i := range words {
			words[i] = strings.ReplaceAll(words[i], "orders-db", s.name)
		}
		s.ok(words[1:]...)
		ran++
	}
	if ran < 6 {
		s.t.Errorf("%d commands were found in docs/first-steps.md, want at least 6", ran)
	}
	if p := s.status(); p.Current != 2 || p.Previous != 1 {
		s.t.Errorf("after the first steps: %+v, want version 2 current and 1 previous", p)
	}
}

// build makes the image that docs/configuration.md shows, with the program that
// make build makes.
func (k *stack) build(tag string) {
	k.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	files := blocks(page(k.t, "docs/configuration.md"), "dockerfile")
	if len(files) != 1 {
		k.t.Fatalf("docs/configuration.md shows %d Dockerfiles, want 1", len(files))
	}
	program, err := testserver.BuildGo(ctx, "./cmd/keyturn")
	k.must(err)
	binary, err := os.ReadFile(program)
	k.must(err)
	var folder bytes.Buffer
	archive := tar.NewWriter(&folder)
	for name, content := range map[string][]byte{"Dockerfile": []byte(files[0]), "bin/keyturn": binary} {
		k.must(archive.WriteHeader(&tar.Header{Name: name, Mode: 0o755, Size: int64(len(content))}))
		_, err := archive.Write(content)
		k.must(err)
	}
	k.must(archive.Close())
	answer, err := k.client.ImageBuild(ctx, &folder, build.ImageBuildOptions{Tags: []string{tag}, Remove: true})
	k.must(err)
	said, err := io.ReadAll(answer.Body)
	k.must(errors.Join(err, answer.Body.Close()))
	if _, err := k.client.ImageInspect(ctx, tag); err != nil {
		k.t.Fatalf("the image of the page was not built: %v\n%s", err, said)
	}
}

// A workflow is what GitHub would read of the example.
type workflow struct {
	Jobs map[string]struct {
		Needs   string
		If      string
		Outputs map[string]string
		Steps   []struct{ ID, Uses, Run, If string }
	}
}

// play runs the jobs of a workflow, each after the one that it needs, and
// returns the names of those that ran. Its expressions are few.
func (s *shop) play(w workflow) []string {
	s.t.Helper()
	bin := s.t.TempDir()
	script := fmt.Sprintf("#!/bin/sh\nexec %q --config %q \"$@\"\n", program(s.t), s.config)
	s.must(os.WriteFile(filepath.Join(bin, "keyturn"), []byte(script), 0o755))
	outputs := map[string]string{}
	var ran []string
	for need := ""; len(ran) < len(w.Jobs); {
		name := ""
		for candidate, job := range w.Jobs {
			if job.Needs == need && !slices.Contains(ran, candidate) {
				name = candidate
			}
		}
		job := w.Jobs[name]
		if m := regexp.MustCompile(`needs\.(\w+)\.outputs\.(\w+) == '(\w+)'`).FindStringSubmatch(job.If); m != nil && outputs[m[1]+"."+m[2]] != m[3] {
			return ran
		}
		output := filepath.Join(s.t.TempDir(), "output")
		for _, step := range job.Steps {
			if step.Run == "" {
				continue
			}
			cmd := exec.Command("bash", "-e", "-c", step.Run)
			cmd.Env = append(s.env, "PATH="+bin+":"+os.Getenv("PATH"), "GITHUB_OUTPUT="+output, "GITHUB_STEP_SUMMARY="+output+".md")
			cmd.Dir = s.t.TempDir()
			if said, err := cmd.CombinedOutput(); err != nil {
				s.t.Fatalf("job %s: %s: %v\n%s", name, step.Run, err, said)
			}
		}
		written, _ := os.ReadFile(output) // most jobs write none
		for key := range job.Outputs {
			for line := range strings.Lines(string(written)) {
				if value, ok := strings.CutPrefix(strings.TrimSpace(line), key+"="); ok {
					outputs[name+"."+key] = value
				}
			}
		}
		ran, need = append(ran, name), name
	}
	return ran
}

// TestWorkflowCommands plays the example workflow, night after night: it
// rotates what is due, asks nobody when nothing is, and cleans up whatever else
// waits.
func TestWorkflowCommands(t *testing.T) {
	t.Parallel()
	s := newShop(t, servers.postgres.Get(t), "every: 10d", "overlap: 1h")
	var w workflow
	s.must(yaml.Unmarshal([]byte(page(t, "workflows-examples/rotate.yml")), &w))
	if len(w.Jobs) != 4 || w.Jobs["cleanup"].Needs != "" {
		t.Fatalf("the workflow has the jobs %v, want four, and cleanup to need none", w.Jobs)
	}
	s.ok("adopt", s.name)
	idle := []string{"cleanup", "prepare", "validate"}
	if got := s.play(w); !slices.Equal(got, idle) {
		t.Errorf("when nothing is due, %q run, want %q", got, idle)
	}
	b, err := os.ReadFile(s.config)
	s.must(err)
	due := strings.NewReplacer("every: 10d", "every: 2s", "overlap: 1h", "overlap: 1s").Replace(string(b))
	s.must(os.WriteFile(s.config, []byte(due), 0o600))
	time.Sleep(2 * time.Second) // until it is due
	if got := s.play(w); !slices.Equal(got, append(idle, "cutover")) {
		t.Errorf("when it is due, %q run, want every job", got)
	}
	if p := s.status(); p.Current != 2 || p.Previous != 1 {
		t.Errorf("after the workflow: %+v, want version 2 current and 1 previous", p)
	}
	s.must(os.WriteFile(s.config, []byte(strings.Replace(string(b), "overlap: 1h", "overlap: 1s", 1)), 0o600))
	time.Sleep(time.Second) // the overlap
	if got := s.play(w); !slices.Equal(got, idle) {
		t.Errorf("a night later, %q run, want %q", got, idle)
	}
	s.finished(2)
}

// TestNamedTestsExist keeps the pages from naming tests that are gone.
func TestNamedTestsExist(t *testing.T) {
	exist := map[string]bool{}
	err := filepath.WalkDir(top, func(path string, _ os.DirEntry, err error) error {
		if err != nil || !strings.HasSuffix(path, "_test.go") {
			return err
		}
		b, err := os.ReadFile(path)
		for _, m := range regexp.MustCompile(`(?m)^func (Test\w+)\(`).FindAllStringSubmatch(string(b), -1) {
			exist[m[1]] = true
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range pages(t) {
		for _, m := range regexp.MustCompile("`(Test\\w+)`").FindAllStringSubmatch(page(t, name), -1) {
			if !exist[m[1]] {
				t.Errorf("%s names %s, which does not exist", name, m[1])
			}
		}
	}
}

// TestTableOfBackends has every backend stand in the table that the contract tests
// write.
func TestTableOfBackends(t *testing.T) {
	t.Parallel()
	table := page(t, "docs/backends/README.md")
	backends, err := filepath.Glob("../backend/*/settings.go") // what has none is shared by them
	if err != nil || len(backends) == 0 {
		t.Fatalf("no backend is found: %v", err)
	}
	for _, file := range backends {
		if of := filepath.Base(filepath.Dir(file)) + ".md"; !strings.Contains(table, "]("+of) {
			t.Errorf("docs/backends/README.md has no line for %s", of)
		}
	}
}
