package config_test

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"unicode"

	"go.yaml.in/yaml/v3"

	"github.com/keyturn/keyturn/internal/config"
)

// planted is a secret that someone wrote where it does not belong. It stands in
// no configuration of the tests.
const planted = "Xk7canary9"

// disguises are the ways in which a secret may be written in place of a value.
var disguises = []string{
	planted,
	`"` + planted + `!x"`,
	`"` + planted + ` \e[31m"`,
	`"a\n` + planted + `: x"`,
	`'` + planted + `''`,
	`"` + planted,
	`{` + planted + `}`,
	`{` + planted + `: }`,
	`{` + planted + `: !t x}`,
	`{` + planted + `: *a}`,
	`{` + planted + `: {x: *a}}`,
	`{from-env: ` + planted + `}`,
	`{from-env: "` + planted + `!x"}`,
	`{from-env:` + planted + `}`,
	`{from-file: ` + planted + `}`,
	`{from-env: A, from-file: "` + planted + `/"}`,
	`{password: ` + planted + `}`,
	`{password:` + planted + `}`,
	`{password=` + planted + `}`,
	`{"password ` + planted + `": x}`,
	`{"password: ` + planted + `": x}`,
	`[` + planted + `]`,
	`[` + planted + `, ` + planted + `]`,
	`[{` + planted + `: x}]`,
	`!` + planted + ` x`,
	`!!binary ` + planted,
	`&` + planted + ` x`,
	`&a ` + planted,
	`*` + planted,
	`<<: ` + planted,
	`@` + planted,
	"`" + planted,
	`%` + planted,
	`password: ` + planted,
	`|` + planted,
	`>-` + "\n " + planted,
	`postgres://app:` + planted + `@h/db`,
	`postgres://{username}:` + planted + `@h/db`,
	`postgres://{username}:{` + strings.ToLower(planted) + `}@h/db`,
	`user={username} password=` + planted,
	`'{{"user":"{username}","password":"` + planted + `"}}'`,
	`{username}` + planted,
	`file:` + planted,
	`file:/` + planted + `/../x`,
	`unix://` + planted,
	`ssh://root:` + planted + `@h`,
	`/` + planted + `/..`,
	`12` + planted,
	`-` + planted,
}

// TestNoFaultHoldsAValue writes a secret in place of every scalar value of a
// configuration, and of every {from-env: …}, in every disguise.
func TestNoFaultHoldsAValue(t *testing.T) {
	refused := 0
	for _, file := range []string{"testdata/ok/full.yml", "testdata/ok/numbers.yml", "testdata/ok/directory.yml", "testdata/ok/ssh.yml", "testdata/ok/tls.yml"} {
		b, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for _, s := range places(b) {
			for _, d := range disguises {
				if holds(t, file, s.replaced(b, d)) {
					refused++
				}
			}
		}
	}
	if refused < 1000 {
		t.Errorf("%d planted secrets were refused, want at least 1000", refused)
	}
}

// TestNoLiteralStandsForASecret writes a secret into every place of one, which
// must be refused, in whatever disguise.
func TestNoLiteralStandsForASecret(t *testing.T) {
	b, err := os.ReadFile("testdata/ok/full.yml")
	if err != nil {
		t.Fatal(err)
	}
	for _, place := range []string{"{from-file: /run/secrets/keyturn_pg}", "{from-file: /etc/keyturn/fingerprint.key}", "{password}@pooler"} {
		for _, d := range disguises {
			if strings.Contains(d, "\n ") || place[1] == 'p' && strings.ContainsAny(d, `"{`) {
				continue // ends the template, or names a field
			}
			if place[1] == 'p' {
				d += "@pooler"
			}
			if !holds(t, place, []byte(strings.Replace(string(b), place, d, 1))) {
				t.Errorf("%q in place of %q was taken", d, place)
			}
		}
	}
}

