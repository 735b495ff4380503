package cli

import (
	"context"
	"encoding/json"
	"errors"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/keyturn/keyturn/internal/config"
	"github.com/keyturn/keyturn/internal/journal"
	"github.com/keyturn/keyturn/internal/mirror"
	"github.com/keyturn/keyturn/internal/notify"
	"github.com/keyturn/keyturn/internal/rotation"
)

const (
	// noteTold is the note that a channel was told of something.
	noteTold = "told"

	// tellTime bounds what telling people costs a run, at its very end.
	tellTime = 10 * time.Second
)

// raise keeps something that people are told of at the end of the run.
func (a *app) raise(event notify.Event, key, title, text string) {
	if a.cfg == nil || len(a.cfg.Notify) == 0 {
		return
	}
	n := notify.Notice{Event: event, Key: string(event) + "/" + key, Title: "keyturn: " + title, Text: text, Link: a.runURL()}
	if !slices.ContainsFunc(a.notices, func(o notify.Notice) bool { return o.Key == n.Key }) {
		a.notices = append(a.notices, n)
	}
}

// runURL is where the run can be looked at; "" outside of Actions.
func (a *app) runURL() string {
	server, repo, id := a.Getenv("GITHUB_SERVER_URL"), a.Getenv("GITHUB_REPOSITORY"), a.Getenv("GITHUB_RUN_ID")
	if server == "" || repo == "" || id == "" {
		return ""
	}
	return server + "/" + repo + "/actions/runs/" + id
}

// deliver tells people what was raised. It comes last, in a bounded time, and fails
// nothing. With a wiring, what a channel was told lately is not told again.
func (a *app) deliver(w *wiring) {
	raised := a.notices
	a.notices = nil
	if len(raised) == 0 || a.cfg == nil {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), tellTime)
	defer cancel()
	var told []journal.Entry
	if w != nil {
		told, _ = w.entries(ctx) // without them, people are told again
	}
	var mu sync.Mutex
	var all sync.WaitGroup
	var fresh []map[string]any
	for _, c := range a.cfg.Notify {
		all.Go(func() {
			for _, n := range raised {
				resolves := n.Event == notify.Done && len(c.Mention) > 0
				if !resolves && !slices.Contains(c.Events, string(n.Event)) || lately(told, c, n.Key, a.Now()) {
					continue
				}
				err := a.tellOne(ctx, c, n)
				mu.Lock()
				if err != nil {
					a.notef("%s could not be told: %v", c.Name, err)
				} else if n.Event != notify.Done {
					fresh = append(fresh, map[string]any{"channel": c.Name, "key": n.Key})
				}
				mu.Unlock()
			}
		})
	}
	all.Wait()
	if w == nil {
		return
	}
	for _, f := range fresh {
		if err := w.remember(ctx, "", "", noteTold, f); err != nil {
			return // they are told again
		}
	}
}

// lately reports whether a channel was told of something not long ago.
func lately(entries []journal.Entry, c config.Channel, key string, now time.Time) bool {
	for _, e := range slices.Backward(entries) {
		if now.Sub(e.Time) > c.Every {
			return false
		}
		var channel, of string
		if e.Step == noteTold && json.Unmarshal(e.Evidence["channel"], &channel) == nil && json.Unmarshal(e.Evidence["key"], &of) == nil && channel == c.Name && of == key {
			return true
		}
	}
	return false
}

func (a *app) tellOne(ctx context.Context, c config.Channel, n notify.Notice) error {
	if len(c.Mention) > 0 {
		client, err := a.asking(a.cfg, mayRemind)
		if err != nil {
			return err
		}
		if n.Event == notify.Done { // what failed or waited before is over
			var errs []error
			for _, over := range []notify.Event{notify.Failure, notify.Approval} {
				key := string(over) + strings.TrimPrefix(n.Key, string(notify.Done))
				errs = append(errs, mirrored(client).Alert(ctx, mirror.Alert{Key: key, Resolved: true}, a.Now()))
			}
			return errors.Join(errs...)
		}
		return mirrored(client).Alert(ctx, mirror.Alert{Key: n.Key, Title: n.Title, Text: plainText(n.Text) + "\n\n" + n.Link, Mention: c.Mention, Every: c.Every}, a.Now())
	}
	url, err := c.URL.Read(a.Getenv)
	if err != nil {
		return err
	}
	a.maskValue(url)
	return notify.Send(ctx, url, n)
}

// raisePhase raises what came of a phase.
func (w *wiring) raisePhase(phase rotation.Phase, group []string, sum rotation.Summary, err error) {
	a := w.app
	names := strings.Join(group, ", ")
	key := string(phase) + "/" + names
	switch {
	case errors.Is(err, context.Canceled):
	case err != nil && rotation.ClassOf(err) == rotation.Refused:
	case err != nil:
		text := err.Error()
		if hint := hintFor(err); hint != "" {
			text += "\nhint: " + hint
		}
		a.raise(notify.Failure, key, string(phase)+" of "+names+" failed", text)
	case phase == rotation.Cleanup && len(sum.Notes) > 0:
		a.raise(notify.Degradation, key, names+": not all is as it should be", strings.Join(sum.Notes, "\n"))
	case sum.Outcome == rotation.Done:
		a.raise(notify.Done, key, string(phase)+" of "+names+" is done", "")
	}
}

// raiseOverdue raises what should have been rotated, and was not.
func (w *wiring) raiseOverdue(ledger *rotation.Ledger) {
	for _, c := range w.cfg.Credentials {
		now := ledger.Credential(c.Name)
		due := dueAt(c, now)
		if now.LastSuccess.IsZero() || w.app.Now().Sub(due) <= c.Overlap {
			continue
		}
		w.app.raise(notify.Overdue, c.Name, c.Name+" is overdue", "it was due "+clock(due)+"; does the schedule run, does it wait for people?")
	}
}
