// Package swarm is the target for services on a Docker Swarm.
//
// A field of a version is a Swarm secret, <base>_v<number>. Services meet a
// version by their specs: references to secrets, variables that hold paths, and
// variables that hold public fields. A move edits these, and nothing else, by
// compare-and-swap on the service's version index, and works on the JSON that
// the engine sent, so that fields which this client does not know stay what
// they are. A release that somebody ships in between is never reverted.
//
// What the engine does was tried on Engine 20.10 (API 1.41):
//
//   - An update that changes labels or the update settings alone restarts
//     nothing, also while the updater still monitors the tasks of the update
//     before it: it ends that watch, and we have our own. On a job every
//     update, even of a label, runs the job again.
//   - A new update supersedes one that is running or paused. Tasks that still
//     run with the spec that it brings back are kept; the others are replaced
//     without waiting for them to become healthy.
//   - A task that turns unhealthy before it was running may end as "complete",
//     if its process ends with code 0 when it is stopped.
//   - An update with the spec as it is restarts nothing and makes the previous
//     spec the same.
//
// A secret is removed when no spec, no previous spec and no task names it, with
// one exception: the previous spec of a job. It could be moved on only by
// running the job once more, which may do more harm than what is given up:
// docker service rollback of that job finds its secret gone.
//
// While a service is moved it bears the label keyturn.update, which says what
// to set back at the end and what was shipped when the move began; see mark.
//
// A lease is a Swarm config, keyturn.lock.<credential>, whose labels hold the
// holder: labels of a config are changed by compare-and-swap, its data never.
// It stays after the release, with the epoch and no holder, so that the epoch
// keeps growing.
package swarm

import (
	"fmt"
	"io"
	"log/slog"
	"regexp"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/docker/docker/client"

	"github.com/keyturn/keyturn/internal/rotation"
)

var (
	_ rotation.Target      = (*Target)(nil)
	_ rotation.Leaser      = (*Target)(nil)
	_ rotation.Preflighter = (*Target)(nil)
)

// Options says what a [Target] works on.
type Options struct {
	// Layouts says, by credential, where its fields stand and who reads them.
	Layouts map[string]Layout

	// ProbeImage is the image of Keyturn that probes run. It must be on the
	// nodes or in a registry that they can reach.
	ProbeImage string

	// Logger is told of what is noticed and is no error. Nil: nobody is told.
	Logger *slog.Logger

	// Now is the clock; nil means [time.Now].
	Now func() time.Time

	// Poll is how often the tasks are looked at, at most; 0 means 100 ms. It
	// grows to five times that while nothing changes.
	Poll time.Duration
}

// A Layout is what the configuration says of one credential in a Swarm.
type Layout struct {
	// Secrets holds the base name of the Swarm secret by field. A field that a
	// placement reads and that is not named here has <credential>_<field>, with
	// underscores for hyphens. Every field named here is stored.
	Secrets map[string]string

	// Placements says which services read which field.
	Placements []rotation.Placement

	// Ignore names services that use a secret of the credential and are not
	// to be moved.
	Ignore []Ignored
}

// Ignored is a service that is left alone on purpose.
type Ignored struct {
	Service string
	Reason  string
}

// A Target is a Docker Swarm, seen from one of its managers. It is safe for
// concurrent use.
type Target struct {
	Options
	engine engine

	asked     sync.Once
	forgetful bool // see [Target.forgets]
}

// New returns a target that talks to the Swarm manager behind the client. It
// does no I/O. The client should negotiate the API version.
func New(c *client.Client, o Options) *Target {
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.NewTextHandler(io.Discard, nil))
	}
	if o.Poll == 0 {
		o.Poll = 100 * time.Millisecond
	}
	return &Target{Options: o, engine: engine{c}}
}

// Traits implements [rotation.Target]: any number of versions, all of which can be probed.
func (*Target) Traits() rotation.Traits { return rotation.Traits{} }

// base returns the name that the secrets of a field begin with.
func (t *Target) base(credential, field string) string {
	if name := t.Layouts[credential].Secrets[field]; name != "" {
		return name
	}
	return strings.ReplaceAll(credential, "-", "_") + "_" + field
}

// fields returns the fields of a credential that are stored here, sorted.
func (t *Target) fields(credential string) []string {
	l := t.Layouts[credential]
	var fields []string
	for field := range l.Secrets {
		fields = append(fields, field)
	}
	for _, p := range l.Placements {
		for _, field := range p.File {
			fields = append(fields, field)
		}
		for _, field := range p.Path {
			fields = append(fields, field)
		}
	}
	slices.Sort(fields)
	return slices.Compact(fields)
}

// secretName is what Swarm takes as a name; 64 characters at most.
const secretName = `^[a-zA-Z0-9]([a-zA-Z0-9_.-]*[a-zA-Z0-9])?$`

// nameOf returns the name of the secret that holds a field of a version.
func (t *Target) nameOf(credential, field string, number int) (string, error) {
	name := fmt.Sprintf("%s_v%d", t.base(credential, field), number)
	switch valid, err := regexp.MatchString(secretName, name); {
	case err != nil:
		return "", err
	case len(name) > 64:
		return "", rotation.Errorf(rotation.Invalid, fmt.Sprintf("give a shorter base name: secrets: {%s: …}", field),
			"the secret name %q has %d characters, Swarm takes 64 at most", name, len(name))
	case !valid:
		return "", rotation.Errorf(rotation.Invalid, "letters, digits, -, _ and . only, a letter or a digit at both ends",
			"%q is no name that Swarm takes for a secret", name)
	}
	return name, nil
}
