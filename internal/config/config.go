// Package config reads the configuration: bytes in, checked values out. It
// opens no connection, reads no environment and no secret. Everything that is
// wrong is reported at once, each with its place in the file and what to write
// instead; a key that is not known is an error, also inside the section of a
// backend, which the backend decodes itself.
package config

import (
	"io/fs"
	"os"
	"time"

	"github.com/keyturn/keyturn/internal/secret"
)

// A Section decodes and checks the part of the configuration that belongs to a
// backend. Decode fills a struct with `yaml` tags and reports what is wrong by
// itself: what is faulty stays as it was, and the rest is checked all the same.
// It returns an error if there is nothing to check. An error that has Key()
// string names a key below the section; one that has Hint() string says what to
// write instead; [errors.Join] holds several. One of a key of which something
// is wrong already is dropped.
//
// Settings that have Fields() []string or PublicFields() []string say which
// fields a credential has, and which of them are no secret; DerivedFields() []string
// names public ones that what is adopted may lack. Others that settings may have:
//
//	TurningFields() []string               public ones without which a service has no use for a secret one
//	Gap() string                           what fails at every cutover, which must be accepted
//	Beside() string                        why services need the next version before the cutover
//	Pace() (every, overlap time.Duration)  how often it is rotated, and how long two are valid, by default
//	Life() time.Duration                   how long a version can be valid at all
//	Place() (key, folder string)           the folder that its target must keep it in, and the path of its key
//	Elsewhere() string                     who keeps it in place of a target, which then does nothing; "": nobody
type Section func(decode func(into any) error) (settings any, err error)

// A Config is a configuration that was checked.
type Config struct {
	Journal        string          // path of the journal's file; "" means the default, unless it is on GitHub
	JournalGitHub  bool            // whether the journal is a branch on GitHub
	GitHub         *GitHub         // nil: what the workflow's run says
	FingerprintKey secret.Source   // zero: the journal's own
	Swarm          *Swarm          // nil if the target is another, or none is needed
	Directory      *Directory      // nil if the target is another
	ActionsSecrets *ActionsSecrets `json:",omitempty"` // nil if the target is another
	Credentials    []Credential    // in the order of the file
	Reminders      []Reminder      `json:",omitempty"` // the same
	Notify         []Channel       `json:",omitempty"` // the same
	Telemetry      *Telemetry      `json:",omitempty"` // nil: nobody is told but by OpenTelemetry
}

// Swarm says how the Swarm is reached.
type Swarm struct {
	Host  string `yaml:"host"`  // unix:///path, ssh://user@host[:port][/path] or tcp://host[:port]
	Image string `yaml:"image"` // of the probes; it holds keyturn
	SSH   *SSH   `yaml:"ssh"`   // of ssh://, and there alone
	TLS   *TLS   `yaml:"tls"`   // of tcp://, and there alone
}

// Directory is a target on one machine.
type Directory struct {
	Path string `yaml:"path"`
}

// A Credential is a named thing that is rotated.
type Credential struct {
	Name      string
	Backend   string // the key of its section
	Settings  any    // what the backend made of it
	Through   string // "direct" or "swarm"
	Stack     *Stack
	Services  []Service         // in the order of the file
	Render    map[string]string // field → template
	Secrets   map[string]string // field → base name of its Swarm secret
	Every     time.Duration
	Overlap   time.Duration
	Grace     time.Duration
	Bound     time.Duration // how long a pending version may wait
	MinAge    time.Duration // of the current version before the next
	Strict    bool          // the expiry is not lengthened while it is used
	Mounts    string        // "switch" or "dual"
	Rollout   Rollout
	AcceptGap bool
	Ignore    []Ignored
	Restart   []string // directory: run after the move
	Approve   *Approvals
	Allow     *Allows
	Windows   []Window      // in which a cutover may begin; none: always
	Jitter    time.Duration // by how much it may be due earlier
	After     []string      // credentials that this one needs, and that are rotated before it
}

// Own reports whether the credential is the one that Keyturn itself logs in with.
func (c Credential) Own() bool {
	s, ok := c.Settings.(interface{ Own() bool })
	return ok && s.Own()
}

// Stack says which stack the services belong to.
type Stack struct {
	Name   string `yaml:"name"`
	File   string `yaml:"file"` // path of the stack file, relative to the working directory; "" if it is not named
	Deploy string `yaml:"deploy"`
}

// A Service says what one service reads.
type Service struct {
	Name string            `yaml:"-"` // the full name in the Swarm
	Env  map[string]string `yaml:"env"`
	File map[string]string `yaml:"file"`
	Path map[string]string `yaml:"path"`
	UID  *string           `yaml:"uid,number"`
	GID  *string           `yaml:"gid,number"`
	Mode *fs.FileMode      `yaml:"mode"`
}

// Rollout says how tasks are replaced.
type Rollout struct {
	Strategy      string        `yaml:"strategy"`
	Order         string        `yaml:"order"` // "start-first" or "stop-first"
	Parallelism   uint64        `yaml:"parallelism"`
	Delay         time.Duration `yaml:"delay"`
	Monitor       time.Duration `yaml:"monitor"`
	HealthTimeout time.Duration `yaml:"health-timeout"`
	Timeout       time.Duration `yaml:"timeout"`
}

// Ignored is a service that names a secret and is not rotated with it.
type Ignored struct {
	Service string `yaml:"service"`
	Reason  string `yaml:"reason"`
}

// Read parses the file at a path.
func Read(path string, backends map[string]Section) (*Config, error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	return Parse(path, b, backends)
}
