package stackfile

import (
	"slices"

	"go.yaml.in/yaml/v3"
)

// An entry is a key and a value of a mapping, the value with aliases followed.
type entry struct {
	key, value *yaml.Node
}

// resolve follows an alias.
func resolve(n *yaml.Node) *yaml.Node {
	for n != nil && n.Kind == yaml.AliasNode {
		n = n.Alias
	}
	return n
}

// entries returns what a mapping holds, merge keys followed: what stands in it
// itself comes first and counts.
func entries(n *yaml.Node) []entry {
	n = resolve(n)
	if n == nil || n.Kind != yaml.MappingNode {
		return nil
	}
	var own, merged []entry
	for pair := range slices.Chunk(n.Content, 2) {
		if pair[0].Tag != "!!merge" {
			own = append(own, entry{pair[0], resolve(pair[1])})
			continue
		}
		from := resolve(pair[1])
		if from.Kind != yaml.SequenceNode {
			merged = append(merged, entries(from)...)
			continue
		}
		for _, one := range from.Content {
			merged = append(merged, entries(one)...)
		}
	}
	for _, m := range merged {
		if !slices.ContainsFunc(own, func(e entry) bool { return e.key.Value == m.key.Value }) {
			own = append(own, m)
		}
	}
	return own
}

// child returns the value of a key, or nil.
func child(n *yaml.Node, key string) *yaml.Node {
	for _, e := range entries(n) {
		if e.key.Value == key {
			return e.value
		}
	}
	return nil
}

// text returns the text of a key, or "".
func text(n *yaml.Node, key string) string {
	if v := child(n, key); v != nil && v.Kind == yaml.ScalarNode && v.Tag != "!!null" {
		return v.Value
	}
	return ""
}

// loops reports whether an alias stands inside of what it names.
func loops(n *yaml.Node, above []*yaml.Node) bool {
	if n.Kind == yaml.AliasNode {
		return slices.Contains(above, n.Alias)
	}
	above = append(above, n)
	return slices.ContainsFunc(n.Content, func(c *yaml.Node) bool { return loops(c, above) })
}
