// Package stackfile reads stack files: what a `docker stack deploy` of one would
// make the services of a Swarm read, where that differs from what a credential's
// version wants them to read, and what to write instead.
//
// It knows of the file only what matters for secrets: the services' variables and
// secrets, and the secrets at the top level, with anchors, aliases and merge keys
// followed and variables of the deploying shell told from plain text. It opens no
// connection, reads no environment, and repeats no value of the file: a stack file
// may hold passwords.
package stackfile

import (
	"fmt"
	"path"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"
)

// secretDir is where secrets are mounted whose target is no absolute path.
const secretDir = "/run/secrets"

// A Place is a line and a column of the file, both from 1.
type Place struct {
	Line, Column int
}

// A Fault is why a file cannot be read as a stack file.
type Fault struct {
	File string
	Place
	Text string // never a value of the file
	Tip  string
}

// Error returns "file:line:column: text".
func (f *Fault) Error() string {
	return fmt.Sprintf("%s:%d:%d: %s", f.File, f.Line, f.Column, f.Text)
}

// Hint returns what to write instead.
func (f *Fault) Hint() string { return f.Tip }

// A File is a stack file. Make one with [Parse].
type File struct {
	Name     string
	Services []Service // in the order of the file
	Secrets  []Secret

	text string
}

// A Service is what the file says of one service.
type Service struct {
	Place
	Name   string
	Mounts []Mount
	Env    []Variable
	EnvIn  bool // some variables stand in files that env_file names
}

// A Mount is a secret that a service mounts.
type Mount struct {
	Place
	Key      string // of the secret at the top level
	Target   string // the absolute path
	UID, GID string
	Mode     string // as written
}

// A Variable is one of the environment of a service.
type Variable struct {
	Name  string
	value *yaml.Node // nil: it is taken from the shell that deploys
	list  bool       // it is written NAME=value
}

// A Secret is one of the secrets at the top level.
type Secret struct {
	Place
	Key      string
	External bool
	Made     string // the key that it is made by: "file", "environment", "driver"; "" for none

	name string // as written, "" if it is not
	node *yaml.Node
}

// Service returns a service by its name in the file.
func (f *File) Service(name string) (Service, bool) {
	i := slices.IndexFunc(f.Services, func(s Service) bool { return s.Name == name })
	if i < 0 {
		return Service{}, false
	}
	return f.Services[i], true
}

// Secret returns a secret by its key.
func (f *File) Secret(key string) (Secret, bool) {
	i := slices.IndexFunc(f.Secrets, func(s Secret) bool { return s.Key == key })
	if i < 0 {
		return Secret{}, false
	}
	return f.Secrets[i], true
}

// Object returns the name of the Swarm secret that the key stands for in a stack
// of this name. It is not known if a variable of the shell is part of it.
func (s Secret) Object(stack string) (name string, known bool) {
	switch {
	case s.name != "":
		return plain(s.name)
	case s.External:
		return s.Key, true
	}
	return stack + "_" + s.Key, true
}

// At returns what the service mounts at an absolute path.
func (s Service) At(target string) (Mount, bool) {
	i := slices.IndexFunc(s.Mounts, func(m Mount) bool { return m.Target == path.Clean(target) })
	if i < 0 {
		return Mount{}, false
	}
	return s.Mounts[i], true
}

// Var returns a variable of the service.
func (s Service) Var(name string) (Variable, bool) {
	i := slices.IndexFunc(s.Env, func(v Variable) bool { return v.Name == name })
	if i < 0 {
		return Variable{}, false
	}
	return s.Env[i], true
}

// Value returns what the variable holds, as far as the file alone says it.
func (v Variable) Value() (value string, known bool) {
	if v.value == nil {
		return "", false
	}
	text := v.value.Value
	if v.list {
		_, text, _ = strings.Cut(text, "=")
	}
	return plain(text)
}

// plain resolves a text in which no variable of the shell stands: $$ is a dollar.
func plain(text string) (string, bool) {
	rest := strings.ReplaceAll(text, "$$", "")
	return strings.ReplaceAll(text, "$$", "$"), !strings.Contains(rest, "$")
}
