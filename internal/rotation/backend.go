package rotation

import (
	"context"
	"time"
)

// A Backend is the system that accepts or refuses a credential.
//
// Every method may be called again after it succeeded, failed or was cut off,
// from another process: it looks first, and what is done already is success. A
// call that timed out is neither done nor undone. No error holds a value.
// Errors that say "cannot tell now" (unreachable, overloaded, starting up) are
// of class [Unknown], see [Classify].
type Backend interface {
	// Identify picks the identity of the version to be made, and its public
	// fields. It reads only. Others are the live versions of the credential
	// (pending, current, previous), whose identities are taken.
	Identify(ctx context.Context, next Version, others []Version) (Version, error)

	// Observe returns the administrator's view of the version, on every host.
	// A version that the backend never heard of is Absent, which is no error.
	Observe(context.Context, Version) (Standing, error)

	// Arm makes the backend accept the version beside the others, until the
	// given time if the backend has expiry. Afterwards Observe says Armed or Expiring;
	// of a [Gapped] backend, Staged.
	Arm(ctx context.Context, v Version, m Material, until time.Time) error

	// End makes the backend refuse the version everywhere, and ends its
	// sessions and what was derived from it. A version that is absent or ended
	// already is success. Afterwards Observe says Ended or Absent, with no use.
	End(context.Context, Version, Why) error

	// ProbeSpec says how to try the version: no I/O, no value.
	ProbeSpec(Version) ProbeSpec
}

// Why says for what reason a version is ended.
type Why string

// The reasons.
const (
	ToRetire  Why = "retired"
	ToDiscard Why = "discarded"
	ToRevoke  Why = "revoked"
)

// A Drafter is a backend whose values we choose: in memory, with no effect.
type Drafter interface {
	Draft(Version) (Material, error)
}

// A Recognizer is a [Drafter] whose versions are known by something of the value that is
// no secret, such as the fingerprint of a public key. Recognize returns the version
// with its public fields as they are once the value was drafted; they are on the record
// before the value is put anywhere. The identity stays. It reads only the material.
type Recognizer interface {
	Recognize(Version, Material) (Version, error)
}

// A Minter is a backend that chooses the values itself. Mint is called once for
// a number that is on the record with its identity; what an interrupted Mint
// left is found by that identity and ended.
type Minter interface {
	Mint(context.Context, Version) (Version, Material, error)
}

// An Orderer is a [Minter] that is asked for a version before it makes it: what was asked
// for has a public handle, such as the URL of an order. Order returns the version with
// the handle among its public fields. It is on the record before Mint is called, so that
// what an interrupted Mint made is found by it and ended; what an interrupted Order asked
// for was not made, and ends by itself.
type Orderer interface {
	Minter
	Order(context.Context, Version) (Version, error)
}

// An Activator has a half of the cutover of its own: a gossip key to use, a
// single login to change. Activate makes the version the one in use;
// activating the version before undoes it.
type Activator interface {
	Activate(context.Context, Version) error
}

// A Gapped backend accepts one version of a credential at a time, as where one
// login has one password. What is armed is [Staged]: kept ready, refused until it
// is activated; whatever was accepted before is staged from then on. Between an
// activation and the end of the move there is a gap, which people must accept.
type Gapped interface {
	Activator

	// Gap says in a clause, for people, what fails during the gap.
	Gap() string
}

// A Fading backend's versions end by themselves, at a time that [Backend.Observe] tells
// and nobody can change, as tokens do. Whoever has no value of one cannot end it before:
// End then returns an error that wraps [ErrLives]. Cleanup waits for that time; what is
// given up waits for it in the retirement queue.
type Fading interface {
	// Life is how long a version lives.
	Life() time.Duration
}

// A Revocable backend's versions end by themselves, as those of a [Fading] one do, and can
// be ended before by whoever administrates it, as certificates can: nothing waits for
// their time.
type Revocable interface {
	// Mortal says that they end by themselves, in a clause for people.
	Mortal() string
}

// An Irrevocable backend's version in service cannot be ended before the next one has taken its
// place: more than the version would end. Irrevocable says so, as an error of class [Refused]; the
// caller goes on as if it had not been asked to.
type Irrevocable interface {
	Irrevocable() error
}

// A Displayed backend's versions are shown by the services themselves, as a server shows its
// certificate: a probe of the version in service looks whether they do, and is made once
// they were moved, too.
type Displayed interface {
	// ShownBy says who shows a version, in a clause for people.
	ShownBy() string
}

// A Renewer says by what it hears from its system when a version is to be followed by the
// next one, which may be at once; the zero time: it hears nothing of that. It reads only.
type Renewer interface {
	RenewAt(context.Context, Version) (time.Time, error)
}

// A OneWay backend cannot go back once its half of the cutover is done and services
// were moved. NoWayBack says why, in a clause for people.
type OneWay interface {
	NoWayBack() string
}

// An Expirer can let a version end by itself, as a net. Expire sets the time;
// the zero time lifts it.
type Expirer interface {
	Expire(context.Context, Version, time.Time) error
}

// A Preflighter checks, without changing anything, that the phase can succeed:
// rights, reach, free identities, settings.
type Preflighter interface {
	Preflight(context.Context, Credential) error
}

// A Comparer checks that two versions may do the same, and nothing else. A
// difference is an error that names it. It reads only.
type Comparer interface {
	Compare(ctx context.Context, next, current Version) error
}

// A Guard is a procedure that keeps other rotators away for the length of a phase.
type Guard interface {
	Guard(context.Context) (unlock func(context.Context) error, err error)
}

// A Locker keeps other rotators, which may share no journal with us, away from
// a credential for the length of a phase. The error of a lock that another
// holds is of class [Refused].
type Locker interface {
	Lock(ctx context.Context, credential string) (unlock func(context.Context) error, err error)
}

// An Adopter can take over a version that it did not make. Adopt checks that
// the version can be rotated from and returns it with identity and public
// fields. It reads only; version 1 keeps working as it is.
type Adopter interface {
	Adopt(context.Context, Version) (Version, error)
}

// Status is the administrator's view of a version.
type Status string

// The statuses.
const (
	Absent   Status = "absent"   // the backend knows nothing of it
	Staged   Status = "staged"   // known, and refused until it is activated; see [Gapped]
	Armed    Status = "armed"    // accepted, with no end set
	Expiring Status = "expiring" // accepted, until a time
	Ended    Status = "ended"    // refused
)

// A Standing is what a backend's administrator sees of a version.
type Standing struct {
	Status Status
	Until  time.Time // when an Expiring version ends
	Uses   []Use     // sessions and the like that live by it
	Detail string    // for people
}

// A Use is something that still holds on to a version.
type Use struct {
	Kind   string `json:"kind"` // "spec", "previous-spec", "task", "session"
	Name   string `json:"name"` // the service, the task, the client
	Detail string `json:"detail,omitempty"`

	// Idle marks a use that nobody would miss: the spec of a service that is
	// left alone on purpose and runs no task. It keeps an object from being
	// removed, and a version from nothing.
	Idle bool `json:"idle,omitempty"`

	// Hint says how to end the use, where it is not by deploying what names the new
	// version.
	Hint string `json:"-"`
}
