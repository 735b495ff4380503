package journal_test

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/keyturn/keyturn/internal/journal"
)

// shelf is a spool in memory.
type shelf struct {
	mu     sync.Mutex
	pieces map[int64][]byte
	lose   func(number int64) error // what comes of a Put that was kept
}

func newShelf() *shelf { return &shelf{pieces: map[int64][]byte{}} }

func (s *shelf) Pieces(context.Context) (map[int64][]byte, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return maps.Clone(s.pieces), nil
}

func (s *shelf) Put(_ context.Context, number int64, piece []byte) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, taken := s.pieces[number]; taken {
		return journal.ErrConflict
	}
	s.pieces[number] = piece
	if s.lose != nil {
		return s.lose(number)
	}
	return nil
}

func (s *shelf) Drop(_ context.Context, numbers ...int64) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, n := range numbers {
		delete(s.pieces, n)
	}
	return nil
}

// far is a home that can be out of reach.
type far struct {
	journal.Home
	down  bool
	calls int
}

var errDown = errors.New("out of reach")

func (f *far) Since(ctx context.Context, at journal.Head) ([]journal.Entry, error) {
	if f.calls++; f.down {
		return nil, errDown
	}
	return f.Home.Since(ctx, at)
}

func (f *far) Append(ctx context.Context, at journal.Head, e ...journal.Entry) ([]journal.Entry, error) {
	if f.calls++; f.down {
		return nil, errDown
	}
	return f.Home.Append(ctx, at, e...)
}

type world struct {
	*testing.T
	far   *far
	shelf *shelf
	now   time.Time
}

func newWorld(t *testing.T) *world {
	home, err := journal.Open(filepath.Join(t.TempDir(), "journal.jsonl"), journal.Options{Create: true})
	if err != nil {
		t.Fatal(err)
	}
	return &world{T: t, far: &far{Home: home}, shelf: newShelf(), now: time.Now()}
}

func (w *world) run() *journal.Spooled {
	return journal.NewSpooled(w.far, w.shelf, func() time.Time { return w.now })
}

func (w *world) step(s *journal.Spooled, after int64, step string, urgency journal.Urgency) (int64, error) {
	return s.Append(w.Context(), after, func([]journal.Entry) journal.Urgency { return urgency }, func([]journal.Entry) ([]journal.Entry, error) {
		return []journal.Entry{{Time: w.now, Credential: "c", Step: step, Status: "done"}}, nil
	})
}

func (w *world) must(err error) {
	w.Helper()
	if err != nil {
		w.Fatal(err)
	}
}

func (w *world) steps(entries []journal.Entry, err error) []string {
	w.Helper()
	w.must(err)
	var out []string
	for _, e := range entries {
		out = append(out, e.Step)
	}
	return out
}

func (w *world) sent() []string {
	w.Helper()
	entries, err := w.far.Home.Read(w.Context())
	w.must(journal.Verify(entries))
	return w.steps(entries, err)
}

func TestSpooledSendsTogether(t *testing.T) {
	w := newWorld(t)
	a := w.run()
	at, err := w.step(a, 1, "intent", journal.First)
	w.must(err)
	calls := w.far.calls
	for _, step := range []string{"put", "arm", "done"} {
		at, err = w.step(a, at, step, journal.Later)
		w.must(err)
	}
	if w.far.calls != calls {
		t.Errorf("%d calls of the home between the intent and the end", w.far.calls-calls)
	}
	if got := w.sent(); !cmp.Equal(got, []string{"genesis", "intent"}) {
		t.Errorf("sent before the end: %q", got)
	}
	// A run on another machine sees what was not sent.
	if got := w.steps(w.run().Entries(t.Context())); !cmp.Equal(got, []string{"genesis", "intent", "put", "arm", "done"}) {
		t.Errorf("another run sees %q", got)
	}
	w.must(a.Send(t.Context()))
	if got := w.sent(); !cmp.Equal(got, []string{"genesis", "intent", "put", "arm", "done"}) || a.Waiting() != 0 {
		t.Errorf("sent: %q, %d wait", got, a.Waiting())
	}
	if n := len(w.shelf.pieces); n != 1 {
		t.Errorf("%d pieces are left, want the anchor alone", n)
	}
}

func TestSpooledKilledBeforeItSent(t *testing.T) {
	w := newWorld(t)
	a := w.run()
	at, err := w.step(a, 1, "intent", journal.First)
	w.must(err)
	_, err = w.step(a, at, "arm", journal.Later)
	w.must(err)
	w.now = w.now.Add(time.Hour)
	b := w.run()
	at, err = w.step(b, 3, "done", journal.Later)
	w.must(err)
	if at != 4 {
		t.Errorf("the next run's entry has place %d, want 4", at)
	}
	w.must(b.Send(t.Context()))
	if got := w.sent(); !cmp.Equal(got, []string{"genesis", "intent", "arm", "done", "sent-late"}) {
		t.Errorf("sent: %q", got)
	}
	// The one that was thought dead goes on, and sees everything.
	if got := w.steps(a.Entries(t.Context())); !cmp.Equal(got, []string{"genesis", "intent", "arm", "done", "sent-late"}) {
		t.Errorf("the first run sees %q", got)
	}
}

