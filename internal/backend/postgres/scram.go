package postgres

import (
	"crypto/hmac"
	"crypto/pbkdf2"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"

	"github.com/keyturn/keyturn/internal/secret"
)

// iterations of PBKDF2. The least that PostgreSQL takes is right for values of
// 256 random bits: more would cost every login and protect nothing.
const iterations = 4096

// Verifier returns the SCRAM-SHA-256 verifier (RFC 5802, RFC 7677) of a
// password, in the form that PostgreSQL stores. It lets nobody log in, but
// whoever has it can play the server, so it is held as a secret too. The
// password must be plain ASCII, which SASLprep leaves as it is.
func Verifier(password secret.Value) (secret.Value, error) {
	for _, b := range password.Reveal() {
		if b < 0x21 || b > 0x7e {
			return secret.Value{}, errors.New("making a verifier: the password holds other than printable ASCII")
		}
	}
	if password.Empty() {
		return secret.Value{}, errors.New("making a verifier: the password is empty")
	}
	salt := make([]byte, 16)
	rand.Read(salt) // never fails since Go 1.24
	return verifier(password, salt)
}

func verifier(password secret.Value, salt []byte) (secret.Value, error) {
	salted, err := pbkdf2.Key(sha256.New, string(password.Reveal()), salt, iterations, sha256.Size)
	if err != nil {
		return secret.Value{}, fmt.Errorf("making a verifier: %w", err)
	}
	defer clear(salted)
	stored := sha256.Sum256(keyed(salted, "Client Key"))
	b64 := base64.StdEncoding.EncodeToString
	return secret.FromString(fmt.Sprintf("SCRAM-SHA-256$%d:%s$%s:%s", iterations,
		b64(salt), b64(stored[:]), b64(keyed(salted, "Server Key")))), nil
}

func keyed(key []byte, label string) []byte {
	mac := hmac.New(sha256.New, key)
	mac.Write([]byte(label))
	return mac.Sum(nil)
}
