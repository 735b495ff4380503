package journal_test

import (
	"bytes"
	"testing"

	"github.com/keyturn/keyturn/internal/journal"
)

// big returns a chain of n entries, and its text.
func big(b *testing.B, n int) ([]journal.Entry, []byte) {
	b.Helper()
	entries := sealed(b, n)
	return entries, textOf(b, entries)
}

func BenchmarkVerify(b *testing.B) {
	entries, _ := big(b, 1000)
	for b.Loop() {
		if err := journal.Verify(entries); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(b.Elapsed().Microseconds())/float64(b.N*1000), "µs/entry")
}

func BenchmarkDecode(b *testing.B) {
	for name, n := range map[string]int{"1k": 1000, "10k": 10_000} {
		b.Run(name, func(b *testing.B) {
			_, text := big(b, n)
			for b.Loop() {
				if _, err := journal.Decode(bytes.NewReader(text)); err != nil {
					b.Fatal(err)
				}
			}
			b.ReportMetric(float64(b.Elapsed().Microseconds())/float64(b.N*n), "µs/entry")
		})
	}
}

// The time of an append must not grow with the journal.
func BenchmarkAppend(b *testing.B) {
	for name, n := range map[string]int{"to 1": 0, "to 10k": 10_000} {
		b.Run(name, func(b *testing.B) {
			path := b.TempDir() + "/journal.jsonl"
			_, text := big(b, n+1)
			put(b, path, text)
			j, err := journal.Open(path, journal.Options{})
			if err != nil {
				b.Fatal(err)
			}
			head, err := j.Head(b.Context())
			if err != nil {
				b.Fatal(err)
			}
			for b.Loop() {
				done, err := j.Append(b.Context(), head, sample(1))
				if err != nil {
					b.Fatal(err)
				}
				head = done[0].Head()
			}
		})
	}
}
