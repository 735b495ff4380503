package secret

import (
	"crypto/rand"
	"encoding/base64"
)

// drawnBytes is how many random bytes a generated value encodes: 264 bits, so
// that the values left after the rejection in [Generate] number more than 2^256.
const drawnBytes = 33

// Generate returns a new random value of more than 256 bits from crypto/rand:
// 44 characters of A–Z, a–z, 0–9, '-' and '_', the first a letter or a digit.
// It is safe unquoted in URLs, shells, Compose files and connection strings,
// and plain ASCII, so that SASLprep leaves it as it is.
//
// A draw that would start with '-' or '_' is thrown away whole: every value
// that can come out is equally likely.
func Generate() Value {
	for {
		b := make([]byte, drawnBytes)
		rand.Read(b) // never fails since Go 1.24: it ends the program instead
		text := base64.RawURLEncoding.AppendEncode(nil, b)
		clear(b)
		if text[0] != '-' && text[0] != '_' {
			return Value{b: func() []byte { return text }}
		}
		clear(text)
	}
}
