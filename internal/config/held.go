package config

import "go.yaml.in/yaml/v3"

// isHeld reports whether people hold a credential, or nobody does: no service reads it.
func isHeld(c *Credential) bool {
	s, ok := c.Settings.(interface{ Held() bool })
	return ok && s.Held()
}

// ofReaders are the keys that mean something only where services read a credential, or two
// versions of it are valid at once.
var ofReaders = []string{"services", "stack", "render", "secrets", "mounts", "rollout", "ignore", "restart", "overlap", "grace", "bound", "expiry", "accept-gap"}

// held checks a credential that no service reads.
func (p *parser) held(n *yaml.Node, key string) {
	for _, name := range ofReaders {
		if child(n, name) != nil && !p.faults.below(join(key, name)) {
			p.fault(at(n, name), join(key, name), "leave it out", "no service reads the credential, and one version of it is valid at a time")
		}
	}
}
