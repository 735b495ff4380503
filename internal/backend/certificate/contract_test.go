package certificate_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/keyturn/keyturn/internal/backend/certificate"
	"github.com/keyturn/keyturn/internal/rotation/rotationtest"
	"github.com/keyturn/keyturn/internal/testserver"
)

// TestContract is what every backend must keep.
func TestContract(t *testing.T) {
	t.Parallel()
	rotationtest.Contract(t, func(t *testing.T) rotationtest.Setup {
		pebble := testserver.NewPebble(t, testserver.PebbleOptions{})
		f := newFixture(t, pebble)
		return rotationtest.Setup{
			Backend:    f.backend(),
			Credential: f.name,
			Login:      certificate.Login,
			Patience:   3 * time.Second,
			Claims: &rotationtest.Claims{Kind: "Certificates by ACME", Page: "certificate.md", Value: "the key ours, the certificate theirs",
				Dead: "its authority says to everybody that it is revoked, and every task serves the next one"},
			Break: map[string]func(*testing.T) func(){
				"cut off": func(*testing.T) func() {
					f.cut.Store(true)
					pebble.Mute(true)
					return func() {
						f.cut.Store(false)
						pebble.Mute(false)
					}
				},
				"paused": func(t *testing.T) func() {
					f.must(pebble.Pause())
					return func() { f.must(pebble.Continue()) }
				},
			},
			Changes: func(t *testing.T) string {
				kept, err := pebble.Kept()
				f.must(err)
				return fmt.Sprint(kept)
			},
		}
	})
}
