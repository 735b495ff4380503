package cli_test

import (
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/keyturn/keyturn/internal/cli/undertest/hooks"
	"github.com/keyturn/keyturn/internal/testserver/githubfake"
)

// An ear hears what people are told.
type ear struct {
	mu    sync.Mutex
	heard []string
	deaf  time.Duration // it answers after that
}

func (e *ear) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	b, _ := io.ReadAll(r.Body)
	e.mu.Lock()
	e.heard = append(e.heard, string(b))
	deaf := e.deaf
	e.mu.Unlock()
	select {
	case <-time.After(deaf):
	case <-r.Context().Done():
	}
}

// since returns what was heard since the last time.
func (e *ear) since() string {
	e.mu.Lock()
	defer e.mu.Unlock()
	out := strings.Join(e.heard, "\n")
	e.heard = nil
	return out
}

// TestNotify tells people of what was done, failed and is overdue, of the same thing once,
// and never at the cost of a rotation.
func TestNotify(t *testing.T) {
	t.Parallel()
	e := &ear{}
	server := httptest.NewServer(e)
	t.Cleanup(server.Close)
	const canary = "Xk7canary9"
	s := newShop(t, servers.postgres.Get(t), "overlap: 24h")
	b, err := os.ReadFile(s.config)
	s.must(err)
	text := string(b) + "notify:\n  oncall: {url: {from-env: KEYTURN_NOTIFY}, events: [failure, overdue, incident, done]}\n  nobody: {url: {from-env: KEYTURN_NOTIFY}, events: [audit]}\n"
	s.must(os.WriteFile(s.config, []byte(text), 0o600))
	s.env = append(s.env, "KEYTURN_NOTIFY=generic+"+server.URL+"/x?token="+canary)
	s.secrets = append(s.secrets, canary)
	hears := func(when string, words ...string) {
		t.Helper()
		got := e.since()
		for _, w := range words {
			if !strings.Contains(got, w) {
				t.Errorf("%s: heard %q, want %q", when, got, w)
			}
		}
		if len(words) == 0 && got != "" {
			t.Errorf("%s: heard %q, want nothing", when, got)
		}
	}
	s.ok("adopt", s.name)
	hears("adopted")
	s.ok("rotate", s.name)
	hears("rotated", "[info] keyturn: cutover of "+s.name+" is done")
	s.must(os.WriteFile(s.config, []byte(strings.Replace(text, "@"+s.pg.Addr(), "@127.0.0.1:1", 1)), 0o600))
	fails := func() {
		t.Helper()
		if r := s.run("cleanup", "--force", "a test", s.name); r.code != 4 {
			t.Errorf("cleanup without a database: exit %d\n%s%s", r.code, r.stdout, r.stderr)
		}
	}
	fails()
	hears("failed", "[error] keyturn: cleanup of "+s.name+" failed", "127.0.0.1:1")
	fails()
	hears("failed again")
	s.env = append(s.env, hooks.ClockAhead+"=7h")
	fails()
	hears("failed hours later", "[error]")
	s.must(os.WriteFile(s.config, []byte(text), 0o600))
	s.ok("cleanup", "--force", "a test", s.name)
	e.since()
	s.env = append(s.env, hooks.ClockAhead+"=4800h")
	s.run("prepare", "--due") // the database does not believe in that clock
	hears("overdue", "[warning] keyturn: "+s.name+" is overdue")
	s.run("prepare", "--due")
	if got := e.since(); strings.Contains(got, "overdue") {
		t.Errorf("overdue still: heard %q", got)
	}
	s.env = append(s.env, hooks.ClockAhead+"=0s")
	e.mu.Lock()
	e.deaf = time.Minute
	e.mu.Unlock()
	begun := time.Now()
	r := s.run("prepare", s.name)
	if r.code != 0 || time.Since(begun) > 25*time.Second || !strings.Contains(r.stderr, "oncall could not be told") {
		t.Errorf("with nobody who answers: exit %d after %s\n%s%s", r.code, time.Since(begun), r.stdout, r.stderr)
	}
	log, err := os.ReadFile(s.journal)
	s.must(err)
	s.clean(string(log))
	s.ok("audit", "verify")
}

// TestNotifyMentions mentions people in one issue for what waits for them, which is closed
// when it does not any more.
func TestNotifyMentions(t *testing.T) {
	t.Parallel()
	f := gated(t, "{cutover: {by: [octo/sre], environment: prod-cutover}}")
	b, err := os.ReadFile(f.config)
	f.must(err)
	f.must(os.WriteFile(f.config, append(b, "notify:\n  people: {mention: [octo/sre, dana]}\n"...), 0o600))
	f.commitConfig()
	f.validated()
	hash := f.planned("plan")
	run := f.job("alice")
	f.gh.SetEnvironment("prod-cutover", githubfake.Environment{Reviewers: []string{"bob"}, PreventSelf: true, Branches: []string{"main"}})
	alerts := func() (open []string) {
		for _, i := range f.gh.Issues() {
			if i.State == "open" && strings.Contains(i.Body, "keyturn:alert=") {
				open = append(open, i.Title+"\n"+i.Body)
			}
		}
		return open
	}
	for range 2 {
		f.fails(3, []string{"nobody whose word counts"}, "cutover", "--plan", hash, f.name)
	}
	if got := alerts(); len(got) != 1 || !strings.Contains(got[0], "cutover of "+f.name+" waits for people") || !strings.Contains(got[0], "@octo/sre @dana") {
		t.Errorf("the alerts are %q", got)
	}
	f.gh.Approve(run, "prod-cutover", "bob")
	f.ok("cutover", "--plan", hash, f.name)
	if got := alerts(); len(got) != 0 {
		t.Errorf("after the cutover the alerts are %q", got)
	}
	if found := f.audit(); len(found) != 0 {
		t.Errorf("the audit finds %v", found)
	}
	if n := f.gh.LiveTokens(); n != 0 {
		t.Errorf("%d tokens are alive", n)
	}
}
