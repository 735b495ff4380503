package rotation

import (
	"encoding/json"
	"maps"
	"slices"
	"time"
)

// A Credential is what the ledger knows of one credential at one moment.
type Credential struct {
	Name     string
	Versions []Version // every version on the record, oldest first
	Burnt    int       // the highest number that was ever attempted

	Open *Rotation // the rotation that is under way, nil if none is

	CutoverAt    time.Time // when the current version came into service; zero if never
	OverlapUntil time.Time // until when the previous version stays valid
	LastSuccess  time.Time // when the last cutover (or the adoption) was done
	Queue        []Parked  // what could not be ended or removed yet
	Revoked      []int     // numbers of versions that were ended at once

	Holder   Holder // of the last lease on record
	Released bool   // that lease was given back

	prints map[string]int // every fingerprint on record → the version that had it first
}

// Version returns the version of a number.
func (c Credential) Version(number int) (Version, bool) {
	if i := c.index(number); i >= 0 {
		return c.Versions[i].Clone(), true
	}
	return Version{}, false
}

// index looks from the newest version back, which is where it mostly is.
func (c *Credential) index(number int) int {
	for i := len(c.Versions) - 1; i >= 0; i-- {
		if c.Versions[i].Number == number {
			return i
		}
	}
	return -1
}

// In returns the newest version in a state.
func (c Credential) In(s State) (Version, bool) {
	for i := len(c.Versions) - 1; i >= 0; i-- {
		if c.Versions[i].State == s {
			return c.Versions[i].Clone(), true
		}
	}
	return Version{}, false
}

// Live returns the versions that a backend may accept: pending, current and previous.
func (c Credential) Live() []Version {
	var live []Version
	for _, v := range c.Versions {
		if v.State == Pending || v.State == Current || v.State == Previous {
			live = append(live, v.Clone())
		}
	}
	return live
}

// Known returns every version whose objects may be found in a service.
func (c Credential) Known() []Version {
	var known []Version
	for _, v := range c.Versions {
		if v.State != Retired || len(v.Objects) > 0 {
			known = append(known, v.Clone())
		}
	}
	return known
}

// Next returns the version that the open rotation brings; the zero Version if
// there is none.
func (c Credential) Next() Version {
	if c.Open == nil {
		return Version{}
	}
	v, _ := c.Version(c.Open.To)
	return v
}

// Last returns the version that the open rotation takes out of service, or the
// current one if none is open; the zero Version if there is none.
func (c Credential) Last() Version {
	if c.Open == nil {
		v, _ := c.In(Current)
		return v
	}
	v, _ := c.Version(c.Open.From)
	return v
}

// At returns whether the open rotation stands at a phase, and whether the phase
// is complete.
func (c Credential) At(p Phase) (at, complete bool) {
	if c.Open == nil || c.Open.Phase != p {
		return false, false
	}
	return true, c.Open.Complete
}

func (c Credential) clone() Credential {
	c = c.share()
	for i := range c.Versions {
		c.Versions[i] = c.Versions[i].Clone()
	}
	if c.Open != nil {
		c.Open.Before = maps.Clone(c.Open.Before)
	}
	return c
}

// share returns a copy for a ledger, which replaces the maps of a version and
// of a rotation and never changes them in place.
func (c Credential) share() Credential {
	c.Versions, c.prints = slices.Clone(c.Versions), maps.Clone(c.prints)
	c.Queue = slices.Clone(c.Queue)
	if c.Open != nil {
		open := *c.Open
		open.Steps = slices.Clone(open.Steps)
		open.Batch = slices.Clone(open.Batch)
		c.Open = &open
	}
	return c
}

// set replaces the version of the same number, or adds it.
func (c *Credential) set(v Version) {
	if c.prints == nil {
		c.prints = map[string]int{}
	}
	for _, fp := range v.Fingerprints {
		if _, ok := c.prints[fp]; !ok {
			c.prints[fp] = v.Number
		}
	}
	if i := c.index(v.Number); i >= 0 {
		c.Versions[i] = v
		return
	}
	c.Versions = append(c.Versions, v)
}

