package github_test

import (
	"context"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/keyturn/keyturn/internal/backend/github"
	"github.com/keyturn/keyturn/internal/rotation"
	"github.com/keyturn/keyturn/internal/testserver"
	"github.com/keyturn/keyturn/internal/testserver/child"
)

// TestLogin shows what a real ssh server and a real git answer, and what is made of it.
func TestLogin(t *testing.T) {
	f := newFixture(t)
	b := f.backend()
	x := f.draft(b, 1)
	f.answers(b, x, rotation.Dead, "publickey") // GitHub does not have it yet
	f.must(b.Arm(t.Context(), x.Version, x.m, time.Time{}))
	f.answers(b, x, rotation.Alive, "")

	t.Run("git itself", func(t *testing.T) {
		if _, err := exec.LookPath("ssh"); err != nil {
			t.Skip("there is no ssh here")
		}
		dir := t.TempDir()
		key, hosts := filepath.Join(dir, "key"), filepath.Join(dir, "hosts")
		f.must(os.WriteFile(key, x.m["key"].Reveal(), 0o600))
		f.must(os.WriteFile(hosts, []byte(f.knownHosts()), 0o600))
		cmd := exec.Command("git", "ls-remote", f.url(f.bare))
		cmd.Env = append(os.Environ(), "GIT_SSH_COMMAND=ssh -F none -o IdentitiesOnly=yes -o BatchMode=yes -i "+key+" -o UserKnownHostsFile="+hosts)
		out, err := child.CombinedOutput(cmd)
		if err != nil || !strings.Contains(string(out), "refs/heads/main") {
			t.Errorf("git ls-remote = %v: %s", err, out)
		}
	})

	other := f.settings
	key := *f.settings.DeployKey
	other.DeployKey = &key
	for _, tt := range []struct {
		name   string
		probe  string
		hosts  string
		want   rotation.Answer
		code   string
		reason string
	}{
		{"another repository", f.url(f.bare + "x"), f.knownHosts(), rotation.Unfit, "not-found", "no such repository"},
		{"another host key", f.url(f.bare), strings.ReplaceAll(testserver.KnownHost(f.gate.addr, newPublicKey(t)), "\n\n", "\n"), rotation.Inconclusive, "host-key", "a key that is not known: ssh-ed25519 SHA256:"},
		{"nobody listens", "ssh://git@127.0.0.1:1/octo/shop.git", strings.ReplaceAll(f.knownHosts(), portOf(f.gate.addr), "1"), rotation.Inconclusive, "", "refused"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			key.Probe = []string{tt.probe}
			o := f.options
			o.KnownHosts = []byte(tt.hosts)
			b, err := github.New(other, o)
			f.must(err)
			got := github.Login(t.Context(), b.ProbeSpec(x.Version), x.m)
			if got.Answer != tt.want || got.Endpoints[0].Code != tt.code || !strings.Contains(got.Reason, tt.reason) {
				t.Errorf("Login = %+v, want %s %q: %q", got, tt.want, tt.code, tt.reason)
			}
		})
	}

	// A server that hangs up, or hangs, says nothing.
	f.gate.set("closed")
	f.answers(b, x, rotation.Inconclusive, "")
	f.gate.set("silent")
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	if got := github.Login(ctx, b.ProbeSpec(x.Version), x.m); got.Answer != rotation.Inconclusive || got.Reason != "no answer in time" {
		t.Errorf("Login to a silent server = %+v, want unknown", got)
	}
	f.gate.set("")

	y := f.draft(b, 2)
	if got := github.Login(t.Context(), b.ProbeSpec(x.Version), y.m); got.Answer != rotation.Inconclusive || !strings.Contains(got.Reason, "not this version's") {
		t.Errorf("Login of version 1 with the key of version 2 = %+v, want unknown", got)
	}
	rendered := rotation.Material{"config": x.m["key"]}
	if got := github.Login(t.Context(), b.ProbeSpec(x.Version), rendered); got.Answer != rotation.Alive {
		t.Errorf("Login with the key in another field = %+v, want alive", got)
	}
	f.must(b.End(t.Context(), x.Version, rotation.ToRetire))
	f.answers(b, x, rotation.Dead, "publickey")
}

// TestLoginReadsManyReferences lists a repository whose references are more than one
// answer, and one that has none.
func TestLoginReadsManyReferences(t *testing.T) {
	f := newFixture(t)
	var packed strings.Builder
	head, err := os.ReadFile(filepath.Join(f.bare, "refs/heads/main"))
	f.must(err)
	packed.WriteString("# pack-refs with: peeled fully-peeled sorted \n")
	for i := range 20000 {
		packed.WriteString(strings.TrimSpace(string(head)) + " refs/tags/v" + pad(i) + "\n")
	}
	f.must(os.WriteFile(filepath.Join(f.bare, "packed-refs"), []byte(packed.String()), 0o644))
	b := f.backend()
	x := f.arm(b, 1)
	f.answers(b, x, rotation.Alive, "")

	empty := f.sshd.Repository("octo/empty.git")
	f.must(os.RemoveAll(filepath.Join(empty, "refs/heads/main")))
	f.settings.DeployKey.Probe = []string{f.url(empty)}
	f.answers(f.backend(), x, rotation.Alive, "")
}

// TestBuiltInHosts compares the keys of github.com with the fingerprints that GitHub
// publishes.
func TestBuiltInHosts(t *testing.T) {
	f := newFixture(t)
	f.settings.DeployKey.Probe, f.settings.DeployKey.KnownHosts = []string{"ssh://git@github.com/octo/shop.git", "ssh://git@ssh.github.com:443/octo/shop.git"}, ""
	var settings struct {
		KnownHosts string `json:"known_hosts"`
	}
	f.must(json.Unmarshal(f.backend().ProbeSpec(rotation.Version{Identity: "x v1"}).Settings, &settings))
	got := github.HostFingerprints(settings.KnownHosts, f.settings.DeployKey.Probe)
	const want = "SHA256:+DiY3wvvV6TuJJhbpZisF/zLDA0zPMSvHdkr4UvCOqU SHA256:p2QAMXNIC1TJYWeIOttrVc98/R1BUFWu3/LiyKgUfQM"
	if got != want+" "+want {
		t.Errorf("the keys of github.com are %s, want %s twice", got, want)
	}
	f.settings.DeployKey.Probe = nil
	if _, err := github.New(f.settings, f.options); err == nil || !strings.Contains(err.Error(), "the keys of 127.0.0.1 are not known") {
		t.Errorf("New for a server without known hosts = %v, want an error", err)
	}
}
