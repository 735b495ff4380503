package vault_test

import (
	"bytes"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/ProtonMail/go-crypto/openpgp"
	"github.com/ProtonMail/go-crypto/openpgp/armor"
	"github.com/ProtonMail/go-crypto/openpgp/packet"

	"github.com/keyturn/keyturn/internal/backend/remote"
	"github.com/keyturn/keyturn/internal/backend/vault"
	"github.com/keyturn/keyturn/internal/rotation"
	"github.com/keyturn/keyturn/internal/rotation/rotationtest"
	"github.com/keyturn/keyturn/internal/secret"
	"github.com/keyturn/keyturn/internal/testserver"
)

// TestSettingsOfKeys reads good and bad sections of what people hold.
func TestSettingsOfKeys(t *testing.T) {
	const (
		who    = "servers: [\"https://vault-1.example.com:8200\"]\ntoken: {from-env: KEYTURN_VAULT_TOKEN}\n"
		three  = "holders: [a.asc, b.asc, c.asc]"
		canary = "canary-77aa"
	)
	for _, good := range []string{"seal: {" + three + ", threshold: 2}", "recovery: {" + three + ", threshold: 3, deliver: out, wait: 0s}", "barrier: {}"} {
		s, err := vault.Section(rotationtest.Decoder(who + good))
		if held := s.(vault.Settings).Held(); err != nil || !held || len(s.(vault.Settings).Fields()) > 0 {
			t.Errorf("%s: %v, held %t", good, err, held)
		}
		if every, overlap := s.(vault.Settings).Pace(); every != 365*24*time.Hour || overlap != 0 {
			t.Errorf("%s: every %s, overlap %s, want a year and none", good, every, overlap)
		}
	}
	rotationtest.Refuses(t, vault.Section, canary, map[string][3]string{
		"two things":        {who + "approle: {role: orders}\nbarrier: {}", "", "not several"},
		"both kinds":        {who + "seal: {" + three + ", threshold: 2}\nrecovery: {" + three + ", threshold: 2}", "", "not several"},
		"nobody":            {who + "seal: {threshold: 2}", "seal.holders", "nobody gets a share"},
		"one":               {who + "seal: {holders: [a.asc], threshold: 1}", "seal.holders", "is the key itself"},
		"no path":           {who + "seal: {holders: [a.asc, \"\"], threshold: 2}", "seal.holders.1", "the path is empty"},
		"no threshold":      {who + "recovery: {" + three + "}", "recovery.threshold", "not 2 to 3"},
		"threshold of one":  {who + "seal: {" + three + ", threshold: 1}", "seal.threshold", "not 2 to 3"},
		"threshold of four": {who + "seal: {" + three + ", threshold: 4}", "seal.threshold", "not 2 to 3"},
		"no time":           {who + "seal: {" + three + ", threshold: 2, wait: " + canary + "}", "seal.wait", "no time of an hour or less"},
		"too long":          {who + "seal: {" + three + ", threshold: 2, wait: 3h}", "seal.wait", "no time of an hour or less"},
		"a share in it":     {who + "seal: {" + three + ", threshold: 2, share: " + canary + "}", "", "share"},
	})
}

// person makes a key of a person, and returns its public part, or its private one.
func person(t *testing.T, private bool, config *packet.Config) []byte {
	t.Helper()
	one, err := openpgp.NewEntity("Ann", "", "ann@example.com", config)
	var text bytes.Buffer
	kind, write := openpgp.PublicKeyType, one.Serialize
	if private {
		kind, write = openpgp.PrivateKeyType, func(w io.Writer) error { return one.SerializePrivate(w, nil) }
	}
	w, armored := armor.Encode(&text, kind, nil)
	if err != nil || armored != nil || write(w) != nil || w.Close() != nil {
		t.Fatal(err, armored)
	}
	return text.Bytes()
}

// TestHolders refuses keys that no share can be encrypted for, and private ones.
func TestHolders(t *testing.T) {
	s := vault.Settings{Servers: []string{"https://127.0.0.1:1"}, Token: secret.Source{Env: "A"}, Seal: &vault.Shares{Holders: []string{"ann.asc", "bob.asc"}, Threshold: 2}}
	good := person(t, false, nil)
	old := person(t, false, &packet.Config{KeyLifetimeSecs: 60, Time: func() time.Time { return time.Now().Add(-time.Hour) }})
	block, err := armor.Decode(bytes.NewReader(good))
	if err != nil {
		t.Fatal(err)
	}
	binary, err := io.ReadAll(block.Body)
	if err != nil {
		t.Fatal(err)
	}
	private := person(t, true, nil)
	for name, c := range map[string]struct {
		key  []byte
		want string
	}{
		"as text":    {good, ""},
		"as packets": {binary, ""},
		"private":    {private, "it is a private key"},
		"two":        {append(bytes.Clone(binary), binary...), "it holds 2 keys"},
		"expired":    {old, "is expired or revoked"},
		"no key":     {[]byte("ssh-ed25519 AAAA"), "no OpenPGP public key"},
		"nothing":    {nil, "no OpenPGP public key"},
		"damaged":    {bytes.Replace(good, []byte("\n\n"), []byte("\n\nAAAAAAAAAAAA"), 1), ""},
	} {
		_, err := vault.NewSeal(s, vault.Options{Holders: [][]byte{person(t, false, nil), c.key}})
		switch {
		case name == "damaged" && err == nil, name != "damaged" && (c.want == "") != (err == nil):
			t.Errorf("%s: %v", name, err)
		case err != nil && (rotation.ClassOf(err) != rotation.Invalid || !strings.Contains(err.Error(), c.want) || !strings.Contains(err.Error(), "bob.asc")):
			t.Errorf("%s: %v, want it to be invalid, with %q", name, err, c.want)
		}
	}
	if _, err := vault.NewSeal(s, vault.Options{Holders: [][]byte{good}}); rotation.ClassOf(err) != rotation.Invalid {
		t.Errorf("a key that was not read: %v", err)
	}
}

