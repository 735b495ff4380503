package cli_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/keyturn/keyturn/internal/backend/postgres"
	"github.com/keyturn/keyturn/internal/config"
	"github.com/keyturn/keyturn/internal/testserver"
)

const swarmPage = "docs/targets/swarm.md"

// TestSwarmPage does what the page of the target says, from the first key to an
// engine that is reached over ssh, with the program and the ssh commands that people have.
func TestSwarmPage(t *testing.T) {
	t.Parallel()
	k := newStack(t, servers.postgres.Get(t), nil, replicas(1))
	sshd := testserver.NewSSHD(t, testserver.SSHDOptions{Socket: k.socket()})
	host, port, _ := strings.Cut(sshd.Addr(), ":")
	dir := filepath.Dir(k.config)
	commands := strings.NewReplacer("~deploy/.ssh/authorized_keys", filepath.Join(sshd.Dir(), "authorized_keys"),
		"/etc/ssh/ssh_host_ed25519_key.pub", filepath.Join(sshd.Dir(), "host0"), "swarm.acme.io", "-p "+port+" "+host).
		Replace(strings.Join(blocks(page(t, swarmPage), "sh"), ""))
	cmd := exec.Command("bash", "-e", "-c", commands)
	cmd.Dir = dir
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("the commands of the page: %v\n%s", err, out)
	}
	lines := strings.Split(strings.TrimSpace(string(out)), "\n")
	if len(lines) != 2 || strings.Fields(lines[0])[1] != strings.Fields(lines[1])[1] {
		t.Errorf("the fingerprints that the page compares are %q", lines)
	}
	key, err := os.ReadFile(filepath.Join(dir, "keyturn"))
	k.must(err)
	k.hand("SWARM_SSH_KEY", string(key))
	text := blocks(page(t, swarmPage), "yaml")[0]
	section := text[strings.Index(text, "  ssh:\n"):strings.Index(text, "credentials:")]
	section = strings.Replace(section, ".github/known_hosts", filepath.Join(dir, ".github/known_hosts"), 1)
	edit(`swarm: {host: "`+k.engine.Host()+`", image: "`+probeImage+`"}`, "swarm:\n  host: "+sshd.URL("")+"\n  image: "+probeImage+"\n"+section)(k)
	k.ok("adopt", k.name)
	if out := k.ok("plan", k.name); !strings.Contains(out, k.service) {
		t.Errorf("the plan over ssh says\n%s", out)
	}
	k.noneFailed()
}

// TestSwarmPageShowsSectionsThatParse parses the sections that stand alone.
func TestSwarmPageShowsSectionsThatParse(t *testing.T) {
	all := blocks(page(t, swarmPage), "yaml")
	whole := all[0]
	for _, section := range all[1:] {
		text := "version: 1\n" + section + whole[strings.Index(whole, "credentials:"):]
		cfg, err := config.Parse(swarmPage, []byte(text), map[string]config.Section{"postgres": postgres.Section})
		if err != nil || cfg.Swarm.TLS == nil {
			t.Errorf("a section of %s: %v", swarmPage, err)
		}
	}
	if len(all) != 2 {
		t.Errorf("%s shows %d configurations, want 2", swarmPage, len(all))
	}
}
