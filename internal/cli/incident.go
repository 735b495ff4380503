package cli

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/google/go-github/v60/github"

	"github.com/keyturn/keyturn/internal/journal"
)

// incidentLabel is on every issue of a revocation.
const incidentLabel = "keyturn-incident"

// incident opens the issue of a revocation: what was done and when, who was affected,
// what proves that the old versions are dead, and what is left to people. The
// revocation needs none: without GitHub it is told, and the record has it all.
func (a *app) incident(ctx context.Context, w *wiring, begun time.Time, all []revocation, f revokeFlags) {
	if !w.cfg.JournalGitHub && w.cfg.GitHub == nil {
		return
	}
	ctx, cancel := afterwards(ctx)
	defer cancel()
	entries, err := w.entries(ctx)
	if err != nil {
		a.notef("the timeline of the revocation could not be read: %v", err)
	}
	client, err := a.asking(w.cfg, mayRemind)
	if err == nil {
		var names []string
		for _, r := range all {
			names = append(names, r.Credential)
		}
		title := "Incident: revocation of " + strings.Join(names, ", ")
		if len(title) > 200 {
			title = fmt.Sprintf("Incident: revocation of %d credentials", len(names))
		}
		issue, _, failed := client.Issues.Create(ctx, client.Owner, client.Repo, &github.IssueRequest{
			Title: &title, Body: github.String(incidentText(begun, entries, all, f, w.sign)), Labels: &[]string{incidentLabel}})
		if err = failed; err == nil {
			a.notef("the incident: %s", issue.GetHTMLURL())
		}
	}
	if err != nil {
		a.notef("no issue could be opened about the revocation: %v", err)
	}
}

// mostLines is how many acts a timeline shows.
const mostLines = 300

func incidentText(begun time.Time, entries []journal.Entry, all []revocation, f revokeFlags, by journal.Entry) string {
	var b strings.Builder
	fmt.Fprintf(&b, "Begun %s by %s, mode `%s`.\n\n> %s\n", begun.UTC().Format(time.RFC3339), plainText(by.Actor.Name), f.mode, plainText(f.reason))
	if f.ticket != "" {
		fmt.Fprintf(&b, "\nTicket: %s\n", plainText(f.ticket))
	}
	b.WriteString("\n| credential | what was valid | in service now | services |\n|---|---|---|---|\n")
	mine := map[string]bool{}
	for _, r := range all {
		mine[r.Credential] = true
		fmt.Fprintf(&b, "| %s | %s | %s | %s |\n", r.Credential, r.words(), inService(r), strings.Join(r.Services, ", "))
	}
	b.WriteString("\n<details><summary>Timeline</summary>\n\n| time | credential | version | act | result |\n|---|---|---|---|---|\n")
	lines := 0
	for _, e := range entries {
		if e.Time.Before(begun.Add(-time.Second)) || !mine[e.Credential] || e.Status == "started" || e.Step == "lease" || e.Step == "release" {
			continue
		}
		if lines++; lines > mostLines {
			b.WriteString("\n… the journal has the rest.\n")
			break
		}
		fmt.Fprintf(&b, "| %s | %s | %d | %s %s | %s |\n", e.Time.UTC().Format("15:04:05.000"), e.Credential, e.Version, e.Phase, e.Step, e.Status)
	}
	b.WriteString("\n</details>\n\nWhat proves that the old versions are dead stands in the journal, in the entries `proof` of these credentials: who was refused, where, and that the new version was accepted there at the same time.\n\n")
	for _, todo := range []string{
		"Find out how it was stolen, and close that way",
		"Look through the logs of the systems for what was done with it",
		"Look whether copies stand elsewhere: backups, laptops, other stores",
		"See to what is named above as alive or not replaced, if anything is",
		"Tell who has to be told",
		"Where approvals were passed over: somebody else reviews it, `keyturn approvals --reviewed`",
	} {
		fmt.Fprintf(&b, "- [ ] %s\n", todo)
	}
	return b.String()
}
