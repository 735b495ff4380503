package config

import (
	"bytes"
	"errors"
	"io"
	"slices"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"

	"go.yaml.in/yaml/v3"
)

const (
	largest    = 1 << 20 // bytes of a configuration
	longestKey = 128     // bytes of a key
)

// document returns the one mapping of the file, or nil and a fault.
func (d *decoder) document(b []byte) *yaml.Node {
	const begin = "begin with: version: 1"
	start := &yaml.Node{Line: 1, Column: 1}
	if bytes.HasPrefix(b, []byte("\xff\xfe")) || bytes.HasPrefix(b, []byte("\xfe\xff")) {
		d.fault(start, "", "save it as UTF-8", "the file is written in UTF-16")
		return nil
	}
	if len(b) > largest {
		d.fault(start, "", "is it the right file?", "the file is larger than 1 MiB")
		return nil
	}
	b = bytes.TrimPrefix(b, []byte("\xef\xbb\xbf"))
	if !utf8.Valid(b) {
		d.fault(badByte(b), "", "save it as UTF-8", "the file is not written in UTF-8")
		return nil
	}
	dec := yaml.NewDecoder(bytes.NewReader(b))
	var doc, more yaml.Node
	err := dec.Decode(&doc)
	if errors.Is(err, io.EOF) || err == nil && (len(doc.Content) == 0 || doc.Content[0].Tag == "!!null") {
		d.fault(start, "", begin, "the file is empty")
		return nil
	}
	if err == nil {
		if err = dec.Decode(&more); err == nil {
			d.fault(&more, "", "keep one of them, or make two files", "the file holds a second document")
			return nil
		}
	}
	if !errors.Is(err, io.EOF) {
		d.syntax(b, err)
		return nil
	}
	root := doc.Content[0]
	if root.Kind != yaml.MappingNode {
		d.fault(root, "", begin, "want keys with values, got %s", nodeWords(root))
		return nil
	}
	d.tidy(root, "")
	if root.Kind == 0 { // it has a tag
		return nil
	}
	return root
}

// badByte returns the place of the first byte that is not UTF-8.
func badByte(b []byte) *yaml.Node {
	n := &yaml.Node{Line: 1, Column: 1}
	for len(b) > 0 {
		r, size := utf8.DecodeRune(b)
		if r == utf8.RuneError && size == 1 {
			break
		}
		n.Column++
		if r == '\n' {
			n.Line, n.Column = n.Line+1, 1
		}
		b = b[size:]
	}
	return n
}

// tidy reports what YAML has and a configuration has not, and takes it out of
// the tree: merge keys, keys that are no text or stand twice. An alias and a
// value with a tag get the kind 0, which [decoder.decode] passes over.
func (d *decoder) tidy(n *yaml.Node, key string) {
	switch {
	case n.Kind == yaml.AliasNode:
		d.fault(n, key, "write it out where it is used", "aliases are not read")
		n.Kind = 0
	case n.Anchor != "":
		d.fault(n, key, "leave the anchor out", "anchors are not read")
	case n.Style&yaml.TaggedStyle != 0:
		d.fault(n, key, "leave the tag out", "tags are not read")
		n.Kind = 0
	case n.Kind == yaml.ScalarNode && strings.ContainsFunc(n.Value, unprintable):
		d.fault(n, key, "write plain text", "control characters are not read")
		n.Kind = 0
	}
	switch n.Kind {
	case yaml.MappingNode:
		d.tidyPairs(n, key)
	case yaml.SequenceNode:
		for i, item := range n.Content {
			d.tidy(item, join(key, strconv.Itoa(i)))
		}
	}
}

func unprintable(r rune) bool { return unicode.IsControl(r) && r != '\n' && r != '\t' }

func (d *decoder) tidyPairs(n *yaml.Node, key string) {
	seen, kept := map[string]int{}, []*yaml.Node{}
	for pair := range slices.Chunk(n.Content, 2) {
		name, value := pair[0], pair[1]
		switch {
		case name.Tag == "!!merge":
			d.fault(name, key, "write the keys out", "merge keys are not read")
			continue
		case name.Kind != yaml.ScalarNode || name.Tag != "!!str" || name.Style&yaml.TaggedStyle != 0:
			d.fault(name, key, "put it in quotes", "a key must be text, this one is %s", nodeWords(name))
			continue
		case name.Anchor != "":
			d.fault(name, key, "leave the anchor out", "anchors are not read")
		case len(name.Value) > longestKey || strings.ContainsFunc(name.Value, func(r rune) bool { return !unicode.IsPrint(r) }):
			d.fault(name, key, "is a value written where a key should be?", "a key is plain text of at most %d characters", longestKey)
			continue
		case seen[name.Value] > 0:
			d.fault(name, join(key, name.Value), "keep one of them", "the key stands in line %d already", seen[name.Value])
			continue
		}
		seen[name.Value] = name.Line
		d.tidy(value, label(n, key, name, value))
		kept = append(kept, name, value)
	}
	n.Content = kept
}
