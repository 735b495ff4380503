package cli_test

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/keyturn/keyturn/internal/cli/undertest/hooks"
)

// tree is everything below a directory: names, modes, times, contents.
func (s *shop) tree(dir string) map[string]string {
	s.t.Helper()
	all := map[string]string{}
	s.must(filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		content := ""
		if d.Type().IsRegular() {
			b, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			content = fmt.Sprintf("%x", sha256.Sum256(b))
		}
		all[path] = fmt.Sprint(info.Mode(), info.ModTime(), content)
		return nil
	}))
	return all
}

// looks runs every command that only looks, with no server role and no file changed by any.
func (s *shop) looks(when string) {
	s.t.Helper()
	dir := filepath.Dir(s.config)
	before, roles := s.tree(dir), s.everything()
	for _, args := range [][]string{{"status"}, {"status", "-o", "json"}, {"plan"}, {"plan", "--due"}, {"plan", "-o", "json"},
		{"adopt", "--dry-run", s.name}, {"prepare", "--dry-run", s.name}, {"cutover", "--dry-run", "--due"}, {"cleanup", "--dry-run", s.name},
		{"rotate", "--dry-run", s.name}, {"rollback", "--dry-run", s.name}, {"audit", "verify"}, {"setup", "postgres"}, {"doctor"}, {"doctor", "--strict", "-o", "json"}} {
		r := s.run(args...)
		if r.code != 0 && r.code != 2 && r.code != 3 && (r.code != 6 || args[0] != "doctor") {
			s.t.Errorf("%s, keyturn %v: exit %d\n%s%s", when, args, r.code, r.stdout, r.stderr)
		}
		if diff := cmp.Diff(before, s.tree(dir)); diff != "" {
			s.t.Errorf("%s, keyturn %v wrote something (-before +after):\n%s", when, args, diff)
		}
	}
	if diff := cmp.Diff(roles, s.everything()); diff != "" {
		s.t.Errorf("%s, the commands that look changed something (-before +after):\n%s", when, diff)
	}
}

// TestLookingWritesNothing compares the files before and after every command
// that only looks: before there is a journal, in the midst of a rotation, after it.
func TestLookingWritesNothing(t *testing.T) {
	t.Parallel()
	s := newShop(t, servers.postgres.Get(t), "overlap: 1h")
	s.looks("before the adoption")
	s.ok("adopt", s.name)
	s.looks("adopted")
	s.ok("prepare", s.name)
	s.looks("prepared")
	s.ok("rotate", s.name)
	s.looks("in the overlap")
	s.killed("after effect: rollback move back", "rollback", "--reason", "drill", s.name)
	s.looks("in a rollback")
}

// TestNoJournalYet says where a journal would be: the path may be mistyped.
func TestNoJournalYet(t *testing.T) {
	t.Parallel()
	s := newShop(t, servers.postgres.Get(t))
	says := "note: there is no journal yet at " + s.journal
	for _, args := range [][]string{{"status"}, {"status", "-o", "json"}, {"plan"}, {"plan", "-o", "json"}} {
		if r := s.run(args...); !strings.Contains(r.stderr, says) {
			t.Errorf("keyturn %v: exit %d, stderr lacks %q:\n%s", args, r.code, says, r.stderr)
		}
	}
	s.ok("status")
	s.ok("adopt", s.name)
	for _, args := range [][]string{{"status"}, {"plan"}} {
		if r := s.run(args...); strings.Contains(r.stderr, "no journal") {
			t.Errorf("keyturn %v: %s", args, r.stderr)
		}
	}
	s.must(os.WriteFile(s.journal, nil, 0o600))
	if r := s.run("status"); r.code != 0 || !strings.Contains(r.stderr, "is empty: nothing was adopted or rotated with it, or it was lost") {
		t.Errorf("status with an empty journal: exit %d\n%s%s", r.code, r.stdout, r.stderr)
	}
}

// TestStatusNeedsTheJournalAlone takes everything else away.
func TestStatusNeedsTheJournalAlone(t *testing.T) {
	t.Parallel()
	s := newShop(t, servers.postgres.Get(t))
	s.ok("adopt", s.name)
	b, err := os.ReadFile(s.config)
	s.must(err)
	text := regexp.MustCompile(`ca: .*`).ReplaceAllString(string(b), "ca: /nowhere/ca.pem")
	text = regexp.MustCompile(`@127.0.0.1:\d+/`).ReplaceAllString(text, "@127.0.0.1:1/")
	text = regexp.MustCompile(`directory: .*`).ReplaceAllString(text, "swarm: {host: \"unix:///nowhere/docker.sock\"}")
	s.must(os.WriteFile(s.config, []byte("fingerprint-key: {from-env: PRINTS}\n"+text), 0o600))
	s.env = append(s.env, "KEYTURN_PG_PASSWORD=")
	if out := s.ok("status"); !strings.Contains(out, s.name+": v1 current") {
		t.Errorf("status says:\n%s", out)
	}
}

