// Package scaffold writes a first configuration from what services are seen to
// read. It connects to nothing: services in, text out. It never sees the value of
// a secret, because nobody can read one, and it repeats no variable but those
// that, by their names, hold a login, a host, a port or a database.
package scaffold

import (
	"cmp"
	"maps"
	"path"
	"regexp"
	"slices"
	"strings"
)

// A Service is one that is deployed.
type Service struct {
	Name   string // in the Swarm
	Stack  string // that it was deployed with; "" for none
	Env    map[string]string
	Mounts []Mount
}

// A Mount is a secret that a service mounts.
type Mount struct {
	Secret string // its name
	Target string // the absolute path
}

// The fields that a secret may hold.
const (
	Password = "password"
	Username = "username"
	DSN      = "dsn"
)

// A Credential is what some secrets are taken to be.
type Credential struct {
	Name     string            `json:"name"`
	Stack    string            `json:"stack,omitempty"`
	Secrets  map[string]string `json:"secrets"` // field → name of the secret that services mount now
	Services []Reader          `json:"services"`

	// What variables of the services say of the database. "" where none does.
	Role     string `json:"role,omitempty"`
	Host     string `json:"host,omitempty"`
	Port     string `json:"port,omitempty"`
	Database string `json:"database,omitempty"`
}

// A Reader is a service that reads a credential.
type Reader struct {
	Service string            `json:"service"`
	Env     map[string]string `json:"env,omitempty"` // variable → field
	File    map[string]string `json:"file,omitempty"`
	Path    map[string]string `json:"path,omitempty"`
	Along   bool              `json:"along,omitempty"` // it was not named, and mounts the same secret
}

// A Stranger is a secret of the named services that is taken for no credential
// of a database.
type Stranger struct {
	Secret  string `json:"secret"`
	Service string `json:"service"`
	Target  string `json:"path"`
}

// Guess sorts the secrets that the named services mount into credentials. The
// others of all that mount the same secrets are taken along.
func Guess(all []Service, named []string) (found []Credential, others []Stranger) {
	g := guess{all: all, fields: map[string]string{}}
	for _, s := range all {
		if !slices.Contains(named, s.Name) {
			continue
		}
		for _, m := range s.Mounts {
			field := fieldOf(s, m)
			if field == "" {
				others = append(others, Stranger{m.Secret, s.Name, m.Target})
				continue
			}
			g.add(s, m.Secret, field)
		}
	}
	for _, c := range g.found {
		g.readers(c, named)
		found = append(found, *c)
	}
	return found, slices.DeleteFunc(others, func(o Stranger) bool { return g.fields[o.Secret] != "" })
}

type guess struct {
	all    []Service
	found  []*Credential
	fields map[string]string // secret → the field that it is taken for
}

// add puts a secret into the credential that its name says. Each secret is one
// field of one credential.
func (g *guess) add(s Service, secret, field string) {
	if g.fields[secret] != "" {
		return
	}
	name := credentialName(s.Stack, secret)
	i := slices.IndexFunc(g.found, func(c *Credential) bool { return c.Name == name && c.Secrets[field] == "" })
	if i < 0 {
		for n := 2; slices.ContainsFunc(g.found, func(c *Credential) bool { return c.Name == name }); n++ {
			name = credentialName(s.Stack, secret) + "-" + string(rune('0'+n%10))
		}
		g.found = append(g.found, &Credential{Name: name, Stack: s.Stack, Secrets: map[string]string{}})
		i = len(g.found) - 1
	}
	g.found[i].Secrets[field], g.fields[secret] = secret, field
}

// readers finds who mounts the secrets of a credential, and what they say of the
// database.
func (g *guess) readers(c *Credential, named []string) {
	for _, s := range g.all {
		r := Reader{Service: s.Name, Env: map[string]string{}, File: map[string]string{}, Path: map[string]string{}, Along: !slices.Contains(named, s.Name)}
		for _, m := range s.Mounts {
			if field := g.fields[m.Secret]; field != "" && c.Secrets[field] == m.Secret {
				r.mount(s, m, field)
			}
		}
		if len(r.File)+len(r.Path) == 0 {
			continue
		}
		g.variables(c, s, &r)
		c.Services = append(c.Services, r)
	}
	slices.SortStableFunc(c.Services, func(a, b Reader) int { return cmp.Compare(btoi(a.Along), btoi(b.Along)) })
}

