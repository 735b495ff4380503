package mirror

import (
	"context"
	"fmt"

	"github.com/google/go-github/v60/github"
)

// ReminderLabel is on every issue by which people are reminded.
const ReminderLabel = "keyturn-reminder"

func reminderMarker(name string) string { return "<!-- keyturn:reminder=" + name + " -->\n" }

// A Reminder is something that people shall renew.
type Reminder struct {
	Name  string
	Title string
	Text  string // Markdown
	Due   bool   // else its issue, if there is one, is closed
}

// Remind keeps one issue for every reminder that is due: opened, rewritten when its text
// changes, and closed when it is not due any more. It returns their addresses by name.
func (r Repository) Remind(ctx context.Context, all []Reminder) (urls map[string]string, err error) {
	open, err := r.labelled(ctx, ReminderLabel, "open")
	if err != nil {
		return nil, fmt.Errorf("looking for the issues of reminders: %w", err)
	}
	urls = map[string]string{}
	for _, m := range all {
		body := reminderMarker(m.Name) + m.Text
		issue := marked(open, reminderMarker(m.Name))
		switch {
		case issue == nil && !m.Due:
			continue
		case issue == nil:
			issue, _, err = r.Client.Issues.Create(ctx, r.Owner, r.Repo, &github.IssueRequest{Title: &m.Title, Body: &body, Labels: &[]string{ReminderLabel}})
		case !m.Due:
			_, err = r.complete(ctx, issue.GetNumber(), nil)
			issue = nil
		case unixLines(issue.GetBody()) != body || issue.GetTitle() != m.Title:
			issue, _, err = r.Client.Issues.Edit(ctx, r.Owner, r.Repo, issue.GetNumber(), &github.IssueRequest{Title: &m.Title, Body: &body})
		}
		if err != nil {
			return urls, fmt.Errorf("writing the issue of the reminder %s: %w", m.Name, err)
		}
		if issue != nil {
			urls[m.Name] = issue.GetHTMLURL()
		}
	}
	return urls, nil
}
