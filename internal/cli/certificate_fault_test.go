package cli_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/keyturn/keyturn/internal/cli/undertest/hooks"
	"github.com/keyturn/keyturn/internal/testserver"
)

// change changes the configuration.
func (c *certificateShop) change(old, with string) {
	c.t.Helper()
	text, err := os.ReadFile(c.config)
	c.must(err)
	if !strings.Contains(string(text), old) {
		c.t.Fatalf("the configuration has no %q", old)
	}
	c.must(os.WriteFile(c.config, []byte(strings.ReplaceAll(string(text), old, with)), 0o600))
}

// TestCertificateFaults is an authority that does not answer in each phase, a challenge that
// it rejects, and a server that goes on with the old certificate: services keep what works, it is
// said what is wrong, and it goes on when run again.
func TestCertificateFaults(t *testing.T) {
	journey(t)
	t.Parallel()
	c := newCertificateShop(t, testserver.NewPebble(t, testserver.PebbleOptions{Forget: true}))
	stop := c.asks(c.inDirectory())
	c.ok("adopt", c.name)
	silent := func(phase string) {
		t.Helper()
		const nowhere = "https://127.0.0.1:1/dir"
		c.change(c.pebble.Directory(), nowhere)
		c.pebble.Mute(true)
		r := c.run(phase, c.name)
		c.pebble.Mute(false)
		c.change(nowhere, c.pebble.Directory())
		if r.code != 1 && r.code != 4 {
			t.Errorf("keyturn %s while the authority does not answer: exit %d, want it to stop\n%s%s", phase, r.code, r.stdout, r.stderr)
		}
		if !strings.Contains(r.stderr, "hint: ") {
			t.Errorf("keyturn %s while the authority does not answer says\n%s", phase, r.stderr)
		}
	}

	// A challenge that is rejected: nothing is left of the version.
	folder, elsewhere := "http-01: {directory: "+c.pebble.Challenges()+"}", "http-01: {directory: "+t.TempDir()+"}"
	c.change(folder, elsewhere)
	c.fails(1, []string{"showing whose " + c.host + " is", "hint: the authority must find the challenge where it looks"}, "prepare", c.name)
	c.change(elsewhere, folder)
	if p := c.status(); p.Current != 1 || p.Pending != 0 || p.Queue != 0 {
		t.Errorf("after a rejected challenge the status is %+v", p)
	}

	silent("prepare")
	c.goesOn("prepare")
	silent("validate")
	c.goesOn("validate")
	silent("cutover")
	c.goesOn("cutover")
	time.Sleep(time.Second) // the overlap
	silent("cleanup")
	c.goesOn("cleanup")
	p := c.status()
	c.versions(p.Current)
	if got := c.states(c.issued()); strings.Count(got, "Valid") != 1 || !strings.HasSuffix(got, "Valid") {
		t.Errorf("the certificates are %s, want the last one alone to be valid", got)
	}

	// When it is due: not now, by its record; at once, if the authority wants that.
	if out := c.ok("plan", "--due"); strings.Contains(out, c.name+" ") {
		t.Errorf("a new certificate is due:\n%s", out)
	}
	pair, err := os.ReadFile(filepath.Join(c.root, c.name, "current", "certificate"))
	c.must(err)
	now := time.Now()
	c.must(c.pebble.Suggest(t.Context(), pair, now.Add(-2*time.Hour), now.Add(-time.Hour)))
	if out := c.ok("plan", "--due"); !strings.Contains(out, c.name+" ") {
		t.Errorf("the authority wants the certificate renewed, and it is not due:\n%s", out)
	}
	c.must(c.pebble.Suggest(t.Context(), pair, now.Add(20*time.Hour), now.Add(21*time.Hour)))
	if r := c.runWith([]string{hooks.ClockAhead + "=17h"}, "plan", "--due"); r.code != 0 || !strings.Contains(r.stdout, c.name+" ") {
		t.Errorf("after two thirds of its life a certificate is not due: exit %d\n%s%s", r.code, r.stdout, r.stderr)
	}

	// A server that does not serve the new one: the cutover says so, and there is a way back.
	c.stuck.Store(true)
	c.fails(4, []string{"not seen to show it", "serves another certificate", "keyturn rollback"}, "rotate", c.name)
	if got := c.states(c.issued()); strings.Count(got, "Valid") != 2 {
		t.Errorf("the certificates are %s, want two that are valid", got)
	}
	c.ok("rollback", "--reason", "the server goes on with the old one", c.name)
	c.stuck.Store(false)
	before := c.served.Load()
	c.ok("rotate", c.name)

	// One that goes back to the old one by itself: the old one is not ended.
	c.stuck.Store(true)
	c.served.Store(before)
	time.Sleep(time.Second) // the overlap
	c.fails(4, []string{"serves another certificate", "is kept"}, "cleanup", c.name)
	if got := c.states(c.issued()); strings.Count(got, "Valid") != 2 {
		t.Errorf("the certificates are %s, want two that are valid", got)
	}
	c.stuck.Store(false)
	c.goesOn("cleanup")
	if tried, failures := stop(); tried == 0 || len(failures) > 0 {
		t.Errorf("of %d handshakes failed: %q", tried, failures)
	}

	// It was stolen: what is in service is revoked for that reason.
	for _, line := range c.revokes(0, "--mode", "fast", c.name) {
		if line.Error != "" || len(line.Alive) > 0 {
			t.Errorf("revoke says %+v", line)
		}
	}
	if got := c.states(c.issued()); strings.Count(got, "Revoked/1") != 1 || !strings.HasSuffix(got, "Revoked/1 Valid") || !strings.HasSuffix(got, "Valid") {
		t.Errorf("after revoke the certificates are %s, want the one before the last revoked because its key is known", got)
	}
	for _, file := range []string{c.journal, c.pebble.LogFile()} {
		b, err := os.ReadFile(file)
		c.must(err)
		c.clean(string(b))
	}
}

// goesOn runs a phase until it is done: what it takes back of a run before may come first.
func (c *certificateShop) goesOn(phase string) {
	c.t.Helper()
	for end := time.Now().Add(2 * time.Minute); ; time.Sleep(200 * time.Millisecond) {
		r := c.run(phase, c.name)
		if r.code == 0 {
			return
		}
		if time.Now().After(end) {
			c.t.Fatalf("keyturn %s: exit %d\n%s%s", phase, r.code, r.stdout, r.stderr)
		}
	}
}
