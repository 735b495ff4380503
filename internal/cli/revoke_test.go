package cli_test

import (
	"encoding/json"
	"net/http"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/keyturn/keyturn/internal/testserver/githubfake"
)

type revokedLine struct {
	Credential       string
	Was, Dead, Alive []int
	Current          int
	Error            string
}

// revokes runs keyturn revoke, and returns what it says came of each credential.
func (s *shop) revokes(code int, args ...string) []revokedLine {
	s.t.Helper()
	r := s.run(append([]string{"revoke", "--output", "json", "--reason", "it was stolen"}, args...)...)
	var out struct{ Revoked []revokedLine }
	if err := json.Unmarshal([]byte(r.stdout), &out); r.code != code || err != nil {
		s.t.Fatalf("revoke %q: exit %d, want %d\n%s%s", args, r.code, code, r.stdout, r.stderr)
	}
	return out.Revoked
}

// TestRevoke replaces and ends what is in service, from wherever the rotation stands, in
// both modes; the old ones are proven dead.
func TestRevoke(t *testing.T) {
	t.Parallel()
	for _, mode := range []string{"fast", "immediate"} {
		t.Run(mode, func(t *testing.T) {
			t.Parallel()
			s := newShop(t, servers.postgres.Get(t), "overlap: 24h", "every: 90d")
			s.ok("adopt", s.name)
			out := s.ok("revoke", "--mode", mode, "--reason", "a drill", "--dry-run", s.name)
			if want := map[string]string{"fast": "nothing is expected to fail", "immediate": "fail from now on"}[mode]; !strings.Contains(out, want) {
				t.Errorf("beforehand it says\n%s", out)
			}
			for i, before := range [][]string{nil, {"prepare"}, {"prepare", "validate"}, {"prepare", "validate", "cutover"}} {
				for _, phase := range before {
					if phase == "prepare" {
						s.ok(phase, "--emergency", s.name)
					} else {
						s.ok(phase, s.name)
					}
				}
				was := s.status()
				got := s.revokes(0, "--mode", mode, s.name)
				if len(got) != 1 || len(got[0].Alive) > 0 || len(got[0].Dead) != len(got[0].Was) || got[0].Current <= was.Current {
					t.Fatalf("%d: from %v: %+v", i, before, got)
				}
				if p := s.status(); p.Previous != 0 || p.Pending != 0 || p.Next != "" {
					t.Errorf("%d: from %v: status is %+v", i, before, p)
				}
				s.oneLogin()
			}
			s.ok("audit", "verify")
		})
	}
}

// TestRevokeApprovals lets an administrator revoke what people have to approve, and
// nobody else: it is on the record and in an issue, and the next rotation waits.
func TestRevokeApprovals(t *testing.T) {
	t.Parallel()
	f := gated(t, "{cutover: {environment: prod-cutover}}")
	f.job("alice")
	f.ok("adopt", f.name)
	f.env = append(f.env, "GITHUB_ACTIONS=", "GH_TOKEN=")
	args := []string{"revoke", "--mode", "immediate", "--reason", "it was stolen", f.name}
	f.fails(3, []string{"GH_TOKEN"}, args...)
	as := func(login string) {
		token := string(f.gh.Token(login).Reveal())
		f.secrets = append(f.secrets, token)
		f.env = append(f.env, "GH_TOKEN="+token)
	}
	as("bob")
	f.fails(3, []string{"bob is no administrator"}, append(args, "--ticket", "INC-7")...)
	as("alice")
	f.fails(3, []string{"there is no ticket"}, args...)
	if p := f.status(); p.Current != 1 || p.Pending != 0 {
		t.Fatalf("after refusals: %+v", p)
	}
	r := f.run(append(args, "--ticket", "INC-7")...)
	if r.code != 0 || !strings.Contains(r.stderr, "alice revokes") || !strings.Contains(r.stdout, "v1 dead") || !strings.Contains(r.stdout, "v2 in service") {
		t.Fatalf("revoke: exit %d\n%s%s", r.code, r.stdout, r.stderr)
	}
	body := ""
	for _, i := range f.gh.Issues() {
		if strings.HasPrefix(i.Title, "Incident: revocation of") && i.State == "open" {
			body = i.Body
		}
	}
	for _, want := range []string{"it was stolen", "INC-7", "v1 dead", "cleanup proof", "- [ ] "} {
		if !strings.Contains(body, want) {
			t.Errorf("the incident says nothing of %q:\n%s", want, body)
		}
	}
	f.fails(3, []string{"alice did without approvals"}, "prepare", f.name)
	as("bob")
	f.ok("approvals", "--reviewed", f.name)
	f.ok("prepare", f.name)
	if found := f.audit(); len(found) != 0 {
		t.Errorf("the audit finds %v", found)
	}
}

