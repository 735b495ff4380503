package cli_test

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/keyturn/keyturn/internal/backend/postgres"
	"github.com/keyturn/keyturn/internal/config"
)

const top = "../../"

func page(t *testing.T, name string) string {
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
			if _, err := config.Parse(name, []byte(block), map[string]config.Section{"postgres": postgres.Section}); err != nil {
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

// TestFirstSteps runs the commands of the README, in its order.
func TestFirstSteps(t *testing.T) {
	t.Parallel()
	s := newShop(t, servers.postgres.Get(t))
	ran := 0
	for _, block := range blocks(page(t, "README.md"), "sh") {
		for line := range strings.Lines(block) {
			words := strings.Fields(strings.Split(line, "#")[0])
			if len(words) < 2 || words[0] != "keyturn" {
				continue
			}
			for i := range words {
				words[i] = strings.ReplaceAll(words[i], "orders-db", s.name)
			}
			s.ok(words[1:]...)
			ran++
		}
	}
	if ran < 6 {
		t.Errorf("%d commands were found in README.md, want at least 6", ran)
	}
	if p := s.status(); p.Current != 2 || p.Previous != 1 {
		t.Errorf("after the first steps: %+v, want version 2 current and 1 previous", p)
	}
}

// TestWorkflowCommands runs the phases of the example workflow, one process each.
func TestWorkflowCommands(t *testing.T) {
	t.Parallel()
	s := newShop(t, servers.postgres.Get(t), "every: 2s", "overlap: 1s")
	s.ok("adopt", s.name)
	time.Sleep(2 * time.Second) // until it is due
	for _, m := range regexp.MustCompile(`run: keyturn (.+)`).FindAllStringSubmatch(page(t, "workflows-examples/rotate.yml"), -1) {
		s.ok(strings.Fields(m[1])...)
	}
	if p := s.status(); p.Current != 2 {
		t.Errorf("after the workflow: %+v, want version 2 current", p)
	}
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
