package rotated

import (
	"errors"
	"fmt"
	"io/fs"
)

// ErrMissing is wrapped by errors that say that a credential, or a field of
// it, is not there: a variable unset, a file absent or empty.
var ErrMissing = errors.New("missing")

// absence is an error that wraps [ErrMissing] and says it in its own words.
type absence struct{ cause error }

func (a absence) Error() string   { return a.cause.Error() }
func (a absence) Unwrap() []error { return []error{ErrMissing, a.cause} }

// absent returns an error of that text that wraps [ErrMissing].
func absent(format string, args ...any) error { return absence{fmt.Errorf(format, args...)} }

// missing marks the error of a file that does not exist with [ErrMissing].
func missing(err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return absence{err}
	}
	return err
}

// also puts two reasons, of which either may be nil, on one line.
func also(one, other error) error {
	switch {
	case one == nil:
		return other
	case other == nil:
		return one
	}
	return fmt.Errorf("%w; %w", one, other)
}