// holds parses a text, fails if a fault holds the planted secret in any part,
// and reports whether there was one.
func holds(t *testing.T, file string, text []byte) bool {
	t.Helper()
	_, err := config.Parse("f.yml", text, backends)
	faults, _ := errors.AsType[config.Faults](err)
	for _, f := range faults {
		if all := strings.ToLower(f.Key + f.Msg + f.Tip + f.Error()); strings.Contains(all, strings.ToLower(planted)) {
			t.Errorf("%s: a fault holds the planted secret: %v\nin:\n%s", file, f, text)
		}
	}
	printable(t, err)
	return err != nil
}

// printable fails if an error holds what a terminal would obey, or more lines
// than its faults and hints have.
func printable(t *testing.T, err error) {
	t.Helper()
	if err == nil {
		return
	}
	if strings.ContainsFunc(err.Error(), func(r rune) bool { return !unicode.IsPrint(r) && r != '\n' }) {
		t.Errorf("a fault holds a control character: %q", err)
	}
	faults, _ := errors.AsType[config.Faults](err)
	if lines := strings.Count(err.Error(), "\n") + 1; lines > 2*len(faults) {
		t.Errorf("%d faults have %d lines: %q", len(faults), lines, err)
	}
}

// A span is where a value stands in a text.
type span struct{ from, to int }

func (s span) replaced(b []byte, with string) []byte {
	return slices.Concat(b[:s.from], []byte(with), b[s.to:])
}

// places returns where the scalar values of a text stand, those on one line,
// and its places of secrets.
func places(b []byte) []span {
	var doc yaml.Node
	if yaml.Unmarshal(b, &doc) != nil {
		return nil
	}
	var out []span
	for _, m := range regexp.MustCompile(`\{from-(env|file): [^}]*\}`).FindAllIndex(b, -1) {
		out = append(out, span{m[0], m[1]})
	}
	lines := slices.Collect(strings.Lines(string(b)))
	var walk func(n *yaml.Node)
	walk = func(n *yaml.Node) {
		for i, c := range n.Content {
			if n.Kind == yaml.MappingNode && i%2 == 0 {
				continue
			}
			walk(c)
		}
		if n.Kind != yaml.ScalarNode || n.Line > len(lines) {
			return
		}
		from := 0
		for _, l := range lines[:n.Line-1] {
			from += len(l)
		}
		line := lines[n.Line-1]
		from += len(string([]rune(line)[:min(n.Column-1, len([]rune(line)))]))
		for _, written := range []string{n.Value, `"` + n.Value + `"`, `'` + n.Value + `'`} {
			if n.Value != "" && strings.HasPrefix(string(b[from:]), written) {
				out = append(out, span{from, from + len(written)})
				return
			}
		}
	}
	walk(&doc)
	return out
}

func FuzzNoFaultHoldsAValue(f *testing.F) {
	files, _ := filepath.Glob("testdata/ok/*.yml")
	for i, file := range files {
		b, err := os.ReadFile(file)
		if err != nil {
			f.Fatal(err)
		}
		for j, d := range disguises {
			f.Add(b, i+j, d)
		}
	}
	f.Fuzz(func(t *testing.T, b []byte, n int, disguise string) {
		found := places(b)
		if len(found) == 0 || !strings.Contains(disguise, planted) || bytes.Contains(b, []byte(planted)) || strings.Contains(disguise, "\n") {
			return
		}
		text := found[uint(n)%uint(len(found))].replaced(b, disguise)
		var doc yaml.Node
		if yaml.Unmarshal(text, &doc) == nil && isKey(&doc) {
			return // keys are shown
		}
		holds(t, "fuzz", text)
	})
}

// isKey reports whether the planted secret is, or is part of, a key.
func isKey(n *yaml.Node) bool {
	for i, c := range n.Content {
		if n.Kind == yaml.MappingNode && i%2 == 0 && strings.Contains(c.Value, planted) || isKey(c) {
			return true
		}
	}
	return false
}
