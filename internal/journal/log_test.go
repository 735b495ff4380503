package journal_test

import (
	"context"
	"errors"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/keyturn/keyturn/internal/journal"
)

func steps(entries []journal.Entry) string {
	var names []string
	for _, e := range entries {
		names = append(names, e.Step)
	}
	return strings.Join(names, ",")
}

// Somebody else appends between the look and the append, twice: the entries
// are built again each time, and every entry is shown once.
func TestConflictIsBuiltAgain(t *testing.T) {
	j := create(t)
	other, err := journal.Open(j.Path(), journal.Options{})
	if err != nil {
		t.Fatal(err)
	}
	log := journal.Follow(j)
	var shown []string
	done, err := log.Append(t.Context(), func(since []journal.Entry, head journal.Head) ([]journal.Entry, error) {
		shown = append(shown, steps(since))
		if n := len(shown); n <= 2 {
			fill(t, other, n)
		}
		if now := int64(len(read(t, j))); len(shown) == 3 && head.Seq != now {
			t.Errorf("build was called with head %d, want %d", head.Seq, now)
		}
		return []journal.Entry{{Time: day, Step: "mine"}, {Time: day, Step: "mine too"}}, nil
	})
	if err != nil {
		t.Fatalf("Append: %v", err)
	}
	if diff := cmp.Diff([]string{"genesis", "step 1", "step 1,step 2"}, shown); diff != "" {
		t.Errorf("what build was shown (-want +got):\n%s", diff)
	}
	all := read(t, j)
	if got := steps(all); got != "genesis,step 1,step 1,step 2,mine,mine too" {
		t.Errorf("the journal holds %s", got)
	}
	if done[1].Hash != all[5].Hash || log.Head() != all[5].Head() {
		t.Errorf("Append returned %v and stands at %v, want the end", done[1].Head(), log.Head())
	}
	fill(t, other, 1)
	if _, err := log.Append(t.Context(), func(since []journal.Entry, _ journal.Head) ([]journal.Entry, error) {
		if steps(since) != "step 1" {
			t.Errorf("the next build was shown %q, want what others wrote since", steps(since))
		}
		return nil, nil
	}); err != nil {
		t.Errorf("Append of nothing = %v", err)
	}
	if n := len(read(t, j)); n != 7 {
		t.Errorf("the journal has %d entries, want 7", n)
	}
}

func TestErrorOfBuild(t *testing.T) {
	j := create(t)
	refused := errors.New("refused")
	_, err := journal.Follow(j).Append(t.Context(), func([]journal.Entry, journal.Head) ([]journal.Entry, error) {
		return []journal.Entry{sample(1)}, refused
	})
	if err != refused || len(read(t, j)) != 1 {
		t.Errorf("Append = %v, want the error of build and nothing appended", err)
	}
}

// contested is a home in which somebody else is always first.
type contested struct{ journal.Home }

func (contested) Append(context.Context, journal.Head, ...journal.Entry) ([]journal.Entry, error) {
	return nil, journal.ErrConflict
}

func TestEndlessConflict(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	calls := 0
	_, err := journal.Follow(contested{create(t)}).Append(ctx, func([]journal.Entry, journal.Head) ([]journal.Entry, error) {
		if calls++; calls == 3 {
			cancel()
		}
		return []journal.Entry{sample(1)}, nil
	})
	if !errors.Is(err, context.Canceled) || calls != 3 {
		t.Errorf("Append = %v after %d tries, want context.Canceled after 3", err, calls)
	}
}
