package config

import (
	"slices"

	"go.yaml.in/yaml/v3"
)

// Allows say who may do the phases of a credential; a phase that is not named,
// everybody.
type Allows struct {
	Prepare  *Allow `yaml:"prepare"`
	Validate *Allow `yaml:"validate"`
	Cutover  *Allow `yaml:"cutover"`
	Cleanup  *Allow `yaml:"cleanup"`
	Rollback *Allow `yaml:"rollback"`
}

// Allow says who may do a phase, and from where.
type Allow struct {
	By           []string `yaml:"by"`
	Workflows    []string `yaml:"workflows"`
	Environments []string `yaml:"environments"`
	Verified     bool     `yaml:"verified"`
}

// Of returns what is said of a phase; nil if nothing is.
func (a *Allows) Of(phase string) *Allow {
	if a == nil {
		return nil
	}
	return map[string]*Allow{"prepare": a.Prepare, "validate": a.Validate, "cutover": a.Cutover, "cleanup": a.Cleanup, "rollback": a.Rollback}[phase]
}

// allow checks who may do what.
func (p *parser) allow(a *Allows, n *yaml.Node, key string) {
	for _, phase := range []string{"prepare", "validate", "cutover", "cleanup", "rollback"} {
		one, here := a.Of(phase), key+".allow."+phase
		if one == nil || p.faults.below(here) {
			continue
		}
		at := at(n, "allow", phase)
		if len(one.By)+len(one.Workflows)+len(one.Environments) == 0 && !one.Verified {
			p.fault(at, here, "write by:, workflows:, environments: or verified: true", "nothing says who may do it")
		}
		p.names(one.By, one.Workflows, at, here)
		if i := slices.Index(one.Environments, ""); i >= 0 {
			p.fault(item(at, "environments", i), here+".environments", "write its name", "the environment has no name")
		}
	}
}

// names checks the names of people and the paths of workflows.
func (p *parser) names(by, workflows []string, n *yaml.Node, key string) {
	for i, name := range by {
		if !approverName.MatchString(name) {
			p.fault(item(n, "by", i), key+".by", "write a login, or a team as acme/sre", "this is neither a login nor a team")
		}
	}
	for i, w := range workflows {
		if !workflowPath.MatchString(w) {
			p.fault(item(n, "workflows", i), key+".workflows", "write .github/workflows/cutover.yml", "this is no path of a workflow")
		}
	}
}
