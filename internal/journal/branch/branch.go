// Package branch keeps a journal on a branch of a repository on GitHub.
//
// The branch has no common history with any other. Each commit adds one file,
// log/000000042.jsonl, named after the number of its first entry, with one or
// several entries in the form of package journal: the files one after the other
// are a journal's file. An append is one call (PUT contents without a blob's
// hash), which GitHub refuses when the file is there: who comes second builds its
// entries again. No author, committer or signature is sent, so GitHub signs the
// commits itself.
//
// The calls are those of GitHub's REST API: "Repository contents", "Git database".
package branch

import (
	"context"
	"fmt"
	"io/fs"
	"net/http"
	"sync"
	"time"

	"github.com/google/go-github/v60/github"

	"github.com/keyturn/keyturn/internal/githubapp"
	"github.com/keyturn/keyturn/internal/journal"
)

// DefaultName is the branch that is used unless another is named.
const DefaultName = "keyturn-journal"

// folder holds the files of the entries.
const folder = "log"

// Options say where a journal is.
type Options struct {
	Client      *github.Client // may read and write the contents of the repository
	Owner, Repo string
	Name        string // of the branch; "" is [DefaultName]

	Archives *http.Client                               // fetches archives from where GitHub says; nil is one with a limit of 2 min
	Sleep    func(context.Context, time.Duration) error // waits between two tries; nil waits
}

// A Branch is a [journal.Home] on GitHub. It is safe for concurrent use.
type Branch struct {
	o Options

	mu      sync.Mutex
	commit  string          // of the branch, when it was read or written last
	entries []journal.Entry // of that commit
}

var _ journal.Home = (*Branch)(nil)

// New returns the journal of a branch. It asks nothing.
func New(o Options) *Branch {
	if o.Name == "" {
		o.Name = DefaultName
	}
	if o.Archives == nil {
		o.Archives = &http.Client{Timeout: 2 * time.Minute}
	}
	if o.Sleep == nil {
		o.Sleep = githubapp.Wait
	}
	return &Branch{o: o}
}

// String names the branch, for messages.
func (b *Branch) String() string {
	return fmt.Sprintf("branch %s of %s/%s", b.o.Name, b.o.Owner, b.o.Repo)
}

// Read returns every entry, verified from the first to the last. A branch that is
// not there is [fs.ErrNotExist].
func (b *Branch) Read(ctx context.Context) ([]journal.Entry, error) {
	return b.Since(ctx, journal.Head{})
}

// Since returns the entries after one that is known. It costs one call if the
// branch is where it was, and two more if not.
func (b *Branch) Since(ctx context.Context, after journal.Head) ([]journal.Entry, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if err := b.refresh(ctx); err != nil {
		return nil, fmt.Errorf("reading the journal on %v: %w", b, err)
	}
	if err := journal.Anchored(b.entries, after); err != nil {
		return nil, fmt.Errorf("reading the journal on %v: %w", b, err)
	}
	return append([]journal.Entry(nil), b.entries[max(after.Seq, 0):]...), nil
}

// Head returns the head of the chain; the zero Head if there is none yet.
func (b *Branch) Head(ctx context.Context) (journal.Head, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if err := b.refresh(ctx); err != nil {
		return journal.Head{}, fmt.Errorf("reading the journal on %v: %w", b, err)
	}
	return b.head(), nil
}

// Known returns the entries that were read or written last, without asking.
func (b *Branch) Known() []journal.Entry {
	b.mu.Lock()
	defer b.mu.Unlock()
	return append([]journal.Entry(nil), b.entries...)
}

func (b *Branch) head() journal.Head {
	if n := len(b.entries); n > 0 {
		return b.entries[n-1].Head()
	}
	return journal.Head{}
}

// refresh reads the branch, if it is not where it was.
func (b *Branch) refresh(ctx context.Context) error {
	at, err := b.Tip(ctx)
	if err != nil {
		return err
	}
	if at == b.commit {
		return nil
	}
	entries, err := b.load(ctx, at)
	if err != nil {
		return err
	}
	head := b.head()
	if n := int64(len(entries)); n < head.Seq && journal.Anchored(b.entries, last(entries)) == nil {
		return nil // the reference lags behind what we know
	}
	if err := journal.Anchored(entries, head); err != nil {
		return err
	}
	b.commit, b.entries = at, entries
	return nil
}

func last(entries []journal.Entry) journal.Head {
	if n := len(entries); n > 0 {
		return entries[n-1].Head()
	}
	return journal.Head{}
}

// Tip returns the commit that the branch is at. A branch that is not there is
// [fs.ErrNotExist].
func (b *Branch) Tip(ctx context.Context) (string, error) {
	ref, resp, err := b.o.Client.Git.GetRef(ctx, b.o.Owner, b.o.Repo, "heads/"+b.o.Name)
	if err == nil {
		return ref.GetObject().GetSHA(), nil
	}
	if status(resp) != http.StatusNotFound {
		return "", err
	}
	// A repository that cannot be seen answers the same.
	if _, _, repoErr := b.o.Client.Repositories.Get(ctx, b.o.Owner, b.o.Repo); repoErr != nil {
		return "", repoErr
	}
	return "", &hinted{fmt.Errorf("there is no such branch: %w", fs.ErrNotExist), "the first adoption or rotation makes it; or: keyturn setup github"}
}

func status(resp *github.Response) int {
	if resp == nil || resp.Response == nil {
		return 0
	}
	return resp.StatusCode
}

// hinted is an error with a hint for the user.
type hinted struct {
	err  error
	hint string
}

func (h *hinted) Error() string { return h.err.Error() }
func (h *hinted) Unwrap() error { return h.err }

// Hint says what the user can do.
func (h *hinted) Hint() string { return h.hint }
