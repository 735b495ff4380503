package cli_test

import (
	"encoding/json"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
)

// keysOf adds every key of a JSON document, however deep, but those that are names:
// of credentials, fields and variables.
func keysOf(v any, byName bool, into map[string]bool) {
	switch x := v.(type) {
	case []any:
		for _, item := range x {
			keysOf(item, false, into)
		}
	case map[string]any:
		for key, item := range x {
			if !byName {
				into[key] = true
			}
			named := map[string]bool{"public": true, "objects": true, "fingerprints": true, "secrets": true, "env": true, "path": true}
			keysOf(item, !byName && (named[key] || key == "file"), into)
		}
	}
}

// outputPage runs the commands that print JSON. Every key that they print stands on
// the page of the output, and every key of the page in the program.
func (w *workspace) outputPage() {
	t := w.t
	t.Helper()
	text := page(t, "docs/output.md")
	documented := map[string]bool{}
	for _, m := range regexp.MustCompile("`([a-z_]+)`").FindAllStringSubmatch(text, -1) {
		documented[m[1]] = true
	}
	printed := map[string]bool{}
	see := func(command string) {
		t.Helper()
		out, _ := w.try(command + " -o json 2>/dev/null")
		var doc any
		if err := json.Unmarshal([]byte(out), &doc); err != nil {
			t.Errorf("%s -o json prints no document: %v\n%s", command, err, out)
			return
		}
		keysOf(doc, false, printed)
	}
	see("keyturn --config new.yml init --dry-run --from-service " + w.name + "_api --image " + probeImage)
	for _, command := range []string{"setup postgres", "version", "plan", "doctor", "rotate orders", "rotate", "rotate NAME-db", "status", "cleanup NAME-db",
		"rollback --reason x --dry-run NAME-db", "rollback --reason x NAME-db", "adopt NAME-db", "prepare --due", "prepare NAME-db", "plan --due", "audit verify"} {
		see("keyturn " + strings.ReplaceAll(command, "NAME", w.name))
	}
	for key := range printed {
		if !documented[key] {
			t.Errorf("docs/output.md does not name the key %q", key)
		}
	}
	if len(printed) < 50 {
		t.Errorf("%d keys were printed, want at least 50", len(printed))
	}
	source := ""
	err := filepath.WalkDir(top+"internal", func(path string, _ fs.DirEntry, err error) error {
		if err != nil || !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go") {
			return err
		}
		b, err := os.ReadFile(path)
		source += string(b)
		return err
	})
	w.must(err)
	words := map[string]bool{"done": true, "waiting": true, "rotate": true, "rollback": true, "adopt": true, "plan": true, "status": true, "doctor": true, "init": true, "setup": true, "ms": true}
	for key := range documented {
		if !words[key] && !strings.Contains(source, `json:"`+key) && !strings.Contains(source, `"`+key+`":`) && !strings.Contains(source, `["`+key+`"]`) {
			t.Errorf("the program prints no key %q", key)
		}
	}
}
