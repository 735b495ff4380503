package testserver_test

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/keyturn/keyturn/internal/testserver"
)

func TestReadLoad(t *testing.T) {
	dir := t.TempDir()
	files := map[string]string{
		"a.jsonl": `{"task":"a","time":"2026-01-01T00:00:00Z","ms":2,"ok":true,"session":"orders_a","current":"orders"}
{"task":"a","time":"2026-01-01T00:00:01Z","ms":2,"ok":false,"code":"28P01","error":"password authentication failed"}
{"task":"a","time":"2026-01-01T00:00:02Z","ms":2,"ok":false,"code":"timeout"}
{"task":"a","time":"2026-01-01T00:00:04Z","ms":2,"ok":true,"session":"orders_b","current":"orders"}
{"task":"a","final":true,"ok_total":2,"failed_total":2}
`,
		// Killed in the middle of a line, and down since its start.
		"b.jsonl": `{"task":"b","time":"2026-01-01T00:00:03Z","ms":2,"ok":false,"code":"28P01"}
{"task":"b","time":"2026-01-01T00:00:03.5Z","ms":2,"ok":false,"code":"28P01"}
{"task":"b","time":"2026-01-01T00:0`,
		"c.jsonl": "",
	}
	for name, text := range files {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	got, err := testserver.ReadLoad(dir)
	if err != nil {
		t.Fatal(err)
	}
	at := func(ms int) time.Time {
		return time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC).Add(time.Duration(ms) * time.Millisecond)
	}
	want := testserver.Totals{
		Tasks: 2, Ended: 1, OK: 2, Failed: 4,
		ByCode:    map[string]int{"28P01": 3, "timeout": 1},
		BySession: map[string]int{"orders_a": 1, "orders_b": 1},
		First:     at(0), Last: at(4000),
		LongestOutage: 4 * time.Second, LongestSilence: 4 * time.Second,
		Failures: []testserver.Outcome{
			{Task: "a", Time: at(1000), Took: 2, Code: "28P01", Error: "password authentication failed"},
			{Task: "a", Time: at(2000), Took: 2, Code: "timeout"},
			{Task: "b", Time: at(3000), Took: 2, Code: "28P01"},
			{Task: "b", Time: at(3500), Took: 2, Code: "28P01"},
		},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("ReadLoad: -want +got\n%s", diff)
	}

	if err := os.WriteFile(filepath.Join(dir, "d.jsonl"), []byte("panic: oops\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if got, err := testserver.ReadLoad(dir); err == nil {
		t.Errorf("ReadLoad with a line that is no outcome = %+v, want an error", got)
	}
}
