package config

import (
	"reflect"
	"slices"
	"time"

	"go.yaml.in/yaml/v3"

	"github.com/keyturn/keyturn/internal/secret"
)

// A Channel is a way on which people are told of something.
type Channel struct {
	Name    string
	URL     secret.Source // of a Shoutrrr URL, which is a secret
	Mention []string      // or logins and teams (org/team), by an issue on GitHub
	Events  []string
	Every   time.Duration // the same thing again at most so often
}

// channel is one as it is written.
type channel struct {
	URL     secret.Source  `yaml:"url"`
	Mention []string       `yaml:"mention"`
	Events  []string       `yaml:"events"`
	Every   *time.Duration `yaml:"every"`
}

// The events of which channels can be told, and those that a channel hears of if it
// names none.
var (
	Events        = []string{"failure", "degradation", "incident", "audit", "overdue", "approval", "done"}
	defaultEvents = Events[:6]
)

const defaultNotifyEvery = 6 * time.Hour

// notify reads the section notify.
func (p *parser) notify(section *yaml.Node) (all []Channel) {
	p.named(section, "notify", "channels", "oncall", "{url: {from-env: KEYTURN_NOTIFY_ONCALL}}", func(name string, n *yaml.Node, key string) {
		var c channel
		p.decode(n, key, reflect.ValueOf(&c).Elem())
		all = append(all, p.channel(name, c, n, key))
	})
	return all
}

func (p *parser) channel(name string, c channel, n *yaml.Node, key string) Channel {
	out := Channel{Name: name, URL: c.URL, Mention: c.Mention, Events: c.Events, Every: or(c.Every, defaultNotifyEvery)}
	switch {
	case p.faults.below(key+".url") || p.faults.below(key+".mention"):
	case c.URL.IsZero() == (len(c.Mention) == 0):
		p.fault(n, key, "write url: {from-env: KEYTURN_NOTIFY_ONCALL}, or mention: [acme/sre]", "a channel has a URL, or people to mention on GitHub")
	}
	for _, m := range c.Mention {
		if !approverName.MatchString(m) && !p.faults.below(key+".mention") {
			p.fault(at(n, "mention"), key+".mention", "write logins, and teams as acme/sre", "this is nobody's name")
			break
		}
	}
	for _, e := range c.Events {
		if !slices.Contains(Events, e) && !p.faults.below(key+".events") {
			p.fault(at(n, "events"), key+".events", "known: failure, degradation, incident, audit, overdue, approval, done", "unknown event")
			break
		}
	}
	if len(out.Events) == 0 {
		out.Events = defaultEvents
	}
	if out.Every < time.Minute && !p.faults.below(key+".every") {
		p.fault(at(n, "every"), key+".every", "give it hours: 6h", "nobody reads the same thing every %s", FormatDuration(out.Every))
	}
	return out
}

// full is the way back of [parser.channel].
func (c Channel) full() channel {
	return channel{URL: c.URL, Mention: c.Mention, Events: c.Events, Every: &c.Every}
}
