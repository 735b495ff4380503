package stackfile

import (
	"fmt"
	"slices"
	"strings"
	"unicode/utf8"

	"go.yaml.in/yaml/v3"
)

// An editor changes lines of a text.
type editor struct {
	lines []line
}

// A line is what becomes of a line of the text.
type line struct {
	was   string // with its end
	gone  bool
	cuts  []cut
	after []string // what is written below it
}

// A cut replaces bytes of a line.
type cut struct {
	from, to int
	with     string
}

func newEditor(text string) *editor {
	e := &editor{}
	for l := range strings.Lines(text) {
		e.lines = append(e.lines, line{was: l})
	}
	return e
}

// now is what stands in the place of a line.
func (l line) now() []string {
	if l.gone {
		return l.after
	}
	first := l.was
	for _, c := range slices.SortedFunc(slices.Values(l.cuts), func(a, b cut) int { return b.from - a.from }) {
		first = first[:c.from] + c.with + first[c.to:]
	}
	if len(l.after) > 0 && !strings.HasSuffix(first, "\n") {
		first += ending(first)
	}
	return append([]string{first}, l.after...)
}

func (e *editor) text() string {
	var out strings.Builder
	for _, l := range e.lines {
		out.WriteString(strings.Join(l.now(), ""))
	}
	return out.String()
}

// diff returns a hunk for every run of lines that changed.
func (e *editor) diff(name string) string {
	var out strings.Builder
	written := 0 // lines of the new text so far
	for i := 0; i < len(e.lines); {
		var old, fresh []string
		from := i
		for ; i < len(e.lines); i++ {
			now := e.lines[i].now()
			if len(now) == 1 && now[0] == e.lines[i].was {
				break
			}
			old, fresh = append(old, e.lines[i].was), append(fresh, now...)
		}
		if i == from {
			i, written = i+1, written+1
			continue
		}
		if out.Len() == 0 {
			name = strings.TrimPrefix(name, "/")
			fmt.Fprintf(&out, "--- a/%s\n+++ b/%s\n", name, name)
		}
		fmt.Fprintf(&out, "@@ -%s +%s @@\n", span(from, len(old)), span(written, len(fresh)))
		mark(&out, "-", old)
		mark(&out, "+", fresh)
		written += len(fresh)
	}
	return out.String()
}

// span is a range of lines as a hunk names it, after so many lines.
func span(after, n int) string {
	switch n {
	case 0:
		return fmt.Sprintf("%d,0", after)
	case 1:
		return fmt.Sprint(after + 1)
	}
	return fmt.Sprintf("%d,%d", after+1, n)
}

func mark(out *strings.Builder, sign string, lines []string) {
	for _, l := range lines {
		out.WriteString(sign + l)
		if !strings.HasSuffix(l, "\n") {
			out.WriteString("\n\\ No newline at end of file\n")
		}
	}
}

// ending returns how a line ends.
func ending(l string) string {
	if strings.HasSuffix(l, "\r\n") {
		return "\r\n"
	}
	return "\n"
}

// offset returns the byte of a column, which counts characters.
func (e *editor) offset(p Place) (int, bool) {
	if p.Line < 1 || p.Line > len(e.lines) {
		return 0, false
	}
	at, rest := 0, e.lines[p.Line-1].was
	for range p.Column - 1 {
		_, size := utf8.DecodeRuneInString(rest)
		if size == 0 {
			return 0, false
		}
		at, rest = at+size, rest[size:]
	}
	return at, true
}

// scalar replaces a text of one line.
func (e *editor) scalar(n *yaml.Node, with string) error {
	from, ok := e.offset(placeOf(n))
	if !ok || n.Anchor != "" || n.Style&(yaml.LiteralStyle|yaml.FoldedStyle|yaml.TaggedStyle) != 0 {
		return ErrByHand
	}
	l := &e.lines[n.Line-1]
	source := n.Value
	switch n.Style {
	case yaml.DoubleQuotedStyle:
		source = `"` + n.Value + `"`
		with = `"` + with + `"`
	case yaml.SingleQuotedStyle:
		source = "'" + n.Value + "'"
		with = "'" + with + "'"
	}
	if !strings.HasPrefix(l.was[from:], source) || strings.ContainsAny(n.Value, `'"\`) {
		return ErrByHand
	}
	c := cut{from, from + len(source), with}
	if !slices.Contains(l.cuts, c) { // two services may share it
		l.cuts = append(l.cuts, c)
	}
	return nil
}

func (e *editor) variable(v variable) error {
	with := strings.ReplaceAll(v.want, "$", "$$")
	if v.list {
		with = v.Name + "=" + with
	}
	if v.crowded || v.value.Style == 0 && !bare(with) {
		return ErrByHand
	}
	return e.scalar(v.value, with)
}

// bare reports whether a text may stand in a file without quotes, and is text.
func bare(s string) bool {
	var n yaml.Node
	return yaml.Unmarshal([]byte("k: ["+s+"]"), &n) == nil && len(n.Content) == 1 &&
		len(n.Content[0].Content[1].Content) == 1 && n.Content[0].Content[1].Content[0].Value == s
}
