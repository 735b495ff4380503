package secret

import (
	"crypto/hkdf"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
)

// A Fingerprinter makes keyed fingerprints: names for values that can be
// compared and kept, and from which nobody without the key can test a guess.
type Fingerprinter struct {
	key Value
}

// NewFingerprinter returns a Fingerprinter with the given master key, which
// must have at least 32 bytes.
func NewFingerprinter(key Value) (*Fingerprinter, error) {
	if n := len(key.Reveal()); n < 32 {
		return nil, fmt.Errorf("fingerprint key has %d bytes, want at least 32", n)
	}
	return &Fingerprinter{key: key}, nil
}

// Fingerprint returns 64 hexadecimal digits: HMAC-SHA256 of the value under a
// key derived by HKDF from the master key and the scope (a credential's name
// and field), so that equal values in different scopes have different ones.
func (f *Fingerprinter) Fingerprint(scope string, v Value) string {
	key, err := hkdf.Key(sha256.New, f.key.Reveal(), nil, "keyturn/fingerprint/v1/"+scope, sha256.Size)
	if err != nil { // only for lengths above 255 hash blocks
		panic("secret: " + err.Error())
	}
	mac := hmac.New(sha256.New, key)
	mac.Write(v.Reveal())
	return hex.EncodeToString(mac.Sum(nil))
}
