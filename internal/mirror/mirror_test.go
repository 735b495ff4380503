package mirror_test

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/google/go-github/v60/github"
	"github.com/oklog/ulid/v2"

	"github.com/keyturn/keyturn/internal/githubapp"
	"github.com/keyturn/keyturn/internal/journal"
	"github.com/keyturn/keyturn/internal/journal/branch"
	"github.com/keyturn/keyturn/internal/mirror"
	"github.com/keyturn/keyturn/internal/testserver/githubfake"
)

// A record is a journal on GitHub with its mirrors.
type record struct {
	testing.TB
	gh     *githubfake.Server
	app    *githubapp.App
	client *githubapp.Client
	branch *branch.Branch
	log    *journal.Log
	runs   int
}

func newRecord(t testing.TB) *record {
	gh := githubfake.Start(t, githubfake.Options{})
	owner := gh.AddApp("keyturn", map[string]string{"contents": "write", "issues": "write", "statuses": "write"})
	soon := func(ctx context.Context, _ time.Duration) error { return ctx.Err() }
	app, err := githubapp.New(githubapp.Options{API: gh.URL, Owner: gh.Owner, Repo: gh.Name, App: owner.ID, Key: owner.Key(), Between: -1, Sleep: soon})
	r := &record{TB: t, gh: gh, app: app}
	r.must(err)
	r.client = app.Client(github.InstallationPermissions{Contents: github.String("write"), Issues: github.String("write"), Statuses: github.String("write")})
	r.branch = branch.New(branch.Options{Client: r.client.Client, Owner: gh.Owner, Repo: gh.Name, Sleep: soon})
	r.must(r.branch.Create(context.Background(), journal.Genesis(time.Now(), journal.NewKey())))
	r.log = journal.Follow(r.branch)
	return r
}

func (r *record) must(err error) {
	r.Helper()
	if err != nil {
		r.Fatal(err)
	}
}

func (r *record) place() mirror.Repository {
	return mirror.Repository{Client: r.client.Client, Owner: r.gh.Owner, Repo: r.gh.Name}
}

// phase records a phase of so many entries, and shows it. Each is of a commit of its own.
func (r *record) phase(rotation, phase string, entries int, closed bool) {
	r.Helper()
	r.runs++
	sha := r.gh.Commit("main", "alice", fmt.Sprint("change ", r.runs), map[string]string{"n": fmt.Sprint(r.runs)})
	ctx := context.Background()
	_, err := r.log.Append(ctx, func([]journal.Entry, journal.Head) ([]journal.Entry, error) {
		var all []journal.Entry
		for i := range entries {
			e := journal.Entry{Time: time.Now(), Rotation: rotation, Credential: "orders-db", Version: 2, Phase: phase, Step: fmt.Sprint("step ", i), Status: "done", Commit: sha}
			if i == entries-1 {
				e.Step = ""
			}
			all = append(all, e)
		}
		return all, nil
	})
	r.must(err)
	p := mirror.Publisher{Repository: r.place()}
	_, err = p.Publish(ctx, r.branch.Known(), mirror.Report{Rotation: rotation, Phase: phase, Credentials: []string{"orders-db"}, Commit: sha, Done: true,
		Title: "Rotation of orders-db 1 → 2", Text: "**" + phase + "** done", Closed: closed})
	r.must(err)
}

// fill records so many entries, in rotations of four phases.
func (r *record) fill(entries int) {
	r.Helper()
	for n := 1; n < entries; {
		id := ulid.Make().String()
		for i, phase := range []string{"prepare", "validate", "cutover", "cleanup"} {
			r.phase(id, phase, 25, i == 3)
			n += 25
		}
	}
}

// compare asks as an auditor does, in a process of his own.
func (r *record) compare() []mirror.Finding {
	r.Helper()
	entries, err := r.branch.Read(context.Background())
	r.must(err)
	found, err := mirror.Comparison{Repository: r.place(), Entries: entries, Branch: branch.DefaultName, Now: time.Now().Add(24 * time.Hour)}.Compare(context.Background())
	r.must(err)
	return found
}

