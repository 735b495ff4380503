package kafka_test

import (
	"fmt"
	"os"
	"testing"
	"time"

	"github.com/keyturn/keyturn/internal/backend/kafka"
	"github.com/keyturn/keyturn/internal/rotation/rotationtest"
	"github.com/keyturn/keyturn/internal/testserver"
)

// TestContract is what every backend must keep, on one broker and on three.
func TestContract(t *testing.T) {
	for _, shared := range []*testserver.SharedKafka{&one, &three} {
		t.Run(fmt.Sprintf("%d brokers", max(shared.Brokers, 1)), func(t *testing.T) {
			rotationtest.Contract(t, func(t *testing.T) rotationtest.Setup {
				k := shared.Get(t)
				f := newFixture(t, k)
				brokers := len(k.Addresses())
				most := brokers/2 + 1 // of them must be there for anything to be decided
				each := func(do func(int) error) {
					for i := range most {
						f.must(do(i))
					}
				}
				back := func() {
					for i := range brokers {
						k.Await(t, i)
					}
				}
				paused := func(*testing.T) func() {
					each(k.Pause)
					return func() { each(k.Continue); back() }
				}
				breaks := map[string]func(*testing.T) func(){"paused": paused, "stopped": func(*testing.T) func() {
					each(func(i int) error { k.Kill(i); return nil })
					return func() { each(k.Start); back() }
				}}
				if brokers > 1 { // three take long to start
					delete(breaks, "stopped")
					if os.Getenv("KEYTURN_FAULTS") != "all" {
						delete(breaks, "paused")
					}
				}
				return rotationtest.Setup{
					Backend:    f.backend(),
					Credential: f.name,
					Login:      kafka.Login,
					Claims: &rotationtest.Claims{Kind: "Kafka: SCRAM principals in turn", Page: "kafka.md",
						Dead: "every broker denies it everything, and says `SASL_AUTHENTICATION_FAILED`; its delegation tokens are ended"},
					Patience: time.Minute,
					Break:    breaks,
					Changes: func(t *testing.T) string {
						var all []string
						for _, user := range append(f.settings().Principals, f.model()) {
							all = append(all, fmt.Sprint(user, k.Iterations(t, user), k.Rules(t, user), k.Quotas(t, user)))
						}
						return fmt.Sprint(all)
					},
				}
			})
		})
	}
}
