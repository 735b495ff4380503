package rotationtest

import (
	"os"
	"regexp"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"
)

// A Documented is a section of the configuration, or a part of one, that says of its keys
// what they are.
type Documented interface{ Documented() map[string]string }

// Page reads every section that docs/backends/NAME.md shows, and looks for every key and
// field there.
func Page(t *testing.T, name string, section func(decode func(any) error) (any, error), fields []string, parts ...Documented) {
	t.Helper()
	b, err := os.ReadFile("../../../docs/backends/" + name + ".md")
	if err != nil {
		t.Fatal(err)
	}
	page := string(b)
	sections := 0
	for _, block := range regexp.MustCompile("(?s)```yaml\n(.*?)```").FindAllStringSubmatch(page, -1) {
		for _, n := range sectionsIn(t, name, block[1]) {
			sections++
			text, err := yaml.Marshal(&n)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := section(Decoder(string(text))); err != nil {
				t.Errorf("the page shows a section that is refused: %v", err)
			}
		}
	}
	if sections < 2 {
		t.Errorf("the page shows %d sections, want at least 2", sections)
	}
	for _, part := range parts {
		for key := range part.Documented() {
			if !strings.Contains(page, key+":") {
				t.Errorf("the page says nothing of %s", key)
			}
		}
	}
	for _, field := range fields {
		if !strings.Contains(page, "`"+field+"`") {
			t.Errorf("the page says nothing of the field %s", field)
		}
	}
}

// sectionsIn returns those of a backend in a text: alone, or of credentials.
func sectionsIn(t *testing.T, name, text string) (out []yaml.Node) {
	t.Helper()
	doc := map[string]yaml.Node{}
	if err := yaml.Unmarshal([]byte(text), &doc); err != nil {
		t.Fatal(err)
	}
	all := []map[string]yaml.Node{doc}
	var credentials map[string]map[string]yaml.Node
	if n, ok := doc["credentials"]; ok {
		if err := n.Decode(&credentials); err != nil {
			t.Fatal(err)
		}
	}
	for _, c := range credentials {
		all = append(all, c)
	}
	for _, in := range all {
		if n, ok := in[name]; ok {
			out = append(out, n)
		}
	}
	return out
}
