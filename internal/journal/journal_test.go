package journal_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/keyturn/keyturn/internal/journal"
)

var day = time.Date(2026, 3, 1, 12, 30, 0, 123_000_000, time.UTC)

// sample returns an entry with every field, different for every n.
func sample(n int) journal.Entry {
	return journal.Entry{
		Time: day.Add(time.Duration(n) * time.Second), Rotation: "01JNX2Q4Z8E5T6Y7V9W0A1B2C3", Credential: "orders-db",
		Version: n, Identity: "orders_a", Phase: "prepare", Step: fmt.Sprintf("step %d", n), Status: "done",
		Actor:  journal.Actor{Name: "ada", Verified: n%2 == 0},
		Run:    journal.Run{ID: "1234567", Attempt: 1, URL: "https://example.test/runs/1?a=1&b=<2>", Host: "runner", PID: 42},
		Commit: "5f3759df", Plan: "ab12",
		Evidence: map[string]json.RawMessage{
			"text":   json.RawMessage(`"é < > & \u2028 \" \\ \u0001 \u00fc \ud83d\ude00"`),
			"nested": json.RawMessage(`{ "z": [1, -2, true, null], "a": {"hash":"x","nonce":"y"}, "big": 9007199254740991 }`),
		},
	}
}

// sealed returns a chain of n entries with nonces that do not change.
func sealed(tb testingT, n int) []journal.Entry {
	tb.Helper()
	var head journal.Head
	var out []journal.Entry
	for i := range n {
		e := sample(i + 1)
		e.Nonce = fmt.Sprintf("%032x", i+1)
		e, err := journal.Seal(head, e)
		if err != nil {
			tb.Fatalf("Seal: %v", err)
		}
		out, head = append(out, e), e.Head()
	}
	return out
}

// create returns a new journal that holds its first entry.
func create(tb testing.TB) *journal.File {
	tb.Helper()
	j, err := journal.Open(filepath.Join(tb.TempDir(), "state", "journal.jsonl"), journal.Options{Create: true})
	if err != nil {
		tb.Fatalf("Open: %v", err)
	}
	return j
}

// fill appends n entries, one at a time.
func fill(tb testing.TB, j *journal.File, n int) []journal.Entry {
	tb.Helper()
	for i := range n {
		head, err := j.Head(tb.Context())
		if err != nil {
			tb.Fatalf("Head: %v", err)
		}
		if _, err := j.Append(tb.Context(), head, sample(i+1)); err != nil {
			tb.Fatalf("Append: %v", err)
		}
	}
	return read(tb, j)
}

func read(tb testing.TB, j *journal.File) []journal.Entry {
	tb.Helper()
	entries, err := j.Read(tb.Context())
	if err != nil {
		tb.Fatalf("Read: %v", err)
	}
	return entries
}

// bytesOf returns the content of a file.
func bytesOf(tb testing.TB, path string) []byte {
	tb.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		tb.Fatal(err)
	}
	return b
}

func put(tb testing.TB, path string, b []byte) {
	tb.Helper()
	if err := os.WriteFile(path, b, 0o600); err != nil {
		tb.Fatal(err)
	}
}

// linesOf splits a journal into lines that keep their newline.
func linesOf(b []byte) [][]byte {
	lines := bytes.SplitAfter(b, []byte("\n"))
	return lines[:len(lines)-1]
}

// faultOf returns the fault in an error, or fails the test.
func faultOf(tb testing.TB, err error) *journal.Fault {
	tb.Helper()
	f, ok := errors.AsType[*journal.Fault](err)
	if !ok {
		tb.Fatalf("error = %v, want a *Fault", err)
	}
	return f
}

// wantHint fails unless the error says what to do.
func wantHint(tb testing.TB, err error) {
	tb.Helper()
	var h interface{ Hint() string }
	if !errors.As(err, &h) || h.Hint() == "" {
		tb.Errorf("error %q has no hint", err)
	}
}

// testingT is what *testing.T and *rapid.T have in common.
type testingT interface {
	Helper()
	Fatal(...any)
	Fatalf(string, ...any)
}
