// Package notify tells people, by whatever way Shoutrrr knows. It is the last thing that
// a run does, has a bounded time, and can fail nothing.
//
// The URL of a way is a secret, and the library's errors repeat it: no error of this
// package has a word of theirs.
package notify

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/keyturn/keyturn/internal/secret"
)

// An Event says of what kind a notice is.
type Event string

// The events.
const (
	Failure     Event = "failure"     // a phase failed, or was taken back
	Degradation Event = "degradation" // something works and is not as it should be
	Incident    Event = "incident"    // a revocation, a broken glass
	Audit       Event = "audit"       // the record is not intact
	Overdue     Event = "overdue"     // a rotation's time has gone by
	Approval    Event = "approval"    // people have to approve something
	Done        Event = "done"        // a phase is done
)

// Severity returns how bad an event is: info, warning, error or critical.
func (e Event) Severity() string {
	switch e {
	case Done, Approval:
		return "info"
	case Degradation, Overdue:
		return "warning"
	case Failure:
		return "error"
	}
	return "critical"
}

// A Notice is something that people should know.
type Notice struct {
	Event Event
	Key   string // what is the same thing again has the same
	Title string
	Text  string // no value stands in it
	Link  string // of the run; may be empty
}

// String is the notice as it is sent.
func (n Notice) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "[%s] %s\n", n.Event.Severity(), n.Title)
	if n.Text != "" {
		b.WriteString(strings.TrimSpace(n.Text) + "\n")
	}
	if n.Link != "" {
		b.WriteString(n.Link + "\n")
	}
	return b.String()
}

// Errors of [Send].
var (
	ErrURL  = errors.New("the URL is none that Shoutrrr knows")
	ErrSent = errors.New("it was not taken")
)

// Send sends a notice by a Shoutrrr URL, until ctx ends.
func Send(ctx context.Context, url secret.Value, n Notice) error {
	send, err := find(strings.TrimSpace(string(url.Reveal())))
	if err != nil {
		return ErrURL
	}
	err = send(ctx, n.Title, n.String())
	if ctx.Err() != nil && err != nil {
		return ctx.Err()
	}
	if err != nil {
		return ErrSent
	}
	return nil
}
