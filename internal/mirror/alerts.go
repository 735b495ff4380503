package mirror

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"strings"
	"time"

	"github.com/google/go-github/v60/github"
)

// AlertLabel is on every issue in which people are mentioned.
const AlertLabel = "keyturn-alert"

// An Alert is something of which people are told.
type Alert struct {
	Key      string // what is the same thing again has the same
	Title    string
	Text     string // Markdown
	Mention  []string
	Every    time.Duration // the same thing again at most so often
	Resolved bool          // it is over: its issue, if there is one, is closed
}

func (a Alert) marker() string {
	sum := sha256.Sum256([]byte(a.Key))
	return "<!-- keyturn:alert=" + hex.EncodeToString(sum[:8]) + " -->\n"
}

// Alert opens an issue for something, or writes one more comment into the one that is
// open, or closes it.
func (r Repository) Alert(ctx context.Context, a Alert, now time.Time) error {
	open, err := r.labelled(ctx, AlertLabel, "open")
	if err != nil {
		return fmt.Errorf("looking for the issues of alerts: %w", err)
	}
	found := marked(open, a.marker())
	var names []string
	for _, m := range a.Mention {
		names = append(names, "@"+m)
	}
	body := a.Text + "\n\n" + strings.Join(names, " ") + "\n"
	switch {
	case a.Resolved && found == nil:
		return nil
	case a.Resolved:
		_, err = r.complete(ctx, found.GetNumber(), nil)
	case found == nil:
		whole := a.marker() + body
		_, _, err = r.Client.Issues.Create(ctx, r.Owner, r.Repo, &github.IssueRequest{Title: &a.Title, Body: &whole, Labels: &[]string{AlertLabel}})
	case now.Sub(found.GetUpdatedAt().Time) < a.Every:
		return nil
	default:
		_, _, err = r.Client.Issues.CreateComment(ctx, r.Owner, r.Repo, found.GetNumber(), &github.IssueComment{Body: &body})
	}
	if err != nil {
		return fmt.Errorf("writing the issue of an alert: %w", err)
	}
	return nil
}
