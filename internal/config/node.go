package config

import (
	"iter"
	"regexp"
	"strconv"

	"go.yaml.in/yaml/v3"
)

// pairs yields the keys and values of a mapping; of anything else, nothing.
func pairs(n *yaml.Node) iter.Seq2[*yaml.Node, *yaml.Node] {
	return func(yield func(name, value *yaml.Node) bool) {
		for i := 0; i+1 < len(n.Content) && n.Kind == yaml.MappingNode; i += 2 {
			if !yield(n.Content[i], n.Content[i+1]) {
				return
			}
		}
	}
}

// at returns the node below n that a path of keys and indices leads to, or as
// far as it leads.
func at(n *yaml.Node, path ...string) *yaml.Node {
	for _, step := range path {
		next := child(n, step)
		if next == nil {
			return n
		}
		n = next
	}
	return n
}

// child returns the value of a key of a mapping, or an item of a list, or nil.
func child(n *yaml.Node, step string) *yaml.Node {
	for name, value := range pairs(n) {
		if name.Value == step {
			return value
		}
	}
	if i, err := strconv.Atoi(step); err == nil && n.Kind == yaml.SequenceNode && i >= 0 && i < len(n.Content) {
		return n.Content[i]
	}
	return nil
}

// plainKey is what a key looks like that can be shown: with a colon, a blank
// or an equals sign in it, it may be a key and its value that ran together.
var plainKey = regexp.MustCompile(`^[A-Za-z0-9_./-]{1,128}$`)

// shown returns a key as it may be shown.
func shown(name string) string {
	if plainKey.MatchString(name) {
		return name
	}
	return "?"
}

func join(key, name string) string {
	name = shown(name)
	if key == "" {
		return name
	}
	return key + "." + name
}

// label is the path of a key of a mapping. In braces a key without a value is
// not shown: it may be a value whose key was forgotten.
func label(n *yaml.Node, key string, name, value *yaml.Node) string {
	if n.Style&yaml.FlowStyle != 0 && nodeWords(value) == "nothing" {
		return join(key, "?")
	}
	return join(key, name.Value)
}

// nodeWords says what kind of thing a node is, never what it holds.
func nodeWords(n *yaml.Node) string {
	switch n.Kind {
	case yaml.MappingNode:
		return "keys with values"
	case yaml.SequenceNode:
		return "a list"
	case yaml.AliasNode:
		return "an alias"
	}
	switch n.Tag {
	case "!!null":
		return "nothing"
	case "!!int", "!!float":
		return "a number"
	case "!!bool":
		return "true or false"
	case "!!timestamp":
		return "a date"
	}
	return "text"
}

// numberWords is nodeWords where a number is wanted.
func numberWords(n *yaml.Node) string {
	if words := nodeWords(n); words != "a number" {
		return words
	}
	return "another number"
}
