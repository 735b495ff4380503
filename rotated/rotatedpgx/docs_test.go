package rotatedpgx_test

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/keyturn/keyturn/rotated"
)

const page = "../../docs/applications.md"

func read(t *testing.T, path string) string {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// Every block of Go on the page stands, line by line, in an example of the
// packages, which are compiled.
func TestPageShowsTheExamples(t *testing.T) {
	examples := flat(read(t, "example_test.go") + read(t, "../example_test.go"))
	blocks := regexp.MustCompile("(?s)```go\n(.*?)```").FindAllStringSubmatch(read(t, page), -1)
	if len(blocks) < 6 {
		t.Fatalf("%s has %d blocks of Go, want 6 at least", page, len(blocks))
	}
	for _, block := range blocks {
		if !strings.Contains(examples, flat(block[1])) {
			t.Errorf("this block of %s stands in no example:\n%s", page, block[1])
		}
	}
}

// flat takes the indentation away.
func flat(text string) string {
	var lines []string
	for line := range strings.Lines(text) {
		lines = append(lines, strings.TrimSpace(line))
	}
	return "\n" + strings.Join(lines, "\n") + "\n"
}

// Every row of the page's table is what the package makes of such variables.
func TestPageSaysWhatIsTried(t *testing.T) {
	quoted := regexp.MustCompile("`([^`]+)`")
	cell := func(text string) (words []string) {
		for _, m := range quoted.FindAllStringSubmatch(text, -1) {
			words = append(words, m[1])
		}
		return words
	}
	rows := 0
	for line := range strings.Lines(read(t, page)) {
		cells := strings.Split(line, "|")
		if len(cells) != 6 || !strings.Contains(cells[3], "=") {
			continue
		}
		rows++
		dir, env := t.TempDir(), map[string]string{}
		for _, setting := range cell(cells[3]) {
			name, value, _ := strings.Cut(setting, "=")
			if strings.Contains(name, "_FILE") {
				path := filepath.Join(dir, value)
				if err := os.WriteFile(path, []byte(value+"\n"), 0o600); err != nil {
					t.Fatal(err)
				}
				value = path
			}
			env[name] = value
		}
		source := rotated.EnvFunc(func(name string) (string, bool) { v, ok := env[name]; return v, ok },
			rotated.Vars{"POSTGRES_USER": "username", "POSTGRES_PASSWORD": "password"})
		list, err := source.Candidates(t.Context())
		if err != nil {
			t.Errorf("%s%v", line, err)
		}
		var got []string
		for _, c := range list {
			got = append(got, c.Field("username")+"/"+c.Field("password"))
		}
		if diff := cmp.Diff(cell(cells[4]), got); diff != "" {
			t.Errorf("%s(-page +package):\n%s", line, diff)
		}
	}
	if rows != 6 {
		t.Errorf("%d rows of the table were tried, want 6", rows)
	}
}