// TestHonestRecord has a thousand entries that nobody has touched: nothing is found,
// and no call is made per entry.
func TestHonestRecord(t *testing.T) {
	r := newRecord(t)
	r.fill(1000)
	before := r.app.Calls()
	if found := r.compare(); len(found) != 0 {
		t.Errorf("found %v", found)
	}
	n := len(r.branch.Known())
	if calls := r.app.Calls().Total() - before.Total(); n < 1000 || calls > 60 {
		t.Errorf("%d entries were verified by %d calls", n, calls)
	}
}

// TestPublishedAgain has a mirror that could not be made be made by the next run,
// and one that is there not be made twice.
func TestPublishedAgain(t *testing.T) {
	r := newRecord(t)
	id := ulid.Make().String()
	r.phase(id, "prepare", 3, false)
	lost := r.gh.On(githubfake.Times(1, func(req *http.Request) *githubfake.Fault {
		if req.Method == "POST" && strings.HasSuffix(req.URL.Path, "/comments") {
			return &githubfake.Fault{Do: true, Lose: true}
		}
		return nil
	}))
	_, err := r.log.Append(t.Context(), func([]journal.Entry, journal.Head) ([]journal.Entry, error) {
		return []journal.Entry{{Time: time.Now(), Rotation: id, Credential: "orders-db", Phase: "validate", Status: "done"}}, nil
	})
	r.must(err)
	p := mirror.Publisher{Repository: r.place()}
	if _, err := p.Publish(t.Context(), r.branch.Known(), mirror.Report{Rotation: id, Phase: "validate"}); err == nil {
		t.Error("a comment whose answer was lost is no error")
	}
	lost()
	r.phase(id, "cutover", 3, false)
	issues := r.gh.Issues()
	if len(issues) != 1 || len(issues[0].Comments) != 2 {
		t.Errorf("%d issues, %d comments", len(issues), len(issues[0].Comments))
	}
	if found := r.compare(); len(found) != 0 {
		t.Errorf("found %v", found)
	}
	if _, err := p.Publish(t.Context(), r.branch.Known(), mirror.Report{Rotation: id}); err != nil || len(r.gh.Issues()[0].Comments) != 2 {
		t.Errorf("shown again, though nothing is missing: %d comments, %v", len(r.gh.Issues()[0].Comments), err)
	}
}

// TestLongEntries are split over comments, and one that no comment could hold is named.
func TestLongEntries(t *testing.T) {
	r := newRecord(t)
	id := ulid.Make().String()
	_, err := r.log.Append(t.Context(), func([]journal.Entry, journal.Head) ([]journal.Entry, error) {
		var all []journal.Entry
		for i, size := range []int{20_000, 20_000, 20_000, 20_000, 200_000, 10} {
			all = append(all, journal.Entry{Time: time.Now(), Rotation: id, Credential: "orders-db", Phase: "prepare", Step: fmt.Sprint(i), Status: "done",
				Evidence: map[string]json.RawMessage{"long": json.RawMessage(`"` + strings.Repeat("é", size/2) + `"`)}})
		}
		return all, nil
	})
	r.must(err)
	p := mirror.Publisher{Repository: r.place()}
	_, err = p.Publish(t.Context(), r.branch.Known(), mirror.Report{Rotation: id, Phase: "prepare", Title: "t", Text: strings.Repeat("words ", 3000)})
	r.must(err)
	if issues := r.gh.Issues(); len(issues) != 1 || len(issues[0].Comments) < 1 {
		t.Errorf("%d issues, %d comments", len(issues), len(issues[0].Comments))
	}
	if found := r.compare(); len(found) != 0 {
		t.Errorf("found %v", found)
	}
}

// BenchmarkVerify1000 verifies a thousand entries on GitHub: the calls, and the
// time that they take at GitHub's best, one after the other in 100 ms each.
func BenchmarkVerify1000(b *testing.B) {
	r := newRecord(b)
	r.fill(1000)
	before := r.app.Calls().Total()
	n := 0
	for b.Loop() {
		if found := r.compare(); len(found) != 0 {
			b.Fatal(found)
		}
		n++
	}
	calls := float64(r.app.Calls().Total()-before) / float64(n)
	b.ReportMetric(calls, "calls/op")
	b.ReportMetric(calls/10, "API-s/op")
}
