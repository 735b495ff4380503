package cli_test

import (
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/keyturn/keyturn/internal/testserver"
)

// hand puts a secret into the environment of keyturn; no line of it may be seen again.
func (k *stack) hand(variable, value string) {
	k.env = append(k.env, variable+"="+value)
	for line := range strings.Lines(value) {
		if line = strings.TrimSpace(line); len(line) > 20 && !strings.HasPrefix(line, "---") {
			k.secrets = append(k.secrets, line)
		}
	}
}

// beside writes a file beside the configuration and returns its path.
func (k *stack) beside(name, text string) string {
	k.t.Helper()
	path := filepath.Join(filepath.Dir(k.config), name)
	k.must(os.WriteFile(path, []byte(text), 0o600))
	return path
}

// socket is the path of the engine's socket, which the user of ssh servers may open.
func (k *stack) socket() string {
	k.t.Helper()
	path := strings.TrimPrefix(k.engine.Host(), "unix://")
	k.must(os.Chown(path, -1, testserver.SSHGroup))
	return path
}

// overSSH lets keyturn reach the engine by an ssh server alone.
func (k *stack) overSSH() *testserver.SSHD {
	k.t.Helper()
	line, private, err := testserver.NewSSHKey()
	k.must(err)
	sshd := testserver.NewSSHD(k.t, testserver.SSHDOptions{Authorized: []string{line}, Socket: k.socket()})
	k.hand("SWARM_SSH_KEY", string(private))
	edit(`host: "`+k.engine.Host()+`"`, `host: "`+sshd.URL("")+`", ssh: {key: {from-env: SWARM_SSH_KEY}, known-hosts: "`+
		k.beside("known_hosts", sshd.KnownHosts())+`"}`)(k)
	return sshd
}

// overTLS lets keyturn reach the engine by TLS alone, with a key from a file.
func (k *stack) overTLS() {
	k.t.Helper()
	cert, key, err := k.engine.Authority().Issue(testserver.Certificate{Client: true})
	k.must(err)
	k.hand("IN_A_FILE", string(key))
	edit(`host: "`+k.engine.Host()+`"`, `host: "`+k.engine.TLSHost()+`", tls: {ca: "`+k.beside("ca.pem", string(k.engine.Authority().PEM))+
		`", cert: "`+k.beside("cert.pem", string(cert))+`", key: {from-file: "`+k.beside("key.pem", string(key))+`"}}`)(k)
}

// TestSwarmOverSSH rotates under load with an engine that only an ssh server
// reaches. Twice the connection is cut in the middle of a cutover, before and after
// the request that moves the service: the run goes on by itself, or stops at unknown
// and goes on when it is run again. No login fails, and the key is seen nowhere.
func TestSwarmOverSSH(t *testing.T) {
	journey(t)
	t.Parallel()
	k := newStack(t, servers.postgres.Get(t), nil)
	sshd := k.overSSH()
	w := startWitness()
	k.ok("adopt", "-v", k.name)
	for n, point := range []string{"before request: POST /services/ID/update", "after request: POST /services/ID/update"} {
		k.ok("prepare", k.name)
		k.ok("validate", k.name)
		r := k.start(point, "cutover", "-v", k.name)
		if cut, err := sshd.Cut(); err != nil || cut == 0 {
			t.Fatalf("%d connections were cut: %v", cut, err)
		}
		r.goOn()
		switch got := r.wait(); got.code {
		case 0:
		case 4:
			if !strings.Contains(got.stderr, "hint: run it again") {
				t.Errorf("cut %s the run says\n%s", point, got.stderr)
			}
			k.ok("cutover", k.name)
		default:
			t.Errorf("cut %s: exit %d, want 0 or 4\n%s%s", point, got.code, got.stdout, got.stderr)
		}
		k.goOn()
		k.done(2 + n)
	}
	k.noneFailed()
	k.oneLogin()
	close(w.stop)
	w.ended.Wait()
	for line := range w.seen {
		k.clean(line)
	}
	text, err := sshd.LogText()
	k.must(err)
	k.clean(text)
	if !strings.Contains(text, "direct-streamlocal@openssh.com") || len(k.secrets) < 3 {
		t.Errorf("the log of the ssh server tells of no forwarding, or there is nothing to look for (%d lines)", len(k.secrets))
	}
}

// TestSwarmOverTLS rotates twice under load over TLS with a client certificate.
func TestSwarmOverTLS(t *testing.T) {
	journey(t)
	t.Parallel()
	k := newStack(t, servers.postgres.Get(t), nil, replicas(1))
	k.overTLS()
	k.ok("adopt", "-v", k.name)
	for version := 2; version <= 3; version++ {
		k.ok("rotate", "--wait", "-v", k.name)
		k.done(version)
	}
	k.noneFailed()
	k.oneLogin()
	text, err := k.engine.LogText()
	k.must(err)
	k.clean(text)
}

// TestSwarmCancelOverSilentSSH cancels a run whose ssh server says nothing any
// more: it ends as quickly as any other. It cannot give its lease back, but the next
// run knows that it is dead, and goes on.
func TestSwarmCancelOverSilentSSH(t *testing.T) {
	t.Parallel()
	k := newStack(t, servers.postgres.Get(t), nil, replicas(1))
	sshd := k.overSSH()
	k.ok("adopt", k.name)
	r := k.start("before request: POST /secrets/create", "prepare", k.name)
	if n, err := sshd.Silence(); err != nil || n == 0 {
		t.Fatalf("%d connections fell silent: %v", n, err)
	}
	r.cancelled(syscall.SIGINT)
	k.ok("prepare", k.name)
	if p := k.status(); p.Current != 1 || p.Pending == 0 {
		t.Errorf("after the next run the status is %+v, want a pending version", p)
	}
	k.noneFailed()
}
