package rotation

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"
)

// A Ledger is what the records say: every credential with its versions, its
// open rotation and its retirement queue. [Ledger.Apply] is the state machine:
// it refuses a record that would break a rule, so that the effect which the
// record announces is never begun.
//
// A Ledger is not safe for concurrent use.
type Ledger struct {
	credentials map[string]*Credential
	last        int64
}

// NewLedger returns an empty ledger.
func NewLedger() *Ledger { return &Ledger{credentials: map[string]*Credential{}} }

// Replay returns the ledger of records, which an earlier ledger permitted.
func Replay(records []Record) (*Ledger, error) {
	l := NewLedger()
	for _, r := range records {
		if err := l.Replay(r); err != nil {
			return nil, err
		}
	}
	return l, nil
}

// A LedgerKeeper is a journal that keeps its ledger, and reads what came since.
type LedgerKeeper interface {
	// Ledger returns a ledger of every record, which is the caller's own.
	Ledger(context.Context) (*Ledger, error)
}

// ReadLedger returns the ledger of a journal. It keeps no record.
func ReadLedger(ctx context.Context, j Journal) (*Ledger, error) {
	if k, ok := j.(LedgerKeeper); ok {
		return k.Ledger(ctx)
	}
	l, fault := NewLedger(), error(nil)
	err := j.Each(ctx, func(r Record) {
		if fault == nil {
			fault = l.Replay(r)
		}
	})
	switch {
	case err != nil:
		return nil, err
	case fault != nil:
		return nil, fault
	}
	return l, nil
}

// Replay applies a record that an earlier ledger permitted.
func (l *Ledger) Replay(r Record) error {
	if err := l.take(r); err != nil {
		return Errorf(Tampered, "the journal does not tell a possible story; run: keyturn audit verify",
			"reading entry %d: %w", r.Seq, err)
	}
	return nil
}

// Credential returns what is known of a credential; for one that is on no
// record, only its name.
func (l *Ledger) Credential(name string) Credential {
	if c, ok := l.credentials[name]; ok {
		return c.clone()
	}
	return Credential{Name: name}
}

// Names returns the names of the credentials on record, sorted.
func (l *Ledger) Names() []string { return slices.Sorted(maps.Keys(l.credentials)) }

// Last returns the sequence number of the last record that was taken.
func (l *Ledger) Last() int64 { return l.last }

// Clone returns a ledger that shares nothing with l.
func (l *Ledger) Clone() *Ledger {
	out := NewLedger()
	out.last = l.last
	for name, c := range l.credentials {
		copied := c.share()
		out.credentials[name] = &copied
	}
	return out
}

// The evidence keys that the ledger reads.
const (
	keyVersion = "version" // a Version
	keyBatch   = "batch"   // names
	keyFrom    = "from"    // a number
	keyBefore  = "before"  // the snapshot, by service
	keyEffect  = "effect"
	keyTarget  = "on" // the number that a step's effect is on
	keyRestore = "restore"
	keyEpoch   = "epoch"
	keyHolder  = "holder"
	keyOverlap = "overlap_until" // RFC 3339
	keyParked  = "parked"        // a Parked
	keyReason  = "reason"
	keyCause   = "cause"   // a Cause
	keyRevoked = "revoked" // numbers
)

// KeyApproval is the evidence of who approved what an intent begins.
const KeyApproval = "approval"

// The names of records that are not steps of a procedure.
const (
	stepPhase   = ""        // the phase itself
	stepLease   = "lease"   // a lease was taken (evidence: holder)
	stepRelease = "release" // and given back
	stepDiscard = "discard" // a number was given up
	stepForce   = "force"   // somebody asked not to wait (evidence: reason)
	stepPark    = "park"
	stepRetry   = "retry" // what is parked is about to be tried again
	stepSettled = "settled"
	stepMove    = "move"
	stepMount   = "mount"
	stepAdopt   = "adopt"
	stepRevoke  = "revoke" // versions are about to be ended at once (evidence: reason, revoked)
	stepEnded   = "ended"  // and what came of it
)

// Apply takes a record into the ledger, or returns an error of class Refused
// and changes nothing.
func (l *Ledger) Apply(r Record) error {
	known, ok := l.credentials[r.Credential]
	if ok {
		copied := known.share()
		l.credentials[r.Credential] = &copied
	}
	err := l.take(r)
	if err != nil && ok {
		l.credentials[r.Credential] = known
	}
	return err
}

