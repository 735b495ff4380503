package rotated

import (
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
)

// Vars says which variable of the environment each field stands behind:
// {"POSTGRES_USER": "username", "POSTGRES_PASSWORD": "password"}. The names
// are those without _FILE and _NEW; the fields are what [Credential.Field]
// takes, and all of them belong to one credential.
type Vars map[string]string

// Env returns the [Source] that reads the credential whose fields stand behind
// the given variables of the process's environment. For a variable NAME the
// places are, in order:
//
//  1. current: the file that NAME_FILE names, else NAME;
//  2. next: the file that NAME_FILE_NEW names, else NAME_NEW;
//  3. plain: NAME.
//
// The first two need a file for one field at least, and every place needs
// every field: the next credential never takes NAME from the current one. In
// turn, a plain variable that belongs to a current credential that is there
// makes no plain credential with others. A variable that is set to nothing
// counts as unset.
func Env(vars Vars) *Source { return EnvFunc(os.LookupEnv, vars) }

// EnvFunc is [Env] with the environment that lookup gives, as [os.LookupEnv] does.
func EnvFunc(lookup func(string) (string, bool), vars Vars) *Source {
	vars = maps.Clone(vars)
	return &Source{read: func() ([]Credential, error) {
		if err := vars.check(); err != nil {
			return nil, err
		}
		return vars.read(func(name string) string {
			value, _ := lookup(name)
			return value
		})
	}}
}

func (v Vars) check() error {
	if len(v) == 0 {
		return errors.New("no variable is asked for")
	}
	behind := map[string]string{}
	for _, name := range v.names() {
		field := v[name]
		if name == "" || field == "" {
			return fmt.Errorf("variable %q stands for field %q: neither may be empty", name, field)
		}
		if other, ok := behind[field]; ok {
			return fmt.Errorf("field %q stands behind both %s and %s", field, other, name)
		}
		behind[field] = name
	}
	return nil
}

func (v Vars) names() []string { return slices.Sorted(maps.Keys(v)) }

// A place is where a whole credential can stand: suffixes of variables that
// name files, and of variables that hold values themselves.
type place struct{ file, plain string }

// read returns the whole credentials in order. Why tells, of the others, why
// they are none.
func (v Vars) read(getenv func(string) string) (found []Credential, why error) {
	taken := "" // a plain variable that is part of the current credential
	for _, p := range []place{{"_FILE", ""}, {"_FILE_NEW", "_NEW"}, {"", ""}} {
		if p.file == "" && taken != "" {
			break
		}
		if p.file != "" && !v.anySet(getenv, p.file) {
			continue
		}
		c, plain, err := v.readWhole(getenv, p)
		switch {
		case errors.Is(err, ErrMissing):
			why = also(why, err)
			continue
		case err != nil:
			return found, also(why, err)
		}
		if p.plain == "" {
			taken = plain
		}
		if !contains(found, c) {
			found = append(found, c)
		}
	}
	return found, why
}

// readWhole reads every field in one place. Plain names one of the variables
// that held a value themselves.
func (v Vars) readWhole(getenv func(string) string, p place) (c Credential, plain string, err error) {
	values, paths := map[string]string{}, map[string]string{}
	var origin, unset []string
	for _, name := range v.names() {
		if path := getenv(name + p.file); p.file != "" && path != "" {
			paths[v[name]] = path
			origin = append(origin, name+p.file)
		} else if value := getenv(name + p.plain); value != "" {
			values[v[name]], plain = value, name+p.plain
			origin = append(origin, name+p.plain)
		} else {
			unset = append(unset, v.wanted(getenv, name, p))
		}
	}
	from := strings.Join(origin, " and ")
	if len(unset) > 0 {
		return c, "", absent("%s", strings.Join(unset, ", "))
	}
	files, err := readFiles(paths)
	if err != nil {
		return c, "", fmt.Errorf("from %s: %w", from, err)
	}
	maps.Copy(values, files)
	return newCredential(from, values), plain, nil
}

// anySet reports whether one of the variables with that suffix is set.
func (v Vars) anySet(getenv func(string) string, suffix string) bool {
	for name := range v {
		if getenv(name+suffix) != "" {
			return true
		}
	}
	return false
}

// wanted says what a place lacks for the field behind the variable.
func (v Vars) wanted(getenv func(string) string, name string, p place) string {
	switch {
	case p.file != "":
		return fmt.Sprintf("neither %s nor %s is set", name+p.file, name+p.plain)
	case getenv(name+"_FILE") == "":
		return fmt.Sprintf("neither %s nor %s is set", name+"_FILE", name)
	}
	return name + " is not set"
}
