package config_test

import (
	"errors"
	"strings"
	"testing"

	"github.com/keyturn/keyturn/internal/config"
)

// TestLargeFilesHaveFaultsToo keeps the place of a syntax error in a text for
// which the search would take long.
func TestLargeFilesHaveFaultsToo(t *testing.T) {
	const lines = 20_000
	for name, c := range map[string]struct {
		text string
		line int
	}{
		"broken in its last line": {strings.Repeat("key: value\n", lines) + "x: @\n", lines + 1},
		"more than 1 MiB":         {strings.Repeat("# x\n", 1<<18+1), 1},
		"not closed":              {strings.Repeat("[", 9_000), 1},
	} {
		_, err := config.Parse("f.yml", []byte(c.text), backends)
		faults, _ := errors.AsType[config.Faults](err)
		if len(faults) != 1 || faults[0].Line < c.line-1 || faults[0].Line > c.line {
			t.Errorf("Parse of a file that is %s = %v, want one fault at line %d", name, err, c.line)
		}
	}
}
