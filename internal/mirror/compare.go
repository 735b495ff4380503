package mirror

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/google/go-github/v60/github"

	"github.com/keyturn/keyturn/internal/githubapp"
	"github.com/keyturn/keyturn/internal/journal"
)

// The kinds of findings beside those of a chain's own faults.
const (
	Deleted       journal.Kind = "deleted"        // a comment or an issue was there, and is gone
	ForeignAuthor journal.Kind = "foreign-author" // somebody else wrote what says that it is ours
	Missing       journal.Kind = "mirror-missing" // what the journal holds was never shown, or is shown no more
)

// A Finding is a difference between the journal and what mirrors it.
type Finding struct {
	Kind   journal.Kind `json:"kind"`
	Seq    int64        `json:"seq,omitempty"` // of the entry that it is about
	Where  string       `json:"where"`         // an address, or a name
	Detail string       `json:"detail"`
}

// settling is how long a run may take before its mirrors are missed.
const settling = 3 * time.Hour

// A Comparison holds the mirrors of a journal against it.
type Comparison struct {
	Repository
	Entries []journal.Entry // the journal, verified
	Branch  string          // where it is kept
	Authors []string        // logins of those who write for us; none: whoever made the first commit of the branch
	Now     time.Time
}

// A Comparing is a comparison under way.
type comparing struct {
	Comparison
	byRotation map[string][]journal.Entry
	shown      map[int64]bool  // entries that some text holds
	urls       map[string]bool // of the texts
	found      []Finding
}

// Compare returns every difference, those of the oldest entries first. The error
// is that of GitHub: then nothing is known.
func (c Comparison) Compare(ctx context.Context) ([]Finding, error) {
	run := &comparing{Comparison: c, byRotation: map[string][]journal.Entry{}, shown: map[int64]bool{}, urls: map[string]bool{}}
	for _, e := range c.Entries {
		if e.Rotation != "" {
			run.byRotation[e.Rotation] = append(run.byRotation[e.Rotation], e)
		}
	}
	for _, check := range []func(context.Context) error{run.commits, run.rotations, run.statuses} {
		if err := check(ctx); err != nil {
			return nil, err
		}
	}
	slices.SortStableFunc(run.found, func(a, b Finding) int { return cmp.Compare(a.Seq, b.Seq) })
	return run.found, nil
}

func (c *comparing) report(kind journal.Kind, seq int64, where, format string, args ...any) {
	c.found = append(c.found, Finding{kind, seq, where, fmt.Sprintf(format, args...)})
}

// commits looks at who wrote the branch, and whether its history is one line.
func (c *comparing) commits(ctx context.Context) error {
	all, err := c.history(ctx)
	if err != nil {
		return fmt.Errorf("reading the commits of %s: %w", c.Branch, err)
	}
	if len(all) == 0 {
		return nil
	}
	first := all[len(all)-1]
	if len(c.Authors) == 0 {
		c.Authors = []string{first.GetAuthor().GetLogin()}
	}
	for i, commit := range all {
		where := cmp.Or(commit.GetHTMLURL(), commit.GetSHA())
		login, root := commit.GetAuthor().GetLogin(), i == len(all)-1
		if !c.ours(login) {
			c.report(ForeignAuthor, 0, where, "the commit %q was made by %s", title(commit), who(login))
		} else if isBot(commit.GetAuthor()) && !commit.GetCommit().GetVerification().GetVerified() {
			c.report(ForeignAuthor, 0, where, "the commit %q is not signed by GitHub", title(commit))
		}
		if want := 1; len(commit.Parents) != want && !(root && len(commit.Parents) == 0) {
			c.report(journal.Fork, 0, where, "the commit %q has %d parents", title(commit), len(commit.Parents))
		}
	}
	return nil
}

// history returns the commits of the branch, newest first.
func (c *comparing) history(ctx context.Context) ([]*github.RepositoryCommit, error) {
	return githubapp.All(func(page github.ListOptions) ([]*github.RepositoryCommit, *github.Response, error) {
		return c.Client.Repositories.ListCommits(ctx, c.Owner, c.Repo, &github.CommitsListOptions{SHA: c.Branch, ListOptions: page})
	})
}

