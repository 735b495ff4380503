package certificate_test

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/keyturn/keyturn/internal/backend/certificate"
	"github.com/keyturn/keyturn/internal/rotation"
	"github.com/keyturn/keyturn/internal/rotation/rotationtest"
	"github.com/keyturn/keyturn/internal/secret"
	"github.com/keyturn/keyturn/internal/testserver"
)

const rolling = "acme:\n  directory: https://ca.example.com/directory\n  account: {from-file: /srv/keyturn/acme/current/key}\n  rollover: true\n"

func TestRolloverSection(t *testing.T) {
	for name, text := range map[string]string{
		"the least":  rolling,
		"everything": rolling + "  agree-terms: true\n  contact: [ops@example.com]\n  external-account: {id: kid-1, key: {from-env: M}}\n  ca: ca.pem\nkey-type: rsa-3072\n",
	} {
		s, err := certificate.Section(rotationtest.Decoder(text))
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		of := s.(certificate.Settings)
		key, folder := of.Place()
		if !slices.Equal(of.Fields(), []string{"key"}) || !of.Own() || of.Gap() == "" || key != "acme.account" || folder != "/srv/keyturn/acme" {
			t.Errorf("%s: fields %q, own %t, gap %q, place %s %s", name, of.Fields(), of.Own(), of.Gap(), key, folder)
		}
	}
	const canary, no = "hunter2-hunter2", "the key of an account, and no certificate"
	account := func(with string) string {
		return strings.Replace(rolling, "{from-file: /srv/keyturn/acme/current/key}", with, 1)
	}
	rotationtest.Refuses(t, certificate.Section, canary, map[string][3]string{
		"a name":                {rolling + "names: [" + canary + ".example]\n", "names", no},
		"a place to probe":      {rolling + "probe: [\"tls://web:443\"]\n", "probe", no},
		"roots":                 {rolling + "roots: r.pem\n", "roots", no},
		"a list":                {rolling + "crl: http://ca/crl\n", "crl", no},
		"a certificate":         {rolling + "adopt: a.pem\n", "adopt", no},
		"a profile":             {rolling + "  profile: shortlived\n", "acme.profile", no},
		"a challenge":           {rolling + "  http-01: {directory: /srv/acme}\n", "acme.http-01", no},
		"a record":              {rolling + "  dns-01: {hook: [/bin/x]}\n", "acme.dns-01", no},
		"Vault":                 {rolling + "vault: {servers: [\"https://v\"], token: {from-env: T}, role: r}\n", "vault", no},
		"step-ca":               {rolling + "step-ca: {url: https://ca, provisioner: a, key: {from-env: K}}\n", "step-ca", no},
		"a trigger":             {rolling + "trigger: cert-manager\n", "trigger", no},
		"authorities":           {rolling + "rotate-ca: {trust: [a.pem]}\n", "rotate-ca", no},
		"a variable":            {account("{from-env: KEYTURN_ACME_KEY}"), "acme.rollover", "no place that the cutover moves"},
		"a file that stays":     {account("{from-file: /etc/keyturn/acme.pem}"), "acme.rollover", "no place that the cutover moves"},
		"a file of a version":   {account("{from-file: /srv/keyturn/acme/v1/key}"), "acme.rollover", "no place that the cutover moves"},
		"a folder from here":    {account("{from-file: acme/current/key}"), "acme.rollover", "no place that the cutover moves"},
		"no account":            {account("{}"), "acme.account", "has no place"},
		"plain text":            {strings.Replace(rolling, "https://ca", "http://ca", 1), "acme.directory", "no URL that begins with https://"},
		"an unknown kind":       {rolling + "key-type: ed25519\n", "key-type", "unknown kind of key"},
		"a customer":            {rolling + "  external-account: {id: a}\n", "acme.external-account.key", "has no place"},
		"a key that is unknown": {strings.Replace(rolling, "rollover:", "roll-over:", 1), "", "roll-over"},
	})
}

// TestRolloverContract is what every backend must keep.
func TestRolloverContract(t *testing.T) {
	t.Parallel()
	pebble := ownPebble(t)
	rotationtest.Contract(t, func(t *testing.T) rotationtest.Setup {
		k := newKeyring(t, pebble)
		return rotationtest.Setup{
			Backend:    k.backend(),
			Credential: k.name,
			Login:      certificate.Login,
			Patience:   time.Second,
			Claims: &rotationtest.Claims{Kind: "ACME account keys", Page: "certificate.md#rotating-the-accounts-key",
				Dead: "its authority knows no account with it, or another one, and knows the account by the next one"},
			Break: map[string]func(*testing.T) func(){
				"cut off": func(*testing.T) func() {
					k.between(silent)
					return func() { k.between(nil) }
				},
				"paused": func(*testing.T) func() {
					k.must(pebble.Pause())
					return func() { k.must(pebble.Continue()) }
				},
			},
			Changes: func(*testing.T) string {
				kept, err := pebble.Kept()
				k.must(err)
				return fmt.Sprint(kept, k.changes.Load())
			},
		}
	})
}