func btoi(b bool) int {
	if b {
		return 1
	}
	return 0
}

// mount says how a service finds a field: by the variables that hold its path,
// or at a fixed one.
func (r *Reader) mount(s Service, m Mount, field string) {
	for name, value := range s.Env {
		if path.IsAbs(value) && path.Clean(value) == m.Target {
			r.File[name] = field
		}
	}
	if !slices.Contains(values(r.File), field) {
		r.Path[m.Target] = field
	}
}

func values(m map[string]string) []string {
	var out []string
	for _, v := range m {
		out = append(out, v)
	}
	return out
}

// What the variables of a database are called, after the prefix that those of
// one database share.
var (
	roleWords     = []string{"USER", "USERNAME", "LOGIN"}
	hostWords     = []string{"HOST", "HOSTNAME", "SERVER"}
	portWords     = []string{"PORT"}
	databaseWords = []string{"DB", "DATABASE", "DBNAME", "NAME", "DB_NAME"}
)

// plain is what a login, a host, a port or a database may look like to be
// written down: anything else may be a value that was put there by mistake.
var plain = regexp.MustCompile(`^[A-Za-z0-9_]([A-Za-z0-9_.-]{0,61}[A-Za-z0-9_])?$`)

func (g *guess) variables(c *Credential, s Service, r *Reader) {
	p := PlaceOf(s, keys(r.File)...)
	if p.RoleIn != "" && c.Secrets[Username] == "" {
		r.Env[p.RoleIn] = Username
		c.Role = cmp.Or(c.Role, p.Role)
	}
	c.Host, c.Port, c.Database = cmp.Or(c.Host, p.Host), cmp.Or(c.Port, p.Port), cmp.Or(c.Database, p.Database)
}

func keys(m map[string]string) []string { return slices.Sorted(maps.Keys(m)) }

// A Place is what the variables of a service say of its database. "" is what none says.
type Place struct {
	Role, Host, Port, Database string
	RoleIn                     string // the variable that holds the role
}

// PlaceOf reads the variables that by their names say of a database where it is
// and who logs in. Those beside a variable that holds the path of a credential,
// such as ORDERS_DB_HOST beside ORDERS_DB_PASSWORD_FILE, come first.
func PlaceOf(s Service, files ...string) Place {
	prefixes := []string{"POSTGRES_", "POSTGRESQL_", "PG", "DB_", "DATABASE_"}
	for _, name := range files {
		if prefix, ok := prefixOf(name); ok {
			prefixes = append([]string{prefix}, slices.DeleteFunc(prefixes, func(p string) bool { return p == prefix })...)
		}
	}
	find := func(words []string) (name, value string) {
		for _, prefix := range prefixes {
			for _, w := range words {
				if v, ok := s.Env[prefix+w]; ok && plain.MatchString(v) {
					return prefix + w, v
				}
			}
		}
		return "", ""
	}
	p := Place{}
	p.RoleIn, p.Role = find(roleWords)
	_, p.Host = find(hostWords)
	_, p.Port = find(portWords)
	_, p.Database = find(databaseWords)
	return p
}

// prefixOf returns what stands before the word in the name of a variable that
// holds the path of a password: ORDERS_DB_ of ORDERS_DB_PASSWORD_FILE.
func prefixOf(variable string) (string, bool) {
	variable = strings.TrimSuffix(variable, "_FILE")
	for _, w := range []string{"PASSWORD", "PASSWD", "PASS", "PWD", "URL", "DSN", "URI"} {
		if prefix, ok := strings.CutSuffix(variable, w); ok {
			return prefix, true
		}
	}
	return "", false
}
