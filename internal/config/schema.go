package config

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"reflect"
	"slices"
)

// object is a part of a JSON Schema.
type object = map[string]any

// Schema returns the JSON Schema (2020-12) of the configuration, made from the
// types that [Parse] decodes into: a key that is not built yet, or not known,
// is in none of them and so refused. What no type says, such as words that are
// allowed, defaults and descriptions, comes from one table; a section brings its
// own by a method Documented() map[string]string. A schema cannot know all that
// the parser does: which keys fit together, and what YAML has and JSON has not.
func Schema(backends map[string]Section) ([]byte, error) {
	s := &schemer{backends: backends}
	root := s.structure(reflect.TypeFor[file]())
	if s.err != nil {
		return nil, s.err
	}
	root["$schema"] = "https://json-schema.org/draft/2020-12/schema"
	root["not"] = object{"anyOf": []object{{"required": []string{"swarm", "directory"}}, {"required": []string{"swarm", "actions-secrets"}},
		{"required": []string{"directory", "actions-secrets"}}}}
	root["if"], root["then"] = object{"required": []string{"actions-secrets"}}, overwritten
	root["title"] = "The configuration of Keyturn"
	b, err := json.MarshalIndent(root, "", "  ")
	return append(b, '\n'), err
}

type schemer struct {
	backends map[string]Section
	err      error
}

// structure returns the schema of a struct, with what the table says of it.
func (s *schemer) structure(t reflect.Type) object {
	properties := object{}
	var documented map[string]string
	if d, ok := reflect.New(t).Interface().(interface{ Documented() map[string]string }); ok {
		documented = d.Documented()
	}
	for i, key := range keysOf(t) {
		if key == "" {
			continue
		}
		known := facts[t.Name()+"."+key]
		p := s.field(t, t.Field(i), key)
		maps.Copy(p, known.more)
		if text := documented[key]; text != "" {
			p["description"] = text
		} else if known.text != "" {
			p["description"] = known.text
		}
		properties[key] = p
	}
	out := object{"type": "object", "properties": properties, "additionalProperties": false}
	if need := needed[t.Name()]; len(need) > 0 {
		out["required"] = need
	}
	return out
}

func (s *schemer) field(t reflect.Type, f reflect.StructField, key string) object {
	switch {
	case isNumber(f):
		return object{"anyOf": []object{{"type": "string", "pattern": `^(0|[1-9][0-9]{0,9})$`},
			{"type": "integer", "minimum": 0, "maximum": 1<<32 - 1}}}
	case f.Type == nodeType && t == reflect.TypeFor[file]() && key == "credentials":
		return byName(s.credential(), credentialName.String(), 40)
	case f.Type == nodeType && t == reflect.TypeFor[file]() && key == "reminders":
		return byName(s.structure(reflect.TypeFor[reminder]()), credentialName.String(), 40)
	case f.Type == nodeType && t == reflect.TypeFor[file]() && key == "notify":
		return byName(s.structure(reflect.TypeFor[channel]()), credentialName.String(), 40)
	case f.Type == nodeType && t == reflect.TypeFor[entry]() && key == "services":
		return byName(s.structure(reflect.TypeFor[Service]()), "", 0)
	}
	return s.kind(f.Type)
}

// byName returns the schema of things by their names, of which there is one at least.
func byName(item object, pattern string, most int) object {
	out := object{"type": "object", "additionalProperties": item, "minProperties": 1}
	if pattern != "" {
		out["propertyNames"] = object{"pattern": pattern, "maxLength": most}
	}
	return out
}

func (s *schemer) kind(t reflect.Type) object {
	switch t {
	case durationType:
		return object{"type": "string", "pattern": durationForm.String(), "minLength": 1}
	case sourceType:
		return object{"type": "object", "minProperties": 1, "maxProperties": 1, "additionalProperties": false,
			"properties": object{"from-env": object{"type": "string", "pattern": envForm.String()},
				"from-file": object{"type": "string", "pattern": `^[^\n\t]*/[^\n\t]*[^/\n\t]$|^/[^/\n\t]$`}}}
	case modeType:
		return object{"anyOf": []object{{"type": "string", "pattern": `^(0?[04]{3}|[04]{1,2})$`, "not": object{"pattern": `^0+$`}},
			{"type": "integer", "minimum": 1, "maximum": 444}}}
	}
	switch t.Kind() {
	case reflect.Pointer:
		return s.kind(t.Elem())
	case reflect.Struct:
		return s.structure(t)
	case reflect.Map:
		return object{"type": "object", "additionalProperties": s.kind(t.Elem())}
	case reflect.Slice:
		return object{"type": "array", "items": s.kind(t.Elem())}
	case reflect.String:
		return object{"type": "string"}
	case reflect.Bool:
		return object{"type": "boolean"}
	case reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64:
		return object{"type": "integer"}
	case reflect.Uint, reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64:
		return object{"type": "integer", "minimum": 0}
	}
	s.err = errors.Join(s.err, fmt.Errorf("making a schema: nothing is known of the type %s", t))
	return object{}
}

// credential returns the schema of one credential: its own keys, and the section of one backend.
func (s *schemer) credential() object {
	out := s.structure(reflect.TypeFor[entry]())
	properties := out["properties"].(object)
	one := []object{}
	for _, name := range slices.Sorted(maps.Keys(s.backends)) {
		t, err := sectionType(s.backends[name])
		if err != nil {
			s.err = errors.Join(s.err, fmt.Errorf("making a schema of %s: %w", name, err))
			continue
		}
		section := s.structure(t)
		section["description"] = "The backend: what it is, and how Keyturn reaches it."
		properties[name] = section
		one = append(one, object{"required": []string{name}})
	}
	out["oneOf"] = one
	return out
}

var errAsked = errors.New("only its type is asked for")

// sectionType returns the struct that a section decodes into.
func sectionType(section Section) (reflect.Type, error) {
	var t reflect.Type
	_, _ = section(func(into any) error {
		t = reflect.TypeOf(into)
		return errAsked
	})
	if t == nil || t.Kind() != reflect.Pointer || t.Elem().Kind() != reflect.Struct {
		return nil, errors.New("its section decodes into no struct")
	}
	return t.Elem(), nil
}
