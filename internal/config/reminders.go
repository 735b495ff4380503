package config

import (
	"fmt"
	"reflect"
	"regexp"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"
)

// A Reminder is a credential that only people can renew, because what gives it out has
// no API for that. Keyturn knows its age, and says what is to be done.
type Reminder struct {
	Name  string
	Kind  string // "app-key", "personal-token" or "other"
	Made  time.Time
	Every time.Duration
	Note  string // for people: who, where
}

// The words of [Reminder.Kind].
const (
	AppKey        = "app-key"
	PersonalToken = "personal-token"
	OtherKind     = "other"
)

// reminder is one as it is written.
type reminder struct {
	Kind  string         `yaml:"kind"`
	Made  string         `yaml:"made"`
	Every *time.Duration `yaml:"every"`
	Note  string         `yaml:"note"`
}

const (
	defaultKeyAge   = 180 * day
	defaultTokenAge = 90 * day
	dateForm        = "2006-01-02"
)

var datePattern = regexp.MustCompile(`^[0-9]{4}-[0-9]{2}-[0-9]{2}$`)

// reminders reads the section reminders.
func (p *parser) reminders(section *yaml.Node) (all []Reminder) {
	p.named(section, "reminders", "reminders", "keyturn-app-key", "{kind: app-key, made: 2026-06-01}", func(name string, n *yaml.Node, key string) {
		if made := child(n, "made"); made != nil && made.Kind == yaml.ScalarNode && made.Tag == "!!timestamp" {
			made.Tag = "!!str" // a date is a text here
		}
		var r reminder
		p.decode(n, key, reflect.ValueOf(&r).Elem())
		all = append(all, p.reminder(name, r, n, key))
	})
	return all
}

// named reads a section of things by their names: what they are, one name, and one of
// them as it is written.
func (p *parser) named(section *yaml.Node, key, what, name, example string, read func(name string, n *yaml.Node, key string)) {
	switch {
	case section.Kind == 0:
		return
	case section.Kind != yaml.MappingNode:
		p.fault(section, key, fmt.Sprintf("name them: %s: {%s: %s}", key, name, example), "want %s by name, got %s", what, nodeWords(section))
		return
	}
	for at, n := range pairs(section) {
		label := label(section, key, at, n)
		if n.Kind == 0 {
			continue
		}
		if len(at.Value) > 40 || !credentialName.MatchString(at.Value) {
			p.fault(at, label, "write it as "+name, "a name has lower-case letters, digits and hyphens, at most 40")
		}
		read(at.Value, n, label)
	}
}

func (p *parser) reminder(name string, r reminder, n *yaml.Node, key string) Reminder {
	out := Reminder{Name: name, Note: strings.TrimSpace(r.Note), Kind: p.oneOf(n, key, "kind", r.Kind, AppKey, PersonalToken, OtherKind)}
	every := defaultTokenAge
	if out.Kind == AppKey {
		every = defaultKeyAge
	}
	out.Every = or(r.Every, every)
	if out.Every < day && !p.faults.below(key+".every") {
		p.fault(at(n, "every"), key+".every", "give it days: 90d", "people cannot renew something every %s", FormatDuration(out.Every))
	}
	const hint = "write the day when the one of today was made: made: 2026-06-01"
	made, err := time.Parse(dateForm, r.Made)
	switch {
	case p.faults.below(key + ".made"):
	case r.Made == "":
		p.fault(n, key+".made", hint, "nothing says how old it is")
	case err != nil || !datePattern.MatchString(r.Made):
		p.fault(at(n, "made"), key+".made", hint, "this is no day")
	}
	out.Made = made
	if out.Kind == OtherKind && out.Note == "" && !p.faults.below(key+".note") {
		p.fault(n, key+".note", "write who renews it, and where that is written: note: …", "nothing says how it is renewed")
	}
	return out
}

// full is the way back of [parser.reminder].
func (r Reminder) full() reminder {
	return reminder{Kind: r.Kind, Made: r.Made.Format(dateForm), Every: &r.Every, Note: r.Note}
}
