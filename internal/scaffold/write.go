package scaffold

import (
	"fmt"
	"maps"
	"slices"
	"strings"
)

// Options are what the user said, or the machine is known to have.
type Options struct {
	Journal   string   // path
	Swarm     []string // lines of the section that says how the engine is reached
	Image     string   // of the probes; "" for this release's
	Admin     string   // postgres://…; "" is made of what services say
	CA        string   // path; "" for the system's authorities
	Role      string   // "" is what services say
	StackFile string   // path; "" if there is none
	Through   bool     // the database is reached through the Swarm
}

// A Draft is a configuration that was written, and what is to be looked at.
type Draft struct {
	Text    string
	Unknown []string // what could not be known
	Missing []string // flags without which there is no configuration
}

// Write writes the configuration of credentials. With something missing there is
// no text.
func Write(found []Credential, others []Stranger, o Options) Draft {
	d := draft{Options: o}
	for _, c := range found {
		d.complete(c)
	}
	if len(d.Missing) > 0 {
		d.Missing = slices.Compact(slices.Sorted(slices.Values(d.Missing)))
		return d.Draft
	}
	d.head()
	for _, c := range found {
		d.credential(c)
	}
	for _, s := range others {
		d.line("# Not taken: the secret %s (at %s in %s): no name says that it is a database's.", s.Secret, s.Target, s.Service)
	}
	d.Text = d.out.String()
	return d.Draft
}

type draft struct {
	Draft
	Options
	out strings.Builder
}

func (d *draft) line(format string, args ...any) { fmt.Fprintf(&d.out, format+"\n", args...) }

func (d *draft) unknown(format string, args ...any) string {
	text := fmt.Sprintf(format, args...)
	if !slices.Contains(d.Unknown, text) {
		d.Unknown = append(d.Unknown, text)
	}
	return text
}

// complete notes what must be said by flags.
func (d *draft) complete(c Credential) {
	if d.Admin == "" && (c.Host == "" || c.Database == "") {
		d.Missing = append(d.Missing, "--admin postgres://keyturn@HOST:5432/DATABASE")
	}
	if d.Role == "" && c.Role == "" {
		d.Missing = append(d.Missing, "--role LOGIN")
	}
}

func (d *draft) head() {
	d.line("# What is rotated, and who reads it. Every key: docs/configuration.md")
	d.line("version: 1")
	d.line("journal: file:%s  # outside any checkout; keep it: it is the record", d.Journal)
	d.line("swarm:")
	for _, line := range d.Swarm {
		d.line("  %s", line)
	}
	if d.Image != "" {
		d.line("  image: %s  # of the probes: this program, on every node", d.Image)
	}
	d.line("credentials:")
}

func (d *draft) credential(c Credential) {
	d.line("  %s:", c.Name)
	if slices.ContainsFunc(c.Services, func(r Reader) bool { return !strings.HasPrefix(r.Service, c.Stack+"_") }) && c.Stack != "" {
		d.unknown("%s: which stack file names its secret: not all of its services are of the stack %s, so that none is compared", c.Name, c.Stack)
		c.Stack = ""
	}
	d.postgres(c)
	if d.Through {
		d.line("    through: swarm  # connections to the database are made by a task on the services' networks")
	}
	if c.Stack != "" {
		file := ""
		if d.StackFile != "" {
			file = ", file: " + quote(d.StackFile)
		}
		d.line("    stack: {name: %s%s}", c.Stack, file)
	}
	d.line("    services:")
	for _, r := range c.Services {
		d.reader(c, r)
	}
	if c.Secrets[DSN] != "" {
		host, port, database := d.place(c)
		d.line(`    render: {dsn: "postgres://{username}:{password}@%s:%s/%s"}  # %s`, host, port, database,
			d.unknown("%s: what its secret %s looks like: nobody can read it; write the template so that it fits", c.Name, c.Secrets[DSN]))
	}
	var bases []string
	for _, field := range slices.Sorted(maps.Keys(c.Secrets)) {
		bases = append(bases, field+": "+baseName(c.Secrets[field]))
	}
	d.line("    secrets: {%s}  # the next is called %s_v2", strings.Join(bases, ", "), baseName(c.Secrets[slices.Sorted(maps.Keys(c.Secrets))[0]]))
	d.line("    every: 90d")
	d.line("    overlap: 24h  # how long the old login works after the cutover")
}

func (d *draft) postgres(c Credential) {
	d.line("    postgres:")
	if d.Admin != "" {
		d.line("      admin: %s", d.Admin)
	} else {
		host, port, database := d.place(c)
		admin := fmt.Sprintf("      admin: postgres://keyturn@%s:%s/%s", host, port, database)
		if !d.Through {
			admin += "  # " + d.unknown("%s: whether this machine reaches %s:%s, as the services do; if it does not: --through swarm", c.Name, host, port)
		}
		d.line("%s", admin)
	}
	d.line("      admin-password: {from-env: KEYTURN_PG_PASSWORD}")
	if d.CA != "" {
		d.line("      ca: %s", quote(d.CA))
	} else {
		d.line("      # ca: deploy/db-ca.pem  # %s", d.unknown("%s: who signs the certificate of the database; without ca: it must be an authority of the system", c.Name))
	}
	if d.Role != "" {
		d.line("      role: %s", d.Role)
	} else {
		d.line("      role: %s  # what services log in as today; it becomes the role of the logins in turn", c.Role)
	}
	if c.Host != "" && c.Database != "" {
		d.line("      probe: [postgres://%s:%s/%s]  # how the services reach it, as their variables say", c.Host, or(c.Port, "5432"), c.Database)
	}
}

// place is where the database is, as far as it is known.
func (d *draft) place(c Credential) (host, port, database string) {
	host, port, database = c.Host, c.Port, c.Database
	if host == "" || database == "" { // then the flag says it
		_, rest, _ := strings.Cut(d.Admin, "@")
		var at string
		at, database, _ = strings.Cut(rest, "/")
		at, _, _ = strings.Cut(at, ",")
		host, port, _ = strings.Cut(at, ":")
	}
	return host, or(port, "5432"), database
}

func (d *draft) reader(c Credential, r Reader) {
	name := r.Service
	if c.Stack != "" {
		name = strings.TrimPrefix(name, c.Stack+"_")
	}
	note := ""
	if r.Along {
		note = "  # mounts the same secret"
	}
	d.line("      %s:%s", name, note)
	for _, part := range []struct {
		key  string
		from map[string]string
	}{{"env", r.Env}, {"file", r.File}, {"path", r.Path}} {
		var pairs []string
		for _, place := range slices.Sorted(maps.Keys(part.from)) {
			pairs = append(pairs, place+": "+part.from[place])
		}
		if len(pairs) > 0 {
			d.line("        %s: {%s}", part.key, strings.Join(pairs, ", "))
		}
	}
	if len(r.Env) == 0 && c.Secrets[Username] == "" && c.Secrets[DSN] == "" {
		d.line("        # env: {POSTGRES_USER: username}  # %s",
			d.unknown("%s: which variable of %s holds the login: it changes with each rotation", c.Name, r.Service))
	}
}

func or(s, otherwise string) string {
	if s == "" {
		return otherwise
	}
	return s
}

// quote puts a path in quotes where YAML asks for it.
func quote(s string) string {
	if strings.ContainsAny(s, ": #{}[],&*!|>'\"%@`\\") {
		return "'" + strings.ReplaceAll(s, "'", "''") + "'"
	}
	return s
}
