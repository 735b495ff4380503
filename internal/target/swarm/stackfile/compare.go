package stackfile

import (
	"fmt"
	"maps"
	"path"
	"slices"
	"strings"
)

// A Want is what a service of the stack is to read of one version of a credential.
type Want struct {
	Service string            // as the file calls it
	Files   map[string]string // variable that holds a path → name of the Swarm secret mounted there
	Paths   map[string]string // absolute path → name of the Swarm secret
	Env     map[string]Value  // variable → the public value that it holds
}

// A Value is a public value, and those that versions on record had before it:
// another text may be anything, also a secret, and is neither shown nor replaced.
type Value struct {
	New   string
	Known []string
}

// A Finding is something that is to be written otherwise, and where.
type Finding struct {
	Place
	Text string // never a value of the file
	Tip  string // what to write
}

// A Comparison is what a file says of what services are to read.
type Comparison struct {
	// Stale are the places where a deploy would make services read something
	// else. [File.Edit] writes them anew.
	Stale []Finding

	// Faults are places that only a person can judge.
	Faults []Finding

	// Notes are places that are right now, and not after the next rotation.
	Notes []Finding
}

// Right reports whether a deploy of the file changes nothing of what was compared.
func (c Comparison) Right() bool { return len(c.Stale)+len(c.Faults) == 0 }

// Compare says where the file differs from what services of a stack are to read.
func (f *File) Compare(stack string, wants ...Want) Comparison {
	c := comparer{file: f, stack: stack}
	for _, w := range wants {
		c.service(w)
	}
	c.shared()
	return c.Comparison
}

// A comparer gathers a comparison, and what an edit has to do.
type comparer struct {
	Comparison
	file      *File
	stack     string
	objects   []object
	variables []variable
}

// An object is a secret of the top level that is to stand for another Swarm secret.
type object struct {
	secret  Secret
	service string // that wants it
	want    string
	stale   bool
}

// A variable is one that is to hold another value.
type variable struct {
	Variable
	service string // that wants it
	want    string
	crowded bool // what stands on its line must not be shown
}

func (c *comparer) fault(at Place, tip, format string, args ...any) {
	c.Faults = append(c.Faults, Finding{at, fmt.Sprintf(format, args...), tip})
}

func (c *comparer) stale(at Place, tip, format string, args ...any) {
	f := Finding{at, fmt.Sprintf(format, args...), tip}
	if !slices.Contains(c.Stale, f) { // of a secret that two services read
		c.Stale = append(c.Stale, f)
	}
}

func (c *comparer) service(w Want) {
	s, ok := c.file.Service(w.Service)
	if !ok {
		c.fault(Place{1, 1}, "is it the stack's file? It has: "+strings.Join(c.file.names(), ", "), "the service %q is not in it", w.Service)
		return
	}
	for _, name := range slices.Sorted(maps.Keys(w.Files)) {
		v, _ := s.Var(name)
		at, known := v.Value()
		if !known || !path.IsAbs(at) {
			c.fault(s.Place, "write it there as the absolute path of the mounted secret", "service %q: what its variable %s holds does not stand in environment:", w.Service, name)
			continue
		}
		c.mount(s, at, w.Files[name])
	}
	for _, at := range slices.Sorted(maps.Keys(w.Paths)) {
		c.mount(s, at, w.Paths[at])
	}
	for _, name := range slices.Sorted(maps.Keys(w.Env)) {
		c.variable(s, name, w.Env[name], crowded(s, name, w))
	}
}

// crowded reports whether variables that are not declared stand on the line of
// one that is: what they hold may be a secret, and the line is not shown.
func crowded(s Service, name string, w Want) bool {
	v, ok := s.Var(name)
	return ok && v.value != nil && slices.ContainsFunc(s.Env, func(other Variable) bool {
		return other.value != nil && other.value.Line == v.value.Line && w.Env[other.Name].New == "" && w.Files[other.Name] == ""
	})
}

func (c *comparer) mount(s Service, at, want string) {
	m, ok := s.At(at)
	if !ok {
		c.fault(s.Place, fmt.Sprintf("mount it there: secrets: [{source: %s, target: %s}]", want, at), "service %q mounts no secret at %s", s.Name, at)
		return
	}
	secret, ok := c.file.Secret(m.Key)
	if !ok {
		c.fault(m.Place, tipExternal(want), "service %q mounts the secret %q, which stands under no secrets: of the file", s.Name, m.Key)
		return
	}
	name, known := secret.Object(c.stack)
	o := object{secret: secret, service: s.Name, want: want, stale: true}
	switch {
	case secret.Made == "environment":
		c.stale(secret.Place, tipExternal(want), "the secret %q is taken from the environment: of whoever deploys, and docker stack deploy does not know that", m.Key)
	case !known:
		c.stale(secret.Place, tipExternal(want), "the name of the secret %q is made of variables of whoever deploys: which one services get cannot be told", m.Key)
	case name != want && !secret.External:
		c.stale(secret.Place, tipExternal(want), "the secret %q is %s, which a deploy makes again, and services are to read %s", m.Key, name, want)
	case name != want:
		c.stale(secret.Place, tipExternal(want), "the secret %q is %s, and services are to read %s", m.Key, name, want)
	case !secret.External:
		o.stale = false
		c.note(secret, name)
	default:
		o.stale = false
	}
	c.objects = append(c.objects, o)
}

