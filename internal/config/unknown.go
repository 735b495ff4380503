package config

import (
	"fmt"
	"reflect"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"
)

// A home is a place in the configuration, with the keys that belong there.
type home struct {
	where string // for a hint: "it belongs …"
	keys  []string
}

// dwell tells the decoder which keys belong where.
func (d *decoder) dwell(where string, t reflect.Type) {
	known := slices.DeleteFunc(keysOf(t), func(k string) bool { return k == "" })
	d.homes = append(d.homes, home{where, known})
}

// unknown reports a key that is not known where it stands. What is wrong below
// it is not told with keys of its own, which may be anything.
func (d *decoder) unknown(name, value *yaml.Node, key string, known []string) {
	known = slices.DeleteFunc(slices.Clone(known), func(k string) bool { return k == "" })
	if !plainKey.MatchString(name.Value) || nodeWords(value) == "nothing" {
		hint := d.suggest(name.Value, known)
		if strings.ContainsAny(name.Value, ":=") {
			hint = "write key: value, with a space after the colon"
		}
		d.fault(name, key, hint, "unknown key")
		return
	}
	here := join(key, name.Value)
	if near := nearest(name.Value, known); near != "" {
		d.meant[join(key, near)] = true
	}
	d.faults.hide(here)
	d.fault(name, here, d.suggest(name.Value, known), "unknown key %q", name.Value)
}

func (d *decoder) suggest(wrong string, known []string) string {
	if near := nearest(wrong, known); near != "" {
		return fmt.Sprintf("did you mean %q?", near)
	}
	for _, h := range d.homes {
		if slices.Contains(h.keys, wrong) {
			return fmt.Sprintf("%q belongs %s", wrong, h.where)
		}
	}
	return oneOf(known)
}

// oneOf is the hint that lists what is known.
func oneOf(known []string) string {
	if len(known) == 0 {
		return ""
	}
	return "known here: " + strings.Join(slices.Sorted(slices.Values(known)), ", ")
}

// nearest returns the known word that a wrong one was likely meant to be, or "".
func nearest(wrong string, known []string) string {
	best, distance := "", 1+min(len(wrong)/4, 2)
	for _, k := range slices.Sorted(slices.Values(known)) {
		if n := edits(strings.ReplaceAll(strings.ToLower(wrong), "_", "-"), k); n <= distance && n < len(k) {
			best, distance = k, n-1
		}
	}
	return best
}

// edits returns the Levenshtein distance of two words, in bytes.
func edits(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			cost := 1
			if a[i] == b[j] {
				cost = 0
			}
			diagonal, row[j+1] = row[j+1], min(diagonal+cost, row[j]+1, row[j+1]+1)
		}
	}
	return row[len(b)]
}
