package cli_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// A shopMistake is something that is wrong, and what is said of it.
type shopMistake struct {
	config      string // default: the shop's own
	env         string // a variable more
	first, then func() // around it
	command     string // default: prepare; "adopted": prepare, after an adoption
	code        int
	words       []string // beside a hint
}

// configuration is the shop's, and a function that returns it with a part of it replaced.
func (s *shop) configuration() (whole string, replaced func(old, with string) string) {
	s.t.Helper()
	b, err := os.ReadFile(s.config)
	s.must(err)
	whole = string(b)
	return whole, func(old, with string) string {
		s.t.Helper()
		text := strings.Replace(whole, old, with, 1)
		if text == whole {
			s.t.Fatalf("the configuration lacks %q", old)
		}
		return text
	}
}

// meets makes one mistake after the other, each with a record of its own.
func (s *shop) meets(whole string, mistakes map[string]shopMistake) {
	for name, m := range mistakes {
		s.t.(*testing.T).Run(name, func(t *testing.T) {
			here := *s
			dir := t.TempDir()
			here.t, here.config, here.journal = t, filepath.Join(dir, "keyturn.yml"), filepath.Join(dir, "journal.jsonl")
			text := m.config
			if text == "" {
				text = whole
			}
			here.must(os.WriteFile(here.config, []byte(strings.Replace(text, s.journal, here.journal, 1)), 0o600))
			command := m.command
			if command == "adopted" {
				here.ok("adopt", s.name)
				command = ""
			}
			if command == "" {
				command = "prepare"
			}
			if m.env != "" {
				here.env = append(here.env[:len(here.env):len(here.env)], m.env)
			}
			if m.first != nil {
				m.first()
			}
			if m.then != nil {
				defer m.then()
			}
			here.fails(m.code, append(m.words, "hint: "), command, s.name)
		})
	}
}
