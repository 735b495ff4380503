package config_test

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"
	"go.yaml.in/yaml/v3"

	"github.com/keyturn/keyturn/internal/config"
)

// What is written out in full is the same configuration, and stays as it is.
func TestFullIsTheSame(t *testing.T) {
	s, _ := schema(t)
	files, _ := filepath.Glob("testdata/ok/*.yml")
	if len(files) == 0 {
		t.Fatal("no golden files")
	}
	for _, file := range files {
		b, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		want, err := config.Parse(file, b, backends)
		if err != nil {
			t.Fatal(err)
		}
		full, err := want.Full()
		if err != nil {
			t.Fatal(err)
		}
		got, err := config.Parse(file, full, backends)
		if err != nil {
			t.Errorf("%s: written out in full it is refused: %v\n%s", file, err, full)
			continue
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%s: written out in full it is another (-want +got):\n%s", file, diff)
		}
		again, err := got.Full()
		if err != nil || string(again) != string(full) {
			t.Errorf("%s: it is written in another way the second time (%v)", file, err)
		}
		var v any
		if err := yaml.Unmarshal(full, &v); err != nil {
			t.Error(err)
		} else if err := s.Validate(v); err != nil {
			t.Errorf("%s: the schema refuses it in full: %v", file, err)
		}
	}
}