// take is Apply without its promise to change nothing on an error.
func (l *Ledger) take(r Record) error {
	c, ok := l.credentials[r.Credential]
	if !ok {
		c = &Credential{Name: r.Credential}
	}
	if r.Credential != "" { // else it is of the journal itself
		if err := apply(c, r); err != nil {
			return err
		}
		l.credentials[r.Credential] = c
	}
	l.last = max(l.last, r.Seq)
	return nil
}

func apply(c *Credential, r Record) error {
	switch r.Step {
	case stepLease:
		return applyLease(c, r)
	case stepRelease:
		var epoch int64
		r.read(keyEpoch, &epoch)
		if epoch == c.Holder.Epoch {
			c.Released = true
		}
		return nil
	}
	own := r.Step == stepPark || r.Step == stepSettled || r.Step == stepRetry || r.Step == stepForce || r.Step == stepRevoke
	if r.Status == RecordNote && !own {
		return nil
	}
	if err := checkEpoch(c, r); err != nil {
		return err
	}
	if own {
		return applyOwn(c, r)
	}
	switch {
	case r.Phase == Adopt:
		return applyAdopt(c, r)
	case r.Status == RecordIntent:
		return applyIntent(c, r)
	case r.Step == stepDiscard:
		return applyDiscard(c, r)
	case r.Step == stepPhase:
		return applyPhase(c, r)
	}
	return applyStep(c, r)
}

// applyOwn takes a note that only the holder of the lease may write.
func applyOwn(c *Credential, r Record) error {
	switch r.Step {
	case stepForce:
		if reason := ""; !r.read(keyReason, &reason) || strings.TrimSpace(reason) == "" {
			return ruleBroken(c, r, "not to wait needs a reason")
		}
		if c.Open != nil && c.Open.ID == r.Rotation {
			c.Open.Forced = true
		}
		return nil
	case stepRetry:
		return nil
	case stepRevoke:
		return applyRevoke(c, r)
	}
	return applyQueue(c, r)
}

func applyLease(c *Credential, r Record) error {
	var h Holder
	r.read(keyHolder, &h)
	if h.Epoch <= c.Holder.Epoch {
		return fmt.Errorf("taking the lease of %q: epoch %d is not after %d: %w", c.Name, h.Epoch, c.Holder.Epoch, ErrLeaseLost)
	}
	c.Holder, c.Released = h, false
	return nil
}

func applyQueue(c *Credential, r Record) error {
	var p Parked
	r.read(keyParked, &p)
	i := slices.IndexFunc(c.Queue, p.same)
	switch {
	case r.Step == stepSettled && i >= 0:
		c.Queue = slices.Delete(c.Queue, i, i+1)
		if p.Step == "remove" || p.Undo {
			forget(c, p.Version)
		}
	case r.Step == stepPark && i >= 0:
		p.Since, p.Tries = c.Queue[i].Since, c.Queue[i].Tries+1
		c.Queue[i] = p
	case r.Step == stepPark:
		c.Queue = append(c.Queue, p)
	}
	return nil
}

// checkEpoch refuses what a holder does whose lease was taken over.
func checkEpoch(c *Credential, r Record) error {
	var epoch int64
	r.read(keyEpoch, &epoch)
	if epoch < c.Holder.Epoch {
		return &Error{Class: Refused, Hint: "another run took the lease over; look at: keyturn status",
			Err: fmt.Errorf("recording %s of %q in epoch %d, now %d: %w", r.Step, c.Name, epoch, c.Holder.Epoch, ErrLeaseLost)}
	}
	return nil
}

func applyAdopt(c *Credential, r Record) error {
	if r.Step != stepAdopt || r.Status != RecordDone {
		return ruleBroken(c, r, "an adoption is one record, made when it is done")
	}
	if len(c.Versions) > 0 {
		return Errorf(Refused, "a credential is adopted once, before its first rotation; see: keyturn status",
			"adopting %q: it has version %d already", c.Name, c.Burnt)
	}
	var v Version
	r.read(keyVersion, &v)
	if v.Number != 1 {
		return fmt.Errorf("adopting %q: version %d, want 1", c.Name, v.Number)
	}
	v.State = Current
	c.set(v)
	c.Burnt, c.LastSuccess = 1, r.Time
	return nil
}

func applyDiscard(c *Credential, r Record) error {
	v, ok := c.Version(r.Version)
	if !ok || v.State != Pending || c.Open == nil || c.Open.ID != r.Rotation || c.Open.To != r.Version {
		return ruleBroken(c, r, "only the pending version of an open rotation can be discarded")
	}
	if err := nothingLeft(c, r); err != nil {
		return err
	}
	c.setState(r.Version, Discarded)
	c.Open.Discards++
	return nil
}

