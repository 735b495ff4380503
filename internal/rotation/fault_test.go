package rotation_test

import (
	"os"
	"testing"

	"github.com/keyturn/keyturn/internal/rotation"
	"github.com/keyturn/keyturn/internal/rotation/rotationtest"
)

// Hard problems 4 and 42: every call goes wrong once, in every way.
func TestFaultMatrix(t *testing.T) {
	for name, shape := range map[string]shape{"drafted": drafted, "minted": minted, "activated": activated, "replacing": replacing} {
		for _, mounts := range []rotation.Mounts{rotation.Switch, rotation.Dual} {
			for leaser, of := range leasers {
				if leaser == "journal" && name != "drafted" {
					continue // what is the backend's is tried once
				}
				if mounts == rotation.Dual && (leaser == "journal" || name != "drafted") && os.Getenv("KEYTURN_FAULTS") != "all" {
					continue // what is mounted beside hangs on no backend, and on no leaser
				}
				t.Run(name+" "+string(mounts)+" "+leaser, func(t *testing.T) {
					t.Parallel()
					rotationtest.FaultMatrix(t, func() *rotationtest.Scenario {
						s := adopted(shape, mounts)
						s.Leaser = of(s)
						return s
					})
				})
			}
		}
	}
}
