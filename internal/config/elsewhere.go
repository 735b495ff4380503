package config

import (
	"slices"

	"go.yaml.in/yaml/v3"
)

// Elsewhere says who keeps the credential, if no target does: then nothing is put anywhere,
// and no service reads it by what is written here.
func (c Credential) Elsewhere() string {
	if s, ok := c.Settings.(interface{ Elsewhere() string }); ok {
		return s.Elsewhere()
	}
	return ""
}

// ofTargets are the keys of a credential that say what a target does.
var ofTargets = []string{"services", "secrets", "render", "stack", "ignore", "restart", "mounts", "rollout", "through"}

// ofOverlaps are the keys that mean something only where two versions are valid at once.
var ofOverlaps = []string{"overlap", "grace", "bound", "expiry"}

// oneAtATime reports whether two versions are never valid at once.
func (c Credential) oneAtATime() bool {
	_, overlap := pace(c.Settings)
	return overlap == 0
}

// elsewhere refuses what is of a target where there is none, and what is of an overlap where
// there is none.
func (p *parser) elsewhere(cfg *Config, c *Credential, n *yaml.Node, key string) {
	p.leftOut(n, key, ofTargets, "no target has the credential: %s", c.Elsewhere())
	if a := c.Approve.Of("cutover"); a != nil && a.PullRequest && !p.faults.below(key+".approve.cutover") {
		p.fault(at(n, "approve", "cutover", "pull-request"), key+".approve.cutover.pull-request", "write environment: prod-cutover", "there is no stack file that a pull request could change")
	}
	if c.oneAtATime() {
		p.leftOut(n, key, ofOverlaps, "one version is valid at a time: %s", c.Elsewhere())
	}
	if cfg.ActionsSecrets != nil {
		p.fault(at(n, c.Backend), join(key, c.Backend), "write a configuration of its own for it", "the others are secrets of GitHub, and %s", c.Elsewhere())
	}
}

// targetless takes back the Swarm that nobody wrote, if no credential needs one.
func (c *Config) targetless(doc *yaml.Node) {
	needs := func(one Credential) bool { return one.Elsewhere() == "" }
	if child(doc, "swarm") == nil && len(c.Credentials) > 0 && !slices.ContainsFunc(c.Credentials, needs) {
		c.Swarm = nil
	}
}
