package secret

import (
	"crypto/rand"
	"encoding/hex"
)

// GenerateUUID returns a new random value in the form of a UUID of version 4 (RFC 9562): 122
// random bits from crypto/rand, for systems that take nothing else.
func GenerateUUID() Value {
	var b [16]byte
	rand.Read(b[:]) // never fails since Go 1.24: it ends the program instead
	b[6], b[8] = b[6]&0x0f|0x40, b[8]&0x3f|0x80
	text := make([]byte, 0, 36)
	for i, part := range [][]byte{b[:4], b[4:6], b[6:8], b[8:10], b[10:]} {
		if i > 0 {
			text = append(text, '-')
		}
		text = hex.AppendEncode(text, part)
	}
	clear(b[:])
	return New(text)
}
