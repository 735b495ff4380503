package rotation

import (
	"context"
	"fmt"
	"time"
)

// A Holder is who holds a lease on a credential.
type Holder struct {
	Run      string    `json:"run"`     // unique per process: "<host>/<pid>/<ulid>" or the CI's run id
	Attempt  int       `json:"attempt"` // of a CI run
	Phase    Phase     `json:"phase"`
	Epoch    int64     `json:"epoch"` // grows with every holder of the credential
	Deadline time.Time `json:"deadline"`
}

// A Leaser gives one process at a time the right to rotate a credential.
type Leaser interface {
	// Acquire takes the lease. One that is held is taken over if its deadline
	// passed, if dead says that the holder is known to be dead, or if force is
	// set; otherwise the error is a [*BusyError]. The epoch is greater than
	// every one before it, also after release.
	Acquire(ctx context.Context, credential string, want Holder, dead func(Holder) bool, force bool) (Lease, error)
}

// A Lease is the right to rotate one credential, until somebody takes it over.
type Lease interface {
	Holder() Holder

	// Check reads the lease again. It returns an error that wraps
	// [ErrLeaseLost] if another holder has it. It is called before every effect.
	Check(context.Context) error

	// Release gives the lease back. A lease that was lost already is left alone.
	Release(context.Context) error
}

// A BusyError says who holds the lease.
type BusyError struct {
	Credential string
	Holder     Holder
}

// Error names the holder and its deadline.
func (e *BusyError) Error() string {
	return fmt.Sprintf("%q is being rotated by run %s (%s, until %s)", e.Credential, e.Holder.Run,
		e.Holder.Phase, e.Holder.Deadline.UTC().Format(time.RFC3339))
}
