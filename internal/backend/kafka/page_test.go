package kafka_test

import (
	"os"
	"regexp"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"

	"github.com/keyturn/keyturn/internal/backend/kafka"
	"github.com/keyturn/keyturn/internal/rotation/rotationtest"
)

// TestPage reads every section that docs/backends/kafka.md shows, and looks for every
// key and field there.
func TestPage(t *testing.T) {
	b, err := os.ReadFile("../../../docs/backends/kafka.md")
	if err != nil {
		t.Fatal(err)
	}
	page := string(b)
	sections := 0
	for _, block := range regexp.MustCompile("(?s)```yaml\n(.*?)```").FindAllStringSubmatch(page, -1) {
		var doc struct {
			Kafka       yaml.Node `yaml:"kafka"`
			Credentials map[string]struct {
				Kafka yaml.Node `yaml:"kafka"`
			} `yaml:"credentials"`
		}
		if err := yaml.Unmarshal([]byte(block[1]), &doc); err != nil {
			t.Fatal(err)
		}
		nodes := []yaml.Node{doc.Kafka}
		for _, c := range doc.Credentials {
			nodes = append(nodes, c.Kafka)
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
			if _, err := kafka.Section(rotationtest.Decoder(string(text))); err != nil {
				t.Errorf("the page shows a section that is refused: %v", err)
			}
		}
	}
	if sections < 2 {
		t.Errorf("the page shows %d sections, want at least 2", sections)
	}
	for key := range (kafka.Settings{}).Documented() {
		if !strings.Contains(page, key+":") {
			t.Errorf("the page says nothing of %s", key)
		}
	}
	for _, field := range (kafka.Settings{}).Fields() {
		if !strings.Contains(page, "`"+field+"`") {
			t.Errorf("the page says nothing of the field %s", field)
		}
	}
}
