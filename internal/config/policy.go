package config

import (
	"path/filepath"
	"slices"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"
)

// The defaults of a credential.
const (
	defaultEvery   = 90 * day
	defaultOverlap = day
	defaultBound   = 7 * day
)

func or(d *time.Duration, otherwise time.Duration) time.Duration {
	if d == nil {
		return otherwise
	}
	return *d
}

// fill sets the values and defaults of a credential, and checks what belongs together.
func (p *parser) fill(c *Credential, e entry, n *yaml.Node, key string) {
	c.Render, c.Secrets, c.AcceptGap, c.Ignore, c.Restart, c.Stack = e.Render, e.Secrets, e.AcceptGap, e.Ignore, e.Restart, e.Stack
	c.Every, c.Overlap, c.Bound = or(e.Every, defaultEvery), or(e.Overlap, defaultOverlap), or(e.Bound, defaultBound)
	c.Grace, c.MinAge = or(e.Grace, c.Overlap), or(e.MinAge, c.Overlap)
	c.Mounts = p.oneOf(n, key, "mounts", e.Mounts, "switch", "dual")
	c.Strict = p.oneOf(n, key, "expiry", e.Expiry, "lenient", "strict") == "strict"
	c.Through = p.oneOf(n, key, "through", e.Through, "direct", "swarm")
	p.times(c, e, n, key)
	rollout := child(n, "rollout")
	if rollout == nil {
		rollout = &yaml.Node{}
	}
	p.rollout(c, e.Rollout, rollout, key+".rollout")
	p.stack(c, n, key)
}

func (p *parser) times(c *Credential, e entry, n *yaml.Node, key string) {
	if !p.faults.below(key+".every") && !p.faults.below(key+".overlap") && c.Overlap >= c.Every {
		p.fault(at(n, "overlap"), key+".overlap", "make it shorter than every: "+FormatDuration(c.Every),
			"an overlap of %s does not fit into a rotation every %s", FormatDuration(c.Overlap), FormatDuration(c.Every))
	}
	if !p.faults.below(key+".every") && e.MinAge != nil && c.MinAge >= c.Every {
		p.fault(at(n, "minimum-age"), key+".minimum-age", "make it shorter than every: "+FormatDuration(c.Every),
			"with a minimum age of %s it is never due in time", FormatDuration(c.MinAge))
	}
	if c.Bound < time.Minute {
		p.fault(at(n, "bound"), key+".bound", "give it days: 7d", "a pending version that ends after %s cannot be cut over", FormatDuration(c.Bound))
	}
}

// oneOf returns what is written under a name, which must be one of the allowed
// words, or the first of them if nothing is.
func (p *parser) oneOf(n *yaml.Node, key, name, got string, allowed ...string) string {
	switch {
	case got == "" && (child(n, name) == nil || p.faults.below(join(key, name))):
		return allowed[0]
	case !slices.Contains(allowed, got):
		p.fault(at(n, name), join(key, name), "write "+strings.Join(allowed, " or "), "unknown %s", name)
	}
	return got
}

func (p *parser) rollout(c *Credential, r Rollout, n *yaml.Node, key string) {
	if r.Strategy == "canary" || r.Strategy == "blue-green" {
		p.fault(at(n, "strategy"), key+".strategy", "write rolling", "the strategy %q is not built yet", r.Strategy)
	} else {
		r.Strategy = p.oneOf(n, key, "strategy", r.Strategy, "rolling")
	}
	r.Order = p.oneOf(n, key, "order", r.Order, "start-first", "stop-first")
	unset(p, n, key, "parallelism", "write how many tasks are replaced at once; all of them is not offered", &r.Parallelism, 1)
	unset(p, n, key, "monitor", "write how long a task must run without a restart: 10s", &r.Monitor, 10*time.Second)
	unset(p, n, key, "health-timeout", "write how long a task may take to be healthy: 30s", &r.HealthTimeout, 30*time.Second)
	unset(p, n, key, "timeout", "write how long the update of a service may take: 10m", &r.Timeout, 10*time.Minute)
	if r.HealthTimeout > r.Timeout && !p.faults.below(key) {
		p.fault(at(n, "health-timeout"), key+".health-timeout", "make it shorter than timeout: "+FormatDuration(r.Timeout),
			"a task may take longer to be healthy than the whole update")
	}
	c.Rollout = r
}

// unset gives a value that is not written its default. A zero that is written
// is refused: it would read as "none", and can be no such thing.
func unset[T uint64 | time.Duration](p *parser, n *yaml.Node, key, name, hint string, v *T, otherwise T) {
	if *v != 0 {
		return
	}
	*v = otherwise
	if child(n, name) != nil && !p.faults.below(join(key, name)) {
		p.fault(at(n, name), join(key, name), hint, "it cannot be zero")
	}
}

func (p *parser) stack(c *Credential, n *yaml.Node, key string) {
	if c.Stack == nil {
		return
	}
	if c.Stack.Name == "" && !p.faults.below(key+".stack") {
		p.fault(at(n, "stack"), key+".stack", "write its name: {name: orders}", "the stack has no name")
	}
	if c.Stack.Deploy == "on-push" {
		p.fault(at(n, "stack", "deploy"), key+".stack.deploy", "write manual", `"deploy: on-push" is not built yet`)
		return
	}
	c.Stack.Deploy = p.oneOf(at(n, "stack"), key+".stack", "deploy", c.Stack.Deploy, "manual")
}

// swarmOnly refuses what a directory has no use for: it would be read by nobody.
func (p *parser) swarmOnly(cfg *Config, n *yaml.Node, key string) {
	if cfg.Directory == nil || cfg.Swarm != nil {
		return
	}
	for _, name := range []string{"stack", "secrets", "ignore"} {
		if child(n, name) != nil && !p.faults.below(join(key, name)) {
			p.fault(at(n, name), join(key, name), "leave it out", "it is of a Swarm, and the target is a directory")
		}
	}
	if through := child(n, "through"); through != nil && through.Value == "swarm" {
		p.fault(through, join(key, "through"), "leave it out", "it is of a Swarm, and the target is a directory")
	}
	rollout := child(n, "rollout")
	if rollout == nil {
		return
	}
	for name := range pairs(rollout) {
		here := join(key+".rollout", name.Value)
		if name.Value != "health-timeout" && !p.faults.below(here) {
			p.fault(name, here, "leave it out", "it is of a Swarm, and a directory moves at once")
		}
	}
}

// restart checks the command that runs after a move.
func (p *parser) restart(cfg *Config, e entry, n *yaml.Node, key string) {
	here := at(n, "restart")
	switch key += ".restart"; {
	case child(n, "restart") == nil || p.faults.below(key):
	case cfg.Directory == nil:
		p.fault(here, key, "leave it out: the Swarm replaces the tasks", "a restart belongs to a directory")
	case len(e.Restart) == 0 || e.Restart[0] == "":
		p.fault(here, key, "write it as [systemctl, restart, orders]", "the restart names no command")
	case strings.Contains(e.Restart[0], "/") && !filepath.IsAbs(e.Restart[0]):
		p.fault(here, key, "write its absolute path, or the name of a program in PATH", "the restart's program has a relative path, and it runs in /")
	}
}
