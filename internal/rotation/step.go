package rotation

import (
	"context"
	"encoding/json"
	"time"
)

// A Phase is one part of a rotation, and one job of a workflow.
type Phase string

// The phases. The first four make a rotation; Rollback is asked for by people
// until cleanup; Adopt takes over what services already use.
const (
	Prepare  Phase = "prepare"
	Validate Phase = "validate"
	Cutover  Phase = "cutover"
	Cleanup  Phase = "cleanup"
	Rollback Phase = "rollback"
	Adopt    Phase = "adopt"
	Revoke   Phase = "revoke" // ends what is in service before anything else
)

// An Effect says what kind of change a step makes. The ledger permits an
// effect, or refuses it, before the step starts.
type Effect string

// The effects. None is that of a step that only reads: such steps run before
// the intent of the phase is recorded, and again on every resume.
const (
	None     Effect = ""
	Mint     Effect = "mint"     // the backend makes a version's value
	Put      Effect = "put"      // a version's value enters a target or a store
	Arm      Effect = "arm"      // the backend begins to accept a version
	Beside   Effect = "beside"   // services get the next version beside the current one
	Bound    Effect = "bound"    // the expiry of a version is set or lifted
	Activate Effect = "activate" // the backend's half of cutover
	Move     Effect = "move"     // services read another version
	End      Effect = "end"      // the backend stops accepting a version
	Try      Effect = "try"      // people try a version, for which something is set up
	Prove    Effect = "prove"    // the proof that a version is dead is recorded
	Remove   Effect = "remove"   // objects that hold a version are removed
)

// Outcome says how a step or a phase came out when it did not fail.
type Outcome string

// The outcomes.
const (
	Done    Outcome = "done"
	Waiting Outcome = "waiting" // for time, or for people; run again later
)

// A Result is what a step reports.
type Result struct {
	Outcome Outcome // the zero value means Done

	// For says what a waiting step waits for, Until when that may be over (the
	// zero time: not known), and Hint what the user can do.
	For   string
	Until time.Time
	Hint  string

	// Observed is true if the step found its work already done.
	Observed bool

	// Version, if set, replaces what is known of the version the step works on.
	Version *Version

	// Evidence is recorded with the step: timings, probe results. No value.
	Evidence map[string]any

	// Note is what people are told of the step when the phase is over.
	Note string

	// Restore is what Undo needs to put back fields that are ours.
	Restore json.RawMessage
}

// Side says which of a rotation's two versions a step is about.
type Side int

// The sides.
const (
	NextVersion Side = iota // the one that comes into service
	LastVersion             // the one that goes out of it
)

// A Step is the smallest act inside a phase.
//
// Do looks before it acts: if its work is done already, it says so and changes
// nothing, so that it may run any number of times, in any process. An error
// means failed, whatever part was done; Undo takes it back.
//
// Undo may run in a process that never ran Do, also where Do had no effect; it
// restores only what is ours and is done again without harm. A nil Undo means
// that there is nothing to take back. No step after the arming needs Material.
// Both get what the ledger knows at that moment.
type Step struct {
	Name   string
	Effect Effect
	On     Side // which version the effect is on

	// Gap marks a step from which on services lack a working version until the move
	// is done. A run that stops before the move began takes such a step back.
	Gap bool

	// Healthy marks a step that is done only if the services are healthy.
	Healthy bool

	Do   func(context.Context, Credential) (Result, error)
	Undo func(context.Context, Credential, json.RawMessage) error
}

// A Procedure lists the steps of a phase for one credential, those before and
// those after the move of the services. The [Engine] walks nothing else, and
// makes the one move per target itself, from the shifts of every procedure in
// the batch. [Standard] builds the usual procedure from a backend and a target;
// a key ceremony or a change of authority brings its own.
type Procedure interface {
	// Credential returns the name of the credential.
	Credential() string

	// Steps returns the steps of a phase. It does no I/O. In prepare, steps
	// without effect come first: they run before the intent is recorded.
	Steps(Phase) (before, after []Step)

	// Shifts returns what services must read after the phase's move, and the
	// target that makes it. A nil target means that nothing moves.
	Shifts(Phase, Credential) (Target, []Shift)

	// Tend looks after a version in its overlap before cleanup begins, and says
	// whether to wait: it may lengthen an expiry, and changes nothing else.
	Tend(context.Context, Credential) (Result, error)

	// Settle decides what an interrupted prepare left behind, by looking: keep
	// and go on, discard the number, or not known now. It changes nothing.
	Settle(context.Context, Credential) (Verdict, error)
}

// Verdict is what Settle decides of a version that an interrupted prepare left.
type Verdict string

// The verdicts.
const (
	Keep      Verdict = "keep"      // every part is in every place and the version works
	Discard   Verdict = "discard"   // a part is missing or wrong: never repaired, made afresh
	Undecided Verdict = "undecided" // cannot be told now; nothing may be changed
)
