package config

import (
	"maps"
	"reflect"
	"regexp"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"
)

// fullName returns the name of a service in the Swarm: a stack puts its own in front.
func (c *Credential) fullName(service string) string {
	if c.Stack == nil || c.Stack.Name == "" || strings.HasPrefix(service, c.Stack.Name+"_") {
		return service
	}
	return c.Stack.Name + "_" + service
}

// services decodes the services and checks what they read.
func (p *parser) services(cfg *Config, c *Credential, e entry, n *yaml.Node, key string, fields fields) {
	key += ".services"
	switch {
	case e.Services.Kind == 0 && p.faults.below(key):
		return
	case e.Services.Kind == 0 && cfg.Directory == nil:
		p.fault(n, key, "name the services that read it", "no service reads the credential")
		return
	case e.Services.Kind == 0:
		return
	case e.Services.Kind != yaml.MappingNode:
		p.fault(&e.Services, key, "write it as {api: {file: {…}}}", "want services by name, got %s", nodeWords(&e.Services))
		return
	case len(e.Services.Content) == 0 && !p.faults.below(key):
		p.fault(&e.Services, key, "write it as {api: {file: {…}}}", "no service reads the credential")
	}
	written := map[string]int{}
	for name, value := range pairs(&e.Services) {
		here := label(&e.Services, key, name, value)
		s := Service{}
		p.decode(value, here, reflect.ValueOf(&s).Elem())
		s.Name = c.fullName(name.Value)
		if line := written[s.Name]; line > 0 {
			p.fault(name, here, "keep one of them", "the service stands in line %d already, with or without the stack's name", line)
			continue
		}
		written[s.Name] = name.Line
		p.service(cfg, c, s, value, here)
		p.reads(s, value, here, fields)
		p.turning(s, value, here, fields)
		p.pace(c, s, name, n, strings.TrimSuffix(key, ".services"))
		c.Services = append(c.Services, s)
	}
}

func (p *parser) service(cfg *Config, c *Credential, s Service, n *yaml.Node, key string) {
	switch {
	case p.faults.below(key):
	case len(s.Env) > 0 && cfg.Directory != nil:
		p.fault(at(n, "env"), key+".env", "leave it out, and read the field from its file", "a directory sets no variables")
	case len(s.File)+len(s.Path) == 0 && cfg.Directory == nil:
		p.fault(n, key, "add file: {POSTGRES_PASSWORD_FILE: password} or path:", "the service mounts no field")
	}
	p.places(c, s, n, key)
}

// pace refuses a service whose tasks two credentials would replace in two ways.
func (p *parser) pace(c *Credential, s Service, name, n *yaml.Node, key string) {
	if p.faults.below(key + ".rollout") {
		return
	}
	other, ok := p.rollouts[s.Name]
	if !ok {
		p.rollouts[s.Name] = paced{shown(c.Name), c.Rollout}
		return
	}
	if other.rollout == c.Rollout {
		return
	}
	if child(n, "rollout") != nil {
		name = at(n, "rollout")
	}
	p.fault(name, key+".rollout", "write the same rollout under both", "a service of this credential belongs to %s too, with another rollout", other.credential)
}

var variableName = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]*$`)

// places checks the variables and paths of a service, and that each is used once.
func (p *parser) places(c *Credential, s Service, n *yaml.Node, key string) {
	p.variables(c, s, at(n, "env"), key+".env", s.Env)
	p.variables(c, s, at(n, "file"), key+".file", s.File)
	for _, path := range sorted(s.Path) {
		node := keyNode(at(n, "path"), path)
		switch {
		case !absolute(path):
			p.fault(node, key+".path", "write it as /run/secrets/db_url", "want an absolute path")
			continue
		case strings.HasPrefix("/run/secrets/", path+"/"):
			p.fault(node, key+".path", "write it as /run/secrets/db_url", "the path is a folder")
			continue
		}
		p.own(c, s, path, node, key+".path")
		if c.Mounts == "dual" {
			p.own(c, s, path+"_new", node, key+".path")
		}
	}
}

func (p *parser) variables(c *Credential, s Service, n *yaml.Node, key string, vars map[string]string) {
	for _, name := range sorted(vars) {
		node := keyNode(n, name)
		if !variableName.MatchString(name) {
			p.fault(node, key, "write it as POSTGRES_USER", "a variable's name has letters, digits and _ alone")
			continue
		}
		p.own(c, s, name, node, key)
		if c.Mounts == "dual" {
			p.own(c, s, name+"_NEW", node, key)
		}
	}
}

// own refuses a variable or a path of a service that something else has, and a
// path below another: where a file is mounted nothing stands below.
func (p *parser) own(c *Credential, s Service, place string, n *yaml.Node, key string) {
	owners := p.owners[s.Name]
	if owners == nil {
		owners = map[string]string{}
		p.owners[s.Name] = owners
	}
	if other, ok := owners[place]; ok {
		p.fault(n, key, "each variable and path belongs to one field of one credential",
			"%q of this service is set by %s already", place, other)
		return
	}
	for _, other := range sorted(owners) {
		if strings.HasPrefix(other, place+"/") || strings.HasPrefix(place, other+"/") {
			p.fault(n, key, "put them side by side", "of %q and %q one is the other's folder", place, other)
			return
		}
	}
	owners[place] = shown(c.Name)
}

// ignored checks the services that are left out.
func (p *parser) ignored(c *Credential, n *yaml.Node, key string) {
	key += ".ignore"
	if p.faults.below(key) {
		return
	}
	seen := map[string]bool{}
	for i, ig := range c.Ignore {
		node := at(n, "ignore").Content[i]
		if ig.Service == "" || ig.Reason == "" {
			p.fault(node, key, "write {service: NAME, reason: WHY}", "a service that is left out needs a name and a reason")
			continue
		}
		full := c.fullName(ig.Service)
		c.Ignore[i].Service = full
		switch {
		case seen[full]:
			p.fault(node, key, "keep one of them", "the service is left out twice")
		case slices.ContainsFunc(c.Services, func(s Service) bool { return s.Name == full }):
			p.fault(node, key, "keep it under services or under ignore", "the service is rotated and left out")
		}
		seen[full] = true
	}
}

// keyNode returns the node of a key itself, for its place.
func keyNode(n *yaml.Node, name string) *yaml.Node {
	for k := range pairs(n) {
		if k.Value == name {
			return k
		}
	}
	return n
}

// absolute reports whether a path names a file, from the root on and without detours.
func absolute(path string) bool {
	return strings.HasPrefix(path, "/") && !strings.Contains(path+"/", "/../") && !strings.Contains(path+"/", "/./") &&
		!strings.Contains(path, "//") && !strings.HasSuffix(path, "/") && !strings.ContainsAny(path, "\n\t")
}

// sorted returns the keys in order, so that the same file has the same faults.
func sorted(m map[string]string) []string { return slices.Sorted(maps.Keys(m)) }
