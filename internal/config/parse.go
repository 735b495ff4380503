package config

import (
	"reflect"
	"strings"

	"go.yaml.in/yaml/v3"

	"github.com/keyturn/keyturn/internal/secret"
)

// file is the whole configuration as it is written.
type file struct {
	Version        int             `yaml:"version"`
	Journal        string          `yaml:"journal"`
	FingerprintKey secret.Source   `yaml:"fingerprint-key"`
	GitHub         *GitHub         `yaml:"github"`
	Swarm          *Swarm          `yaml:"swarm"`
	Directory      *Directory      `yaml:"directory"`
	ActionsSecrets *ActionsSecrets `yaml:"actions-secrets"`
	Credentials    yaml.Node       `yaml:"credentials"`
	Reminders      yaml.Node       `yaml:"reminders"`
	Notify         yaml.Node       `yaml:"notify"`
	Telemetry      *Telemetry      `yaml:"telemetry"`
}

// NotBuilt names keys of later releases.
func (*file) NotBuilt() []string { return []string{"swarms", "stores"} }

// Parse reads a configuration. The error is of type [Faults]; it repeats no
// value of the file, for each may be a secret in the wrong place. Name stands
// in front of the places in it.
func Parse(name string, b []byte, backends map[string]Section) (*Config, error) {
	d := &decoder{file: name, meant: map[string]bool{}}
	doc := d.document(b)
	if doc == nil {
		return nil, d.faults.sorted()
	}
	d.dwell("at the top level", reflect.TypeFor[file]())
	d.dwell("to a credential", reflect.TypeFor[entry]())
	d.dwell("under rollout", reflect.TypeFor[Rollout]())
	d.dwell("to a service", reflect.TypeFor[Service]())
	d.dwell("under stack", reflect.TypeFor[Stack]())
	f := file{}
	d.decode(doc, "", reflect.ValueOf(&f).Elem())
	p := &parser{decoder: d, backends: backends, doc: doc, owners: map[string]map[string]string{},
		bases: map[string]string{}, rollouts: map[string]paced{}}
	cfg := p.config(f)
	if len(d.faults) > 0 {
		return nil, d.faults.sorted()
	}
	return cfg, nil
}

// parser turns what was decoded into a Config, and checks what no type can.
type parser struct {
	*decoder
	backends map[string]Section
	doc      *yaml.Node
	owners   map[string]map[string]string // service → variable or path → credential
	bases    map[string]string            // base name of a secret → its credential and field
	rollouts map[string]paced             // by service
}

// paced is a rollout and the credential that asks for it.
type paced struct {
	credential string
	rollout    Rollout
}

func (p *parser) config(f file) *Config {
	cfg := &Config{FingerprintKey: f.FingerprintKey, GitHub: f.GitHub, Swarm: f.Swarm, Directory: f.Directory, ActionsSecrets: f.ActionsSecrets, Telemetry: f.Telemetry}
	if f.Version != 1 && !p.faults.below("version") {
		p.fault(at(p.doc, "version"), "version", "write: version: 1", "want version 1")
	}
	p.journal(cfg, f.Journal)
	p.github(cfg.GitHub)
	p.targets(cfg)
	switch {
	case f.Credentials.Kind == 0 && p.faults.below("credentials"):
	case f.Credentials.Kind == 0:
		p.fault(p.doc, "credentials", "name at least one", "there are no credentials")
	case f.Credentials.Kind != yaml.MappingNode:
		p.fault(&f.Credentials, "credentials", "name at least one", "want credentials by name, got %s", nodeWords(&f.Credentials))
	case len(f.Credentials.Content) == 0 && !p.faults.below("credentials"):
		p.fault(&f.Credentials, "credentials", "name at least one", "there are no credentials")
	}
	for name, value := range pairs(&f.Credentials) {
		if c, ok := p.credential(cfg, name, value, label(&f.Credentials, "credentials", name, value)); ok {
			cfg.Credentials = append(cfg.Credentials, c)
		}
	}
	cfg.targetless(p.doc)
	p.order(cfg, &f.Credentials)
	cfg.Reminders = p.reminders(&f.Reminders)
	cfg.Notify = p.notify(&f.Notify)
	p.telemetry(cfg.Telemetry)
	return cfg
}

func (p *parser) journal(cfg *Config, s string) {
	n := at(p.doc, "journal")
	const hint = "write: journal: github, or journal: file:/var/lib/keyturn/journal.jsonl"
	switch path, isFile := strings.CutPrefix(s, "file:"); {
	case s == "" && child(p.doc, "journal") != nil && !p.faults.below("journal"):
		p.fault(n, "journal", hint, "the journal has no place")
	case s == "":
	case s == "github":
		cfg.JournalGitHub = true
	case !isFile:
		p.fault(n, "journal", hint, "unknown kind of journal")
	case !strings.HasPrefix(path, "/"):
		p.fault(n, "journal", "begin the path with /", "the path of the journal must be absolute")
	case !absolute(path):
		p.fault(n, "journal", hint, "the path of the journal must name a file, without . and .. and doubled slashes")
	default:
		cfg.Journal = path
	}
}

func (p *parser) targets(cfg *Config) {
	switch {
	case cfg.Swarm != nil && cfg.Directory != nil:
		p.fault(at(p.doc, "directory"), "directory", "keep one of them", "a configuration has a swarm or a directory, not both")
	case cfg.ActionsSecrets != nil && (cfg.Swarm != nil || cfg.Directory != nil):
		p.fault(at(p.doc, "actions-secrets"), "actions-secrets", "keep one of them, and write a configuration of its own for the other",
			"a configuration has a swarm, a directory or actions-secrets")
	case cfg.Swarm == nil && cfg.Directory == nil && cfg.ActionsSecrets == nil:
		cfg.Swarm = &Swarm{}
	}
	if cfg.ActionsSecrets != nil {
		p.actionsSecrets(cfg.ActionsSecrets)
	}
	if cfg.Directory != nil && !absolute(cfg.Directory.Path) && !p.faults.below("directory") {
		p.fault(at(p.doc, "directory", "path"), "directory.path", "write it as /srv/credentials", "want an absolute path")
	}
	if cfg.Swarm == nil {
		return
	}
	p.reach(cfg.Swarm)
}
