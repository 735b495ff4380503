package config

import (
	"bytes"
	"errors"
	"io"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"
)

// syntaxWords gives our words for the library's, which may repeat a part of the file.
var syntaxWords = []struct{ theirs, ours, hint string }{
	{"tab character", "a tab stands where only spaces may", "indent with spaces"},
	{"cannot start any token", "a value begins with a character that it cannot begin with", "indent with spaces, and put text with special characters in quotes"},
	{"mapping values are not allowed", "a colon stands where none may", `put text with ": " in it in quotes, and indent keys of one level alike`},
	{"could not find expected ':'", "a key has no colon", "write key: value, with a space after the colon"},
	{"end of stream", "a quote is not closed", "close it"},
	{"did not find expected ',' or", "a bracket or a brace is not closed", "close it, and put commas between"},
	{"did not find expected key", "the indentation does not fit, or a quote is not closed", "indent keys of one level alike, with spaces"},
	{"did not find expected '-'", "the indentation of a list does not fit", "indent its items alike, with spaces"},
	{"unknown anchor", "aliases are not read", "write it out where it is used"},
	{"control characters", "control characters are not read", "write plain text"},
	{"unknown escape", "a text in double quotes has an unknown escape", "put it in single quotes"},
}

// syntax reports that the text is not YAML.
func (d *decoder) syntax(b []byte, err error) {
	msg, hint := "not YAML", "indent with spaces, and put text with special characters in quotes"
	for _, w := range syntaxWords {
		if strings.Contains(err.Error(), w.theirs) {
			msg, hint = w.ours, w.hint
			break
		}
	}
	d.fault(broken(b, err), "", hint, "%s", msg)
}

// mostTries and mostRead bound the search for the line in which a text is
// broken: how many beginnings are read, and how many bytes all in all. In a text
// beyond searched, which no configuration is, the library's line has to do.
const mostTries, mostRead, searched = 200, 2 << 20, 1 << 16

var libraryLine = regexp.MustCompile(`line (\d+)`)

// broken returns the place where the text stops being YAML: the line after the
// longest run of lines that can be read. The library's own line is that of the
// surrounding thing, or one off, or missing.
func broken(b []byte, err error) *yaml.Node {
	if len(b) > searched {
		n := &yaml.Node{Line: 1, Column: 1}
		if m := libraryLine.FindStringSubmatch(err.Error()); m != nil {
			n.Line, _ = strconv.Atoi(m[1])
		}
		return n
	}
	ends := []int{0} // of the lines
	for line := range bytes.Lines(b) {
		ends = append(ends, ends[len(ends)-1]+len(line))
	}
	noticed, _ := slices.BinarySearchFunc(ends[1:], 0, func(end, _ int) int {
		if other := unreadable(b[:end]); other != nil && other.Error() == err.Error() {
			return 1
		}
		return -1
	})
	line := max(min(noticed+1, len(ends)-1), 1)
	tries := min(mostTries, mostRead/(len(b)+1))
	for k := line - 1; k >= 0 && k >= line-tries; k-- {
		if unreadable(b[:ends[k]]) == nil {
			line = k + 1
			break
		}
	}
	text := b[ends[line-1]:ends[line]]
	column := 1 + len(text) - len(bytes.TrimLeft(text, " "))
	return &yaml.Node{Line: line, Column: column}
}

// unreadable returns why a text is not YAML, or nil.
func unreadable(b []byte) error {
	dec := yaml.NewDecoder(bytes.NewReader(b))
	for {
		var doc yaml.Node
		if err := dec.Decode(&doc); errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return err
		}
	}
}
