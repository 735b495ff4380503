package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/keyturn/keyturn/internal/journal"
	"github.com/keyturn/keyturn/internal/rotation"
)

// The exit codes.
const (
	exitDone      = 0   // done, nothing to do, or waiting
	exitFailed    = 1   // failed, and nothing changed or all undone
	exitUsage     = 2   // bad usage or configuration
	exitRefused   = 3   // a rule, a policy, or too early
	exitStuck     = 4   // failed and not fully undone, or stopped at unknown
	exitTampered  = 5   // the audit record has a gap or was changed
	exitCancelled = 130 // cancelled; safe to run again
)

// exitCode returns the code that an error ends the program with.
func exitCode(err error) int {
	switch {
	case err == nil:
		return exitDone
	case errors.Is(err, context.Canceled):
		return exitCancelled
	}
	if _, ok := errors.AsType[*journal.Fault](err); ok {
		return exitTampered
	}
	if _, ok := errors.AsType[*usageError](err); ok {
		return exitUsage
	}
	switch rotation.ClassOf(err) {
	case rotation.Refused:
		return exitRefused
	case rotation.Unknown, rotation.Stuck:
		return exitStuck
	case rotation.Invalid:
		return exitUsage
	case rotation.Tampered:
		return exitTampered
	}
	return exitFailed
}

// usageError is a wrong call or configuration. Its text may have lines.
type usageError struct {
	err  error
	hint string
}

func (e *usageError) Error() string { return e.err.Error() }
func (e *usageError) Unwrap() error { return e.err }
func (e *usageError) Hint() string  { return e.hint }

func usagef(hint, format string, args ...any) error {
	return &usageError{err: fmt.Errorf(format, args...), hint: hint}
}

// hintOf returns the first hint in a tree of errors.
func hintOf(err error) string {
	if err == nil {
		return ""
	}
	if h, ok := err.(interface{ Hint() string }); ok && h.Hint() != "" {
		return h.Hint()
	}
	if e, ok := err.(*rotation.Error); ok && e.Hint != "" {
		return e.Hint
	}
	switch e := err.(type) {
	case interface{ Unwrap() error }:
		return hintOf(e.Unwrap())
	case interface{ Unwrap() []error }:
		for _, inner := range e.Unwrap() {
			if hint := hintOf(inner); hint != "" {
				return hint
			}
		}
	}
	return ""
}

// complain writes an error and its hint for people.
func complain(w io.Writer, err error) {
	if errors.Is(err, context.Canceled) {
		fmt.Fprintln(w, "cancelled: nothing was undone, and it is safe to run it again")
		return
	}
	text := strings.TrimSpace(err.Error())
	fmt.Fprintln(w, "keyturn: "+strings.ReplaceAll(text, "\n", "\n         "))
	if hint := hintOf(err); hint != "" && !strings.Contains(text, "hint: ") {
		fmt.Fprintln(w, "hint: "+hint)
	}
}
