package cli_test

import (
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"os"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/mholt/acmez/v3/acme"

	"github.com/keyturn/keyturn/internal/testserver"
)

// TestAccountKeyFaults is an authority that does not answer in each phase, an answer that is lost, an
// authority that changes no key, a file that is gone, and somebody who changes the key by hand: what
// is true is said, the account is never lost, and it goes on when run again.
func TestAccountKeyFaults(t *testing.T) {
	journey(t)
	t.Parallel()
	a := newAccountShop(t, testserver.NewPebble(t, testserver.PebbleOptions{}))
	a.ok("adopt", a.name)
	whose := func(when string) {
		t.Helper()
		if got := a.owner(a.inService()); got != a.account.Location {
			t.Fatalf("%s the key in service is that of %q", when, got)
		}
	}
	silent := func(http.ResponseWriter, *http.Request, http.Handler) { panic(http.ErrAbortHandler) }
	changes := func(answer http.HandlerFunc) func(http.ResponseWriter, *http.Request, http.Handler) {
		return func(w http.ResponseWriter, r *http.Request, pass http.Handler) {
			if testserver.ChangesKey(r) {
				pass = answer
			}
			pass.ServeHTTP(w, r)
		}
	}
	// The authority does not answer.
	for _, phase := range []string{"prepare", "validate", "cutover", "cleanup"} {
		a.between(silent)
		r := a.run(phase, a.name)
		a.between(nil)
		if r.code != 1 && r.code != 4 || !strings.Contains(r.stderr, "hint: ") {
			t.Errorf("keyturn %s while the authority does not answer: exit %d\n%s%s", phase, r.code, r.stdout, r.stderr)
		}
		whose(phase)
		if a.ok(phase, a.name); phase == "cutover" {
			time.Sleep(time.Second) // the overlap
		}
	}
	a.done()

	// It does not answer from the change on, and did nothing.
	a.ok("prepare", a.name)
	a.ok("validate", a.name)
	cut := atomic.Bool{}
	a.between(func(w http.ResponseWriter, r *http.Request, pass http.Handler) {
		if testserver.ChangesKey(r) {
			cut.Store(true)
		}
		if cut.Load() {
			panic(http.ErrAbortHandler)
		}
		pass.ServeHTTP(w, r)
	})
	a.fails(4, []string{"keyturn cutover"}, "cutover", a.name)
	a.between(nil)
	whose("after a change that was never answered")
	a.ok("cutover", a.name)
	whose("after the cutover")
	time.Sleep(time.Second) // the overlap
	a.ok("cleanup", a.name)

	// It did it when nobody waited for it any more: it is said, and gone on with or taken back.
	for _, then := range [][]string{{"cutover"}, {"rollback", "--reason", "the change came late"}} {
		a.ok("prepare", a.name)
		a.ok("validate", a.name)
		before, link := a.inService(), fmt.Sprintf("v%d", a.status().Current)
		a.points(fmt.Sprintf("v%d", a.status().Pending))
		_, err := a.client().AccountKeyRollover(t.Context(), acme.Account{Location: a.account.Location, PrivateKey: before}, a.inService())
		a.must(err)
		a.points(link)
		a.finds("a change that came late", "came when nobody waited for it any more")
		if a.ok(append(then, a.name)...); then[0] == "cutover" {
			time.Sleep(time.Second) // the overlap
			a.ok("cleanup", a.name)
		}
		a.done()
	}

	// It did it, and the answer is lost.
	a.between(func(w http.ResponseWriter, r *http.Request, pass http.Handler) {
		if testserver.ChangesKey(r) {
			testserver.LoseAnswer(w, r, pass)
			return
		}
		pass.ServeHTTP(w, r)
	})
	a.ok("rotate", a.name)
	a.between(nil)
	whose("after an answer that was lost")
	time.Sleep(time.Second) // the overlap
	a.ok("cleanup", a.name)
	a.done()

	// It cannot change keys: all is undone.
	a.between(changes(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/problem+json")
		w.WriteHeader(http.StatusNotImplemented)
		fmt.Fprint(w, `{"type": "urn:ietf:params:acme:error:rejectedIdentifier", "detail": "not implemented", "status": 501}`) // as step-ca has it
	}))
	a.fails(1, []string{"rolled back", "the authority cannot change the key of an account", "hint: nothing was changed"}, "rotate", a.name)
	a.between(nil)
	a.done()

	// The next key is gone before the cutover: all is undone.
	a.ok("prepare", a.name)
	a.ok("validate", a.name)
	pending := fmt.Sprintf("v%d", a.status().Pending)
	a.must(os.Remove(a.folder(pending, "key")))
	a.fails(1, []string{"rolled back"}, "cutover", a.name)
	whose("after a key that was removed")
	if _, err := os.Lstat(a.folder(pending)); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the folder of a key that was removed is left: %v", err)
	}

	// Somebody changes the key by hand: it is said, nothing is begun and nothing ended.
	key, err := a.pebble.AccountKey()
	a.must(err)
	hand := a.parsed(key)
	_, err = a.client().AccountKeyRollover(t.Context(), acme.Account{Location: a.account.Location, PrivateKey: a.inService()}, hand)
	a.must(err)
	a.finds("a key that was changed by hand", "is dead: the authority knows no account with this key")
	if r := a.run("doctor"); r.code != 6 || !strings.Contains(r.stdout, "no version on the record has the account's key") {
		t.Errorf("doctor of a key that was changed by hand: exit %d\n%s%s", r.code, r.stdout, r.stderr)
	}
	a.fails(3, []string{"no version on the record has the account's key", "keyturn adopt"}, "rotate", a.name)
	if got := a.owner(hand); got != a.account.Location {
		t.Errorf("the key that was put in by hand is that of %q", got)
	}
	_, err = a.client().AccountKeyRollover(t.Context(), acme.Account{Location: a.account.Location, PrivateKey: hand}, a.inService())
	a.must(err)
	a.ok("rotate", "--wait", a.name)
	a.done()
}

