package vault

import (
	"bytes"
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/keyturn/keyturn/internal/backend/remote/vaultapi"
	"github.com/keyturn/keyturn/internal/rotation"
)

// deliver writes the encrypted shares into their folder, and looks whether each holder has theirs.
func (s *Seal) deliver(ctx context.Context, c *vaultapi.Client, cred rotation.Credential) (rotation.Result, error) {
	was, _ := begun(cred)
	kept, err := s.kept(ctx, c)
	if err != nil {
		return rotation.Result{}, err
	}
	if kept == nil || kept.Nonce != was.Nonce {
		if before, _ := keptBy(cred, rotation.Cutover, stepDeliver, cred.Next().Number); before.Nonce == was.Nonce {
			return rotation.Result{Observed: true}, nil // somebody removed them since
		}
		return rotation.Result{}, refused("give it up: keyturn rollback --reason … "+cred.Name, "the encrypted shares of the new %s are gone from Vault", s.kind.noun)
	}
	left := map[string][]string{}
	for print, shares := range kept.Keys {
		left[print] = shares
	}
	var files []string
	for i, h := range s.holders {
		if len(left[h.print]) == 0 {
			return rotation.Result{}, refused("give it up: keyturn rollback --reason … "+cred.Name, "no share was encrypted for the holder's key %q", h.path)
		}
		share := left[h.print][0]
		left[h.print] = left[h.print][1:]
		if s.shares.Deliver == "" {
			continue
		}
		b, err := hex.DecodeString(share)
		if err != nil {
			return rotation.Result{}, errors.New("vault: an encrypted share cannot be read")
		}
		name := filepath.Join(s.shares.Deliver, fmt.Sprintf("%s-v%d-%d-%s.gpg", cred.Name, cred.Next().Number, i+1, h.short()))
		if err := writeOnce(name, b); err != nil {
			return rotation.Result{}, rotation.Errorf(rotation.Unknown, "look at the folder under deliver, then run it again: keyturn cutover "+cred.Name, "vault: delivering an encrypted share: %w", err)
		}
		files = append(files, name)
	}
	return rotation.Result{Restore: attempt{Nonce: was.Nonce}.restore(), Evidence: map[string]any{"encrypted_shares": len(s.holders), "files": files}}, nil
}

// writeOnce writes a file that is there as a whole or not at all.
func writeOnce(name string, b []byte) error {
	if there, err := os.ReadFile(name); err == nil && bytes.Equal(there, b) {
		return nil
	} else if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(name), 0o700); err != nil {
		return err
	}
	if err := os.WriteFile(name+".part", b, 0o600); err != nil {
		return err
	}
	return os.Rename(name+".part", name)
}
