package certificate_test

import (
	"os"
	"testing"
	"time"

	"github.com/keyturn/keyturn/internal/backend/certificate"
	"github.com/keyturn/keyturn/internal/backend/remote"
	"github.com/keyturn/keyturn/internal/rotation/rotationtest"
	"github.com/keyturn/keyturn/internal/secret"
	"github.com/keyturn/keyturn/internal/testserver"
)

// TestContractOnStepCA is what every backend must keep, with the ACME of step-ca, whose
// certificates name nobody who tells what was revoked: its list does.
func TestContractOnStepCA(t *testing.T) {
	t.Parallel()
	key, err := (*testserver.Pebble)(nil).AccountKey()
	if err != nil {
		t.Fatal(err)
	}
	rotationtest.Contract(t, func(t *testing.T) rotationtest.Setup {
		ca := testserver.NewStepCA(t)
		roots, err := os.ReadFile(ca.RootsFile())
		if err != nil {
			t.Fatal(err)
		}
		b, err := certificate.New(certificate.Settings{Names: []string{"orders.test"}, Roots: "roots.pem", CRL: ca.CRL(),
			ACME: &certificate.ACME{Directory: ca.Directory(), Account: secret.Source{Env: accountVariable}, AgreeTerms: true, CA: "ca.pem", HTTP01: &certificate.HTTP01{Directory: ca.Challenges()}}},
			certificate.Options{Credential: "orders", Roots: roots, Overlap: time.Hour,
				Options: remote.Options{CA: roots, Patience: 15 * time.Second, Timeout: 6 * time.Second, Getenv: func(string) string { return key }}})
		if err != nil {
			t.Fatal(err)
		}
		return rotationtest.Setup{Backend: b, Credential: "orders", Login: certificate.Login}
	})
}
