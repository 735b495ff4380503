package stackfile

import (
	"maps"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"
)

// external makes a secret of the top level one that is there already.
func (e *editor) external(s Secret, name string) error {
	n := s.node
	switch {
	case n.Kind == yaml.ScalarNode && n.Tag == "!!null":
		return e.empty(s, name)
	case n.Kind != yaml.MappingNode || n.Anchor != "" || slices.ContainsFunc(n.Content, shares):
		return ErrByHand
	case n.Style&yaml.FlowStyle != 0:
		return e.flow(n, name)
	}
	return e.block(n, name)
}

// shares reports whether something else may be written by a node.
func shares(n *yaml.Node) bool {
	return n.Anchor != "" || n.Kind == yaml.AliasNode || n.Tag == "!!merge"
}

// empty writes below a key that has no value.
func (e *editor) empty(s Secret, name string) error {
	l := &e.lines[s.Line-1]
	at, ok := e.offset(s.Place)
	if !ok || strings.TrimSpace(l.was[:at]) != "" || !strings.HasPrefix(strings.TrimSpace(l.was[at+len(s.Key):]), ":") {
		return ErrByHand
	}
	end, indent := ending(l.was), strings.Repeat(" ", at+2)
	l.after = append(l.after, indent+"external: true"+end, indent+"name: "+name+end)
	return nil
}

// flow writes a mapping in braces anew.
func (e *editor) flow(n *yaml.Node, name string) error {
	from, ok := e.offset(placeOf(n))
	l := &e.lines[n.Line-1]
	if !ok || !strings.HasPrefix(l.was[from:], "{") {
		return ErrByHand
	}
	to := flowEnd(l.was[from:])
	if to < 0 {
		return ErrByHand
	}
	l.cuts = append(l.cuts, cut{from, from + to, "{external: true, name: " + name + "}"})
	return nil
}

// flowEnd returns where a mapping in braces ends on its line, or -1.
func flowEnd(s string) int {
	depth, quote := 0, byte(0)
	for i := range len(s) {
		switch c := s[i]; {
		case quote != 0:
			if c == quote {
				quote = 0
			}
		case c == '"' || c == '\'':
			quote = c
		case c == '{' || c == '[':
			depth++
		case c == '}' || c == ']':
			if depth--; depth == 0 {
				return i + 1
			}
		}
	}
	return -1
}

// block edits a mapping of lines: what made the secret goes, and external: and
// name: stand in its place.
func (e *editor) block(n *yaml.Node, name string) error {
	first := n.Content[0]
	indent := strings.Repeat(" ", first.Column-1)
	have := map[string]*yaml.Node{}
	anchor := 0 // the line after which what is missing is written
	for pair := range slices.Chunk(n.Content, 2) {
		key, value := pair[0], pair[1]
		switch {
		case key.Value == "name" && value.Kind == yaml.ScalarNode:
			if err := e.scalar(value, name); err != nil {
				return err
			}
		case key.Value == "external" && value.Kind == yaml.ScalarNode:
			if err := e.scalar(value, "true"); err != nil {
				return err
			}
		default:
			if err := e.drop(key, value); err != nil {
				return err
			}
			if anchor == 0 {
				anchor = key.Line
			}
			continue
		}
		have[key.Value] = value
		if anchor == 0 || len(have) == 1 {
			anchor = key.Line
		}
	}
	return e.add(anchor, indent, name, slices.Collect(maps.Keys(have)))
}

// add writes what a secret lacks after a line.
func (e *editor) add(line int, indent, name string, have []string) error {
	l := &e.lines[line-1]
	end := ending(l.was)
	if !slices.Contains(have, "external") {
		l.after = append(l.after, indent+"external: true"+end)
	}
	if !slices.Contains(have, "name") {
		l.after = append(l.after, indent+"name: "+name+end)
	}
	return nil
}

// drop takes the lines of a key out, up to the end of its value.
func (e *editor) drop(key, value *yaml.Node) error {
	at, ok := e.offset(placeOf(key))
	if !ok || strings.TrimSpace(e.lines[key.Line-1].was[:at]) != "" {
		return ErrByHand
	}
	last := lastLine(value)
	if !slices.Contains([]string{"file", "environment", "labels", "external"}, key.Value) {
		return ErrByHand // it may hold what must not be shown
	}
	if value.Style&(yaml.LiteralStyle|yaml.FoldedStyle) != 0 || last < key.Line {
		return ErrByHand
	}
	for i := key.Line; i <= last; i++ {
		e.lines[i-1].gone = true
	}
	return nil
}

func lastLine(n *yaml.Node) int {
	last := n.Line
	for _, c := range n.Content {
		last = max(last, lastLine(c))
	}
	return last
}
