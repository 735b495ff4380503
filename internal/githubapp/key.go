package githubapp

import (
	"bytes"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"errors"

	"github.com/golang-jwt/jwt/v4"

	"github.com/keyturn/keyturn/internal/secret"
)

const keyHint = "give the whole .pem file of the App's page of settings, from -----BEGIN RSA PRIVATE KEY----- on; its newlines may be written as \\n, or all of it as base64"

// parseKey reads the private key of an App.
func parseKey(v secret.Value) (*rsa.PrivateKey, error) {
	if v.Empty() {
		return nil, &hinted{errors.New("the App has no private key"), keyHint}
	}
	text := bytes.TrimSpace(v.Reveal())
	if !bytes.Contains(text, []byte("-----BEGIN")) {
		plain, err := base64.StdEncoding.DecodeString(string(bytes.Join(bytes.Fields(text), nil)))
		if err != nil {
			return nil, &hinted{errors.New("the private key of the App is no PEM text, and no base64 of one"), keyHint}
		}
		text = plain
	}
	text = bytes.ReplaceAll(text, []byte(`\n`), []byte("\n"))
	defer clear(text)
	key, err := jwt.ParseRSAPrivateKeyFromPEM(text)
	if err != nil {
		// The library's words may hold a piece of what it read.
		return nil, &hinted{errors.New("the private key of the App cannot be read: it is no RSA key in PEM"), keyHint}
	}
	return key, nil
}

// KeyFingerprint is how the App's page of settings shows the key in use: the SHA-256 of
// its public half in DER, in base64; "" of a plain token.
func (a *App) KeyFingerprint() string {
	if a.key == nil {
		return ""
	}
	der, err := x509.MarshalPKIXPublicKey(&a.key.PublicKey)
	if err != nil {
		return ""
	}
	sum := sha256.Sum256(der)
	return "SHA256:" + base64.StdEncoding.EncodeToString(sum[:])
}