// TestRolloverLogin feeds the probe what a real authority answers, and what one may.
func TestRolloverLogin(t *testing.T) {
	t.Parallel()
	k := newKeyring(t, shared.Get(t))
	b := k.backend()
	v, m := b.first()
	v.Public["account"] = k.accountOf(m)
	other := newKeyring(t, k.pebble)
	_, others := other.backend().first()
	nobodys, err := b.Draft(k.version(9, rotation.Pending))
	k.must(err)
	gone := newKeyring(t, k.pebble)
	of := gone.backend()
	ended, endedKey := of.first()
	k.must(os.Remove(filepath.Join(gone.folder, "current")))
	k.must(of.End(t.Context(), ended, rotation.ToDiscard))
	spec := b.ProbeSpec(v)
	untrusting := spec
	untrusting.CA = k.pebble.Roots()
	nowhere := spec
	nowhere.Endpoints = []string{fmt.Sprintf("https://127.0.0.1:%d/dir", testserver.DeadPort(t))}
	for name, c := range map[string]struct {
		spec   rotation.ProbeSpec
		m      rotation.Material
		handle func(http.ResponseWriter, *http.Request, http.Handler)
		answer rotation.Answer
		words  string
	}{
		"its key":                    {spec, m, nil, rotation.Alive, ""},
		"nobody's key":               {spec, nobodys, nil, rotation.Dead, "knows no account with this key"},
		"another account's key":      {spec, others, nil, rotation.Unfit, "the key of another account"},
		"of an account that ended":   {spec, endedKey, nil, rotation.Unfit, "is not active"},
		"no key":                     {spec, rotation.Material{"key": secret.FromString("hunter2")}, nil, rotation.Inconclusive, "mount key"},
		"nothing":                    {spec, rotation.Material{}, nil, rotation.Inconclusive, "mount key"},
		"nothing answers":            {nowhere, m, nil, rotation.Inconclusive, "connection refused"},
		"another authority's TLS":    {untrusting, m, nil, rotation.Inconclusive, "certificate"},
		"cut off":                    {spec, nobodys, silent, rotation.Inconclusive, "EOF"},
		"overloaded":                 {spec, nobodys, problem(http.StatusServiceUnavailable, "serverInternal"), rotation.Inconclusive, "serverInternal"},
		"an error that says missing": {spec, nobodys, problem(http.StatusInternalServerError, "accountDoesNotExist"), rotation.Inconclusive, "accountDoesNotExist"},
		"rate limited":               {spec, nobodys, problem(http.StatusTooManyRequests, "rateLimited"), rotation.Inconclusive, "rateLimited"},
		"nonces that are all bad":    {spec, nobodys, problem(http.StatusBadRequest, "badNonce"), rotation.Inconclusive, "badNonce"},
		"malformed":                  {spec, nobodys, problem(http.StatusBadRequest, "malformed"), rotation.Inconclusive, "malformed"},
		"a page of a proxy": {spec, nobodys, func(w http.ResponseWriter, _ *http.Request, _ http.Handler) { http.NotFound(w, nil) },
			rotation.Inconclusive, "404"},
	} {
		k.between(c.handle)
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		p := certificate.Login(ctx, c.spec, c.m)
		cancel()
		if p.Answer != c.answer || !strings.Contains(p.Reason, c.words) || strings.Contains(p.Reason, "hunter2") {
			t.Errorf("%s: %s (%s), want %s (%s)", name, p.Answer, p.Reason, c.answer, c.words)
		}
	}
}

// TestRolloverLostAnswer is an authority whose answer to the change of a key, or to the making of an account, never comes:
// what it did is found.
func TestRolloverLostAnswer(t *testing.T) {
	t.Parallel()
	k := newKeyring(t, shared.Get(t))
	b := k.backend()
	lost := func(which func(*http.Request) bool) func(http.ResponseWriter, *http.Request, http.Handler) {
		return func(w http.ResponseWriter, r *http.Request, pass http.Handler) {
			if which(r) {
				testserver.LoseAnswer(w, r, pass)
				return
			}
			pass.ServeHTTP(w, r)
		}
	}
	v1, m1 := b.first()
	v2, m2 := b.stage(2, v1)
	k.between(lost(testserver.ChangesKey))
	if err := b.Activate(t.Context(), v2); err != nil {
		t.Fatalf("changing the key, whose answer is lost: %v", err)
	}
	k.between(nil)
	if old, now := k.accountOf(m1), k.accountOf(m2); old != "" || now != v2.Public["account"] {
		t.Errorf("the old key is that of %q, the new one of %q, want %q", old, now, v2.Public["account"])
	}
	if got := b.status(v1); got != rotation.Staged {
		t.Errorf("the old key is %s, want it kept for the way back", got)
	}
	k.must(b.Activate(t.Context(), v1))
	late := newKeyring(t, k.pebble)
	of := late.backend()
	v, m := of.stage(1)
	late.between(lost(makesAccount))
	if err := of.Activate(t.Context(), v); err == nil {
		t.Error("an account was made, and the answer came though it is lost")
	}
	made := late.accountOf(m)
	late.between(nil)
	k.must(of.Activate(t.Context(), v))
	if got := late.accountOf(m); got == "" || got != made {
		t.Errorf("the account is %q, want %q", got, made)
	}
}

// makesAccount reports whether a request is to make an account, and not to look for one.
func makesAccount(r *http.Request) bool {
	body, err := io.ReadAll(r.Body)
	r.Body = io.NopCloser(bytes.NewReader(body))
	var jws struct{ Payload string }
	if err != nil || json.Unmarshal(body, &jws) != nil {
		return false
	}
	payload, err := base64.RawURLEncoding.DecodeString(jws.Payload)
	return err == nil && bytes.Contains(payload, []byte("termsOfServiceAgreed"))
}