// TestAccountKeyMistakes meets what is wrong with the configuration of an account's key, or with what
// stands around it: each is said with a hint and its exit code, and nothing is changed.
func TestAccountKeyMistakes(t *testing.T) {
	t.Parallel()
	a := newAccountShop(t, servers.pebble.Get(t))
	whole, replaced := a.configuration()
	key := a.folder("initial", "key")
	mine, err := os.ReadFile(key)
	a.must(err)
	other, err := a.pebble.AccountKey()
	a.must(err)
	holds := func(text string) func() {
		return func() { a.must(os.Remove(key)); a.must(os.WriteFile(key, []byte(text), 0o400)) }
	}
	back := holds(string(mine))
	file := "account: {from-file: " + a.folder("current", "key") + "}"
	const section = "certificate:\n"
	a.meets(whole, map[string]shopMistake{
		"a name":                    {config: replaced(section, section+"      names: [a.example]\n"), code: 2, words: []string{"the key of an account, and no certificate"}},
		"a challenge":               {config: replaced("rollover: true", "rollover: true, http-01: {directory: /srv/acme}"), code: 2, words: []string{"the key of an account, and no certificate"}},
		"a place to probe":          {config: replaced(section, section+"      probe: [\"tls://web:443\"]\n"), code: 2, words: []string{"the key of an account, and no certificate"}},
		"a variable":                {config: replaced(file, "account: {from-env: KEYTURN_ACME_KEY}"), code: 2, words: []string{"no place that the cutover moves"}},
		"a file that stays":         {config: replaced(file, "account: {from-file: /etc/acme.pem}"), code: 2, words: []string{"no place that the cutover moves"}},
		"another folder":            {config: replaced(file, "account: {from-file: /srv/other/current/key}"), code: 2, words: []string{"acme.account", "another folder than it is read from", a.folder()}},
		"a Swarm":                   {config: replaced("directory: {path: "+a.root+"}", "swarm: {host: \"unix:///var/run/docker.sock\"}"), code: 2, words: []string{"no place that it is read from again"}},
		"a gap that nobody accepts": {config: replaced("    accept-gap: true\n", ""), code: 2, words: []string{"an account has one key at its authority"}},
		"an unknown kind of key":    {config: replaced(section, section+"      key-type: ed25519\n"), code: 2, words: []string{"unknown kind of key"}},
		"another field":             {config: replaced("/key: key}", "/key: certificate}"), code: 2, words: []string{"there is no such field"}},
		"no authority":              {config: replaced(a.pebble.CAFile(), "/nowhere.pem"), code: 2, words: []string{"/nowhere.pem"}},
		"nothing answers":           {config: replaced(a.directory, "https://127.0.0.1:1/dir"), code: 4, words: []string{"reading the directory"}},
		"no directory":              {config: replaced(a.directory, strings.TrimSuffix(a.directory, "dir")), code: 4, words: []string{"reading the directory"}},
		"nothing on record":         {code: 3, words: []string{"is no version on the record", "keyturn adopt"}},
		"nobody's key":              {first: holds(other), then: back, command: "adopt", code: 3, words: []string{"the authority knows no account with the key"}},
		"no key at all":             {first: holds("hunter2"), then: back, command: "adopt", code: 2, words: []string{"no key in PEM form"}},
		"no terms": {first: func() { a.must(os.Rename(a.folder(), a.folder()+".off")) }, then: func() { a.must(os.Rename(a.folder()+".off", a.folder())) },
			code: 3, words: []string{"agree-terms"}},
	})
	if got := a.owner(a.inService()); got != a.account.Location {
		t.Errorf("the key in service is that of %q", got)
	}
	if got := a.owner(a.parsed(other)); got != "" {
		t.Errorf("an account was made with nobody's key: %s", got)
	}
}
