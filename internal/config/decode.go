package config

import (
	"fmt"
	"io/fs"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"

	"go.yaml.in/yaml/v3"

	"github.com/keyturn/keyturn/internal/secret"
)

// A decoder decodes nodes strictly into structs with `yaml` tags, and collects
// every fault with its place. A field without a tag, or with "-", is passed
// over; one whose value is faulty stays as it was. The option "number" of a tag
// makes a text of a whole number, with or without quotes. A struct whose
// pointer has a method NotBuilt() []string names keys that are known and not
// built yet.
type decoder struct {
	file   string
	faults Faults
	homes  []home
	meant  map[string]bool // keys that one which is not known was likely meant to be
}

func (d *decoder) fault(n *yaml.Node, key, hint, format string, args ...any) {
	d.faults = append(d.faults, &Fault{File: d.file, Line: max(n.Line, 1), Column: max(n.Column, 1),
		Key: oneLine(key), Msg: oneLine(fmt.Sprintf(format, args...)), Tip: oneLine(hint)})
}

// oneLine replaces what a terminal would obey, so that no fault can forge another.
func oneLine(s string) string {
	return strings.Map(func(r rune) rune {
		if unicode.IsPrint(r) {
			return r
		}
		return '?'
	}, s)
}

var (
	durationType = reflect.TypeFor[time.Duration]()
	sourceType   = reflect.TypeFor[secret.Source]()
	modeType     = reflect.TypeFor[fs.FileMode]()
	nodeType     = reflect.TypeFor[yaml.Node]()
)

// decode decodes a node into v, which can be set.
func (d *decoder) decode(n *yaml.Node, key string, v reflect.Value) {
	if n.Kind == 0 { // a fault of it stands already
		return
	}
	if n.Kind != kindFor(v.Type()) {
		d.faults.hide(key) // what stands below is no key that is known
	}
	switch v.Type() {
	case durationType:
		d.duration(n, key, v)
		return
	case sourceType:
		d.source(n, key, v)
		return
	case modeType:
		d.mode(n, key, v)
		return
	case nodeType:
		v.Set(reflect.ValueOf(*n))
		return
	}
	switch v.Kind() {
	case reflect.Pointer:
		d.pointer(n, key, v, d.decode)
	case reflect.Struct:
		d.structure(n, key, v)
	case reflect.Map:
		d.mapping(n, key, v)
	case reflect.Slice:
		d.list(n, key, v)
	default:
		d.scalar(n, key, v)
	}
}

// kindFor returns the kind of node that a type is decoded from.
func kindFor(t reflect.Type) yaml.Kind {
	switch {
	case t.Kind() == reflect.Pointer:
		return kindFor(t.Elem())
	case t == nodeType || t == sourceType || t.Kind() == reflect.Struct || t.Kind() == reflect.Map:
		return yaml.MappingNode
	case t.Kind() == reflect.Slice:
		return yaml.SequenceNode
	}
	return yaml.ScalarNode
}

func (d *decoder) pointer(n *yaml.Node, key string, v reflect.Value, decode func(*yaml.Node, string, reflect.Value)) {
	fresh, before := reflect.New(v.Type().Elem()), len(d.faults)
	decode(n, key, fresh.Elem())
	if len(d.faults) == before || v.Type().Elem().Kind() == reflect.Struct {
		v.Set(fresh)
	}
}

func (d *decoder) scalar(n *yaml.Node, key string, v reflect.Value) {
	switch {
	case v.Kind() == reflect.String:
		if n.Kind == yaml.ScalarNode && n.Tag == "!!str" {
			v.SetString(n.Value)
			return
		}
		hint := ""
		if n.Kind == yaml.ScalarNode && n.Tag != "!!null" {
			hint = "put it in quotes"
		}
		d.fault(n, key, hint, "want text, got %s", nodeWords(n))
	case v.Kind() == reflect.Bool:
		if n.Kind == yaml.ScalarNode && n.Tag == "!!bool" {
			v.SetBool(strings.EqualFold(n.Value, "true"))
			return
		}
		d.fault(n, key, "write true or false", "want true or false, got %s", nodeWords(n))
	case v.CanInt():
		if i, err := strconv.ParseInt(n.Value, 10, 64); err == nil && n.Tag == "!!int" && !v.OverflowInt(i) {
			v.SetInt(i)
			return
		}
		d.fault(n, key, "", "want a whole number, got %s", numberWords(n))
	case v.CanUint():
		if i, err := strconv.ParseUint(n.Value, 10, 63); err == nil && n.Tag == "!!int" && !v.OverflowUint(i) {
			v.SetUint(i)
			return
		}
		d.fault(n, key, "", "want a whole number that is not negative, got %s", numberWords(n))
	default:
		panic("config: cannot decode into " + v.Type().String())
	}
}

