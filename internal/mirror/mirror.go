// Package mirror shows the journal where people look: each rotation has an issue
// of the repository, with a comment for what each run did, and each phase is a
// status of the commit that it ran from. Both are copies. [Publisher] makes them
// from the journal, and makes those again that are missing; [Compare] holds them
// against it.
//
// A comment holds the entries themselves, in the form of the journal, so that
// each of the two proves the other. The calls are those of GitHub's REST API:
// "Issues", "Issue comments", "Commit statuses".
package mirror

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/google/go-github/v60/github"

	"github.com/keyturn/keyturn/internal/journal"
)

// Label is on every issue of a rotation.
const Label = "keyturn"

// A Repository is where the mirrors are.
type Repository struct {
	Client      *github.Client
	Owner, Repo string
}

// A Publisher makes the mirrors of rotations.
type Publisher struct{ Repository }

// A Report says what a run did, beside what the journal says.
type Report struct {
	Rotation    string
	Phase       string
	Credentials []string
	Commit      string // that the phase ran from; "" makes no status
	Done        bool   // else the phase waits or failed
	Failed      bool
	Title       string // of the issue
	Text        string // for people, Markdown; it stands above the entries
	Closed      bool   // the rotation is at its end
}

// Publish makes the issue of a rotation and its comments as the journal is now,
// and the statuses of a phase. Entries are all of the journal's. What is there
// already is not made again, so that it may be called at any time. The address of
// the issue is returned.
func (p *Publisher) Publish(ctx context.Context, entries []journal.Entry, r Report) (url string, err error) {
	mine := of(entries, r.Rotation)
	if len(mine) == 0 {
		return "", nil
	}
	issue, err := p.issue(ctx, r.Rotation)
	if err != nil {
		return "", fmt.Errorf("looking for the issue of rotation %s: %w", r.Rotation, err)
	}
	head := entries[len(entries)-1].Head()
	var there []text
	if issue != nil {
		if there, err = p.texts(ctx, issue); err != nil {
			return "", fmt.Errorf("reading the comments of issue %d: %w", issue.GetNumber(), err)
		}
	}
	url = issue.GetHTMLURL()
	lacks := missing(mine, there)
	if issue != nil && len(lacks) == 0 {
		return url, p.close(ctx, issue, r)
	}
	parts := split(lacks, r, head)
	if issue == nil {
		if issue, err = p.open(ctx, r, parts[0]); err != nil {
			return "", fmt.Errorf("opening the issue of rotation %s: %w", r.Rotation, err)
		}
		url, parts = issue.GetHTMLURL(), parts[1:]
	}
	for _, part := range parts {
		c, _, err := p.Client.Issues.CreateComment(ctx, p.Owner, p.Repo, issue.GetNumber(), &github.IssueComment{Body: &part})
		if err != nil {
			return url, fmt.Errorf("writing a comment on issue %d: %w", issue.GetNumber(), err)
		}
		url = c.GetHTMLURL()
	}
	if err := p.statuses(ctx, mine, r, url); err != nil {
		return url, err
	}
	return url, p.close(ctx, issue, r)
}

// of returns the entries of a rotation.
func of(entries []journal.Entry, rotation string) []journal.Entry {
	return slices.DeleteFunc(slices.Clone(entries), func(e journal.Entry) bool { return e.Rotation != rotation })
}

// missing returns the entries that no text holds.
func missing(entries []journal.Entry, there []text) []journal.Entry {
	have := map[int64]bool{}
	for _, t := range there {
		for _, line := range t.lines {
			have[line.seq] = true
		}
	}
	return slices.DeleteFunc(slices.Clone(entries), func(e journal.Entry) bool { return have[e.Seq] })
}

// issue returns the issue of a rotation; nil if there is none.
func (p *Publisher) issue(ctx context.Context, rotation string) (*github.Issue, error) {
	for _, state := range []string{"open", "closed"} {
		issues, err := p.labelled(ctx, Label, state)
		if err != nil {
			return nil, err
		}
		for _, i := range issues {
			if found, ok := rotationOf(i.GetBody()); ok && found == rotation {
				return i, nil
			}
		}
	}
	return nil, nil
}

func (p *Publisher) open(ctx context.Context, r Report, body string) (*github.Issue, error) {
	issue, _, err := p.Client.Issues.Create(ctx, p.Owner, p.Repo, &github.IssueRequest{
		Title: github.String(r.Title), Body: github.String(rotationMarker(r.Rotation) + body), Labels: &[]string{Label}})
	return issue, err
}

func (p *Publisher) close(ctx context.Context, issue *github.Issue, r Report) error {
	if !r.Closed || issue.GetState() == "closed" {
		return nil
	}
	if _, err := p.complete(ctx, issue.GetNumber(), nil); err != nil {
		return fmt.Errorf("closing issue %d: %w", issue.GetNumber(), err)
	}
	return nil
}

// maxDescription is GitHub's limit for the description of a status.
const maxDescription = 140

// Context is the name of the status of a credential's phase.
func Context(credential, phase string) string { return "keyturn/" + credential + "/" + phase }

// statuses says of the commit what became of a phase, for each credential.
func (p *Publisher) statuses(ctx context.Context, entries []journal.Entry, r Report, url string) error {
	if r.Commit == "" {
		return nil
	}
	state, word := "success", "done"
	switch {
	case r.Failed:
		state, word = "failure", "failed"
	case !r.Done:
		state, word = "pending", "waits"
	}
	for _, credential := range r.Credentials {
		last := journal.Entry{}
		for _, e := range entries {
			if e.Credential == credential {
				last = e
			}
		}
		status := &github.RepoStatus{State: &state, Context: github.String(Context(credential, r.Phase)),
			Description: github.String(description(last, r.Phase, word)), TargetURL: &url}
		if _, _, err := p.Client.Repositories.CreateStatus(ctx, p.Owner, p.Repo, r.Commit, status); err != nil {
			return fmt.Errorf("writing the status of %q on commit %.12s: %w", credential, r.Commit, err)
		}
	}
	return nil
}

// description names the entry that a status is of: its number, and the beginning of its hash.
func description(e journal.Entry, phase, word string) string {
	text := fmt.Sprintf("#%d %.12s %s %s, version %d, rotation %s", e.Seq, e.Hash, phase, word, e.Version, e.Rotation)
	return text[:min(len(text), maxDescription)]
}

// seqOf reads what a description says.
func seqOf(description string) (seq int64, hash string, ok bool) {
	n, err := fmt.Sscanf(strings.TrimSpace(description), "#%d %s ", &seq, &hash)
	return seq, hash, err == nil && n == 2 && len(hash) == 12
}
