package certificate

import (
	"context"
	"encoding/json"
	"fmt"

	"github.com/keyturn/keyturn/internal/backend/remote"
	"github.com/keyturn/keyturn/internal/rotation"
)

// A rolled rotation is the usual one, but that the account which an activation made goes on
// the record with it; that a change which came when nobody waited for it any more is gone on
// with; and that one which may come yet is waited for before the next key is removed.
type rolled struct {
	*rotation.Standard
	k *AccountKey
}

var (
	_ rotation.Procedure  = rolled{}
	_ rotation.Guard      = rolled{}
	_ rotation.Overlapper = rolled{}
	_ rotation.Revoker    = rolled{}
)

// Procedure implements [rotation.Proceeder].
func (k *AccountKey) Procedure(s *rotation.Standard) rotation.Procedure { return rolled{s, k} }

// Steps implements [rotation.Procedure].
func (r rolled) Steps(p rotation.Phase) (before, after []rotation.Step) {
	before, after = r.Standard.Steps(p)
	for i, step := range before {
		switch {
		case p == rotation.Cutover && step.Effect == rotation.Activate:
			before[i].Do = r.noting(step.Do)
		case (p == rotation.Validate || p == rotation.Cutover) && step.Name == "probe":
			before[i].Do = r.changed(step.Do)
		case p == rotation.Prepare && step.Effect == rotation.Arm:
			before[i].Undo = r.late(step.Undo)
		}
	}
	return before, after
}

// changed passes over the trial of the key in service, once the next one is the account's: it came
// so late that it was undone on the record, and it is for the activation to find.
func (r rolled) changed(probe doing) doing {
	return func(ctx context.Context, c rotation.Credential) (rotation.Result, error) {
		q, err := r.k.ask(ctx, c.Next())
		if err != nil || q.found.Location == "" || checkAccount(q.version, q.found) != nil {
			return probe(ctx, c)
		}
		result := rotation.Result{Observed: true}
		if begun, tried := c.Open.Step(rotation.Cutover, "activate", q.version.Number); tried && begun.Status == rotation.RecordUndone {
			result.Note = fmt.Sprintf("the account had the key of version %d already: its gap began when that was changed", q.version.Number)
		}
		return result, nil
	}
}

// late waits, before a version is given up, until a change to its key that was never answered
// is not to be expected any more: after that, its key is stored nowhere.
func (r rolled) late(disarm undoing) undoing {
	return func(ctx context.Context, c rotation.Credential, restore json.RawMessage) error {
		next, o := c.Next(), r.k.acme.options
		begun, tried := c.Open.Step(rotation.Cutover, "activate", next.Number)
		_, back := c.Open.Step(rotation.Rollback, "activate", c.Open.From) // it was in service, so it was answered
		_, gone := r.k.keys.of(next)
		if wait := min(o.Patience, begun.At.Add(o.Patience).Sub(o.Now())); tried && !back && gone == nil && wait > 0 && !r.k.wasHeard(next) {
			o.Logger.InfoContext(ctx, "waiting for a change of the account's key that may still come", "version", next.Number, "for", wait)
			if err := remote.Pause(ctx, wait); err != nil {
				return err
			}
		}
		return disarm(ctx, c, restore)
	}
}

// What steps do, and take back.
type (
	doing   = func(context.Context, rotation.Credential) (rotation.Result, error)
	undoing = func(context.Context, rotation.Credential, json.RawMessage) error
)

// noting puts the account on the record of the version that was activated.
func (r rolled) noting(activate doing) doing {
	return func(ctx context.Context, c rotation.Credential) (rotation.Result, error) {
		result, err := activate(ctx, c)
		if err != nil {
			return result, err
		}
		next := c.Next()
		r.k.acme.mu.Lock()
		defer r.k.acme.mu.Unlock()
		next.Public[publicAccount] = r.k.accounts[next.Number]
		result.Version = &next
		return result, nil
	}
}
