package cli

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/keyturn/keyturn/internal/githubapp"
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
	exitFound     = 6   // doctor found something
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
	if status, ok := err.(exitStatus); ok {
		return int(status)
	}
	if _, ok := errors.AsType[*journal.Fault](err); ok {
		return exitTampered
	}
	if _, ok := errors.AsType[*usageError](err); ok {
		return exitUsage
	}
	if _, ok := errors.AsType[*journal.PlaceError](err); ok {
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

// hintFor returns the hint of an error, and what can be said of one that has none
// but is an answer of GitHub.
func hintFor(err error) string {
	if hint := hintOf(err); hint != "" || err == nil {
		return hint
	}
	return githubapp.Hint(err)
}

// worse returns the exit code that counts of two: a record that was changed,
// then what is left undone, then a failure, a mistake, a refusal.
func worse(a, b int) int {
	order := []int{exitDone, exitRefused, exitUsage, exitFailed, exitStuck, exitTampered, exitCancelled}
	if slices.Index(order, b) > slices.Index(order, a) {
		return b
	}
	return a
}

// A failure is what one of several rotations ended with.
type failure struct {
	Credentials []string `json:"credentials"`
	Exit        int      `json:"exit"`
	Error       string   `json:"error,omitempty"` // "": it waits, as its phase says
	Hint        string   `json:"hint,omitempty"`
}

// each does something for every group. Of several, none hides another: each
// that fails is told at once, and the worst of them is the exit code.
func (a *app) each(ctx context.Context, groups [][]string, do func(group []string) error) error {
	if len(groups) == 1 {
		return do(groups[0])
	}
	code := exitDone
	for _, group := range groups {
		err := do(group)
		if ctx.Err() != nil {
			return errors.Join(ctx.Err(), err)
		}
		if err == nil {
			continue
		}
		f := failure{Credentials: group, Exit: exitCode(err)}
		if _, said := err.(exitStatus); !said {
			f.Error, f.Hint = err.Error(), hintFor(err)
			a.complain(err)
		}
		a.failures = append(a.failures, f)
		code = worse(code, f.Exit)
	}
	if code == exitDone {
		return nil
	}
	return exitStatus(code)
}

// complain writes an error and its hint for people.
func (a *app) complain(err error) {
	a.progress.clear()
	if errors.Is(err, context.Canceled) {
		if a.step != nil {
			a.annotate("cancelled: safe to run it again", "where it stands: keyturn status")
			return
		}
		fmt.Fprintln(a.Stderr, "cancelled: safe to run it again; where it stands: keyturn status")
		return
	}
	text, hint := strings.TrimSpace(err.Error()), hintFor(err)
	if strings.Contains(text, "hint: ") {
		hint = ""
	}
	a.say(text, hint)
}

// A complaint is what was told of a failure.
type complaint struct{ text, hint string }

// say tells what failed or is refused, and the hint.
func (a *app) say(text, hint string) {
	if a.step != nil {
		a.annotate(text, hint)
		return
	}
	fmt.Fprintln(a.Stderr, "keyturn: "+strings.ReplaceAll(text, "\n", "\n         "))
	if hint != "" {
		fmt.Fprintln(a.Stderr, "hint: "+hint)
	}
}

// annotate tells it to the run that the action is a step of.
func (a *app) annotate(text, hint string) {
	a.complaints = append(a.complaints, complaint{text, hint})
	a.step.Error(strings.Join(append([]string{"keyturn"}, commandOf(a.Args)...), " "), text, hint)
}
