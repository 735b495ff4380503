package stackfile

import (
	"bytes"
	"errors"
	"io"
	"path"
	"regexp"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"
)

const largest = 1 << 20 // bytes of a stack file

var libraryLine = regexp.MustCompile(`line (\d+)`)

// Parse reads a stack file. The error is a [*Fault]; the name stands in front of it.
func Parse(name string, text []byte) (*File, error) {
	f := &File{Name: name, text: string(text)}
	root, fault := document(text)
	if fault == nil {
		fault = f.read(root)
	}
	if fault != nil {
		fault.File = name
		return nil, fault
	}
	return f, nil
}

// document returns the one mapping of the file.
func document(text []byte) (*yaml.Node, *Fault) {
	if len(text) > largest {
		return nil, faultAt(nil, "is it the right file?", "it is larger than 1 MiB")
	}
	dec := yaml.NewDecoder(bytes.NewReader(text))
	var doc yaml.Node
	err := dec.Decode(&doc)
	if errors.Is(err, io.EOF) || err == nil && doc.Content[0].Tag == "!!null" {
		return nil, faultAt(nil, "name the file that docker stack deploy -c takes", "it is empty")
	}
	if err == nil && dec.Decode(new(yaml.Node)) == nil {
		return nil, faultAt(nil, "keep one of them", "it holds a second document")
	}
	if err != nil {
		at := &yaml.Node{Line: 1, Column: 1}
		if m := libraryLine.FindStringSubmatch(err.Error()); m != nil {
			at.Line, _ = strconv.Atoi(m[1])
		}
		return nil, faultAt(at, "docker stack config -c FILE says more", "it is not YAML") // the library's words may repeat a value
	}
	if root := doc.Content[0]; root.Kind != yaml.MappingNode {
		return nil, faultAt(root, "name the file that docker stack deploy -c takes", "it is no stack file: want keys with values")
	}
	if loops(doc.Content[0], nil) {
		return nil, faultAt(doc.Content[0], "write it out", "an alias stands inside of what it names")
	}
	return doc.Content[0], nil
}

func faultAt(n *yaml.Node, tip, text string) *Fault {
	f := &Fault{Place: Place{1, 1}, Text: text, Tip: tip}
	if n != nil {
		f.Place = placeOf(n)
	}
	return f
}

func placeOf(n *yaml.Node) Place { return Place{n.Line, n.Column} }

// read takes from the tree what matters.
func (f *File) read(root *yaml.Node) *Fault {
	services := child(root, "services")
	if services == nil || services.Kind != yaml.MappingNode || len(services.Content) == 0 {
		return faultAt(root, "name the file that docker stack deploy -c takes", "it is no stack file: it has no services")
	}
	for _, e := range entries(services) {
		s, fault := readService(e)
		if fault != nil {
			return fault
		}
		f.Services = append(f.Services, s)
	}
	for _, e := range entries(child(root, "secrets")) {
		f.Secrets = append(f.Secrets, readSecret(e))
	}
	return nil
}

func readService(e entry) (Service, *Fault) {
	s := Service{Place: placeOf(e.key), Name: e.key.Value, EnvIn: child(e.value, "env_file") != nil}
	secrets := child(e.value, "secrets")
	if secrets != nil && secrets.Kind != yaml.SequenceNode && secrets.Tag != "!!null" {
		return s, faultAt(secrets, "write it as [db_password]", "the secrets of a service are a list")
	}
	if secrets != nil {
		for _, item := range secrets.Content {
			s.Mounts = append(s.Mounts, readMount(resolve(item)))
		}
	}
	switch env := child(e.value, "environment"); {
	case env == nil:
	case env.Kind == yaml.SequenceNode:
		for _, item := range env.Content {
			item = resolve(item)
			name, _, set := strings.Cut(item.Value, "=")
			v := Variable{Name: name, list: true}
			if set {
				v.value = item
			}
			s.Env = append(s.Env, v)
		}
	default:
		for _, pair := range entries(env) {
			v := Variable{Name: pair.key.Value}
			if pair.value.Kind == yaml.ScalarNode && pair.value.Tag != "!!null" {
				v.value = pair.value
			}
			s.Env = append(s.Env, v)
		}
	}
	return s, nil
}

// readMount reads both forms: a name, and {source: …, target: …}.
func readMount(n *yaml.Node) Mount {
	m := Mount{Place: placeOf(n), Key: n.Value}
	if n.Kind == yaml.MappingNode {
		m.Key, m.UID, m.GID, m.Mode = text(n, "source"), text(n, "uid"), text(n, "gid"), text(n, "mode")
		m.Target = text(n, "target")
	}
	if m.Target == "" {
		m.Target = m.Key
	}
	if !path.IsAbs(m.Target) {
		m.Target = path.Join(secretDir, m.Target)
	}
	m.Target = path.Clean(m.Target)
	return m
}

func readSecret(e entry) Secret {
	s := Secret{Place: placeOf(e.key), Key: e.key.Value, name: text(e.value, "name"), node: e.value}
	for _, made := range []string{"environment", "driver", "file"} {
		if child(e.value, made) != nil {
			s.Made = made
		}
	}
	external := child(e.value, "external")
	switch {
	case external == nil:
	case external.Kind == yaml.MappingNode: // as it was written before version 3.5
		s.External = true
		if name := text(external, "name"); name != "" {
			s.name = name
		}
	default:
		s.External = strings.EqualFold(external.Value, "true")
	}
	return s
}
