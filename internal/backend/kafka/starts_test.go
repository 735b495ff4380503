package kafka_test

import (
	"os"
	"testing"
	"time"

	"github.com/keyturn/keyturn/internal/backend/kafka"
	"github.com/keyturn/keyturn/internal/rotation"
	"github.com/keyturn/keyturn/internal/testserver"
)

// TestBrokerThatStarts asks a broker from its first moment on: it may not say of a login that it
// is refused before it has read who there is.
func TestBrokerThatStarts(t *testing.T) {
	if os.Getenv("KEYTURN_FAULTS") != "all" {
		t.Skip("make faults runs it: KEYTURN_FAULTS=all")
	}
	k := testserver.NewKafka(t, 3)
	f := newFixture(t, k)
	b := f.backend()
	v, m := f.armed(b, 1)
	spec := b.ProbeSpec(v)
	spec.Endpoints = k.Addresses()[2:]
	for range 3 {
		k.Kill(2)
		f.must(k.Start(2))
		for end := time.Now().Add(time.Minute); ; time.Sleep(5 * time.Millisecond) {
			got := kafka.Login(t.Context(), spec, m)
			_, err := b.Observe(t.Context(), v)
			if got.Answer == rotation.Dead || err != nil && rotation.ClassOf(err) != rotation.Unknown {
				t.Fatalf("a broker that starts: the principal is %s (%s); as the administrator: %v", got.Answer, got.Reason, err)
			}
			if got.Answer == rotation.Alive && err == nil {
				break
			}
			if time.Now().After(end) {
				t.Fatalf("after a minute the principal is %s (%s); as the administrator: %v", got.Answer, got.Reason, err)
			}
		}
	}
}