func (d *decoder) duration(n *yaml.Node, key string, v reflect.Value) {
	const hint = "write it as 90d, 1d12h, 30m, 10s or 500ms; a week is 7d"
	if n.Kind != yaml.ScalarNode || n.Tag == "!!null" {
		d.fault(n, key, hint, "want a duration, got %s", nodeWords(n))
		return
	}
	got, err := ParseDuration(n.Value)
	if err != nil {
		d.fault(n, key, hint, "%v", err)
		return
	}
	v.SetInt(int64(got))
}

var modeForm = regexp.MustCompile(`^[0-7]{1,4}$`)

func (d *decoder) mode(n *yaml.Node, key string, v reflect.Value) {
	m, err := strconv.ParseUint(n.Value, 8, 32)
	switch {
	case n.Kind != yaml.ScalarNode || err != nil || !modeForm.MatchString(n.Value):
		d.fault(n, key, `write it as "0400"`, "want a file mode, got %s", nodeWords(n))
	case m&^0o444 != 0 || m == 0:
		d.fault(n, key, `write "0400", "0440" or "0444"`, "a mounted field is read, and nothing else")
	default:
		v.SetUint(m)
	}
}

// number decodes the id of a user or a group into text.
func (d *decoder) number(n *yaml.Node, key string, v reflect.Value) {
	d.faults.hide(key)
	i, err := strconv.ParseUint(n.Value, 10, 32)
	if n.Kind != yaml.ScalarNode || err != nil || strconv.FormatUint(i, 10) != n.Value {
		d.fault(n, key, `write it as "1000": names are known inside the container alone`, "want the number of a user or a group, got %s", numberWords(n))
		return
	}
	v.SetString(n.Value)
}

func (d *decoder) list(n *yaml.Node, key string, v reflect.Value) {
	if n.Kind != yaml.SequenceNode {
		d.fault(n, key, "write it as [a, b]", "want a list, got %s", nodeWords(n))
		return
	}
	out := reflect.MakeSlice(v.Type(), len(n.Content), len(n.Content))
	for i, item := range n.Content {
		d.decode(item, join(key, strconv.Itoa(i)), out.Index(i))
	}
	v.Set(out)
}

func (d *decoder) mapping(n *yaml.Node, key string, v reflect.Value) {
	if n.Kind != yaml.MappingNode {
		d.fault(n, key, "write it as {name: value}", "want keys with values, got %s", nodeWords(n))
		return
	}
	out := reflect.MakeMap(v.Type())
	for name, value := range pairs(n) {
		item, before := reflect.New(v.Type().Elem()).Elem(), len(d.faults)
		d.decode(value, label(n, key, name, value), item)
		if len(d.faults) == before && value.Kind != 0 {
			out.SetMapIndex(reflect.ValueOf(name.Value), item)
		}
	}
	v.Set(out)
}

func (d *decoder) structure(n *yaml.Node, key string, v reflect.Value) {
	if n.Kind != yaml.MappingNode {
		d.fault(n, key, "", "want keys with values, got %s", nodeWords(n))
		return
	}
	known := keysOf(v.Type())
	var later []string
	if nb, ok := v.Addr().Interface().(interface{ NotBuilt() []string }); ok {
		later = nb.NotBuilt()
	}
	for name, value := range pairs(n) {
		i := slices.Index(known, name.Value)
		switch {
		case i >= 0 && name.Value != "" && isNumber(v.Type().Field(i)):
			if value.Kind != 0 {
				d.pointer(value, join(key, name.Value), v.Field(i), d.number)
			}
		case i >= 0 && name.Value != "":
			d.decode(value, join(key, name.Value), v.Field(i))
		case slices.Contains(later, name.Value):
			d.faults.hide(join(key, name.Value))
			d.fault(name, join(key, name.Value), "leave it out", "%q is not built yet", name.Value)
		default:
			d.unknown(name, value, key, known)
		}
	}
}

// isNumber reports whether a field's tag has the option "number".
func isNumber(f reflect.StructField) bool {
	_, option, _ := strings.Cut(f.Tag.Get("yaml"), ",")
	return option == "number"
}

// keysOf returns the key of every field of a struct, "" for those without one.
func keysOf(t reflect.Type) []string {
	keys := make([]string, t.NumField())
	for i := range keys {
		if key, _, _ := strings.Cut(t.Field(i).Tag.Get("yaml"), ","); key != "-" {
			keys[i] = key
		}
	}
	return keys
}
