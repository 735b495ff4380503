package testserver

import (
	"crypto/ed25519"
	"crypto/rand"
	"encoding/pem"
	"fmt"
	"strings"

	"golang.org/x/crypto/ssh"
	"golang.org/x/crypto/ssh/knownhosts"
)

// NewSSHKey makes an ed25519 key: its line of authorized_keys, and the private
// half as ssh-keygen writes it. With a passphrase it is encrypted.
func NewSSHKey(passphrase ...string) (authorized string, private []byte, err error) {
	public, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return "", nil, fmt.Errorf("making an ssh key: %w", err)
	}
	var block *pem.Block
	if len(passphrase) > 0 {
		block, err = ssh.MarshalPrivateKeyWithPassphrase(key, "", []byte(passphrase[0]))
	} else {
		block, err = ssh.MarshalPrivateKey(key, "")
	}
	if err != nil {
		return "", nil, fmt.Errorf("making an ssh key: %w", err)
	}
	line, err := ssh.NewPublicKey(public)
	if err != nil {
		return "", nil, fmt.Errorf("making an ssh key: %w", err)
	}
	return strings.TrimSpace(string(ssh.MarshalAuthorizedKey(line))), pem.EncodeToMemory(block), nil
}

// KnownHost is the line of known_hosts for a host and its key.
func KnownHost(addr string, key ssh.PublicKey) string {
	return knownhosts.Line([]string{knownhosts.Normalize(addr)}, key) + "\n"
}