// keysOf makes a seal and a keyring for a server, whose token has a policy.
func keysOf(t *testing.T, server *testserver.Vault, name, policy string, change func(*vault.Settings)) (*vault.Seal, *vault.Keyring) {
	t.Helper()
	admin := server.Admin(t, name, policy)
	s := vault.Settings{Servers: server.URLs(), CA: server.CAFile(), Token: secret.Source{Env: tokenVariable}}
	change(&s)
	o := vault.Options{Credential: name, Options: remote.Options{CA: server.CA(), Getenv: func(string) string { return admin }}}
	if s.Barrier != nil {
		k, err := vault.NewKeyring(s, o)
		if err != nil {
			t.Fatal(err)
		}
		return nil, k
	}
	o.Holders = [][]byte{person(t, false, nil), person(t, false, nil)}
	seal, err := vault.NewSeal(s, o)
	if err != nil {
		t.Fatal(err)
	}
	return seal, nil
}

func unseals(s *vault.Settings) {
	s.Seal = &vault.Shares{Holders: []string{"a", "b"}, Threshold: 2}
}
func recovers(s *vault.Settings) {
	s.Recovery = &vault.Shares{Holders: []string{"a", "b"}, Threshold: 2}
}
func encrypts(s *vault.Settings) { s.Barrier = &vault.Barrier{} }

const mayRekey = `path "sys/rekey/backup" { capabilities = ["read", "delete"] }`

// TestKeysRefused looks at what keeps a ceremony from being begun: each is refused with a hint, and nothing is
// changed.
func TestKeysRefused(t *testing.T) {
	server := shared.Get(t)
	begun := rotation.Credential{Burnt: 2, Open: &rotation.Rotation{From: 1, To: 2}, Versions: []rotation.Version{{Number: 1, State: rotation.Current}, {Number: 2, State: rotation.Pending}}}
	first := rotation.Credential{Burnt: 1, Open: &rotation.Rotation{To: 1}, Versions: []rotation.Version{{Number: 1, State: rotation.Pending}}}
	seal, _ := keysOf(t, server, "keys-good", mayRekey, unseals)
	if err := seal.Preflight(t.Context(), begun); err != nil {
		t.Fatal(err)
	}
	poor, _ := keysOf(t, server, "keys-poor", `path "sys/rekey/backup" { capabilities = ["read"] }`, unseals)
	other, _ := keysOf(t, server, "keys-other", mayRekey, recovers)
	_, ring := keysOf(t, server, "keys-ring", `path "sys/rotate" { capabilities = ["update"] }`, encrypts)
	adopts := func(b rotation.Adopter) error {
		_, err := b.Adopt(t.Context(), rotation.Version{Number: 1})
		return err
	}
	for name, c := range map[string]struct {
		err  error
		want string
	}{
		"not adopted":         {seal.Preflight(t.Context(), first), "that is in force is not on the record"},
		"no right to remove":  {poor.Preflight(t.Context(), begun), "lacks delete on sys/rekey/backup"},
		"no recovery key":     {other.Preflight(t.Context(), begun), "does not unseal itself"},
		"none to adopt":       {adopts(other), "Vault does not unseal itself"},
		"no right to rotate":  {ring.Preflight(t.Context(), begun), "lacks read on sys/key-status, sudo on sys/rotate"},
		"the key in use":      {ring.Preflight(t.Context(), first), "that is in use is not on the record"},
		"ended by hand":       {seal.End(t.Context(), rotation.Version{State: rotation.Current}, rotation.ToRevoke), "ended by the next one alone"},
		"another is in force": {inForce(t, seal, rotation.Version{Number: 4, Public: map[string]string{"shares": "7", "threshold": "4"}}), "version 4 has 7 and 4"},
		"an older snapshot":   {inForce(t, ringWith(t, server), rotation.Version{Number: 4, Public: map[string]string{"term": "99"}}), "version 4 has term 99"},
	} {
		if c.err == nil || !strings.Contains(c.err.Error(), c.want) || rotation.ClassOf(c.err) != rotation.Refused || rotation.HintOf(c.err) == "" {
			t.Errorf("%s: %v (class %d, hint %q), want a refusal with %q", name, c.err, rotation.ClassOf(c.err), rotation.HintOf(c.err), c.want)
		}
	}
	if v, err := seal.Adopt(t.Context(), rotation.Version{Number: 1}); err != nil || v.Identity != "2 of 3" {
		t.Errorf("Adopt = %+v, %v, want 2 of 3", v, err)
	}
}

