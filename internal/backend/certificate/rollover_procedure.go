package certificate

import (
	"context"

	"github.com/keyturn/keyturn/internal/rotation"
)

// A rolled rotation is the usual one, but that the account which an activation made goes on
// the record with it.
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
		if p == rotation.Cutover && step.Effect == rotation.Activate {
			before[i].Do = r.noting(step.Do)
		}
	}
	return before, after
}

// noting puts the account on the record of the version that was activated.
func (r rolled) noting(activate func(context.Context, rotation.Credential) (rotation.Result, error)) func(context.Context, rotation.Credential) (rotation.Result, error) {
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