// TestDefaultJournal gives every configuration a journal of its own, named after it.
func TestDefaultJournal(t *testing.T) {
	t.Parallel()
	s := newShop(t, servers.postgres.Get(t))
	b, err := os.ReadFile(s.config)
	s.must(err)
	text := regexp.MustCompile(`journal: .*\n`).ReplaceAllString(string(b), "")
	state := filepath.Join(t.TempDir(), "state")
	s.env = append(s.env, "XDG_STATE_HOME="+state)
	var names []string
	for _, name := range []string{"one/keyturn.yml", "two/keyturn.yml"} {
		s.config = filepath.Join(t.TempDir(), name)
		s.must(os.MkdirAll(filepath.Dir(s.config), 0o700))
		s.must(os.WriteFile(s.config, []byte(text), 0o600))
		s.ok("cleanup", s.name) // makes the journal, and nothing else
		real, err := filepath.EvalSymlinks(s.config)
		s.must(err)
		sum := sha256.Sum256([]byte(real))
		names = append(names, "keyturn-"+hex.EncodeToString(sum[:6])+".jsonl")
	}
	for _, name := range names {
		if _, err := os.Stat(filepath.Join(state, "keyturn", name)); err != nil {
			t.Errorf("the journal %s: %v", name, err)
		}
	}
	// From another folder, by another name, it is the same.
	link := filepath.Join(t.TempDir(), "link.yml")
	s.must(os.Symlink(s.config, link))
	s.config = link
	if r := s.run("status"); r.code != 0 || strings.Contains(r.stderr, "no journal") {
		t.Errorf("status by a link: exit %d\n%s", r.code, r.stderr)
	}
}

// TestPlanOfAFirstVersion speaks of no old one, and names every field.
func TestPlanOfAFirstVersion(t *testing.T) {
	t.Parallel()
	s := newShop(t, servers.postgres.Get(t), "overlap: 1h")
	s.must(os.RemoveAll(filepath.Join(s.root, s.name)))
	b, err := os.ReadFile(s.config)
	s.must(err)
	services := regexp.MustCompile(`    services:\n.*\n`)
	s.must(os.WriteFile(s.config, services.ReplaceAll(b, nil), 0o600))
	s.shows("plan-first.txt", s.ok("plan", s.name))
	s.ok("rotate", "--wait", s.name)
	if got := s.inService(); got != "v1" {
		t.Errorf("current leads to %q, want v1", got)
	}
	s.shows("plan-second.txt", s.ok("plan", s.name))
}

// TestPlanWarns says what a strict expiry and a server that is told by name of no
// more than its administrator's host cost.
func TestPlanWarns(t *testing.T) {
	t.Parallel()
	s := newShop(t, servers.postgres.Get(t), "expiry: strict")
	s.ok("adopt", s.name)
	if out := s.ok("plan"); !strings.Contains(out, "  warning: expiry: strict: services that still use version 1 when its time runs out lose their login") {
		t.Errorf("the plan does not warn:\n%s", out)
	}
}

// TestPlanOfASwarmThatCannotBeAsked says that nothing can be told, instead of
// telling something else.
func TestPlanOfASwarmThatCannotBeAsked(t *testing.T) {
	t.Parallel()
	s := newShop(t, servers.postgres.Get(t), "overlap: 1h")
	b, err := os.ReadFile(s.config)
	s.must(err)
	text := regexp.MustCompile(`directory: .*`).ReplaceAllString(string(b), `swarm: {host: "unix:///nowhere/docker.sock", image: "keyturn:1"}`)
	s.must(os.WriteFile(s.config, []byte(text), 0o600))
	r := s.run("plan", s.name)
	if r.code != 3 {
		t.Errorf("exit %d, want 3\n%s", r.code, r.stderr)
	}
	s.shows("plan-unasked.txt", r.stdout)
}

// TestProbesNeedAnImage refuses the image of a release in a build that is none.
func TestProbesNeedAnImage(t *testing.T) {
	t.Parallel()
	s := newShop(t, servers.postgres.Get(t))
	b, err := os.ReadFile(s.config)
	s.must(err)
	text := regexp.MustCompile(`directory: .*`).ReplaceAllString(string(b), `swarm: {host: "unix:///nowhere/docker.sock"}`)
	s.must(os.WriteFile(s.config, []byte(text), 0o600))
	for _, args := range [][]string{{"plan"}, {"prepare", s.name}, {"adopt", s.name}} {
		s.fails(2, []string{"probes have no image", "hint: name one that holds this program: swarm.image"}, args...)
	}
	for version, code := range map[string]int{"v1.2.3": 3, "v1.2.3-rc.1": 3, // no engine answers
		"v1.2.3-4-gabcdef0": 2, "v1.2.3-dirty": 2, "v1.2.3+dirty": 2, "v0.0.0-20260101000000-abcdefabcdef": 2, "devel 0123456789ab": 2} {
		if r := s.runWith([]string{hooks.Version + "=" + version}, "plan"); r.code != code {
			t.Errorf("a build of version %q: exit %d, want %d\n%s", version, r.code, code, r.stderr)
		}
		if r := s.runWith([]string{hooks.Version + "=" + version}, "version"); !strings.Contains(r.stdout, "keyturn "+version+" (") {
			t.Errorf("a build of version %q says: %s", version, r.stdout)
		}
	}
	if out := s.ok("version"); !strings.HasPrefix(out, "keyturn ") || strings.Contains(out, "keyturn  (") {
		t.Errorf("a build without a version says: %s", out)
	}
}