// TestRevokeAll revokes several at the same time, one of which has no backend any more:
// the others are replaced, and that one is named as still alive.
func TestRevokeAll(t *testing.T) {
	t.Parallel()
	a, b := apart(t, "overlap: 24h")
	got := a.revokes(0, "--all")
	if len(got) != 2 || got[0].Current != 2 || got[1].Current != 2 {
		t.Fatalf("revoke --all: %+v", got)
	}
	got = a.revokes(0, "--service", "web", "--mode", "immediate")
	if len(got) != 1 || got[0].Credential != b.name || got[0].Current != 3 {
		t.Errorf("of one service: %+v", got)
	}
	text, err := os.ReadFile(a.config)
	a.must(err)
	a.must(os.WriteFile(a.config, []byte(strings.Replace(string(text), "@"+b.pg.Addr()+"/"+b.name, "@127.0.0.1:1/"+b.name, 1)), 0o600))
	got = a.revokes(4, "--backend", "postgres")
	for _, r := range got {
		switch r.Credential {
		case a.name:
			if r.Current != 3 || len(r.Alive) > 0 || r.Error != "" {
				t.Errorf("the one that answers: %+v", r)
			}
		case b.name:
			if r.Current != 3 || !slices.Equal(r.Alive, []int{3}) || r.Error == "" {
				t.Errorf("the one that does not answer: %+v", r)
			}
		}
	}
	if r := a.run("revoke", "--reason", "x", "--all", a.name); r.code != 2 {
		t.Errorf("names and --all: exit %d", r.code)
	}
	if r := a.run("revoke", "--reason", "x", "--label", "team"); r.code != 2 || !strings.Contains(r.stderr, "there is none") {
		t.Errorf("a label without a Swarm: exit %d, %s", r.code, r.stderr)
	}
	if r := a.run("revoke", "--reason", "x", "--service", "nobody"); r.code != 2 {
		t.Errorf("a service that reads nothing: exit %d", r.code)
	}
	a.ok("audit", "verify")
}

// TestRevokeOnSwarm revokes what a service logs in with all the time: fast, and no login
// fails; at once, and the service works again when it has been moved.
func TestRevokeOnSwarm(t *testing.T) {
	journey(t)
	t.Parallel()
	k := newStack(t, servers.postgres.Get(t), []string{"overlap: 24h", "rollout: {monitor: 1s, health-timeout: 60s, timeout: 240s}"})
	k.ok("adopt", k.name)
	before := k.inspect().Version.Index
	got := k.revokes(0, k.name)
	if len(got) != 1 || got[0].Current != 2 || !slices.Equal(got[0].Dead, []int{1}) {
		t.Fatalf("revoke: %+v", got)
	}
	k.noneFailed()
	k.oneLogin()
	if k.inspect().Version.Index == before {
		t.Error("the service was not updated")
	}
	got = k.revokes(0, "--mode", "immediate", k.name)
	if len(got) != 1 || got[0].Current != 3 || !slices.Equal(got[0].Dead, []int{2}) {
		t.Fatalf("revoke at once: %+v", got)
	}
	k.settled()
	k.oneLogin()
	k.finds("after both")
}

// TestRevokeWithoutGitHub revokes while GitHub is out of reach, from the copy of the
// journal in the Swarm; what was done is sent by the next run. Hard problem 40.
func TestRevokeWithoutGitHub(t *testing.T) {
	longRow(t)
	t.Parallel()
	k := newStack(t, servers.postgres.Get(t), []string{"overlap: 24h"})
	f := k.onGitHub()
	f.env = append(f.env, "GITHUB_ACTIONS=")
	f.phase("adopt", f.name)
	f.phase("rotate", f.name)
	f.phase("cleanup", "--force", "a test", f.name)
	back := f.gh.On(func(*http.Request) *githubfake.Fault { return &githubfake.Fault{Lose: true} })
	if r := f.run("rotate", f.name); r.code == 0 {
		t.Errorf("a rotation without GitHub: exit %d\n%s%s", r.code, r.stdout, r.stderr)
	}
	r := f.run("revoke", "--reason", "it was stolen", f.name)
	if r.code != 0 || !strings.Contains(r.stderr, "the copy of the journal in the Swarm is used") || !strings.Contains(r.stdout, "v2 dead") {
		t.Fatalf("revoke without GitHub: exit %d\n%s%s", r.code, r.stdout, r.stderr)
	}
	f.settled()
	if _, secret := f.reads(); !strings.HasSuffix(secret, "_v3") {
		t.Errorf("the service reads %q, want version 3", secret)
	}
	if strings.Contains(f.log(), "it was stolen") {
		t.Error("the branch knows of it already")
	}
	r = f.run("revoke", "--mode", "immediate", "--reason", "once more", f.name)
	if r.code != 0 || !strings.Contains(r.stdout, "v3 dead") {
		t.Fatalf("revoke once more without GitHub: exit %d\n%s%s", r.code, r.stdout, r.stderr)
	}
	back()
	f.nextRun()
	f.ok("rotate", f.name)
	if p := f.status(); p.Current != 5 || p.Previous != 4 {
		t.Errorf("status is %+v", p)
	}
	if log := f.log(); !strings.Contains(log, "it was stolen") || !strings.Contains(log, "once more") {
		t.Error("the branch does not know of the revocations")
	}
	if found := f.audit(); len(found) != 0 {
		t.Errorf("the audit finds %v", found)
	}
	f.ok("cleanup", "--force", "a test", f.name)
	f.oneLogin()
}
