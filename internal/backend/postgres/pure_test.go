package postgres_test

import (
	"crypto/hmac"
	"crypto/pbkdf2"
	"crypto/sha256"
	"encoding/base64"
	"regexp"
	"strings"
	"testing"

	"github.com/keyturn/keyturn/internal/backend/postgres"
	"github.com/keyturn/keyturn/internal/secret"
)

// TestVerifier computes the keys of RFC 5802 from the salt that the verifier holds.
func TestVerifier(t *testing.T) {
	v, err := postgres.Verifier(secret.FromString("pencil"))
	if err != nil {
		t.Fatal(err)
	}
	m := regexp.MustCompile(`^SCRAM-SHA-256\$4096:([^$]+)\$([^:]+):(.+)$`).FindStringSubmatch(string(v.Reveal()))
	if m == nil {
		t.Fatal("Verifier does not have PostgreSQL's form")
	}
	salt, err := base64.StdEncoding.DecodeString(m[1])
	if err != nil || len(salt) != 16 {
		t.Fatalf("salt of %d bytes, %v, want 16", len(salt), err)
	}
	salted, err := pbkdf2.Key(sha256.New, "pencil", salt, 4096, 32)
	if err != nil {
		t.Fatal(err)
	}
	mac := func(text string) []byte {
		h := hmac.New(sha256.New, salted)
		h.Write([]byte(text))
		return h.Sum(nil)
	}
	stored := sha256.Sum256(mac("Client Key"))
	if m[2] != base64.StdEncoding.EncodeToString(stored[:]) || m[3] != base64.StdEncoding.EncodeToString(mac("Server Key")) {
		t.Error("Verifier's keys are not those of RFC 5802")
	}
	again, _ := postgres.Verifier(secret.FromString("pencil"))
	if string(again.Reveal()) == string(v.Reveal()) {
		t.Error("two verifiers have one salt")
	}
	for _, bad := range []string{"", "with space", "pässword", "tab\t"} {
		if _, err := postgres.Verifier(secret.FromString(bad)); err == nil || bad != "" && strings.Contains(err.Error(), bad) {
			t.Errorf("Verifier of an unfit password = %v, want an error that does not repeat it", err)
		}
	}
}
