package config

import (
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"
)

// order checks what comes after what: only credentials that there are, and no circle.
func (p *parser) order(cfg *Config, credentials *yaml.Node) {
	var names []string
	after := map[string][]string{}
	for name, value := range pairs(credentials) {
		names = append(names, name.Value)
		key := "credentials." + name.Value + ".after"
		list := child(value, "after")
		if list == nil || list.Kind != yaml.SequenceNode || p.faults.below(key) {
			continue
		}
		for _, n := range list.Content {
			after[name.Value] = append(after[name.Value], n.Value)
		}
	}
	for name, value := range pairs(credentials) {
		key := "credentials." + name.Value + ".after"
		for i, needed := range after[name.Value] {
			n := child(value, "after").Content[i]
			switch {
			case own(cfg, needed):
				p.fault(n, key, "leave it out", "an administrator's own credential comes last, so nothing comes after it")
			case needed == name.Value:
				p.fault(n, key, "leave it out", "a credential cannot come after itself")
			case !slices.Contains(names, needed):
				p.fault(n, key, "credentials: "+strings.Join(names, ", "), "no credential has that name")
			case slices.Contains(after[name.Value][:i], needed):
				p.fault(n, key, "leave it out", "%q stands here twice", needed)
			}
		}
	}
	if circle := circleIn(names, after); circle != nil {
		n := at(credentials, circle[0], "after")
		p.fault(n, "credentials."+circle[0]+".after", "take one of them out", "each of these comes after the next: %s", strings.Join(circle, " → "))
	}
}

// own reports whether a credential is the one that its administrator logs in with.
func own(cfg *Config, name string) bool {
	return slices.ContainsFunc(cfg.Credentials, func(c Credential) bool { return c.Name == name && c.Own() })
}

// circleIn returns a way from a name back to it; nil if there is none.
func circleIn(names []string, after map[string][]string) []string {
	done := map[string]bool{}
	var way []string
	var walk func(name string) []string
	walk = func(name string) []string {
		if i := slices.Index(way, name); i >= 0 {
			return append(slices.Clone(way[i:]), name)
		}
		if done[name] {
			return nil
		}
		done[name] = true
		way = append(way, name)
		for _, next := range after[name] {
			if next == name {
				continue // said already
			}
			if circle := walk(next); circle != nil {
				return circle
			}
		}
		way = way[:len(way)-1]
		return nil
	}
	for _, name := range names {
		if circle := walk(name); circle != nil {
			return circle
		}
	}
	return nil
}
