package consul_test

import (
	"os"
	"regexp"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"

	"github.com/keyturn/keyturn/internal/backend/consul"
	"github.com/keyturn/keyturn/internal/rotation/rotationtest"
)

// TestPage reads every section that docs/backends/consul.md shows, and looks for every
// key and field there.
func TestPage(t *testing.T) {
	b, err := os.ReadFile("../../../docs/backends/consul.md")
	if err != nil {
		t.Fatal(err)
	}
	page := string(b)
	sections := 0
	for _, block := range regexp.MustCompile("(?s)```yaml\n(.*?)```").FindAllStringSubmatch(page, -1) {
		var doc struct {
			Consul      yaml.Node `yaml:"consul"`
			Credentials map[string]struct {
				Consul yaml.Node `yaml:"consul"`
			} `yaml:"credentials"`
		}
		if err := yaml.Unmarshal([]byte(block[1]), &doc); err != nil {
			t.Fatal(err)
		}
		nodes := []yaml.Node{doc.Consul}
		for _, c := range doc.Credentials {
			nodes = append(nodes, c.Consul)
		}
		for _, n := range nodes {
			if n.IsZero() {
				continue
			}
			sections++
			text, err := yaml.Marshal(&n)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := consul.Section(rotationtest.Decoder(string(text))); err != nil {
				t.Errorf("the page shows a section that is refused: %v", err)
			}
		}
	}
	if sections < 5 {
		t.Errorf("the page shows %d sections, want at least 5", sections)
	}
	for key := range (consul.Settings{}).Documented() {
		if !strings.Contains(page, key+":") {
			t.Errorf("the page says nothing of %s", key)
		}
	}
	for _, field := range append((consul.Settings{}).Fields(), (consul.Settings{GossipKey: &consul.GossipKey{}}).Fields()...) {
		if !strings.Contains(page, "`"+field+"`") {
			t.Errorf("the page says nothing of the field %s", field)
		}
	}
}
