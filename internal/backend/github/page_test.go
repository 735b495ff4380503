package github_test

import (
	"os"
	"regexp"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"

	"github.com/keyturn/keyturn/internal/backend/github"
	"github.com/keyturn/keyturn/internal/rotation/rotationtest"
)

// TestPage reads every section that docs/backends/github.md shows, and looks for every
// key and field there.
func TestPage(t *testing.T) {
	b, err := os.ReadFile("../../../docs/backends/github.md")
	if err != nil {
		t.Fatal(err)
	}
	page := string(b)
	sections := 0
	for _, block := range regexp.MustCompile("(?s)```yaml\n(.*?)```").FindAllStringSubmatch(page, -1) {
		for _, section := range sectionsIn(t, block[1]) {
			sections++
			text := strings.ReplaceAll(section, `adopt: ""`, "adopt: SHA256:"+strings.Repeat("A", 43))
			if _, err := github.Section(rotationtest.Decoder(text)); err != nil {
				t.Errorf("the page shows a section that is refused: %v\n%s", err, section)
			}
		}
	}
	if sections < 2 {
		t.Errorf("the page shows %d sections, want at least 2", sections)
	}
	for _, known := range []map[string]string{github.Settings{}.Documented(), github.DeployKey{}.Documented(), github.InstallationToken{}.Documented(),
		github.Webhook{}.Documented(), github.App{}.Documented()} {
		for key := range known {
			if !strings.Contains(page, key+":") && !strings.Contains(page, "`"+key+"`") {
				t.Errorf("the page says nothing of %s", key)
			}
		}
	}
	for _, kind := range []github.Settings{{}, {InstallationToken: &github.InstallationToken{}}, {Webhook: &github.Webhook{}}} {
		for _, field := range kind.Fields() {
			if !strings.Contains(page, "`"+field+"`") {
				t.Errorf("the page says nothing of the field %s", field)
			}
		}
	}
}

// sectionsIn returns the sections of a block: it is one, or a whole configuration.
func sectionsIn(t *testing.T, block string) []string {
	t.Helper()
	var doc struct {
		GitHub      yaml.Node `yaml:"github"`
		Credentials map[string]struct {
			GitHub yaml.Node `yaml:"github"`
		} `yaml:"credentials"`
	}
	if err := yaml.Unmarshal([]byte(block), &doc); err != nil {
		t.Fatal(err)
	}
	nodes := []yaml.Node{doc.GitHub}
	if doc.Credentials != nil {
		nodes = nil
		for _, c := range doc.Credentials {
			nodes = append(nodes, c.GitHub)
		}
	}
	var out []string
	for _, n := range nodes {
		if n.Kind == 0 {
			continue
		}
		text, err := yaml.Marshal(&n)
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, string(text))
	}
	return out
}
