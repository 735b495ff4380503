package branch_test

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-github/v60/github"

	"github.com/keyturn/keyturn/internal/githubapp"
	"github.com/keyturn/keyturn/internal/journal"
	"github.com/keyturn/keyturn/internal/journal/branch"
	"github.com/keyturn/keyturn/internal/testserver/githubfake"
)

type stage struct {
	*testing.T
	gh  *githubfake.Server
	app *githubfake.App
}

func newStage(t *testing.T) *stage {
	gh := githubfake.Start(t, githubfake.Options{})
	return &stage{t, gh, gh.AddApp("keyturn", map[string]string{"contents": "write"})}
}

func soon(ctx context.Context, _ time.Duration) error { return ctx.Err() }

// home is the journal as another process sees it.
func (s *stage) home() (*branch.Branch, *githubapp.App) {
	s.Helper()
	app, err := githubapp.New(githubapp.Options{API: s.gh.URL, Owner: s.gh.Owner, Repo: s.gh.Name, App: s.app.ID, Key: s.app.Key(),
		Between: -1, Sleep: soon})
	s.must(err)
	s.Cleanup(func() { s.must(app.Close(context.Background())) })
	c := app.Client(github.InstallationPermissions{Contents: github.String("write")})
	return branch.New(branch.Options{Client: c.Client, Owner: s.gh.Owner, Repo: s.gh.Name, Sleep: soon}), app
}

func (s *stage) must(err error) {
	s.Helper()
	if err != nil {
		s.Fatal(err)
	}
}

func (s *stage) begun() *branch.Branch {
	s.Helper()
	b, _ := s.home()
	s.must(b.Create(s.Context(), journal.Genesis(time.Now(), journal.NewKey())))
	return b
}

func entry(step string) journal.Entry {
	return journal.Entry{Time: time.Now(), Credential: "orders-db", Phase: "prepare", Step: step, Status: "done"}
}

func TestBranchBegins(t *testing.T) {
	s := newStage(t)
	b, _ := s.home()
	if _, err := b.Read(t.Context()); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("reading a branch that is not there: %v", err)
	}
	s.must(b.Create(t.Context(), journal.Genesis(time.Now(), journal.NewKey())))
	s.must(b.Create(t.Context(), journal.Genesis(time.Now(), journal.NewKey()))) // it is there
	entries, err := b.Read(t.Context())
	s.must(err)
	if len(entries) != 1 || entries[0].Step != "genesis" {
		t.Fatalf("a new branch has %v", entries)
	}
	sealed, err := b.Append(t.Context(), entries[0].Head(), entry("put"), entry("arm"))
	s.must(err)
	other, _ := s.home()
	read, err := other.Read(t.Context())
	s.must(err)
	if diff := cmp.Diff(append(entries, sealed...), read); diff != "" {
		t.Errorf("another process reads something else (-want +got):\n%s", diff)
	}
	text, ok := s.gh.File(branch.DefaultName, "log/000000002.jsonl")
	if !ok || strings.Count(text, "\n") != 2 {
		t.Errorf("the second commit has %q", text)
	}
	if _, shared := s.gh.File(branch.DefaultName, "README.md"); !shared {
		t.Error("the branch does not say what it is")
	}
}

// TestBranchCalls shows what reading and appending cost.
func TestBranchCalls(t *testing.T) {
	s := newStage(t)
	s.begun()
	b, app := s.home()
	head, err := b.Head(t.Context())
	s.must(err)
	before := app.Calls()
	_, err = b.Append(t.Context(), head, entry("a"), entry("b"), entry("c"))
	s.must(err)
	if got := app.Calls(); got.Writes-before.Writes != 1 || got.Reads != before.Reads {
		t.Errorf("an append of three entries: %+v, before %+v", got, before)
	}
	_, err = b.Since(t.Context(), head)
	s.must(err)
	if got := app.Calls(); got.Reads-before.Reads != 1 {
		t.Errorf("reading what is known: %d calls", got.Reads-before.Reads)
	}
}