func title(c *github.RepositoryCommit) string {
	line, _, _ := strings.Cut(c.GetCommit().GetMessage(), "\n")
	return line
}

func (c *comparing) ours(login string) bool { return slices.Contains(c.Authors, login) }

func who(login string) string { return cmp.Or(login, "somebody whom GitHub does not know") }

func isBot(u *github.User) bool { return u.GetType() == "Bot" }

// rotations looks at the issue of every rotation.
func (c *comparing) rotations(ctx context.Context) error {
	issues, err := c.labelled(ctx, Label, "all")
	if err != nil {
		return fmt.Errorf("reading the issues of rotations: %w", err)
	}
	seen := map[string]bool{}
	slices.Reverse(issues)
	for _, issue := range issues {
		rotation, ok := rotationOf(issue.GetBody())
		if !ok {
			continue
		}
		texts, err := c.texts(ctx, issue)
		if err != nil {
			return fmt.Errorf("reading the comments of issue %d: %w", issue.GetNumber(), err)
		}
		c.issue(rotation, texts, seen[rotation])
		seen[rotation] = true
	}
	for rotation, entries := range c.byRotation {
		c.unshown(rotation, entries, seen[rotation])
	}
	return nil
}

// issue looks at the texts of one issue.
func (c *comparing) issue(rotation string, texts []text, again bool) {
	last := int64(0)
	for _, t := range texts {
		c.urls[t.url] = true
		switch {
		case !c.ours(t.author.GetLogin()):
			c.report(ForeignAuthor, 0, t.url, "written by %s", who(t.author.GetLogin()))
			continue
		case again:
			c.report(journal.Fork, 0, t.url, "there is a second issue of rotation %s", rotation)
		case !t.marked:
			c.report(journal.Edited, 0, t.url, "it lost the mark that keyturn put there")
		case !t.isBody && !t.changed.Equal(t.made):
			c.report(journal.Edited, 0, t.url, "changed at %s, after it was written", t.changed.UTC().Format(time.RFC3339))
		}
		c.headOf(t)
		for _, l := range t.lines {
			if l.seq > 0 && l.seq <= last {
				c.report(journal.Reordered, l.seq, t.url, "it stands behind entry %d: it was moved, or shown again after it was lost", last)
			}
			last = max(last, l.seq)
			c.line(rotation, t, l)
		}
	}
}

// headOf compares the head of the journal that a text was written at.
func (c *comparing) headOf(t text) {
	if !t.marked {
		return
	}
	switch n := int64(len(c.Entries)); {
	case t.head.Seq > n:
		c.report(journal.Truncated, t.head.Seq, t.url, "it was written when the journal had %d entries, and now it has %d", t.head.Seq, n)
	case t.head.Seq < 1 || c.Entries[t.head.Seq-1].Hash != t.head.Hash:
		c.report(journal.Fork, t.head.Seq, t.url, "it was written when entry %d was %.12s", t.head.Seq, t.head.Hash)
	}
}

// line compares an entry that a text holds.
func (c *comparing) line(rotation string, t text, l line) {
	if l.seq < 1 {
		c.report(journal.Edited, 0, t.url, "a line is no entry")
		return
	}
	if l.seq > int64(len(c.Entries)) {
		c.report(journal.Truncated, l.seq, t.url, "the journal ends before this entry")
		return
	}
	e := c.Entries[l.seq-1]
	c.shown[l.seq] = true
	if l.text+"\n" == entryLine(e) {
		if e.Rotation != rotation {
			c.report(journal.Reordered, l.seq, t.url, "it belongs to rotation %s", e.Rotation)
		}
		return
	}
	if other, err := journal.ParseLine([]byte(l.text)); err == nil && other.Hash != e.Hash {
		c.report(journal.Fork, l.seq, t.url, "it is sealed as %.12s here, and as %.12s in the journal", other.Hash, e.Hash)
		return
	}
	c.report(journal.Edited, l.seq, t.url, "it is not what the journal has")
}