func ringWith(t *testing.T, server *testserver.Vault) *vault.Keyring {
	_, ring := keysOf(t, server, "keys-ring-good", `path "sys/rotate" { capabilities = ["update", "sudo"] } path "sys/key-status" { capabilities = ["read"] }`, encrypts)
	return ring
}

func inForce(t *testing.T, b rotation.Ceremony, v rotation.Version) error {
	t.Helper()
	_, err := b.InForce(t.Context(), v)
	return err
}

// TestKeysUnanswered asks servers that are sealed, paused or gone: nothing is concluded.
func TestKeysUnanswered(t *testing.T) {
	server := testserver.NewVault(t, 1)
	begun := rotation.Credential{Burnt: 2, Open: &rotation.Rotation{From: 1, To: 2}, Versions: []rotation.Version{{Number: 1, State: rotation.Current}, {Number: 2, State: rotation.Pending}}}
	seal, _ := keysOf(t, server, "keys", mayRekey, unseals)
	step := func() error {
		_, err := seal.CeremonySteps(rotation.Cutover)[0].Do(t.Context(), begun)
		return err
	}
	for name, broken := range map[string]func() func(){
		"sealed": func() func() {
			server.Seal(t)
			return func() {
				if err := server.Unseal(t.Context(), 0); err != nil {
					t.Fatal(err)
				}
			}
		},
		"paused": func() func() {
			_ = server.Pause(0)
			return func() { _ = server.Continue(0) }
		},
	} {
		mend := broken()
		if err := step(); rotation.ClassOf(err) != rotation.Unknown || rotation.HintOf(err) == "" {
			t.Errorf("%s: %v, want it unknown, with a hint", name, err)
		}
		mend()
		if err := server.Await(t.Context(), 0); err != nil {
			t.Fatal(err)
		}
	}
	var is struct{ Started bool }
	if err := server.Call(t.Context(), http.MethodGet, "/v1/sys/rekey/init", nil, &is); err != nil || is.Started {
		t.Errorf("a rekey is under way: %t, %v", is.Started, err)
	}
}

// TestDeliver writes the encrypted shares into a folder that cannot be written to: it is tried again.
func TestDeliver(t *testing.T) {
	server := testserver.NewVault(t, 1)
	folder := filepath.Join(t.TempDir(), "no-folder")
	if err := os.WriteFile(folder, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	seal, _ := keysOf(t, server, "keys", mayRekey, func(s *vault.Settings) {
		unseals(s)
		s.Seal.Deliver, s.Seal.Wait = folder, "0s"
	})
	cred := rotation.Credential{Name: "keys", Burnt: 2, Open: &rotation.Rotation{From: 1, To: 2}, Versions: []rotation.Version{{Number: 1, State: rotation.Current}, {Number: 2, State: rotation.Pending}}}
	steps := seal.CeremonySteps(rotation.Cutover)
	r, err := steps[0].Do(t.Context(), cred)
	if err != nil {
		t.Fatal(err)
	}
	cred.Open.Steps = []rotation.StepState{{Phase: rotation.Cutover, Name: steps[0].Name, Version: 2, Restore: r.Restore, Status: rotation.RecordDone, Done: true}}
	var is struct{ Nonce string }
	if err := server.Call(t.Context(), http.MethodGet, "/v1/sys/rekey/init", nil, &is); err != nil {
		t.Fatal(err)
	}
	for _, share := range server.Shares[:2] {
		if err := server.Call(t.Context(), http.MethodPut, "/v1/sys/rekey/update", map[string]string{"nonce": is.Nonce, "key": share}, nil); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := steps[2].Do(t.Context(), cred); rotation.ClassOf(err) != rotation.Unknown || !strings.Contains(rotation.HintOf(err), "look at the folder") {
		t.Errorf("a folder that is none: %v, want it unknown, with a hint", err)
	}
	if err := os.Remove(folder); err != nil {
		t.Fatal(err)
	}
	if _, err := steps[2].Do(t.Context(), cred); err != nil {
		t.Error(err)
	}
	files, err := filepath.Glob(filepath.Join(folder, "keys-v2-*.gpg"))
	if err != nil || len(files) != 2 {
		t.Errorf("delivered are %v, %v, want two files", files, err)
	}
	for _, f := range files {
		if info, err := os.Stat(f); err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("%s has the mode %v, %v", f, info.Mode(), err)
		}
	}
	if err := steps[0].Undo(t.Context(), cred, nil); err != nil {
		t.Error(err)
	}
}
