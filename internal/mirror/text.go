package mirror

import (
	"context"
	"encoding/json"
	"fmt"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/google/go-github/v60/github"

	"github.com/keyturn/keyturn/internal/githubapp"
	"github.com/keyturn/keyturn/internal/journal"
)

const (
	// maxBody is GitHub's limit for a comment or the body of an issue, less what
	// stands around the entries.
	maxBody = 65_536 - 2048

	fenceBegin = "```jsonl\n"
	fenceEnd   = "```\n"
)

var (
	rotationLine = regexp.MustCompile(`(?m)^<!-- keyturn:rotation=([0-9A-Z]{26}) -->$`)
	headLine     = regexp.MustCompile(`(?m)^<!-- keyturn:part=(\d+) head=(\d+) hash=([0-9a-f]{64}) -->$`)
)

func rotationMarker(rotation string) string { return "<!-- keyturn:rotation=" + rotation + " -->\n" }

// rotationOf returns the rotation that an issue is of.
func rotationOf(body string) (string, bool) {
	m := rotationLine.FindStringSubmatch(unixLines(body))
	if m == nil {
		return "", false
	}
	return m[1], true
}

// A text is a comment of ours, or the body of an issue.
type text struct {
	url     string
	author  *github.User
	made    time.Time
	changed time.Time // of a comment; an issue also changes by being closed
	isBody  bool
	part    int
	head    journal.Head // of the journal, when it was written
	lines   []line
	marked  bool // it says that it is ours
}

// A line is an entry as a text holds it.
type line struct {
	seq  int64
	text string
}

// split makes the texts that hold entries: readable ones above, the entries below,
// none longer than GitHub takes.
func split(entries []journal.Entry, r Report, head journal.Head) []string {
	var parts []string
	var rows, lines strings.Builder
	part := 0
	flush := func() {
		part++
		intro := r.Text
		if part > 1 {
			intro = "(continued)"
		}
		parts = append(parts, body(intro, rows.String(), lines.String(), part, head))
		rows.Reset()
		lines.Reset()
	}
	room := maxBody - len(r.Text)
	for _, e := range entries {
		entry, row := entryLine(e), rowOf(e)
		if rows.Len()+lines.Len() > 0 && rows.Len()+lines.Len()+len(entry)+len(row) > room {
			flush()
		}
		rows.WriteString(row)
		lines.WriteString(entry)
	}
	if rows.Len() > 0 || len(parts) == 0 {
		flush()
	}
	return parts
}

// entryLine is an entry as the journal has it. One that no comment could hold is
// named by its number and hash.
func entryLine(e journal.Entry) string {
	b, err := journal.Line(e)
	if err != nil || len(b) > maxBody/2 {
		b, _ = json.Marshal(map[string]any{"seq": e.Seq, "hash": e.Hash, "cut": true})
	}
	return string(b) + "\n"
}

func rowOf(e journal.Entry) string {
	step := e.Step
	if step == "" {
		step = "–"
	}
	return fmt.Sprintf("| %d | %s | %s | %d | %s | %s | %s |\n", e.Seq, e.Time.UTC().Format("2006-01-02 15:04:05"), cell(e.Credential),
		e.Version, e.Phase, cell(step), e.Status)
}

// cell keeps a text inside its cell of a table.
func cell(s string) string { return strings.NewReplacer("|", `\|`, "\n", " ", "<", "&lt;").Replace(s) }

func body(intro, rows, lines string, part int, head journal.Head) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s\n\n", strings.TrimSpace(intro))
	if rows != "" {
		b.WriteString("| entry | time (UTC) | credential | version | phase | step | status |\n|---|---|---|---|---|---|---|\n" + rows + "\n")
		b.WriteString("<details><summary>the entries</summary>\n\n" + fenceBegin + lines + fenceEnd + "\n</details>\n\n")
	}
	fmt.Fprintf(&b, "<!-- keyturn:part=%d head=%d hash=%s -->\n", part, head.Seq, head.Hash)
	return b.String()
}

// parse reads a text; what is not ours has no lines and is not marked.
func parse(body string) text {
	var t text
	body = unixLines(body)
	if m := headLine.FindStringSubmatch(body); m != nil {
		t.marked = true
		t.part, _ = strconv.Atoi(m[1])
		t.head.Seq, _ = strconv.ParseInt(m[2], 10, 64)
		t.head.Hash = m[3]
	}
	_, rest, ok := strings.Cut(body, fenceBegin)
	if !ok {
		return t
	}
	inside, _, _ := strings.Cut(rest, fenceEnd)
	for _, l := range strings.Split(strings.TrimSuffix(inside, "\n"), "\n") {
		var named struct {
			Seq int64 `json:"seq"`
		}
		_ = json.Unmarshal([]byte(l), &named) // a line that is no entry has number 0, and is found out
		t.lines = append(t.lines, line{named.Seq, l})
	}
	return t
}

// texts returns the body of an issue and its comments, as far as they say that
// they are ours, in the order in which they were written.
func (r Repository) texts(ctx context.Context, issue *github.Issue) ([]text, error) {
	first := parse(issue.GetBody())
	first.url, first.author, first.made, first.isBody = issue.GetHTMLURL(), issue.User, issue.GetCreatedAt().Time, true
	all := []text{first}
	if issue.GetComments() == 0 {
		return all, nil
	}
	comments, err := githubapp.All(func(page github.ListOptions) ([]*github.IssueComment, *github.Response, error) {
		return r.Client.Issues.ListComments(ctx, r.Owner, r.Repo, issue.GetNumber(), &github.IssueListCommentsOptions{ListOptions: page})
	})
	for _, c := range comments {
		if t := commentText(c); t.marked || len(t.lines) > 0 {
			all = append(all, t)
		}
	}
	return all, err
}

func commentText(c *github.IssueComment) text {
	t := parse(c.GetBody())
	t.url, t.author, t.made, t.changed = c.GetHTMLURL(), c.User, c.GetCreatedAt().Time, c.GetUpdatedAt().Time
	return t
}
