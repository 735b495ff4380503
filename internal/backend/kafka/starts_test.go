package kafka_test

import (
	"os"
	"testing"

	"github.com/keyturn/keyturn/internal/backend/kafka"
	"github.com/keyturn/keyturn/internal/rotation/rotationtest"
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
	rotationtest.AsItStarts(t, b, kafka.Login, v, m, k.Addresses()[2], func() {
		k.Kill(2)
		f.must(k.Start(2))
	})
}
