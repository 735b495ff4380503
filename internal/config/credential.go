package config

import (
	"errors"
	"maps"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"
)

// entry is a credential as it is written; the backend's key is not among its fields.
type entry struct {
	Through   string            `yaml:"through"`
	Stack     *Stack            `yaml:"stack"`
	Services  yaml.Node         `yaml:"services"`
	Render    map[string]string `yaml:"render"`
	Secrets   map[string]string `yaml:"secrets"`
	Every     *time.Duration    `yaml:"every"`
	Overlap   *time.Duration    `yaml:"overlap"`
	Grace     *time.Duration    `yaml:"grace"`
	Bound     *time.Duration    `yaml:"bound"`
	MinAge    *time.Duration    `yaml:"minimum-age"`
	Expiry    string            `yaml:"expiry"`
	Mounts    string            `yaml:"mounts"`
	Rollout   Rollout           `yaml:"rollout"`
	AcceptGap bool              `yaml:"accept-gap"`
	Ignore    []Ignored         `yaml:"ignore"`
	Restart   []string          `yaml:"restart"`
	Approve   *Approvals        `yaml:"approve"`
	Allow     *Allows           `yaml:"allow"`
	Windows   []string          `yaml:"windows"`
	Jitter    *time.Duration    `yaml:"jitter"`
	After     []string          `yaml:"after"`
}

// NotBuilt names keys of later releases.
func (*entry) NotBuilt() []string {
	return []string{"notify", "store", "stores"}
}

var credentialName = regexp.MustCompile(`^[a-z0-9]([a-z0-9-]*[a-z0-9])?$`)

func (p *parser) credential(cfg *Config, name, n *yaml.Node, key string) (Credential, bool) {
	c := Credential{Name: name.Value}
	if n.Kind == 0 {
		return c, false
	}
	if len(name.Value) > 40 || !credentialName.MatchString(name.Value) {
		p.fault(name, key, "write it as orders-db", "a name has lower-case letters, digits and hyphens, at most 40")
	}
	if n.Kind != yaml.MappingNode {
		p.faults.hide(key)
		p.fault(n, key, "", "want keys with values, got %s", nodeWords(n))
		return c, false
	}
	rest, section := p.split(n, key, &c)
	homes := p.homes
	if section != nil {
		p.section(&c, section, key)
	}
	var e entry
	p.decode(rest, key, reflect.ValueOf(&e).Elem())
	p.homes = homes
	p.fill(&c, e, n, key)
	if c.Elsewhere() != "" {
		p.elsewhere(cfg, &c, n, key)
		p.approve(c.Approve, n, key)
		p.windows(&c, e.Windows, n, key)
		p.allow(c.Allow, n, key)
		return c, true
	}
	fields := p.fields(cfg, &c, n, key)
	if cfg.ActionsSecrets == nil {
		p.services(cfg, &c, e, n, key, fields)
	}
	p.ignored(&c, n, key)
	p.restart(cfg, e, n, key)
	p.approve(c.Approve, n, key)
	p.windows(&c, e.Windows, n, key)
	p.allow(c.Allow, n, key)
	p.swarmOnly(cfg, n, key)
	if cfg.ActionsSecrets != nil {
		p.inActions(&c, n, key)
	}
	p.place(cfg, &c, n, key)
	if cfg.ActionsSecrets == nil {
		p.defaultBases(&c, n, key)
	}
	return c, true
}

// split takes the backend's section out of a credential.
func (p *parser) split(n *yaml.Node, key string, c *Credential) (rest, section *yaml.Node) {
	copied := *n
	rest = &copied
	rest.Content = nil
	built := slices.Sorted(maps.Keys(p.backends))
	others := append(keysOf(reflect.TypeFor[entry]()), (*entry)(nil).NotBuilt()...)
	guessed := false
	for name, value := range pairs(n) {
		switch {
		case slices.Contains(built, name.Value) && section != nil:
			hint := "make it a credential of its own"
			p.fault(name, join(key, name.Value), hint, "a credential has one backend, and %q stands above", c.Backend)
		case slices.Contains(built, name.Value):
			c.Backend, section = name.Value, value
		case !slices.Contains(others, name.Value) && slices.Contains(built, nearest(name.Value, slices.Concat(built, others))):
			p.unknown(name, value, key, built)
			guessed = true
		default:
			rest.Content = append(rest.Content, name, value)
		}
	}
	if section == nil && !guessed {
		p.fault(n, key, "built are: "+strings.Join(built, ", "), "the credential has no backend")
	}
	return rest, section
}

// section lets the backend decode its part, and check what could be decoded: a
// fault of one key hides none of another.
func (p *parser) section(c *Credential, n *yaml.Node, key string) {
	key = join(key, c.Backend)
	settings, err := p.backends[c.Backend](func(into any) error {
		v := reflect.ValueOf(into).Elem()
		p.decode(n, key, v)
		if v.Kind() == reflect.Struct {
			p.dwell("under "+c.Backend, v.Type())
		}
		if n.Kind != kindFor(v.Type()) {
			return errDecoded
		}
		return nil
	})
	c.Settings = settings
	if !errors.Is(err, errDecoded) {
		p.owned(n, key, err)
	}
}

// errDecoded tells a backend that nothing of its section could be decoded; the
// fault stands already.
var errDecoded = errors.New("the section is no section")

// owned places what a backend found wrong.
func (p *parser) owned(n *yaml.Node, key string, err error) {
	if err == nil {
		return
	}
	if many, ok := err.(interface{ Unwrap() []error }); ok {
		for _, one := range many.Unwrap() {
			p.owned(n, key, one)
		}
		return
	}
	hint := ""
	if h, ok := err.(interface{ Hint() string }); ok {
		hint = h.Hint()
	}
	if k, ok := err.(interface{ Key() string }); ok && k.Key() != "" {
		n, key = at(n, strings.Split(k.Key(), ".")...), key+"."+k.Key()
	}
	if p.faults.touch(key) || p.meant[key] {
		return // it follows from what stands
	}
	p.fault(n, key, hint, "%v", err)
}