func (c *comparer) note(s Secret, name string) {
	n := Finding{s.Place, fmt.Sprintf("the secret %q is made by the file itself (%s): once %s is rotated, a deploy would make its old value again", s.Key, or(s.Made, "no external: true"), name),
		"after the cutover " + tipExternal("the new name")}
	if !slices.Contains(c.Notes, n) {
		c.Notes = append(c.Notes, n)
	}
}

func tipExternal(name string) string {
	if strings.Contains(name, " ") {
		return "write external: true and name: with " + name
	}
	return "write external: true and name: " + name
}

func or(s, otherwise string) string {
	if s == "" {
		return otherwise
	}
	return s
}

func (c *comparer) variable(s Service, name string, want Value, crowded bool) {
	v, ok := s.Var(name)
	switch {
	case !ok && s.EnvIn:
		c.fault(s.Place, "write it under environment:, which counts more than env_file:", "service %q: its variable %s may stand in the files of env_file:, which are not read here", s.Name, name)
		return
	case !ok:
		c.fault(s.Place, fmt.Sprintf("write %s: %s under environment:", name, want.New), "service %q has no variable %s in environment:", s.Name, name)
		return
	case v.value == nil:
		c.fault(s.Place, fmt.Sprintf("write %s: %s", name, want.New), "service %q takes its variable %s from the shell of whoever deploys", s.Name, name)
		return
	}
	at := placeOf(v.value)
	now, known := v.Value()
	switch {
	case known && now == want.New:
	case known && slices.Contains(want.Known, now), !known && ofTheShell(now, want.Known):
		c.stale(at, fmt.Sprintf("write %s: %s", name, want.New), "service %q: its variable %s is to be %s", s.Name, name, want.New)
		c.variables = append(c.variables, variable{v, s.Name, want.New, crowded})
	default:
		c.fault(at, fmt.Sprintf("write %s: %s", name, want.New), "service %q: its variable %s holds what no version on record had", s.Name, name)
	}
}

// ofTheShell reports whether a text is one variable of the shell, without a default
// or with one that is known.
func ofTheShell(text string, known []string) bool {
	inner, ok := strings.CutPrefix(text, "${")
	if inner, ok2 := strings.CutSuffix(inner, "}"); ok && ok2 && !strings.ContainsAny(inner, "${}") {
		name, fallback, has := strings.Cut(inner, ":-")
		return !strings.ContainsAny(name, ":?-+") && (!has || slices.Contains(known, fallback))
	}
	name, ok := strings.CutPrefix(text, "$")
	return ok && name != "" && strings.Trim(name, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_") == ""
}

// shared finds secrets of the top level that are to become two, and those that a
// service reads which does not want the new one.
func (c *comparer) shared() {
	for i, o := range c.objects {
		for _, other := range c.objects[:i] {
			if other.secret.Key == o.secret.Key && other.want != o.want {
				c.keep(o.secret.Key)
				c.fault(o.secret.Place, "give each a key of its own under secrets:", "the secret %q is to be %s and %s at once", o.secret.Key, other.want, o.want)
			}
		}
		if !o.stale || slices.ContainsFunc(c.objects[:i], func(b object) bool { return b.secret.Key == o.secret.Key }) {
			continue
		}
		for _, s := range c.file.Services {
			reads := slices.ContainsFunc(s.Mounts, func(m Mount) bool { return m.Key == o.secret.Key })
			wants := slices.ContainsFunc(c.objects, func(w object) bool { return w.secret.Key == o.secret.Key && w.service == s.Name })
			if reads && !wants {
				c.keep(o.secret.Key)
				c.fault(s.Place, "declare it in the configuration, or give it a key of its own under secrets:", "service %q reads the secret %q too, and is not declared", s.Name, o.secret.Key)
			}
		}
	}
}

// keep leaves a secret to a person.
func (c *comparer) keep(key string) {
	for i := range c.objects {
		if c.objects[i].secret.Key == key {
			c.objects[i].stale = false
		}
	}
}

func (f *File) names() []string {
	var names []string
	for _, s := range f.Services {
		names = append(names, s.Name)
	}
	return names
}
