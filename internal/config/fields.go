package config

import (
	"regexp"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"
)

var (
	fieldName  = regexp.MustCompile(`^[a-z][a-z0-9_-]*$`)
	secretName = regexp.MustCompile(`^[a-zA-Z0-9]([a-zA-Z0-9._-]*[a-zA-Z0-9])?$`)
)

// longestBase leaves room for "_v" and six digits in a name of 64 characters.
const longestBase = 64 - len("_v999999")

// fields says which fields a credential has. Without a backend whose section
// could be read nothing is known of them.
type fields struct {
	backend, public, rendered []string

	turning []string          // that no secret one is of use without
	made    map[string]string // of the rendered: their templates
}

func fieldsOf(c *Credential) fields {
	f := fields{rendered: sorted(c.Render), made: c.Render}
	if s, ok := c.Settings.(interface{ Fields() []string }); ok {
		f.backend = s.Fields()
	}
	if s, ok := c.Settings.(interface{ PublicFields() []string }); ok {
		f.public = s.PublicFields()
	}
	if s, ok := c.Settings.(interface{ TurningFields() []string }); ok {
		f.turning = s.TurningFields()
	}
	return f
}

func (f fields) all() []string { return slices.Concat(f.backend, f.rendered) }

// unknownField reports a name that is no field. The name itself is not shown:
// it may be the secret, written where its field's name should be.
func (p *parser) unknownField(n *yaml.Node, key, field string, f fields) bool {
	if len(f.backend) == 0 || slices.Contains(f.all(), field) {
		return false
	}
	known := slices.DeleteFunc(f.all(), func(name string) bool { return !fieldName.MatchString(name) })
	hint := oneOf(known)
	if near := nearest(field, known); near != "" {
		hint = `did you mean "` + near + `"?`
	}
	p.fault(n, key, hint, "there is no such field")
	return true
}

// fields checks the templates and the names of secrets against the fields that
// there are, and returns these.
func (p *parser) fields(cfg *Config, c *Credential, n *yaml.Node, key string) fields {
	f := fieldsOf(c)
	for _, field := range f.rendered {
		p.template(at(n, "render", field), join(key+".render", field), field, c.Render[field], f)
	}
	p.cycles(c.Render, at(n, "render"), key+".render")
	for _, field := range sorted(c.Secrets) {
		p.unknownField(keyNode(at(n, "secrets"), field), key+".secrets", field, f)
		name := p.base
		if cfg.ActionsSecrets != nil {
			name = p.actionsName
		}
		name(c, at(n, "secrets", field), join(key+".secrets", field), field, c.Secrets[field])
	}
	return f
}

// reads checks the fields that a service reads.
func (p *parser) reads(s Service, n *yaml.Node, key string, f fields) {
	for _, name := range sorted(s.Env) {
		field, here := s.Env[name], at(n, "env", name)
		switch {
		case p.unknownField(here, key+".env", field, f) || len(f.backend) == 0:
		case slices.Contains(f.rendered, field):
			p.fault(here, key+".env", mount(name, field), "a rendered field is mounted and never stands in a variable")
		case !slices.Contains(f.public, field):
			p.fault(here, key+".env", mount(name, field), "the field %q is secret and never stands in a variable", field)
		}
	}
	for _, name := range sorted(s.File) {
		p.unknownField(at(n, "file", name), key+".file", s.File[name], f)
	}
	for _, name := range sorted(s.Path) {
		p.unknownField(at(n, "path", name), key+".path", s.Path[name], f)
	}
}

// turning reports a service that reads a secret and not what changes with it: it would use the
// next version's secret as if it were the last one's.
func (p *parser) turning(s Service, n *yaml.Node, key string, f fields) {
	read := map[string]bool{}
	var reads func(string)
	reads = func(field string) {
		if !read[field] {
			read[field] = true
			for _, of := range names(f.made[field]) {
				reads(of)
			}
		}
	}
	for _, places := range []map[string]string{s.Env, s.File, s.Path} {
		for _, field := range places {
			reads(field)
		}
	}
	secret := slices.ContainsFunc(f.backend, func(field string) bool { return read[field] && !slices.Contains(f.public, field) })
	for _, field := range f.turning {
		if secret && !read[field] {
			p.fault(n, key, "read it too: under env:, file: or path:, or in a rendered field", "the service reads a secret and not the field %q, which changes with it", field)
		}
	}
}

// mount is the hint that a field is mounted instead of put in a variable.
func mount(variable, field string) string {
	if !variableName.MatchString(variable) || !fieldName.MatchString(field) {
		return "mount it: file: {POSTGRES_PASSWORD_FILE: password}"
	}
	return "mount it: file: {" + variable + "_FILE: " + field + "}"
}

// base checks the base name of a field's secret.
func (p *parser) base(c *Credential, n *yaml.Node, key, field, base string) {
	switch {
	case len(base) > longestBase:
		p.fault(n, key, "shorten it", "a secret's base name has at most %d characters, this one has %d", longestBase, len(base))
	case !secretName.MatchString(base):
		p.fault(n, key, "write it as orders_db_password", "a Swarm secret's name has letters, digits and . _ - alone, none of these at its ends")
	}
	owner := shown(c.Name) + ", field " + shown(field)
	if other, ok := p.bases[base]; ok && other != owner {
		p.fault(n, key, "give each a name of its own", "the base name belongs to %s already", other)
		return
	}
	p.bases[base] = owner
}

// defaultBases names the secrets of the fields that are mounted and have no
// base name: the credential's name and the field's.
func (p *parser) defaultBases(c *Credential, n *yaml.Node, key string) {
	for _, s := range c.Services {
		for _, mounted := range []map[string]string{s.File, s.Path} {
			for _, place := range sorted(mounted) {
				field := mounted[place]
				if _, ok := c.Secrets[field]; ok || !slices.Contains(fieldsOf(c).all(), field) {
					continue
				}
				if c.Secrets == nil {
					c.Secrets = map[string]string{}
				}
				base := strings.ReplaceAll(c.Name, "-", "_") + "_" + field
				c.Secrets[field] = base
				p.base(c, at(n, "services"), key+".secrets", field, base)
			}
		}
	}
}
