package cli_test

import (
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"

	"github.com/keyturn/keyturn/internal/cli/undertest/hooks"
	"github.com/keyturn/keyturn/internal/testserver"
	"github.com/keyturn/keyturn/internal/testserver/githubfake"
	"github.com/keyturn/keyturn/internal/testserver/gitssh"
)

// A mill is a service that clones a repository by a deploy key, from a directory.
type mill struct {
	*shop
	gh   *githubfake.Server
	app  *githubfake.App
	sshd *gitssh.Server
}

// newMill makes a GitHub that has no key of the service yet.
func newMill(t *testing.T, more ...string) *mill {
	t.Helper()
	dir := t.TempDir()
	m := &mill{sshd: gitssh.Start(t), gh: githubfake.Start(t, githubfake.Options{}), shop: &shop{t: t, name: "orders-git",
		root: filepath.Join(dir, "credentials"), config: filepath.Join(dir, "keyturn.yml"), journal: filepath.Join(dir, "state", "journal.jsonl")}}
	m.app = m.gh.AddApp("keyturn", map[string]string{"administration": "write"})
	bare := m.sshd.Repository("octo/shop.git")
	m.gh.OnKeys(m.sshd.Serve)
	m.must(os.MkdirAll(m.root, 0o755))
	hosts := filepath.Join(dir, "known_hosts")
	m.must(os.WriteFile(hosts, []byte(m.sshd.KnownHosts()), 0o600))
	text := fmt.Sprintf(`version: 1
journal: file:%s
directory: {path: %s}
github: {app: {id: %d, key: {from-env: KEYTURN_APP_KEY}}}
credentials:
  orders-git:
    github:
      deploy-key: {repository: %s, probe: ["%s"], known-hosts: %s}
    services:
      mill: {path: {/run/secrets/git_key: key}}
    minimum-age: 0s
    overlap: 1s
`, m.journal, m.root, m.app.ID, m.gh.FullName(), m.sshd.URL(bare), hosts)
	m.must(os.WriteFile(m.config, []byte(withLines(text, more)), 0o600))
	m.env = append(os.Environ(), "CI=", "GITHUB_API_URL="+m.gh.URL, "KEYTURN_APP_KEY="+string(m.app.Key().Reveal()), hooks.AtOnce+"=1")
	m.secrets = []string{"ghs_", "eyJhbGciOi", strings.Split(string(m.app.Key().Reveal()), "\n")[3]}
	return m
}

// key is the private key that the service reads now.
func (m *mill) key() string {
	m.t.Helper()
	b, err := os.ReadFile(filepath.Join(m.root, m.name, "current", "key"))
	m.must(err)
	return string(b)
}

// lets reports whether the server lets a key in.
func (m *mill) lets(key string) bool {
	m.t.Helper()
	signer, err := ssh.ParsePrivateKey([]byte(key))
	m.must(err)
	client, err := ssh.Dial("tcp", m.sshd.Addr(), &ssh.ClientConfig{User: "deploy", Auth: []ssh.AuthMethod{ssh.PublicKeys(signer)},
		HostKeyCallback: ssh.InsecureIgnoreHostKey(), Timeout: 10 * time.Second}) // who it is does not matter here
	if err != nil {
		return false
	}
	_ = client.Close()
	return true
}

// only checks that GitHub has one key, that of a version, which the service reads.
func (m *mill) only(version int) {
	m.t.Helper()
	keys := m.gh.DeployKeys()
	if len(keys) != 1 || keys[0].Title != fmt.Sprintf("keyturn orders-git v%d", version) || !keys[0].ReadOnly {
		m.t.Fatalf("GitHub has the keys %+v, want that of version %d", keys, version)
	}
	if !m.lets(m.key()) {
		m.t.Errorf("the key that the service reads is refused")
	}
	if n := m.gh.LiveTokens(); n != 0 {
		m.t.Errorf("%d tokens are left alive", n)
	}
	m.secrets = append(m.secrets, strings.Split(m.key(), "\n")[1])
}

