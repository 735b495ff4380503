package config

import (
	"reflect"
	"regexp"
	"strings"

	"go.yaml.in/yaml/v3"

	"github.com/keyturn/keyturn/internal/secret"
)

const sourceHint = "write {from-env: NAME} or {from-file: PATH}"

// envForm is what the name of a variable with a secret looks like. Small letters
// are not taken: a secret that was written here by mistake has some, and the
// name is printed when the variable is not set.
var envForm = regexp.MustCompile(`^[A-Z_][A-Z0-9_]{0,63}$`)

// source reads where a secret stands. What is written instead may be the secret
// itself and is never repeated, whether it is a value or a key.
func (d *decoder) source(n *yaml.Node, key string, v reflect.Value) {
	if n.Kind != yaml.MappingNode {
		if nodeWords(n) == "nothing" {
			d.fault(n, key, sourceHint, "want the place of a secret, got nothing")
			return
		}
		d.fault(n, key, sourceHint, "a secret is never written here")
		return
	}
	d.faults.hide(key)
	if d.faults.below(key) { // a tag, an alias
		return
	}
	var s secret.Source
	before := len(d.faults)
	for name, value := range pairs(n) {
		switch name.Value {
		case "from-env":
			s.Env = d.place(value, key+".from-env", envForm.MatchString, "the name of a variable",
				"write the name of the variable that holds it, in capital letters")
		case "from-file":
			s.File = d.place(value, key+".from-file", pathLike, "the path of a file",
				"write its path, with a / in it: /run/secrets/NAME or ./NAME")
		default:
			d.fault(name, key, sourceHint, "want from-env or from-file, got another key")
		}
	}
	switch {
	case len(d.faults) > before:
	case s.Env == "" && s.File == "":
		d.fault(n, key, sourceHint, "want the place of a secret, got none")
	case s.Env != "" && s.File != "":
		d.fault(n, key, "keep one of from-env and from-file", "want one place for the secret, got two")
	default:
		v.Set(reflect.ValueOf(s))
	}
}

// place returns the text of a node if it has the right form.
func (d *decoder) place(n *yaml.Node, key string, ok func(string) bool, want, hint string) string {
	if n.Kind == 0 {
		return ""
	}
	if n.Kind != yaml.ScalarNode || n.Tag != "!!str" || !ok(n.Value) {
		d.fault(n, key, hint, "want %s", want)
		return ""
	}
	return n.Value
}

func pathLike(s string) bool {
	return strings.Contains(s, "/") && !strings.HasSuffix(s, "/") && !strings.ContainsAny(s, "\n\t")
}
