package cli_test

import (
	"bytes"
	"context"
	"encoding/json"
	"regexp"
	"testing"

	"github.com/santhosh-tekuri/jsonschema/v6"
	"go.yaml.in/yaml/v3"

	"github.com/keyturn/keyturn/internal/cli"
)

// What the command prints takes the configurations of the pages, and says of every key of the backends what it is.
func TestSchemaTakesTheConfigurationsOfThePages(t *testing.T) {
	t.Parallel()
	var out, errs bytes.Buffer
	if code := (cli.Program{Args: []string{"schema"}, Stdout: &out, Stderr: &errs}).Run(context.Background()); code != 0 {
		t.Fatalf("keyturn schema exits %d: %s", code, errs.String())
	}
	var doc map[string]any
	if err := json.Unmarshal(out.Bytes(), &doc); err != nil {
		t.Fatal(err)
	}
	c := jsonschema.NewCompiler()
	if err := c.AddResource("keyturn.json", doc); err != nil {
		t.Fatal(err)
	}
	schema, err := c.Compile("keyturn.json")
	if err != nil {
		t.Fatal(err)
	}
	found := 0
	for _, name := range pages(t) {
		for _, m := range regexp.MustCompile("(?s)```yaml\n(.*?)```").FindAllStringSubmatch(page(t, name), -1) {
			var v map[string]any
			if err := yaml.Unmarshal([]byte(m[1]), &v); err != nil || v["version"] != 1 || v["credentials"] == nil {
				continue
			}
			found++
			if err := schema.Validate(any(v)); err != nil {
				t.Errorf("%s: %v\n%s", name, err, m[1])
			}
			v["version"] = 2
			if schema.Validate(any(v)) == nil {
				t.Errorf("%s: the schema takes version 2", name)
			}
		}
	}
	if found < 2 {
		t.Errorf("%d configurations were found, want at least 2", found)
	}
	for _, key := range []string{"properties", "credentials", "additionalProperties", "properties"} {
		doc = doc[key].(map[string]any)
	}
	for _, backend := range []string{"postgres", "github"} {
		described(t, backend, doc[backend].(map[string]any))
	}
}

// described checks that every key of a backend's section has a description.
func described(t *testing.T, at string, section map[string]any) {
	t.Helper()
	keys, _ := section["properties"].(map[string]any)
	for key, p := range keys {
		if key == "from-env" || key == "from-file" {
			continue
		}
		if p.(map[string]any)["description"] == nil {
			t.Errorf("%s.%s has no description: add it to Documented", at, key)
		}
		described(t, at+"."+key, p.(map[string]any))
	}
}