// TestWriters is eight at once, with answers that are lost, late and refused:
// one chain in which every entry stands once.
func TestWriters(t *testing.T) {
	s := newStage(t)
	s.begun()
	var calls atomic.Int64
	s.gh.On(func(r *http.Request) *githubfake.Fault {
		if r.Method != http.MethodPut || !strings.Contains(r.URL.Path, "/contents/log/") {
			return nil
		}
		switch calls.Add(1) % 11 {
		case 1:
			return &githubfake.Fault{Do: true, Lose: true}
		case 2:
			return &githubfake.Fault{Lose: true}
		case 3:
			return &githubfake.Fault{Delay: 20 * time.Millisecond}
		case 4:
			return &githubfake.Fault{Status: 500}
		case 5:
			return &githubfake.Fault{Do: true, Status: 502}
		case 6:
			return githubfake.Secondary(429, time.Second)
		case 7:
			return githubfake.Secondary(403, 0)
		case 8:
			return &githubfake.Fault{Status: 409, Body: `{"message":"keyturn-journal is at aaaa but expected bbbb"}`}
		}
		return nil
	})
	const writers, each = 6, 12
	var group sync.WaitGroup
	for w := range writers {
		group.Go(func() {
			b, _ := s.home()
			log := journal.Follow(b)
			for i := range each {
				_, err := log.Append(t.Context(), func([]journal.Entry, journal.Head) ([]journal.Entry, error) {
					return []journal.Entry{entry(fmt.Sprintf("%d/%d", w, i))}, nil
				})
				if err != nil {
					t.Errorf("writer %d, entry %d: %v", w, i, err)
					return
				}
			}
		})
	}
	group.Wait()
	b, _ := s.home()
	entries, err := b.Read(t.Context())
	s.must(err)
	if len(entries) != 1+writers*each {
		t.Errorf("%d entries, want %d", len(entries), 1+writers*each)
	}
	seen := map[string]int{}
	for _, e := range entries[1:] {
		seen[e.Step]++
	}
	for w := range writers {
		for i := range each {
			if n := seen[fmt.Sprintf("%d/%d", w, i)]; n != 1 {
				t.Errorf("entry %d of writer %d is there %d times", i, w, n)
			}
		}
	}
	t.Logf("%d requests to write %d entries", calls.Load(), writers*each)
}

// TestLaggingReference has the reference show an old commit for a while, as
// replicas of GitHub do.
func TestLaggingReference(t *testing.T) {
	s := newStage(t)
	s.begun()
	first, _ := s.home()
	head, err := first.Head(t.Context())
	s.must(err)
	old := s.gh.Head(branch.DefaultName)
	_, err = first.Append(t.Context(), head, entry("one"))
	s.must(err)
	s.gh.On(githubfake.Times(3, func(r *http.Request) *githubfake.Fault {
		if !strings.HasSuffix(r.URL.Path, "/git/ref/heads/"+branch.DefaultName) {
			return nil
		}
		return &githubfake.Fault{Status: 200, Body: fmt.Sprintf(
			`{"ref":"refs/heads/%s","node_id":"x","url":"https://x.example","object":{"type":"commit","sha":%q,"url":"https://x.example"}}`, branch.DefaultName, old)}
	}))
	// One who knows more is not misled, and one who reads the old state is refused and reads again.
	if got, err := first.Head(t.Context()); err != nil || got.Seq != 2 {
		t.Errorf("the one who wrote entry 2 reads %v, %v", got, err)
	}
	second, _ := s.home()
	_, err = journal.Follow(second).Append(t.Context(), func([]journal.Entry, journal.Head) ([]journal.Entry, error) {
		return []journal.Entry{entry("two")}, nil
	})
	s.must(err)
	entries, err := first.Read(t.Context())
	s.must(err)
	if len(entries) != 3 || entries[2].Step != "two" {
		t.Errorf("entries: %v", entries)
	}
}

