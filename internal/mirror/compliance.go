package mirror

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/google/go-github/v60/github"
)

// AuditLabel is on the one issue that says whether the record is intact.
const AuditLabel = "keyturn-audit"

const auditMarker = "<!-- keyturn:audit -->\n"

// Comply keeps one issue about the record: it is opened when something is found,
// rewritten when that changes, and closed when nothing is found any more. Its
// address is returned, "" if there is none.
func (r Repository) Comply(ctx context.Context, found []Finding, summary string, now time.Time) (url string, err error) {
	open, err := r.labelled(ctx, AuditLabel, "open")
	if err != nil {
		return "", fmt.Errorf("looking for the issue about the record: %w", err)
	}
	issue := marked(open, auditMarker)
	body := auditMarker + complianceText(found, summary, now)
	switch {
	case issue == nil && len(found) == 0:
		return "", nil
	case issue == nil:
		issue, _, err = r.Client.Issues.Create(ctx, r.Owner, r.Repo, &github.IssueRequest{
			Title: github.String("The record of Keyturn is not intact"), Body: &body, Labels: &[]string{AuditLabel}})
	case len(found) == 0:
		issue, err = r.complete(ctx, issue.GetNumber(), &body)
	default:
		issue, _, err = r.Client.Issues.Edit(ctx, r.Owner, r.Repo, issue.GetNumber(), &github.IssueRequest{Body: &body})
	}
	if err != nil {
		return "", fmt.Errorf("writing the issue about the record: %w", err)
	}
	return issue.GetHTMLURL(), nil
}

// mostShown is how many findings one issue shows.
const mostShown = 200

func complianceText(found []Finding, summary string, now time.Time) string {
	var b strings.Builder
	fmt.Fprintf(&b, "`keyturn audit verify` at %s: %s\n\n", now.UTC().Format(time.RFC3339), summary)
	if len(found) == 0 {
		b.WriteString("Nothing is found any more.\n")
		return b.String()
	}
	b.WriteString("| kind | entry | where | what |\n|---|---|---|---|\n")
	for i, f := range found {
		if i == mostShown {
			fmt.Fprintf(&b, "\n… and %d more.\n", len(found)-i)
			break
		}
		seq := ""
		if f.Seq > 0 {
			seq = fmt.Sprint(f.Seq)
		}
		fmt.Fprintf(&b, "| %s | %s | %s | %s |\n", f.Kind, seq, cell(f.Where), cell(f.Detail))
	}
	b.WriteString("\nThis issue is rewritten by each check, and closed when nothing is found.\n")
	return b.String()
}
