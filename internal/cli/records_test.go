package cli_test

import (
	"path/filepath"
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
