package rotation

import (
	"context"
	"encoding/json"
	"io/fs"
	"time"
)

// A Target is a place where services read credentials. The same rules hold as
// for a [Backend]: look first, done already is success, no value in an error.
type Target interface {
	Traits() Traits

	// Put stores every field of the version that the placements of its
	// credential read from the target, and returns the version with its
	// Objects. The same bytes there already is success; other bytes under the
	// same name are an error: a part is never repaired.
	Put(context.Context, Version, Material) (Version, error)

	// Observe returns what the target holds of the version.
	Observe(context.Context, Version) (Holding, error)

	// Snapshot returns, by service, what Move will change and must set back:
	// references and our variables. It reads only, and no value of a secret
	// stands in it.
	Snapshot(context.Context, []Placement) (map[string]json.RawMessage, error)

	// Move makes the services read what the shifts say, one update per
	// service, and returns when all are converged and healthy on it. Services
	// that read it already are not touched. Only fields that are ours change;
	// update settings that had to change are set back. The context's end
	// stops the watching, not what was begun.
	//
	// An error that wraps [ErrUnhealthy] says that tasks which the move
	// replaced are unhealthy. One of class [Unknown] says that something else
	// is: nothing may be concluded. The report is filled in either case.
	Move(context.Context, []Shift) (Report, error)

	// Remove removes the objects of the version. What is gone already is
	// success. Where a use is left, nothing is removed, and the error wraps
	// [ErrInUse] and names it. Only objects that Version.Objects names are removed.
	Remove(context.Context, Version) error

	// Orphans returns versions of the credential whose objects exist here, by
	// label or name: number, objects and the rotation that made them.
	Orphans(ctx context.Context, credential string) ([]Orphan, error)

	Prober
}

// A Sweeper is a target in which probes of runs that were killed may be left.
// Sweep removes those of a credential; the caller holds its lease.
type Sweeper interface {
	Sweep(ctx context.Context, credential string) error
}

// Traits says what a target can do.
type Traits struct {
	OneVersion  bool // putting a version replaces the one before: put is the cutover
	Unprobeable bool // write-only: nothing can be tried from there
}

// An Orphan is a set of objects that a crashed run may have left.
type Orphan struct {
	Version  Version
	Rotation string // the rotation that made it, as far as it is known
}

// Mounts says how a service meets the next version.
type Mounts string

// The ways. With Switch a service has one version at a time; with Dual it has
// the next one beside the current one from prepare to cutover.
const (
	Switch Mounts = "switch"
	Dual   Mounts = "dual"
)

// A Placement says what one service reads of one credential.
type Placement struct {
	Credential string
	Service    string // the full name in the target

	Env  map[string]string // variable → public field: the variable holds the field
	File map[string]string // variable → field: the variable holds the path of the mounted field
	Path map[string]string // absolute path → field: mounted there

	// UID, GID and Mode of the mounted files. Nil keeps what the replaced
	// mount has (for a new one: 0, 0, 0444).
	UID, GID *string
	Mode     *fs.FileMode

	Mounts  Mounts
	Rollout Rollout
}

// Rollout says how the tasks of a service are replaced.
type Rollout struct {
	Order         string        // "start-first" or "stop-first"
	Parallelism   uint64        // tasks at once; 0 means all
	Delay         time.Duration // between tasks
	Monitor       time.Duration // how long a task must run without a restart
	HealthTimeout time.Duration // from a task's start to healthy
	Timeout       time.Duration // of the whole move of the service
}

// A Shift is what one service is to read, however it reads now.
type Shift struct {
	Placement Placement
	Main      Version
	Beside    *Version // dual: the next version beside the main one

	// Known holds every version that the service may be found on, so that the
	// references that are ours can be told from others.
	Known []Version

	// Before is this service's part of the snapshot taken before the rotation
	// first touched it.
	Before json.RawMessage

	Rotation string // for labels
}

// A Holding is what a target has of a version.
type Holding struct {
	Objects  map[string]Object // what exists, by field
	Complete bool              // every field that placements read is there
	Uses     []Use             // every spec, previous spec and task that names an object
}

// A Report says what a move did.
type Report struct {
	Services []ServiceReport `json:"services"`
}

// A ServiceReport says what a move did to one service. Durations are in milliseconds.
type ServiceReport struct {
	Service       string `json:"service"`
	Updated       bool   `json:"updated"`        // false: read it already
	Tasks         int    `json:"tasks"`          // desired
	Restarts      int    `json:"restarts"`       // tasks that the move replaced
	Millis        int64  `json:"ms"`             // from the update to converged
	SlowestHealth int64  `json:"slowest_health"` // from a task's start to healthy
	Unhealthy     string `json:"unhealthy,omitempty"`
	ShortMillis   int64  `json:"unhealthy_task_ms,omitempty"` // in which tasks were missing, added up over the tasks
}

type leaseKey struct{}

// WithLease returns a context that carries the check of the leases under which
// a target or a backend is called.
func WithLease(ctx context.Context, check func(context.Context) error) context.Context {
	return context.WithValue(ctx, leaseKey{}, check)
}

// CheckLease reads the leases again that [WithLease] set. A call that has
// several effects, such as the update of several services, asks before each of
// them. The error says that another run took over ([ErrLeaseLost]), or that it
// cannot be told now (class [Unknown]); in both cases nothing more is changed.
func CheckLease(ctx context.Context) error {
	if check, ok := ctx.Value(leaseKey{}).(func(context.Context) error); ok {
		return check(ctx)
	}
	return nil
}

type rotationKey struct{}

// WithRotation returns a context that carries the id of the rotation in whose
// name a target or a backend is called, for labels.
func WithRotation(ctx context.Context, id string) context.Context {
	return context.WithValue(ctx, rotationKey{}, id)
}

// RotationID returns the id that [WithRotation] set, or "".
func RotationID(ctx context.Context) string {
	id, _ := ctx.Value(rotationKey{}).(string)
	return id
}
