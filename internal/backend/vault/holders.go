package vault

import (
	"bytes"
	"encoding/base64"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/ProtonMail/go-crypto/openpgp"
	"github.com/ProtonMail/go-crypto/openpgp/armor"

	"github.com/keyturn/keyturn/internal/rotation"
)

// A holder gets one share of a key, encrypted so that nobody else can read it.
type holder struct {
	path  string
	print string // the fingerprint of the key, as Vault writes it
	key   string // its public part as Vault takes it: base64 of the packets
}

// short is by what a file of the holder is told from the others.
func (h holder) short() string { return strings.ToUpper(h.print[max(0, len(h.print)-16):]) }

// readHolder reads an OpenPGP public key, armored or not.
func readHolder(path string, text []byte, now time.Time) (holder, error) {
	h := holder{path: path}
	packets := text
	if block, err := armor.Decode(bytes.NewReader(text)); err == nil {
		if block.Type == openpgp.PrivateKeyType {
			return h, errors.New("it is a private key: it belongs to its holder alone, and must be replaced now")
		}
		var b bytes.Buffer
		if _, err := b.ReadFrom(block.Body); err != nil {
			return h, errors.New("its armor is damaged")
		}
		packets = b.Bytes()
	}
	ring, err := openpgp.ReadKeyRing(bytes.NewReader(packets))
	switch {
	case err != nil || len(ring) == 0:
		return h, errors.New("it is no OpenPGP public key; see: gpg --export --armor NAME")
	case len(ring) > 1:
		return h, fmt.Errorf("it holds %d keys, want one", len(ring))
	case ring[0].PrivateKey != nil:
		return h, errors.New("it is a private key: it belongs to its holder alone, and must be replaced now")
	}
	if _, ok := ring[0].EncryptionKey(now); !ok {
		return h, errors.New("nothing can be encrypted to it: it has no key for that, or is expired or revoked")
	}
	h.print, h.key = fmt.Sprintf("%x", ring[0].PrimaryKey.Fingerprint), base64.StdEncoding.EncodeToString(packets)
	return h, nil
}

// readHolders reads the keys of those who get a share.
func readHolders(paths []string, texts [][]byte, now time.Time) (out []holder, err error) {
	for i, path := range paths {
		if i >= len(texts) {
			return nil, rotation.Errorf(rotation.Invalid, "", "vault: the key of the holder %q was not read", path)
		}
		h, err := readHolder(path, texts[i], now)
		if err != nil {
			return nil, rotation.Errorf(rotation.Invalid, "write the public key of one person there", "vault: the holder's key %q: %w", path, err)
		}
		out = append(out, h)
	}
	return out, nil
}
