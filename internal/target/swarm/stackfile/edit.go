package stackfile

import (
	"errors"
	"fmt"
	"reflect"
)

// ErrByHand is wrapped by the error of a file that is written in a way that only
// a person should change: its text says where.
var ErrByHand = errors.New("change it by hand")

// An Edited file is what [File.Edit] makes of one.
type Edited struct {
	Text string

	// Diff is what changed, in the form that patch -p1 and git apply
	// --unidiff-zero take; "" if nothing did. It has no lines around those that
	// change: what stands there may be a secret.
	Diff string
}

// Edit returns the file with every stale place of [File.Compare] written anew,
// and every other byte as it is. Places that only a person can judge stay. The
// result was read again and says what it should, and nothing else changed in
// meaning; otherwise the error wraps [ErrByHand].
func (f *File) Edit(stack string, wants ...Want) (Edited, error) {
	c := comparer{file: f, stack: stack}
	for _, w := range wants {
		c.service(w)
	}
	c.shared()
	e := newEditor(f.text)
	done := map[string]bool{}
	for _, o := range c.objects {
		if !o.stale || done[o.secret.Key] {
			continue
		}
		done[o.secret.Key] = true
		if err := e.external(o.secret, o.want); err != nil {
			return Edited{}, fmt.Errorf("%s:%d: the secret %q is written in a way that is not edited: %w", f.Name, o.secret.Line, o.secret.Key, err)
		}
	}
	for _, v := range c.variables {
		if err := e.variable(v); err != nil {
			return Edited{}, fmt.Errorf("%s:%d: the variable %s is written in a way that is not edited: %w", f.Name, v.value.Line, v.Name, err)
		}
	}
	out := Edited{Text: e.text(), Diff: e.diff(f.Name)}
	if err := f.check(out.Text, c); err != nil {
		return Edited{}, fmt.Errorf("%s: %w", f.Name, err)
	}
	return out, nil
}

// check reads an edited text again: what was to change did, and nothing else.
func (f *File) check(text string, c comparer) error {
	after, err := Parse(f.Name, []byte(text))
	if err != nil {
		return ErrByHand
	}
	secrets, vars := map[string]string{}, map[[2]string]string{}
	for _, o := range c.objects {
		if o.stale {
			secrets[o.secret.Key] = o.want
		}
	}
	for _, v := range c.variables {
		vars[[2]string{v.service, v.Name}] = v.want
	}
	was, is := f.meaning(c.stack, secrets, vars), after.meaning(c.stack, nil, nil)
	if !reflect.DeepEqual(was, is) {
		return fmt.Errorf("an anchor or a merge key is shared with something that must not change: %w", ErrByHand)
	}
	return nil
}

// meaning is what the file says of services and secrets, with some written anew.
func (f *File) meaning(stack string, secrets map[string]string, vars map[[2]string]string) map[string]string {
	m := map[string]string{}
	for _, s := range f.Services {
		for _, mount := range s.Mounts {
			mount.Place = Place{}
			m[fmt.Sprintf("service %s mount %+v", s.Name, mount)] = ""
		}
		for _, v := range s.Env {
			value, known := v.Value()
			if want, ok := vars[[2]string{s.Name, v.Name}]; ok {
				value, known = want, true
			}
			m[fmt.Sprintf("service %s variable %s %v %v", s.Name, v.Name, v.value != nil, known)] = value
		}
	}
	for _, s := range f.Secrets {
		name, _ := s.Object(stack)
		how := fmt.Sprint(s.External, s.Made)
		if want, ok := secrets[s.Key]; ok {
			name, how = want, fmt.Sprint(true, "")
		}
		m["secret "+s.Key] = name + " " + how
	}
	return m
}
