package github

import (
	"crypto/ed25519"
	"crypto/rand"
	"encoding/pem"
	"errors"
	"fmt"
	"strings"

	"golang.org/x/crypto/ssh"

	"github.com/keyturn/keyturn/internal/rotation"
	"github.com/keyturn/keyturn/internal/secret"
)

// Draft makes a new ed25519 key. The private half is in OpenSSH's own form, as
// ssh-keygen writes it; its comment is the title.
func (b *KeyBackend) Draft(v rotation.Version) (rotation.Material, error) {
	if v.Identity == "" {
		return nil, errors.New("github: drafting a version that has no title yet")
	}
	public, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("github: drafting a key: %w", err)
	}
	defer clear(private)
	block, err := ssh.MarshalPrivateKey(private, v.Identity)
	if err != nil {
		return nil, fmt.Errorf("github: drafting a key: %w", err)
	}
	defer clear(block.Bytes)
	text := pem.EncodeToMemory(block)
	defer clear(text)
	line, err := ssh.NewPublicKey(public)
	if err != nil {
		return nil, fmt.Errorf("github: drafting a key: %w", err)
	}
	m := rotation.Material{fieldKey: secret.New(text)}
	for field, value := range b.public(line) {
		m[field] = secret.FromString(value)
	}
	return m, nil
}

// public are the fields that are no secret.
func (b *KeyBackend) public(key ssh.PublicKey) map[string]string {
	return map[string]string{
		fieldPublicKey:   strings.TrimSpace(string(ssh.MarshalAuthorizedKey(key))),
		fieldFingerprint: ssh.FingerprintSHA256(key),
		fieldURL:         b.endpoints[0],
	}
}

// Recognize implements [rotation.Recognizer]: a key is known by its fingerprint.
func (b *KeyBackend) Recognize(v rotation.Version, m rotation.Material) (rotation.Version, error) {
	signer, problem := signerIn(m)
	if problem != "" {
		return v, fmt.Errorf("github: no key to know version %d by: %s", v.Number, problem)
	}
	v = v.Clone()
	v.Public = b.public(signer.PublicKey())
	return v, nil
}

// signerIn finds the private key in the material: the field key, or else the one
// field that holds one. The problem never repeats a value.
func signerIn(m rotation.Material) (_ ssh.Signer, problem string) {
	fields := []string{fieldKey}
	if _, ok := m[fieldKey]; !ok {
		fields = m.Fields()
	}
	for _, field := range fields {
		if signer, err := ssh.ParsePrivateKey(m[field].Reveal()); err == nil {
			return signer, ""
		}
	}
	return nil, "no field holds a private key that can be read: mount key"
}

// signerOf finds the private key of a version.
func signerOf(fingerprint string, m rotation.Material) (_ ssh.Signer, problem string) {
	signer, problem := signerIn(m)
	if problem != "" {
		return nil, problem
	}
	if ssh.FingerprintSHA256(signer.PublicKey()) != fingerprint {
		return nil, "the key that is mounted is not this version's"
	}
	return signer, ""
}
