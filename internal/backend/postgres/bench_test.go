package postgres_test

import (
	"context"
	"testing"
	"time"

	"github.com/keyturn/keyturn/internal/rotation"
)

// BenchmarkConnections compares a call while connections are kept with one that logs in
// anew, as every call did before.
func BenchmarkConnections(b *testing.B) {
	f := newFixture(b, shared.Get(b))
	f.setup()
	backend, ctx := f.backend(), context.Background()
	v := rotation.Version{Credential: "orders-db", Number: 1, Identity: f.role}
	const calls = 200
	took := func() float64 {
		begun := time.Now()
		for range calls {
			if _, err := backend.Observe(ctx, v); err != nil {
				b.Fatal(err)
			}
		}
		return float64(time.Since(begun).Microseconds()) / 1000 / calls
	}
	for b.Loop() {
		anew := took()
		unlock, err := backend.Lock(ctx, v.Credential)
		if err != nil {
			b.Fatal(err)
		}
		kept := took()
		if err := unlock(ctx); err != nil {
			b.Fatal(err)
		}
		b.ReportMetric(anew, "ms/anew")
		b.ReportMetric(kept, "ms/kept")
		b.ReportMetric(anew/kept, "ratio")
	}
}