func applyPhase(c *Credential, r Record) error {
	if c.Open == nil || r.Rotation != c.Open.ID {
		return ruleBroken(c, r, "this rotation is not open")
	}
	switch {
	case r.Phase != c.Open.Phase && r.Status != RecordWaiting:
		return ruleBroken(c, r, "the phase was not begun")
	case r.Status == RecordWaiting:
		return nil
	case r.Status == RecordFailed:
		return giveUp(c, r)
	case r.Status == RecordUndone:
		return closeUndone(c, r)
	case r.Status != RecordDone || r.Phase == Rollback:
		return ruleBroken(c, r, "a phase cannot be "+string(r.Status))
	case c.Open.Complete:
		return ruleBroken(c, r, "the phase is complete already")
	}
	switch r.Phase {
	case Cutover:
		if _, done := c.Open.happened(Move, c.Open.To); !done {
			return ruleBroken(c, r, "the services were not moved")
		}
		c.setState(c.Open.From, Previous)
		c.setState(c.Open.To, Current)
		c.CutoverAt, c.LastSuccess = r.Time, r.Time
		r.read(keyOverlap, &c.OverlapUntil)
	case Cleanup:
		return closeRetired(c, r)
	}
	c.Open.Complete = true
	c.Open.note(StepState{Phase: r.Phase, Version: c.Open.To, Status: RecordDone, At: r.Time})
	return nil
}

// closeRetired ends a rotation whose old version is dead. The proof must be on
// the record; a first version has no predecessor to prove anything of.
func closeRetired(c *Credential, r Record) error {
	if c.Open.From != 0 {
		if _, done := c.Open.happened(Prove, c.Open.From); !done {
			return ruleBroken(c, r, "the old version is not proven dead")
		}
		c.setState(c.Open.From, Retired)
		if _, removed := c.Open.happened(Remove, c.Open.From); removed {
			forget(c, c.Open.From)
		}
	}
	c.Open = nil
	return nil
}

// closeUndone ends a rotation that was given up: before its cutover, or by a
// rollback. The version before it is the current one, as it was.
func closeUndone(c *Credential, r Record) error {
	if r.Phase != Rollback {
		return ruleBroken(c, r, "a rotation is undone by a rollback")
	}
	if err := nothingLeft(c, r); err != nil {
		return err
	}
	c.setState(c.Open.To, Discarded)
	if c.Open.From != 0 {
		c.setState(c.Open.From, Current)
	}
	c.OverlapUntil, c.CutoverAt, c.LastSuccess = time.Time{}, c.Open.cutoverAt, c.Open.lastSuccess
	c.Open = nil
	return nil
}

// giveUp takes a phase that failed. A rollback that could not even begin to
// move the services leaves the rotation where it was, so that the way forward
// stays open.
func giveUp(c *Credential, r Record) error {
	if r.Phase != Rollback {
		return nil
	}
	if begun, _ := c.Open.happened(Move, c.Open.From); begun {
		return ruleBroken(c, r, "services may be on their way back")
	}
	c.Open.Phase, c.Open.Complete = c.Open.wasAt, c.Open.wasComplete
	return nil
}

// nothingLeft makes sure that nothing of the version that a rotation brings is
// in use, accepted or stored any more.
func nothingLeft(c *Credential, r Record) error {
	for _, e := range []Effect{Move, Beside, Activate, Arm, Mint, Put} {
		if begun, _ := c.Open.happened(e, c.Open.To); begun {
			return ruleBroken(c, r, string(e)+" of version "+fmt.Sprint(c.Open.To)+" is not undone")
		}
	}
	return nil
}

func forget(c *Credential, number int) {
	if i := c.index(number); i >= 0 {
		c.Versions[i].Objects = nil
	}
}

func (r Record) read(key string, into any) bool {
	b, ok := r.Evidence[key]
	if !ok {
		return false
	}
	// Numbers and effects stand in every record; a journal may have 100,000.
	switch into := into.(type) {
	case *int64:
		n, err := strconv.ParseInt(string(b), 10, 64)
		if err == nil {
			*into = n
			return true
		}
	case *int:
		n, err := strconv.Atoi(string(b))
		if err == nil {
			*into = n
			return true
		}
	case *Effect:
		if n := len(b); n >= 2 && b[0] == '"' && !bytes.ContainsRune(b, '\\') {
			*into = Effect(b[1 : n-1])
			return true
		}
	}
	return json.Unmarshal(b, into) == nil
}
