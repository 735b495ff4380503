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

// margin is what must be left of a version's life for the phases themselves.
const margin = 5 * time.Minute

func or(d *time.Duration, otherwise time.Duration) time.Duration {
	if d == nil {
		return otherwise
	}
	return *d
}

// pace returns how often a credential is rotated, and how long two versions are
// valid, if nothing is written.
func pace(settings any) (every, overlap time.Duration) {
	if s, ok := settings.(interface {
		Pace() (every, overlap time.Duration)
	}); ok {
		if every, overlap = s.Pace(); every > 0 {
			return every, overlap
		}
	}
	return defaultEvery, defaultOverlap
}

// fill sets the values and defaults of a credential, and checks what belongs together.
func (p *parser) fill(c *Credential, e entry, n *yaml.Node, key string) {
	c.Render, c.Secrets, c.AcceptGap, c.Ignore, c.Restart, c.Stack, c.Approve, c.Allow, c.After = e.Render, e.Secrets, e.AcceptGap, e.Ignore, e.Restart, e.Stack, e.Approve, e.Allow, e.After
	every, overlap := pace(c.Settings)
	c.Every, c.Overlap, c.Bound = or(e.Every, every), or(e.Overlap, overlap), or(e.Bound, defaultBound)
	c.Grace, c.MinAge, c.Jitter = or(e.Grace, c.Overlap), or(e.MinAge, c.Overlap), or(e.Jitter, 0)
	c.Mounts = p.oneOf(n, key, "mounts", e.Mounts, "switch", "dual")
	c.Strict = p.oneOf(n, key, "expiry", e.Expiry, "lenient", "strict") == "strict"
	c.Through = p.oneOf(n, key, "through", e.Through, "direct", "swarm")
	p.times(c, e, n, key)
	p.gap(c, n, key)
	p.beside(c, n, key)
	rollout := child(n, "rollout")
	if rollout == nil {
		rollout = &yaml.Node{}
	}
	p.rollout(c, e.Rollout, rollout, key+".rollout")
	p.stack(c, n, key)
}

// gap refuses what has a gap by its settings, unless somebody accepted it.
func (p *parser) gap(c *Credential, n *yaml.Node, key string) {
	g, ok := c.Settings.(interface{ Gap() string })
	if !ok || g.Gap() == "" || c.AcceptGap || p.faults.below(key+".accept-gap") {
		return
	}
	p.fault(n, key+".accept-gap", "accept it with accept-gap: true, or change the settings", "there is a moment without a version that works: %s", g.Gap())
}

// beside refuses a credential whose next version must stand beside the current one in
// services, which get them one after the other.
func (p *parser) beside(c *Credential, n *yaml.Node, key string) {
	s, ok := c.Settings.(interface{ Beside() string })
	if !ok || s.Beside() == "" || c.Mounts == "dual" || p.faults.below(key+".mounts") {
		return
	}
	p.fault(at(n, "mounts"), key+".mounts", "write mounts: dual, and let the services fall back to the second value", "%s", s.Beside())
}

// place refuses a credential that its backend must find again in a folder, where
// the target would keep it elsewhere.
func (p *parser) place(cfg *Config, c *Credential, n *yaml.Node, key string) {
	own, ok := c.Settings.(interface{ Place() (key, folder string) })
	if !ok || p.faults.below(join(key, c.Backend)) {
		return
	}
	name, folder := own.Place()
	if folder == "" {
		return
	}
	at, path := at(n, append([]string{c.Backend}, strings.Split(name, ".")...)...), join(join(key, c.Backend), name)
	switch {
	case cfg.Directory == nil || cfg.Swarm != nil:
		p.fault(at, path, "rotate it by a configuration of its own, with directory: {path: FOLDER}", "the next version has no place that it is read from again")
	case cfg.Directory.Path == "":
	case filepath.Clean(folder) != filepath.Join(cfg.Directory.Path, c.Name):
		p.fault(at, path, "write "+filepath.Join(cfg.Directory.Path, c.Name), "the next version is written to another folder than it is read from")
	}
}

func (p *parser) times(c *Credential, e entry, n *yaml.Node, key string) {
	if !p.faults.below(key+".every") && !p.faults.below(key+".overlap") && c.Overlap >= c.Every {
		p.fault(at(n, "overlap"), key+".overlap", "make it shorter than every: "+FormatDuration(c.Every),
			"an overlap of %s does not fit into a rotation every %s", FormatDuration(c.Overlap), FormatDuration(c.Every))
	}
	if !p.faults.below(key+".every") && !p.faults.below(key+".jitter") && c.Jitter >= c.Every {
		p.fault(at(n, "jitter"), key+".jitter", "make it shorter than every: "+FormatDuration(c.Every),
			"a jitter of %s does not fit into a rotation every %s", FormatDuration(c.Jitter), FormatDuration(c.Every))
	}
	if !p.faults.below(key+".every") && e.MinAge != nil && c.MinAge >= c.Every {
		p.fault(at(n, "minimum-age"), key+".minimum-age", "make it shorter than every: "+FormatDuration(c.Every),
			"with a minimum age of %s it is never due in time", FormatDuration(c.MinAge))
	}
	if s, ok := c.Settings.(interface{ Life() time.Duration }); ok && s.Life() > 0 && c.Every+c.Overlap > s.Life()-margin &&
		!p.faults.below(key+".every") && !p.faults.below(key+".overlap") {
		p.fault(at(n, "every"), key+".every", "together every and overlap may be "+FormatDuration(s.Life()-margin)+" at most",
			"a version lives for %s: every %s, and an overlap of %s, are too long for it", FormatDuration(s.Life()), FormatDuration(c.Every), FormatDuration(c.Overlap))
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
	c.Stack.Deploy = p.oneOf(at(n, "stack"), key+".stack", "deploy", c.Stack.Deploy, "manual", "on-push")
}

// leftOut refuses keys that mean nothing where they stand, and says why.
func (p *parser) leftOut(n *yaml.Node, key string, names []string, why string, args ...any) {
	for _, name := range names {
		if child(n, name) != nil && !p.faults.below(join(key, name)) {
			p.fault(at(n, name), join(key, name), "leave it out", why, args...)
		}
	}
}

// swarmOnly refuses what a directory has no use for: it would be read by nobody.
func (p *parser) swarmOnly(cfg *Config, n *yaml.Node, key string) {
	names, target, moves := []string{"stack", "secrets", "ignore"}, "a directory", "a directory moves at once"
	switch {
	case cfg.Swarm != nil:
		return
	case cfg.ActionsSecrets != nil:
		names, target, moves = []string{"stack", "ignore"}, "secrets of GitHub", "no task is replaced"
	}
	p.leftOut(n, key, names, "it is of a Swarm, and the target is %s", target)
	if through := child(n, "through"); through != nil && through.Value == "swarm" {
		p.fault(through, join(key, "through"), "leave it out", "it is of a Swarm, and the target is %s", target)
	}
	rollout := child(n, "rollout")
	if rollout == nil {
		return
	}
	for name := range pairs(rollout) {
		here := join(key+".rollout", name.Value)
		if name.Value != "health-timeout" && !p.faults.below(here) {
			p.fault(name, here, "leave it out", "it is of a Swarm, and %s", moves)
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