func (c *Credential) setState(number int, s State) {
	if i := c.index(number); i >= 0 {
		c.Versions[i].State = s
	}
}

// A Rotation is a rotation that is under way.
type Rotation struct {
	ID       string
	Batch    []string // the credentials of the batch, sorted
	From, To int      // version numbers; From is 0 for the first version
	Phase    Phase    // the last phase that was begun
	Complete bool     // that phase is done
	Begun    time.Time
	Plan     string
	Forced   bool                       // cleanup may run before the overlap is over
	Before   map[string]json.RawMessage // the snapshot of the services, by name
	Steps    []StepState                // in the order they were begun, the latest state of each
	Discards int                        // numbers of this rotation that were given up

	wasAt       Phase // where the rotation stood when its rollback was begun
	wasComplete bool
	cutoverAt   time.Time // of the credential, before the rotation
	lastSuccess time.Time
}

// Step returns the state of a step for a version.
func (r *Rotation) Step(p Phase, name string, version int) (StepState, bool) {
	for _, s := range r.Steps {
		if s.Phase == p && s.Name == name && s.Version == version {
			return s, true
		}
	}
	return StepState{}, false
}

// happened reports whether an effect on a version was begun and not undone
// since; done, whether it was completed. A step that waits has had no effect
// yet, unless an earlier try of it was cut off.
func (r *Rotation) happened(e Effect, version int) (begun, done bool) {
	for _, s := range r.Steps {
		if s.Effect == e && s.Version == version && s.Status != RecordUndone && (s.Status != RecordWaiting || s.Tried) {
			begun = true
			done = done || s.Done
		}
	}
	return begun, done
}

// overwritten reports whether the value was put where the one before it stood:
// then there is no way back.
func (r *Rotation) overwritten() bool {
	return slices.ContainsFunc(r.Steps, func(s StepState) bool {
		return s.Phase == Cutover && s.Effect == Put && s.Version == r.To && s.Status != RecordUndone
	})
}

func (r *Rotation) note(s StepState) {
	s.Done = s.Status == RecordDone || s.Status == RecordObserved
	for i, old := range r.Steps {
		if old.Phase == s.Phase && old.Name == s.Name && old.Version == s.Version {
			s.Done = s.Done || old.Done && s.Status != RecordUndone && s.Status != RecordUndoing
			s.Tried = s.Status != RecordUndone && (old.Tried || s.Status == RecordStarted && old.Status != RecordUndone && old.Status != RecordWaiting)
			if len(s.Restore) == 0 {
				s.Restore = old.Restore
			}
			if s.Effect == None {
				s.Effect = old.Effect
			}
			r.Steps[i] = s
			return
		}
	}
	r.Steps = append(r.Steps, s)
}

// A StepState is what the record says of a step.
type StepState struct {
	Phase   Phase
	Name    string
	Effect  Effect
	Version int
	Status  RecordStatus // of the latest record
	Done    bool         // it was done, and not undone since, though it may have been begun again
	Tried   bool         // an earlier try was cut off or failed, and may have had its effect
	Restore json.RawMessage
	At      time.Time
}

// Parked is an act that ends or removes something and could not be done yet.
// It is tried again by every run, and never dropped.
type Parked struct {
	Version int       `json:"version"`
	Phase   Phase     `json:"phase"` // the phase whose step it is
	Step    string    `json:"step"`
	Undo    bool      `json:"undo"` // the step's undo, not its do
	Why     string    `json:"why"`
	Since   time.Time `json:"since"`
	Tries   int       `json:"tries"`
}

func (p Parked) same(q Parked) bool {
	return p.Version == q.Version && p.Phase == q.Phase && p.Step == q.Step && p.Undo == q.Undo
}
