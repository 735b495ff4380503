package rotationtest

import (
	"os"
	"regexp"
	"testing"

	"go.yaml.in/yaml/v3"
)

// Page reads a page of the documentation, and returns it and every section of a backend that
// its examples show: by itself, or in a whole configuration.
func Page(t testing.TB, file, backend string) (page string, sections []string) {
	t.Helper()
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	for _, block := range regexp.MustCompile("(?s)```yaml\n(.*?)```").FindAllSubmatch(b, -1) {
		var alone map[string]yaml.Node
		var whole struct {
			Credentials map[string]map[string]yaml.Node `yaml:"credentials"`
		}
		if err := yaml.Unmarshal(block[1], &alone); err != nil {
			t.Fatal(err)
		}
		all := []map[string]yaml.Node{alone}
		if err := yaml.Unmarshal(block[1], &whole); err == nil {
			for _, c := range whole.Credentials {
				all = append(all, c)
			}
		}
		for _, keys := range all {
			n, ok := keys[backend]
			if !ok {
				continue
			}
			text, err := yaml.Marshal(&n)
			if err != nil {
				t.Fatal(err)
			}
			sections = append(sections, string(text))
		}
	}
	return string(b), sections
}
