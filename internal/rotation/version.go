// Package rotation is the core of Keyturn: what a version of a credential is,
// which phases bring the next one into service and end the last, and the rules
// that no caller can get round.
//
// A rotation takes a batch of credentials from their current versions to the
// next ones in four phases: prepare, validate, cutover, cleanup. A phase is a
// list of steps, each small enough to be observed, done again and undone. The
// [Engine] walks the steps, writes a record before and after each, and makes
// the one move per target that changes what the services read. What is true is
// never taken from the records alone: every step looks before it acts, so that
// any process can be killed at any point and the phase run again.
//
// The records make a [Ledger], the state machine in which the rules live: a
// record that would break one is refused, and the effect that it announces
// never starts.
//
// The package knows no concrete backend and no concrete target. It declares
// what it needs of them: [Backend], [Target], [Leaser], [Journal].
package rotation

import (
	"maps"
	"slices"

	"github.com/keyturn/keyturn/internal/secret"
)

// State says where a version stands in its life.
type State string

// The states of a version, in the order of its life. A version that is given
// up before it was in service, or rolled back, ends as Discarded.
const (
	Pending   State = "pending"   // made, accepted by the backend, not used
	Current   State = "current"   // services use it
	Previous  State = "previous"  // superseded, still valid
	Retired   State = "retired"   // refused, and proven so
	Discarded State = "discarded" // given up: ended, its number burnt
)

// A Version is one value of a credential, without the value: its number and
// what may be known of it. Numbers start at 1 and are never used twice.
type Version struct {
	Credential string `json:"credential"`
	Number     int    `json:"number"`

	// Identity is the public handle of the version in its backend: a login, an
	// AccessorID, a serial. It is on the record before the first call that uses it.
	Identity string `json:"identity,omitempty"`

	// Public holds the fields that are no secret, such as "username".
	Public map[string]string `json:"public,omitempty"`

	// Objects names what the target holds, by field: Swarm secrets, files.
	Objects map[string]Object `json:"objects,omitempty"`

	// Fingerprints holds the keyed fingerprint of each secret field.
	Fingerprints map[string]string `json:"fingerprints,omitempty"`

	State State `json:"state,omitempty"`
}

// Clone returns a copy that shares nothing with v.
func (v Version) Clone() Version {
	v.Public, v.Objects, v.Fingerprints = maps.Clone(v.Public), maps.Clone(v.Objects), maps.Clone(v.Fingerprints)
	return v
}

// An Object is a thing in a target that holds one field of a version.
type Object struct {
	ID   string `json:"id,omitempty"` // the target's own id; empty until it is known
	Name string `json:"name"`
}

// Material holds every field of a version, secret or not, while it is in
// memory: between the draft and the arming, or inside a probe.
type Material map[string]secret.Value

// Wipe overwrites every value.
func (m Material) Wipe() {
	for _, v := range m {
		v.Wipe()
	}
}

// Fields returns the names of the fields, sorted.
func (m Material) Fields() []string { return slices.Sorted(maps.Keys(m)) }
