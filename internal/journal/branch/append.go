package branch

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"strings"
	"time"

	"github.com/google/go-github/v60/github"

	"github.com/keyturn/keyturn/internal/journal"
)

// tries is how often a call whose answer was lost is looked for and sent again.
const tries = 8

// Append seals the entries after the given head and adds them as one commit. The
// same commit is sent again when an answer is lost: its file can be made once
// only, and tells by its nonce whose it is.
func (b *Branch) Append(ctx context.Context, after journal.Head, entries ...journal.Entry) ([]journal.Entry, error) {
	sealed, err := journal.SealAll(after, entries...)
	if err != nil || len(sealed) == 0 {
		return nil, err
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if err := b.put(ctx, after, sealed); err != nil {
		return nil, fmt.Errorf("appending to the journal on %v: %w", b, err)
	}
	return sealed, nil
}

// put makes the file of sealed entries, or finds out who was first.
func (b *Branch) put(ctx context.Context, after journal.Head, sealed []journal.Entry) error {
	if b.commit != "" && b.head() != norm(after) {
		return fmt.Errorf("%w: the journal ends with %v, not with %v", journal.ErrConflict, b.head(), after)
	}
	text, err := lines(sealed)
	if err != nil {
		return err
	}
	var failed error
	for try := range tries {
		commit, err := b.create(ctx, sealed, text)
		if err == nil {
			if b.head() == norm(after) {
				b.commit, b.entries = commit, append(b.entries, sealed...)
			}
			return nil
		}
		ours, gone, lookErr := b.look(ctx, after, sealed)
		switch {
		case ours:
			return nil
		case gone:
			return fmt.Errorf("%w: %v", journal.ErrConflict, b.head())
		case final(err):
			return refused(err)
		case ctx.Err() != nil:
			return errors.Join(err, lookErr)
		}
		failed = errors.Join(err, lookErr)
		if err := b.o.Sleep(ctx, time.Second<<min(try, 4)); err != nil {
			return errors.Join(failed, err)
		}
	}
	return failed
}

func norm(h journal.Head) journal.Head {
	if h.Seq == 0 {
		return journal.Head{}
	}
	return h
}

func lines(entries []journal.Entry) ([]byte, error) {
	var text bytes.Buffer
	for _, e := range entries {
		line, err := journal.Line(e)
		if err != nil {
			return nil, err
		}
		text.Write(line)
		text.WriteByte('\n')
	}
	return text.Bytes(), nil
}

// create makes the file in a commit of its own.
func (b *Branch) create(ctx context.Context, sealed []journal.Entry, text []byte) (commit string, err error) {
	made, _, err := b.o.Client.Repositories.CreateFile(ctx, b.o.Owner, b.o.Repo, file(sealed[0].Seq), &github.RepositoryContentFileOptions{
		Message: github.String(message(sealed)), Content: text, Branch: github.String(b.o.Name),
	})
	if err != nil {
		return "", err
	}
	return made.Commit.GetSHA(), nil
}

// message is what people see in the list of commits.
func message(sealed []journal.Entry) string {
	first, end := sealed[0], sealed[len(sealed)-1]
	what := strings.TrimSpace(strings.Join([]string{end.Credential, end.Phase, end.Step, end.Status}, " "))
	what = strings.Join(strings.Fields(what), " ")
	if first.Seq == end.Seq {
		return fmt.Sprintf("entry %d: %s", first.Seq, what)
	}
	return fmt.Sprintf("entries %d to %d: %s", first.Seq, end.Seq, what)
}

// look reads the branch again after a refusal or a lost answer: whether the entries
// are there after all, or the place after the head is gone to another.
func (b *Branch) look(ctx context.Context, after journal.Head, sealed []journal.Entry) (ours, gone bool, err error) {
	if err := b.refresh(ctx); err != nil {
		return false, false, err
	}
	if int64(len(b.entries)) <= after.Seq {
		return false, false, nil
	}
	there := b.entries[after.Seq]
	ours = there.Hash == sealed[0].Hash
	return ours, !ours, nil
}

// final reports whether sending it again cannot help: GitHub refused it, and not
// because somebody else was first.
func final(err error) bool {
	var limit *github.RateLimitError
	var abuse *github.AbuseRateLimitError
	if errors.As(err, &limit) || errors.As(err, &abuse) {
		return true // the client has waited as long as it may
	}
	var e *github.ErrorResponse
	if !errors.As(err, &e) || e.Response == nil {
		return false
	}
	switch e.Response.StatusCode {
	case http.StatusConflict, http.StatusUnprocessableEntity:
		return ruled(e)
	case http.StatusTooManyRequests, http.StatusRequestTimeout:
		return false
	}
	return e.Response.StatusCode < 500
}

// ruled reports whether a ruleset of the repository refused a commit.
func ruled(e *github.ErrorResponse) bool {
	text := strings.ToLower(e.Error())
	return strings.Contains(text, "rule violations") || strings.Contains(text, "protected")
}

func refused(err error) error {
	var e *github.ErrorResponse
	if errors.As(err, &e) && e.Response != nil && ruled(e) {
		return &hinted{err, "the ruleset of the branch must let Keyturn's App pass: keyturn setup github"}
	}
	return err
}

// Create makes the branch, with a first entry, unless it is there. The branch
// begins with a commit that has no parent.
func (b *Branch) Create(ctx context.Context, genesis journal.Entry) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if _, err := b.Tip(ctx); err == nil || !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if err := b.begin(ctx, genesis); err != nil {
		return fmt.Errorf("making the journal's %v: %w", b, err)
	}
	return nil
}

func (b *Branch) begin(ctx context.Context, genesis journal.Entry) error {
	sealed, err := journal.Seal(journal.Head{}, genesis)
	if err != nil {
		return err
	}
	text, err := lines([]journal.Entry{sealed})
	if err != nil {
		return err
	}
	git, owner, repo := b.o.Client.Git, b.o.Owner, b.o.Repo
	tree, _, err := git.CreateTree(ctx, owner, repo, "", []*github.TreeEntry{blob("README.md", about), blob(file(1), string(text))})
	if err != nil {
		return err
	}
	commit, _, err := git.CreateCommit(ctx, owner, repo, &github.Commit{Message: github.String("The journal begins"), Tree: tree}, nil)
	if err != nil {
		return err
	}
	_, _, err = git.CreateRef(ctx, owner, repo, &github.Reference{Ref: github.String("refs/heads/" + b.o.Name),
		Object: &github.GitObject{SHA: commit.SHA}})
	if err == nil {
		return nil
	}
	// Somebody else may have made it, or the answer was lost.
	if _, tipErr := b.Tip(ctx); tipErr == nil {
		return nil
	}
	return err
}

func blob(path, content string) *github.TreeEntry {
	return &github.TreeEntry{Path: github.String(path), Mode: github.String("100644"), Type: github.String("blob"), Content: github.String(content)}
}

const about = `# The journal of Keyturn

Every act of Keyturn on the credentials of this repository is on record here, in a chain of entries that each hold the
hash of the one before. Nothing is ever changed or removed on this branch: ` + "`keyturn audit verify`" + ` finds it if somebody does.
No secret value stands in it.
`
