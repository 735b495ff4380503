package config

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
)

// A Fault is one thing that is wrong with a configuration, and where.
type Fault struct {
	File   string
	Line   int    // from 1
	Column int    // in characters, from 1
	Key    string // path of the key, e.g. "credentials.orders-db.every"; "" for the whole file
	Msg    string // what is wrong; never a value that may be secret
	Tip    string // what to write instead; may be ""
}

// Error returns "file:line:column: key: message".
func (f *Fault) Error() string {
	key := ""
	if f.Key != "" {
		key = f.Key + ": "
	}
	return fmt.Sprintf("%s:%d:%d: %s%s", f.File, f.Line, f.Column, key, f.Msg)
}

// Hint returns what to write instead.
func (f *Fault) Hint() string { return f.Tip }

// Faults is everything that is wrong with a configuration, in the order of the file.
type Faults []*Fault

// Error returns a line per fault, each followed by a line with its hint.
func (fs Faults) Error() string {
	var lines []string
	for _, f := range fs {
		lines = append(lines, f.Error())
		if f.Tip != "" {
			lines = append(lines, "hint: "+f.Tip)
		}
	}
	return strings.Join(lines, "\n")
}

// Unwrap returns the faults, for [errors.As].
func (fs Faults) Unwrap() []error {
	out := make([]error, len(fs))
	for i, f := range fs {
		out[i] = f
	}
	return out
}

func (fs Faults) sorted() Faults {
	slices.SortStableFunc(fs, func(a, b *Fault) int {
		return cmp.Or(cmp.Compare(a.Line, b.Line), cmp.Compare(a.Column, b.Column))
	})
	return slices.CompactFunc(fs, func(a, b *Fault) bool { return *a == *b })
}

// below reports whether something is wrong with a key or below it. What
// follows from that is not reported a second time.
func (fs Faults) below(key string) bool {
	return slices.ContainsFunc(fs, func(f *Fault) bool {
		return f.Key == key || strings.HasPrefix(f.Key, key+".")
	})
}

// touch reports whether something is wrong with a key, below it, or with the
// place of a value that it is a part of.
func (fs Faults) touch(key string) bool {
	return fs.below(key) || slices.ContainsFunc(fs, func(f *Fault) bool { return f.Key != "" && strings.HasPrefix(key, f.Key+".") })
}

// hide cuts the keys below a key off the faults that stand.
func (fs Faults) hide(key string) {
	for _, f := range fs {
		if strings.HasPrefix(f.Key, key+".") {
			f.Key = key
		}
	}
}
