package config_test

import (
	"encoding/json"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/santhosh-tekuri/jsonschema/v6"
	"go.yaml.in/yaml/v3"

	"github.com/keyturn/keyturn/internal/config"
)

func schema(t *testing.T) (*jsonschema.Schema, map[string]any) {
	t.Helper()
	b, err := config.Schema(backends)
	if err != nil {
		t.Fatal(err)
	}
	var doc map[string]any
	if err := json.Unmarshal(b, &doc); err != nil {
		t.Fatal(err)
	}
	c := jsonschema.NewCompiler()
	c.AssertFormat()
	if err := c.AddResource("keyturn.json", doc); err != nil {
		t.Fatal(err)
	}
	compiled, err := c.Compile("keyturn.json")
	if err != nil {
		t.Fatal(err)
	}
	return compiled, doc
}

// refused returns why the schema, or YAML itself, refuses a file.
func refused(t *testing.T, s *jsonschema.Schema, file string) error {
	t.Helper()
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	var v any
	if err := yaml.Unmarshal(b, &v); err != nil {
		return err
	}
	return s.Validate(dated(v))
}

// dated makes texts of days, as YAML 1.2 has them.
func dated(v any) any {
	switch x := v.(type) {
	case time.Time:
		return x.Format("2006-01-02")
	case map[string]any:
		for key, value := range x {
			x[key] = dated(value)
		}
	case []any:
		for i, value := range x {
			x[i] = dated(value)
		}
	}
	return v
}

// The schema refuses what the parser refuses, but for what parserOnly lists.
func TestSchemaAndParserAgree(t *testing.T) {
	s, _ := schema(t)
	ok, _ := filepath.Glob("testdata/ok/*.yml")
	bad, _ := filepath.Glob("testdata/err/*.yml")
	if len(ok) == 0 || len(bad) == 0 {
		t.Fatal("no golden files")
	}
	for _, file := range ok {
		if err := refused(t, s, file); err != nil {
			t.Errorf("%s: the schema refuses what the parser takes: %v", file, err)
		}
	}
	listed := map[string]bool{}
	for reason, names := range parserOnly {
		for _, name := range names {
			if listed[name] || reason == "" {
				t.Errorf("%s is listed twice or without a reason", name)
			}
			listed[name] = true
		}
	}
	for _, file := range bad {
		name := filepath.Base(file)
		err := refused(t, s, file)
		switch {
		case err == nil && !listed[name]:
			t.Errorf("%s: the schema takes what the parser refuses", name)
		case err != nil && listed[name]:
			t.Errorf("%s is listed as one that only the parser refuses; the schema does too: %v", name, err)
		}
		delete(listed, name)
	}
	for name := range listed {
		t.Errorf("%s is listed, and there is no such file", name)
	}
}

func TestSchemaDescribesEveryKey(t *testing.T) {
	_, doc := schema(t)
	delete(doc["properties"].(map[string]any)["credentials"].(map[string]any)["additionalProperties"].(map[string]any)["properties"].(map[string]any), "postgres")
	var walk func(at string, node any)
	walk = func(at string, node any) {
		m, ok := node.(map[string]any)
		if !ok {
			return
		}
		if properties, ok := m["properties"].(map[string]any); ok {
			for key, p := range properties {
				if p.(map[string]any)["description"] == nil && key != "from-env" && key != "from-file" {
					t.Errorf("%s.%s has no description: add it to facts", at, key)
				}
				walk(at+"."+key, p)
			}
		}
		walk(at+".*", m["additionalProperties"])
		walk(at+".*", m["items"])
	}
	walk("", doc)
}