func TestTamperedBranch(t *testing.T) {
	for name, c := range map[string]struct {
		edit func(files map[string]string)
		want journal.Kind
	}{
		"an entry is edited": {func(f map[string]string) {
			f["log/000000003.jsonl"] = strings.Replace(f["log/000000003.jsonl"], `"step":"b"`, `"step":"x"`, 1)
		}, journal.Edited},
		"a file is gone": {func(f map[string]string) { delete(f, "log/000000003.jsonl") }, journal.Gap},
		"the last line is cut": {func(f map[string]string) {
			f["log/000000004.jsonl"] = strings.TrimSuffix(f["log/000000004.jsonl"], "\n")
		}, journal.Truncated},
		"a file has another name": {func(f map[string]string) { f["log/3.jsonl"] = f["log/000000003.jsonl"] }, journal.Unreadable},
		"two files change places": {func(f map[string]string) {
			f["log/000000003.jsonl"], f["log/000000002.jsonl"] = f["log/000000002.jsonl"], f["log/000000003.jsonl"]
		}, journal.Reordered},
		"a file stands in between": {func(f map[string]string) { f["log/000000002.jsonl"] += f["log/000000003.jsonl"] }, journal.Fork},
	} {
		t.Run(name, func(t *testing.T) {
			s := newStage(t)
			b := s.begun()
			log := journal.Follow(b)
			for _, step := range []string{"a", "b", "c"} {
				_, err := log.Append(t.Context(), func([]journal.Entry, journal.Head) ([]journal.Entry, error) { return []journal.Entry{entry(step)}, nil })
				s.must(err)
			}
			s.gh.Rewrite(branch.DefaultName, func(all []githubfake.Kept) []githubfake.Kept {
				c.edit(all[len(all)-1].Files)
				return all
			})
			other, _ := s.home()
			_, err := other.Read(t.Context())
			fault, ok := errors.AsType[*journal.Fault](err)
			if !ok || fault.Kind != c.want {
				t.Errorf("Read = %v, want a fault of kind %s", err, c.want)
			}
		})
	}
}

// TestTruncatedWhileItRuns cuts the end of the branch off while somebody knows it.
func TestTruncatedWhileItRuns(t *testing.T) {
	s := newStage(t)
	b := s.begun()
	head, err := b.Head(t.Context())
	s.must(err)
	_, err = b.Append(t.Context(), head, entry("a"))
	s.must(err)
	s.gh.Rewrite(branch.DefaultName, func(all []githubfake.Kept) []githubfake.Kept {
		all[0].Message = "another beginning" // so that it is no replica that lags
		return all[:1]
	})
	if _, err := b.Append(t.Context(), journal.Head{Seq: 2, Hash: strings.Repeat("0", 64)}, entry("b")); err == nil {
		t.Error("an append behind an end that was cut off went through")
	}
}

func TestBranchRefuses(t *testing.T) {
	s := newStage(t)
	b := s.begun()
	head, err := b.Head(t.Context())
	s.must(err)
	rules := s.gh.On(func(r *http.Request) *githubfake.Fault {
		if r.Method != http.MethodPut {
			return nil
		}
		return &githubfake.Fault{Status: 409, Body: `{"message":"Repository rule violations found\n\nCannot update this protected ref.\n\n"}`}
	})
	_, err = b.Append(t.Context(), head, entry("a"))
	hint, ok := errors.AsType[interface {
		error
		Hint() string
	}](err)
	if !ok || !strings.Contains(hint.Hint(), "setup github") || errors.Is(err, journal.ErrConflict) {
		t.Errorf("a ruleset that refuses: %v", err)
	}
	rules()
	lost := s.gh.On(func(r *http.Request) *githubfake.Fault { return &githubfake.Fault{Lose: true} })
	defer lost()
	if _, err := b.Append(t.Context(), head, entry("a")); err == nil || errors.Is(err, journal.ErrConflict) {
		t.Errorf("GitHub out of reach: %v", err)
	}
}
