package cli_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/keyturn/keyturn/internal/cli"
	"github.com/keyturn/keyturn/internal/journal"
	"github.com/keyturn/keyturn/internal/rotation"
)

// Whoever appends is shown what follows the record that it knows, however long ago that was.
func TestRecordsSinceLongAgo(t *testing.T) {
	home, err := journal.Open(filepath.Join(t.TempDir(), "journal.jsonl"), journal.Options{Create: true})
	if err != nil {
		t.Fatal(err)
	}
	records := cli.NewRecords(home)
	note := rotation.Record{Time: time.Now(), Step: "tried", Status: rotation.RecordNote}
	last := int64(1) // the entry that every journal begins with
	for last < cli.KeptHeads+200 {
		last, err = records.Append(t.Context(), last, func([]rotation.Record) ([]rotation.Record, error) {
			return []rotation.Record{note, note, note, note, note, note, note, note, note, note}, nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	n := int64(0)
	if err := records.Each(t.Context(), func(r rotation.Record) { n = r.Seq }); err != nil || n != last {
		t.Fatalf("the last record is %d, %v, want %d", n, err, last)
	}
	for _, after := range []int64{0, 1, 100, last - cli.KeptHeads, last - cli.KeptHeads + 1, last - 1, last} {
		var shown []rotation.Record
		end, err := records.Append(t.Context(), after, func(since []rotation.Record) ([]rotation.Record, error) {
			shown = since
			return []rotation.Record{note}, nil
		})
		if err != nil || end != last+1 {
			t.Fatalf("Append after %d = %d, %v, want %d", after, end, err, last+1)
		}
		if int64(len(shown)) != last-after || len(shown) > 0 && shown[0].Seq != after+1 {
			t.Errorf("after %d of %d it is shown %d records", after, last, len(shown))
		}
		last = end
	}
}

// A ledger that is asked for again has what others wrote meanwhile, and is the asker's own.
func TestRecordsLedger(t *testing.T) {
	path := filepath.Join(t.TempDir(), "journal.jsonl")
	open := func() rotation.Journal {
		home, err := journal.Open(path, journal.Options{Create: true})
		if err != nil {
			t.Fatal(err)
		}
		return cli.NewRecords(home)
	}
	ours, others := open(), open()
	note := rotation.Record{Time: time.Now(), Step: "tried", Status: rotation.RecordNote}
	for last := int64(1); last < 5; {
		for _, j := range []rotation.Journal{ours, others} {
			end, err := j.Append(t.Context(), last, func(since []rotation.Record) ([]rotation.Record, error) {
				if len(since) > 0 {
					t.Errorf("after %d it is shown %d records", last, len(since))
				}
				return []rotation.Record{note}, nil
			})
			if err != nil {
				t.Fatal(err)
			}
			last = end
			for range 2 {
				l, err := rotation.ReadLedger(t.Context(), ours)
				if err != nil || l.Last() != last {
					t.Fatalf("the ledger ends with %d, %v, want %d", l.Last(), err, last)
				}
				if err := l.Replay(rotation.Record{Seq: last + 1, Time: time.Now(), Step: "tried", Status: rotation.RecordNote}); err != nil {
					t.Fatal(err) // it is ours to go on with
				}
			}
		}
	}
	// A chain that lost its end is found out, and stays so.
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	lines := strings.SplitAfter(string(text), "\n")
	if err := os.WriteFile(path, []byte(strings.Join(lines[:len(lines)-2], "")), 0o600); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if _, err := rotation.ReadLedger(t.Context(), ours); err == nil {
			t.Fatal("the ledger of a journal that lost its end was read")
		}
	}
}
