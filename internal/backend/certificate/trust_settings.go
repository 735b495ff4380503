package certificate

import (
	"fmt"
	"slices"
)

// RotateCA says that the credential is no certificate, but what services trust: the bundle of
// authorities that certificates of the names are verified by.
type RotateCA struct {
	// Trust holds paths of PEM files with the authorities that services shall trust, all of
	// them: a rotation begins when they are others than those of the version in service.
	Trust []string `yaml:"trust"`
}

// Documented says of every key what it is.
func (RotateCA) Documented() map[string]string {
	return map[string]string{"trust": "Paths of PEM files with the authorities that services shall trust: all of them."}
}

// fieldBundle is the field of a version of what services trust, in PEM form.
const fieldBundle = "bundle"

// mostRoots is how many files there may be.
const mostRoots = 20

// checkTrust checks what stands beside rotate-ca.
func (s Settings) checkTrust(fault faultFunc) {
	fault.each(map[string]bool{"acme": s.ACME != nil, "key-type": s.KeyType != "", "adopt": s.Adopt != "", "roots": s.Roots != "", "crl": s.CRL != "",
		"trigger": s.Trigger != "", "cert-manager": s.CertManager != nil, "vault": s.Vault != nil, "step-ca": s.StepCA != nil},
		"make the certificates a credential of their own", "with rotate-ca the credential is what services trust, and no certificate")
	if len(s.Probe) == 0 {
		fault("probe", "write probe: [\"tls://tasks.orders_web:8443\"]", "nothing says where certificates are served: whether they are trusted could not be tried")
	}
	if len(s.RotateCA.Trust) == 0 {
		fault("rotate-ca.trust", "write trust: [deploy/root.pem]", "no authority is named")
	}
	if len(s.RotateCA.Trust) > mostRoots {
		fault("rotate-ca.trust", "put several into one file", "there are more than %d files", mostRoots)
	}
	for i, path := range s.RotateCA.Trust {
		if path == "" || slices.Contains(s.RotateCA.Trust[:i], path) {
			fault(fmt.Sprintf("rotate-ca.trust.%d", i), "name each file once", "this is no file, or one that stands there already")
		}
	}
}