// unshown looks for entries of a rotation that no text holds.
func (c *comparing) unshown(rotation string, entries []journal.Entry, hasIssue bool) {
	lastShown := int64(0)
	for _, e := range entries {
		if c.shown[e.Seq] {
			lastShown = e.Seq
		}
	}
	newest := entries[len(entries)-1].Time
	for _, e := range entries {
		switch {
		case c.shown[e.Seq]:
		case e.Seq < lastShown:
			c.report(Deleted, e.Seq, "rotation "+rotation, "no comment holds it, and later ones are there")
		case c.Now.Sub(newest) < settling, e.Quiet(): // quiet ones are shown only together with others
		case !hasIssue:
			c.report(Missing, e.Seq, "rotation "+rotation, "there is no issue of this rotation")
			return // one finding says it
		default:
			c.report(Missing, e.Seq, "rotation "+rotation, "no comment holds it")
		}
	}
}

// statuses looks at the commits that phases ran from.
func (c *comparing) statuses(ctx context.Context) error {
	byCommit := map[string][]journal.Entry{}
	for _, e := range c.Entries {
		if e.Commit != "" && e.Rotation != "" {
			byCommit[e.Commit] = append(byCommit[e.Commit], e)
		}
	}
	for commit, entries := range byCommit {
		statuses, err := c.statusesOf(ctx, commit)
		if err != nil {
			return fmt.Errorf("reading the statuses of commit %.12s: %w", commit, err)
		}
		for _, s := range statuses {
			c.status(commit, s)
		}
		c.unsaid(commit, entries, statuses)
	}
	return nil
}

func (c *comparing) statusesOf(ctx context.Context, commit string) ([]*github.RepoStatus, error) {
	all, err := githubapp.All(func(page github.ListOptions) ([]*github.RepoStatus, *github.Response, error) {
		return c.Client.Repositories.ListStatuses(ctx, c.Owner, c.Repo, commit, &page)
	})
	return slices.DeleteFunc(all, func(s *github.RepoStatus) bool { return !strings.HasPrefix(s.GetContext(), "keyturn/") }), err
}

// status compares one status of a commit.
func (c *comparing) status(commit string, s *github.RepoStatus) {
	where := fmt.Sprintf("status %s of commit %.12s", s.GetContext(), commit)
	if login := s.GetCreator().GetLogin(); !c.ours(login) {
		c.report(ForeignAuthor, 0, where, "written by %s", who(login))
		return
	}
	seq, hash, ok := seqOf(s.GetDescription())
	switch n := int64(len(c.Entries)); {
	case !ok:
		c.report(journal.Edited, 0, where, "it names no entry")
	case seq > n:
		c.report(journal.Truncated, seq, where, "the journal ends before the entry that it names")
	case !strings.HasPrefix(c.Entries[seq-1].Hash, hash):
		c.report(journal.Fork, seq, where, "it knows the entry as %s, and the journal has %.12s", hash, c.Entries[seq-1].Hash)
	}
	if target := s.GetTargetURL(); strings.Contains(target, "#issuecomment-") && !c.urls[target] {
		c.report(Deleted, seq, target, "the comment that the %s is of is gone", where)
		c.urls[target] = true // once
	}
}

// unsaid looks for phases that ended and have no status.
func (c *comparing) unsaid(commit string, entries []journal.Entry, statuses []*github.RepoStatus) {
	for _, e := range entries {
		ended := e.Step == "" && (e.Status == "done" || e.Status == "failed" || e.Status == "undone")
		if !ended || c.Now.Sub(e.Time) < settling {
			continue
		}
		if !slices.ContainsFunc(statuses, func(s *github.RepoStatus) bool {
			seq, _, ok := seqOf(s.GetDescription())
			return ok && seq >= e.Seq && strings.HasPrefix(s.GetContext(), "keyturn/"+e.Credential+"/")
		}) {
			c.report(Missing, e.Seq, fmt.Sprintf("commit %.12s", commit), "no status says that %s of %q is %s", e.Phase, e.Credential, e.Status)
		}
	}
}
