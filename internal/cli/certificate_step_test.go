package cli_test

import (
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/keyturn/keyturn/internal/backend/certificate"
	"github.com/keyturn/keyturn/internal/backend/remote"
	"github.com/keyturn/keyturn/internal/secret"
	"github.com/keyturn/keyturn/internal/testserver"
)

// newStepCertificateShop has a certificate signed by a step-ca's own API, by hand.
func newStepCertificateShop(t testing.TB, ca *testserver.StepCA) *certificateShop {
	t.Helper()
	c := certificateShopOf(t, ca)
	key, err := ca.ProvisionerKey()
	c.must(err)
	c.secret(string(key))
	c.env = append(os.Environ(), "KEYTURN_STEP_KEY="+string(key), "CI=")
	c.byHand(certificate.Settings{StepCA: &certificate.StepCA{URL: ca.URL(), Provisioner: "keyturn", Key: secret.Source{Env: "KEY"}, CA: "ca"}},
		remote.Options{CA: ca.Roots(), Getenv: func(string) string { return string(key) }},
		fmt.Sprintf(`step-ca: {url: "%s", provisioner: keyturn, key: {from-env: KEYTURN_STEP_KEY}, ttl: 6h, ca: %s}`, ca.URL(), ca.RootsFile()))
	return c
}

// TestCrashStepCertificate is [TestCrashCertificate] with a step-ca, which lists nothing: what was signed
// for a run that never heard of it is left, and its key is in nobody's hand.
func TestCrashStepCertificate(t *testing.T) {
	t.Parallel()
	everyCrash(t, func(i int) bool { return i%16 == 0 }, func(t *testing.T, at int) result {
		if at > 0 {
			t.Parallel()
		}
		c := newStepCertificateShop(t, testserver.NewStepCA(t))
		r := c.crashed(at, true)
		if out := c.ok("plan", c.name); !strings.Contains(out, "step-ca lists nothing") {
			t.Errorf("the plan does not say that what is lost stays lost:\n%s", out)
		}
		return r
	})
}