// adopted lets the service begin with a key that a person made.
func (m *mill) adopted(title string) {
	m.t.Helper()
	line, private, err := testserver.NewSSHKey()
	m.must(err)
	key, _, _, _, err := ssh.ParseAuthorizedKey([]byte(line))
	m.must(err)
	m.gh.AddDeployKey("alice", title, line, true)
	home := filepath.Join(m.root, m.name, "initial")
	m.must(os.MkdirAll(home, 0o755))
	m.must(os.WriteFile(filepath.Join(home, "key"), private, 0o400))
	m.must(os.Symlink("initial", filepath.Join(m.root, m.name, "current")))
	text, err := os.ReadFile(m.config)
	m.must(err)
	m.must(os.WriteFile(m.config, []byte(strings.Replace(string(text), "deploy-key: {", "deploy-key: {adopt: \""+ssh.FingerprintSHA256(key)+"\", ", 1)), 0o600))
	m.secrets = append(m.secrets, strings.Split(string(private), "\n")[1])
	m.ok("adopt", m.name)
}

// TestDeployKey rotates a deploy key twice, phase by phase: the old key works until
// cleanup, and is refused then.
func TestDeployKey(t *testing.T) {
	t.Parallel()
	m := newMill(t)
	m.adopted("initial-deploys")
	m.ok("doctor")
	for version := 2; version <= 3; version++ {
		old := m.key()
		t.Log(m.ok("plan", m.name))
		m.ok("prepare", m.name)
		m.ok("validate", m.name)
		if m.key() != old {
			t.Errorf("the service reads another key before the cutover")
		}
		m.ok("cutover", m.name)
		if m.key() == old || !m.lets(old) || !m.lets(m.key()) || len(m.gh.DeployKeys()) != 2 {
			t.Errorf("in the overlap both keys must work")
		}
		if version == 3 {
			m.ok("rollback", "--reason", "drill", m.name)
			m.only(2)
			m.ok("rotate", m.name)
		}
		time.Sleep(time.Second)
		m.ok("cleanup", m.name)
		if m.lets(old) {
			t.Errorf("the old key still works after cleanup")
		}
		m.only(version + version/3) // the number of what was rolled back is burnt
	}
	b, err := os.ReadFile(m.journal)
	m.must(err)
	m.clean(string(b))
	if !strings.Contains(string(b), `"code":"publickey"`) {
		t.Errorf("the journal has no proof that the old key was refused")
	}
	m.ok("audit", "verify")
}

// TestDeployKeyCrash kills keyturn around what GitHub is told. Whoever goes on leaves
// one key, which the service reads.
func TestDeployKeyCrash(t *testing.T) {
	t.Parallel()
	for _, point := range []string{"before effect: prepare arm", "after effect: prepare arm", "after effect: cutover move",
		"after effect: cleanup end", "after effect: cleanup proof"} {
		t.Run(point, func(t *testing.T) {
			t.Parallel()
			m := newMill(t)
			m.ok("rotate", "--wait", m.name)
			m.killed(point, "rotate", "--wait", m.name)
			if !m.lets(m.key()) {
				t.Errorf("killed %s, the service's key is refused", point)
			}
			m.goOn()
			m.gh.ExpireTokens() // who was killed gave none back
			m.only(m.status().Current)
		})
	}
}

// TestDeployKeyOutage loses the answer to the adding of a key, and then GitHub.
func TestDeployKeyOutage(t *testing.T) {
	t.Parallel()
	m := newMill(t)
	m.ok("rotate", "--wait", m.name)
	adding := func(r *http.Request) bool {
		return r.Method == http.MethodPost && strings.HasSuffix(r.URL.Path, "/keys")
	}
	back := m.gh.On(githubfake.Times(1, func(r *http.Request) *githubfake.Fault {
		if !adding(r) {
			return nil
		}
		return &githubfake.Fault{Do: true, Lose: true}
	}))
	m.ok("prepare", m.name)
	back()
	m.ok("validate", m.name)
	m.ok("cutover", m.name)
	back = m.gh.On(func(*http.Request) *githubfake.Fault { return &githubfake.Fault{Status: http.StatusBadGateway} })
	time.Sleep(time.Second)
	if r := m.run("cleanup", m.name); r.code != 4 {
		t.Errorf("cleanup without GitHub: exit %d, want 4\n%s%s", r.code, r.stdout, r.stderr)
	}
	back()
	m.ok("cleanup", m.name)
	m.only(2)
}
