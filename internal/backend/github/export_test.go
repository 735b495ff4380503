package github

import (
	"strings"

	"golang.org/x/crypto/ssh"
)

// HostFingerprints are those of the keys that a text of known hosts has for endpoints.
func HostFingerprints(text string, endpoints []string) string {
	var out []string
	for _, e := range endpoints {
		keys, err := keysOf(text, e)
		if err != nil {
			return err.Error()
		}
		for _, k := range keys {
			out = append(out, ssh.FingerprintSHA256(k))
		}
	}
	return strings.Join(out, " ")
}
