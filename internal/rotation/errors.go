package rotation

import (
	"errors"
	"fmt"
)

// A Class says what an error means for the caller and its exit code.
type Class int

// The classes.
const (
	Failed   Class = iota // it did not work, and it is known that it did not
	Refused               // a rule, a policy or the time forbids it: nothing was changed
	Unknown               // cannot be told now: nothing may be concluded or undone
	Invalid               // the request or the configuration is wrong
	Stuck                 // failed, and not fully undone
	Tampered              // the record was changed
)

// An Error is an error with a class and a hint for the user. Hints stand on a
// line of their own.
type Error struct {
	Class Class
	Text  string
	Hint  string
	Err   error
}

// Error returns the text and the cause.
func (e *Error) Error() string {
	switch {
	case e.Err == nil:
		return e.Text
	case e.Text == "":
		return e.Err.Error()
	}
	return e.Text + ": " + e.Err.Error()
}

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.Err }

// Errorf returns an [Error] of a class, with a text built as by [fmt.Errorf].
func Errorf(class Class, hint, format string, args ...any) error {
	return &Error{Class: class, Hint: hint, Err: fmt.Errorf(format, args...)}
}

// Classify returns err with a class and a hint, or nil for nil.
func Classify(class Class, hint string, err error) error {
	if err == nil {
		return nil
	}
	return &Error{Class: class, Hint: hint, Err: err}
}

// ClassOf returns the class of the outermost [Error] in err's chain, or Failed.
func ClassOf(err error) Class {
	if e, ok := errors.AsType[*Error](err); ok {
		return e.Class
	}
	return Failed
}

// HintOf returns the first hint in err's chain.
func HintOf(err error) string {
	for err != nil {
		e, ok := errors.AsType[*Error](err)
		if !ok {
			return ""
		}
		if e.Hint != "" {
			return e.Hint
		}
		err = e.Err
	}
	return ""
}

// Errors that targets, backends and leases wrap.
var (
	ErrInUse     = errors.New("still in use")
	ErrUnhealthy = errors.New("unhealthy after the move")
	ErrLives     = errors.New("it ends by itself, and not before")
	ErrLeaseLost = errors.New("the lease was taken over")

	// ErrRejected is wrapped by backends that will not have a value: it is
	// tried once more, and then another one is made.
	ErrRejected = errors.New("the value is not accepted")
)

// joined joins errors under the class and the hint of the one that leaves most
// to do.
func joined(errs []error) error {
	all := errors.Join(errs...)
	rank := map[Class]int{Tampered: 5, Stuck: 4, Unknown: 3, Failed: 2, Invalid: 1, Refused: 0}
	var worst error
	for _, err := range errs {
		if err != nil && (worst == nil || rank[ClassOf(err)] > rank[ClassOf(worst)]) {
			worst = err
		}
	}
	if worst == nil || worst.Error() == all.Error() {
		return worst
	}
	return Classify(ClassOf(worst), HintOf(worst), all)
}

// Fault is a problem of one key of a backend's section in the configuration.
type Fault struct {
	Path string // the key's path below the section, e.g. "probe.0"
	Text string
	Tip  string
}

// Error returns the text.
func (f *Fault) Error() string { return f.Text }

// Key returns the path of the key.
func (f *Fault) Key() string { return f.Path }

// Hint returns what to write instead.
func (f *Fault) Hint() string { return f.Tip }
