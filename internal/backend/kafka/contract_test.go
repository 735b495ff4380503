package kafka_test

import (
	"fmt"
	"os"
	"testing"
	"time"

	"github.com/keyturn/keyturn/internal/backend/kafka"
	"github.com/keyturn/keyturn/internal/rotation"
	"github.com/keyturn/keyturn/internal/rotation/rotationtest"
	"github.com/keyturn/keyturn/internal/testserver"
)

var (
	ofPrincipals = rotationtest.Claims{Kind: "Kafka: SCRAM principals in turn", Page: "kafka.md",
		Dead: "every broker denies it everything, and says `SASL_AUTHENTICATION_FAILED`; its delegation tokens are ended"}
	ofMechanisms = rotationtest.Claims{Kind: "Kafka: the two SCRAM mechanisms of one principal", Page: "kafka.md#one-principal",
		Dead: "every broker takes another value in its place, and says `SASL_AUTHENTICATION_FAILED`; delegation tokens are ended; what is connected lasts until `connections.max.reauth.ms`"}
)

// TestContract is what every backend must keep, on one broker and on three: principals in turn,
// and the mechanisms of one.
func TestContract(t *testing.T) {
	for _, c := range []struct {
		kind   string
		shared *testserver.SharedKafka
		open   func(*fixture) rotation.Backend
		claims rotationtest.Claims
	}{
		{"principals", &one, func(f *fixture) rotation.Backend { return f.backend() }, ofPrincipals},
		{"principals", &three, func(f *fixture) rotation.Backend { return f.backend() }, ofPrincipals},
		{"mechanisms", &one, func(f *fixture) rotation.Backend { return f.mechanisms() }, ofMechanisms},
		{"mechanisms", &three, func(f *fixture) rotation.Backend { return f.mechanisms() }, ofMechanisms},
	} {
		shared := c.shared
		t.Run(fmt.Sprintf("%s, %d brokers", c.kind, max(shared.Brokers, 1)), func(t *testing.T) {
			if c.kind == "mechanisms" && shared.Brokers > 1 && os.Getenv("KEYTURN_FAULTS") != "all" {
				t.Skip("principals are tried on three of them: make faults")
			}
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
				if c.kind == "mechanisms" { // which break as principals do
					delete(breaks, "stopped")
				}
				return rotationtest.Setup{
					Backend:    c.open(f),
					Credential: f.name,
					Login:      kafka.Login,
					Claims:     &c.claims,
					Patience:   time.Minute,
					Break:      breaks,
					Changes: func(t *testing.T) string {
						var all []string
						for _, user := range append(f.settings().Principals, f.model()) {
							all = append(all, fmt.Sprint(user, k.Iterations(t, user), k.IterationsBy(t, sha256Name, user), k.Rules(t, user), k.Quotas(t, user)))
						}
						return fmt.Sprint(all)
					},
				}
			})
		})
	}
}