func TestSpooledOutOfReach(t *testing.T) {
	w := newWorld(t)
	a := w.run()
	_, err := w.step(a, 1, "intent", journal.First)
	w.must(err)
	w.far.down = true
	if _, err := w.step(a, 2, "second", journal.First); !errors.Is(err, errDown) {
		t.Fatalf("an intent that cannot be sent: %v", err)
	}
	if got := w.steps(a.Entries(t.Context())); !cmp.Equal(got, []string{"genesis", "intent"}) {
		t.Errorf("it was not taken back: %q", got)
	}
	if _, err := w.step(a, 2, "arm", journal.Later); err != nil {
		t.Errorf("a step while the home is out of reach: %v", err)
	}
	if err := a.Send(t.Context()); !errors.Is(err, errDown) || a.Waiting() != 1 {
		t.Errorf("Send = %v, %d wait", err, a.Waiting())
	}
	if _, err := w.run().Entries(t.Context()); !errors.Is(err, errDown) {
		t.Errorf("a run that never read the home: %v", err)
	}
	w.far.down = false
	w.must(w.run().Send(t.Context()))
	if got := w.sent(); !cmp.Equal(got, []string{"genesis", "intent", "arm"}) {
		t.Errorf("sent by the next run: %q", got)
	}
}

// TestSpooledLostAnswer shows that an entry whose answer was lost is there once.
func TestSpooledLostAnswer(t *testing.T) {
	w := newWorld(t)
	a := w.run()
	w.shelf.lose = func(int64) error { w.shelf.lose = nil; return errors.New("no answer") }
	_, err := w.step(a, 1, "arm", journal.Later)
	w.must(err)
	w.must(a.Send(t.Context()))
	if got := w.sent(); !cmp.Equal(got, []string{"genesis", "arm"}) {
		t.Errorf("sent: %q", got)
	}
}

// TestSpooledCutOffWhileClearing leaves pieces that were sent: they count once.
func TestSpooledCutOffWhileClearing(t *testing.T) {
	w := newWorld(t)
	a := w.run()
	_, err := w.step(a, 1, "arm", journal.Later)
	w.must(err)
	kept := maps.Clone(w.shelf.pieces)
	w.must(a.Send(t.Context()))
	maps.Copy(w.shelf.pieces, kept)
	b := w.run()
	if got := w.steps(b.Entries(t.Context())); !cmp.Equal(got, []string{"genesis", "arm"}) {
		t.Errorf("read: %q", got)
	}
	_, err = w.step(b, 2, "done", journal.Later)
	w.must(err)
	w.must(b.Send(t.Context()))
	if got := w.sent(); !cmp.Equal(got, []string{"genesis", "arm", "done"}) || len(w.shelf.pieces) != 1 {
		t.Errorf("sent: %q, pieces %d", got, len(w.shelf.pieces))
	}
}

// TestSpooledAnchor shows that a home which lost its end is found out.
func TestSpooledAnchor(t *testing.T) {
	w := newWorld(t)
	a := w.run()
	_, err := w.step(a, 1, "arm", journal.Later)
	w.must(err)
	w.must(a.Send(t.Context()))
	w.far.Home = newWorld(t).far.Home
	_, err = w.run().Entries(t.Context())
	if fault, ok := errors.AsType[*journal.Fault](err); !ok || fault.Kind != journal.Truncated {
		t.Errorf("reading a home that lost its end: %v", err)
	}
	again := newWorld(t)
	_, err = again.step(again.run(), 1, "other", journal.First)
	w.must(err)
	w.far.Home = again.far.Home
	_, err = w.run().Entries(t.Context())
	if fault, ok := errors.AsType[*journal.Fault](err); !ok || fault.Kind != journal.Fork {
		t.Errorf("reading another home: %v", err)
	}
}

// TestSpooledTogether has runs at work at once: every entry is sent once, and
// those of one run are in their order.
func TestSpooledTogether(t *testing.T) {
	w := newWorld(t)
	const runs, each = 6, 15
	var group sync.WaitGroup
	for r := range runs {
		group.Go(func() {
			s := w.run2()
			at := int64(1)
			for i := range each {
				var err error
				at, err = s.Append(t.Context(), at, func([]journal.Entry) journal.Urgency { return journal.Urgency(2 * ((i + 1) % 2)) }, func([]journal.Entry) ([]journal.Entry, error) {
					return []journal.Entry{{Time: time.Now(), Credential: fmt.Sprint(r), Step: fmt.Sprint(i), Status: "done"}}, nil
				})
				if err != nil {
					t.Errorf("run %d, entry %d: %v", r, i, err)
					return
				}
			}
			if err := s.Send(t.Context()); err != nil {
				t.Error(err)
			}
		})
	}
	group.Wait()
	entries, err := w.far.Home.Read(t.Context())
	w.must(errors.Join(err, journal.Verify(entries)))
	by := map[string][]string{}
	for _, e := range entries[1:] {
		by[e.Credential] = append(by[e.Credential], e.Step)
	}
	var want []string
	for i := range each {
		want = append(want, fmt.Sprint(i))
	}
	for r := range runs {
		if got := by[fmt.Sprint(r)]; !slices.Equal(got, want) {
			t.Errorf("run %d sent %q", r, got)
		}
	}
}

// run2 is a run whose calls of the home are not counted, for several at once.
func (w *world) run2() *journal.Spooled { return journal.NewSpooled(w.far.Home, w.shelf, nil) }
