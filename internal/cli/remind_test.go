package cli_test

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/keyturn/keyturn/internal/cli/undertest/hooks"
	"github.com/keyturn/keyturn/internal/testserver/githubfake"
)

// TestRemind lets what only people can renew grow old: it is said before its day, each
// has one issue that is rewritten and not multiplied, and renewing it closes that.
func TestRemind(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	s := &shop{t: t, config: filepath.Join(dir, "keyturn.yml"), journal: filepath.Join(dir, "journal.jsonl")}
	gh := githubfake.Start(t, githubfake.Options{})
	app := gh.AddApp("keyturn", map[string]string{"issues": "write"})
	daysAgo := func(n int) string { return time.Now().UTC().AddDate(0, 0, -n).Format(time.DateOnly) }
	write := func(key, token string) {
		s.must(os.WriteFile(s.config, []byte(fmt.Sprintf(`version: 1
journal: file:%s
directory: {path: %s}
github: {repository: %s, app: {id: %d, key: {from-env: KEYTURN_APP_KEY}}}
credentials:
  x:
    postgres: {admin: "postgres://a@127.0.0.1:1/x", admin-password: {from-env: KEYTURN_PG_PASSWORD}, role: x}
    services: {api: {path: {/run/secrets/x: password}}}
reminders:
  keyturn-app-key: {kind: app-key, made: %s}
  registry: {kind: personal-token, made: %s, note: "Dana pushes the images with it"}
  smtp: {kind: other, made: %[5]s, every: 365d, note: https://wiki.acme.io/smtp}
`, s.journal, dir, gh.FullName(), app.ID, key, token)), 0o600))
	}
	s.env = append(os.Environ(), "CI=", "GITHUB_API_URL="+gh.URL, "KEYTURN_APP_KEY="+string(app.Key().Reveal()), hooks.AtOnce+"=1")
	s.secrets = []string{"ghs_", "eyJhbGciOi", strings.Split(string(app.Key().Reveal()), "\n")[3]}

	write(daysAgo(100), daysAgo(10))
	if out := s.ok("remind"); strings.Contains(out, "1. ") || strings.Count(out, "due 20") != 3 {
		t.Errorf("nothing is due yet:\n%s", out)
	}
	s.ok("remind", "--report")
	if open := issuesOf(gh); len(open) != 0 {
		t.Errorf("nothing is due, and there are the issues %v", open)
	}

	write(daysAgo(170), daysAgo(95))
	out := s.ok("remind")
	for _, want := range []string{"in 9 days", "was due", "5 days ago", "Generate a private key", "SHA256:", "Dana pushes the images"} {
		if !strings.Contains(out, want) {
			t.Errorf("it does not say %q:\n%s", want, out)
		}
	}
	for range 2 {
		out = s.ok("remind", "--report", "--output", "json")
	}
	var all []struct {
		Name, State, Issue string
		Days               int
	}
	s.must(json.Unmarshal([]byte(out), &all))
	if len(all) != 3 || all[0].State != "soon" || all[1].State != "overdue" || all[1].Days != -5 || all[2].State != "fine" || all[0].Issue == "" || all[2].Issue != "" {
		t.Errorf("in JSON: %+v", all)
	}
	if open := issuesOf(gh); len(open) != 2 || !strings.Contains(strings.Join(open, " "), "Renew by hand: registry") {
		t.Errorf("the issues are %v", open)
	}
	if r := s.run("doctor"); !strings.Contains(r.stdout, "registry") || !strings.Contains(r.stdout, "keyturn remind") {
		t.Errorf("doctor says\n%s%s", r.stdout, r.stderr)
	}

	write(daysAgo(170), daysAgo(0))
	s.ok("remind", "--report")
	if open := issuesOf(gh); len(open) != 1 || !strings.Contains(open[0], "keyturn-app-key") {
		t.Errorf("after one was renewed the issues are %v", open)
	}
	if n := gh.LiveTokens(); n != 0 {
		t.Errorf("%d tokens are left alive", n)
	}
}

// issuesOf are the titles of the open issues.
func issuesOf(gh *githubfake.Server) (open []string) {
	for _, i := range gh.Issues() {
		if i.State == "open" {
			open = append(open, i.Title)
		}
	}
	return open
}
