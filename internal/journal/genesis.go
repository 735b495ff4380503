package journal

import (
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"strconv"
	"time"

	"github.com/keyturn/keyturn/internal/secret"
)

const (
	// Format is the version of the format, recorded in the first entry.
	Format = 1

	stepGenesis   = "genesis"
	statusNote    = "note"
	statusWaiting = "waiting"
	keyEvidence   = "fingerprint-key"
	keyBytes      = 32
	formatMember  = "format"
)

// NewKey returns 32 random bytes, for the key of the fingerprints.
func NewKey() secret.Value {
	b := make([]byte, keyBytes)
	rand.Read(b) // never fails: it ends the program instead
	defer clear(b)
	return secret.New(b)
}

// Genesis returns the first entry of a journal. It holds the key of the
// fingerprints; an empty key means that one is configured elsewhere, and none
// is written.
func Genesis(now time.Time, key secret.Value) Entry {
	ev := map[string]json.RawMessage{formatMember: json.RawMessage(strconv.Itoa(Format))}
	if !key.Empty() {
		ev[keyEvidence] = json.RawMessage(`"` + hex.EncodeToString(key.Reveal()) + `"`)
	}
	return Entry{Time: now, Step: stepGenesis, Status: statusNote, Evidence: ev}
}

// FingerprintKey returns the key that the first entry holds, if it holds one.
func FingerprintKey(entries []Entry) (secret.Value, bool) {
	if len(entries) == 0 || entries[0].Step != stepGenesis {
		return secret.Value{}, false
	}
	var text string
	if json.Unmarshal(entries[0].Evidence[keyEvidence], &text) != nil {
		return secret.Value{}, false
	}
	b, err := hex.DecodeString(text)
	if err != nil || len(b) < keyBytes {
		return secret.Value{}, false
	}
	defer clear(b)
	return secret.New(b), true
}
