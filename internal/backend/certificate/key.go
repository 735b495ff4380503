package certificate

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"

	"github.com/keyturn/keyturn/internal/rotation"
	"github.com/keyturn/keyturn/internal/secret"
)

// generate makes a private key.
func (s Settings) generate() (crypto.Signer, error) {
	switch s.KeyType {
	case ecdsaP384:
		return ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	case rsa2048:
		return rsa.GenerateKey(rand.Reader, 2048)
	case rsa3072:
		return rsa.GenerateKey(rand.Reader, 3072)
	case rsa4096:
		return rsa.GenerateKey(rand.Reader, 4096)
	}
	return ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
}

// saw remembers the public key of a version.
func (b *Backend) saw(v rotation.Version) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if hash := v.Public[publicKey]; hash != "" {
		b.seen[hash] = v.Number
	}
}

// newKey makes a key whose public half no version on the record has.
func (b *Backend) newKey(v rotation.Version) (crypto.Signer, error) {
	key, err := b.options.Generate()
	if err != nil {
		return nil, fmt.Errorf("certificate: making a key: %w", err)
	}
	hash, err := hashOfKey(key.Public())
	if err != nil {
		return nil, err
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if number, known := b.seen[hash]; known && number != v.Number {
		return nil, rotation.Errorf(rotation.Failed, "this machine's random numbers repeat: run it on another one",
			"certificate: the key made for version %d is that of version %d", v.Number, number)
	}
	b.seen[hash] = v.Number
	return key, nil
}

// orderKey makes the key of a version that is asked for by its public half, which goes on the
// record.
func (b *Backend) orderKey(v rotation.Version) (rotation.Version, error) {
	key, err := b.newKey(v)
	if err != nil {
		return v, err
	}
	if v.Public[publicKey], err = hashOfKey(key.Public()); err != nil {
		return v, err
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.keys[v.Number] = key
	return v, nil
}

// keyOf returns the key that [Backend.orderKey] made, once.
func (b *Backend) keyOf(v rotation.Version) (crypto.Signer, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	key, ok := b.keys[v.Number]
	if !ok {
		return nil, fmt.Errorf("certificate: the key of version %d was in the memory of another run", v.Number)
	}
	delete(b.keys, v.Number)
	return key, nil
}

// encode returns a private key in PEM form.
func encode(key crypto.Signer) (secret.Value, error) {
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return secret.Value{}, errors.New("certificate: encoding a key")
	}
	defer clear(der)
	text := pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})
	defer clear(text)
	return secret.New(text), nil
}
