package postgres

import (
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"fmt"
	"strings"
)

// Pins are the public keys that the servers' certificates may have, each as
// "sha256/" and the base64 of the SHA-256 of its SubjectPublicKeyInfo (RFC 7469,
// section 2.4). They are asked for beside the authority, not in place of it. The
// zero value asks for none.
type Pins struct {
	// Current is the key of today.
	Current string `yaml:"current" json:"current,omitempty"`

	// Next is the key that the servers are to have next, so that they can be
	// given it at any time.
	Next string `yaml:"next" json:"next,omitempty"`
}

const pinPrefix = "sha256/"

func (p Pins) check(fault faultFunc) {
	for key, pin := range map[string]string{"pins.current": p.Current, "pins.next": p.Next} {
		if pin == "" {
			continue
		}
		sum, err := base64.StdEncoding.DecodeString(strings.TrimPrefix(pin, pinPrefix))
		if !strings.HasPrefix(pin, pinPrefix) || err != nil || len(sum) != sha256.Size {
			fault(key, "write sha256/ and the base64 of the SHA-256 of the certificate's SubjectPublicKeyInfo", "this is no pin")
		}
	}
	if p.Current == "" && p.Next != "" {
		fault("pins.current", "name the key of today, too", "only the next key is pinned")
	}
}

// pinOf returns the pin of a certificate's key.
func pinOf(c *x509.Certificate) string {
	sum := sha256.Sum256(c.RawSubjectPublicKeyInfo)
	return pinPrefix + base64.StdEncoding.EncodeToString(sum[:])
}

// A pinError is a server with another key.
type pinError struct{ saw string }

func (e *pinError) Error() string {
	return fmt.Sprintf("the server's key is %s, which is neither pinned as current nor as next", e.saw)
}

const pinHint = "if it is the server's new key, write it under pins as next; if not, somebody stands between"

// pinned lets c refuse servers with another key, after whatever it verifies. It is
// asked on resumed connections, too.
func (p Pins) pinned(c *tls.Config) {
	if p.Current == "" {
		return
	}
	before := c.VerifyConnection
	c.VerifyConnection = func(s tls.ConnectionState) error {
		if before != nil {
			if err := before(s); err != nil {
				return err
			}
		}
		if len(s.PeerCertificates) == 0 {
			return &pinError{"none"}
		}
		if saw := pinOf(s.PeerCertificates[0]); saw != p.Current && saw != p.Next {
			return &pinError{saw}
		}
		return nil
	}
}
