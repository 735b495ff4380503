package cli_test

import (
	"crypto/tls"
	"io"
	"log"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"

	"github.com/keyturn/keyturn/internal/testserver"
)

// A reachCase is what a configuration says of how the engine is reached, as a case of
// [TestReachErrors] bends it.
type reachCase struct {
	name  string
	swarm string // what stands under swarm: in braces, with names of r.words
	code  int
	says  string // all of stderr, with NAME for the stack's name
}

// reaches is all that the cases name, by the word that stands for it.
type reaches struct {
	*stack
	words []string // pairs of a word and what it stands for
}

func (r *reaches) word(word, text string) { r.words = append(r.words, word, text) }

const (
	goodSSH = `host: "SSH", ssh: {key: {from-env: GOOD_KEY}, known-hosts: HOSTS}`
	goodTLS = `host: "TLS", tls: {ca: AUTHORITY, cert: CERT, key: {from-file: KEYFILE}}`
)

// bent is one of them with something replaced.
func bent(good, old, fresh string) string {
	if !strings.Contains(good, old) {
		panic("there is no " + old)
	}
	return strings.Replace(good, old, fresh, 1)
}

func reachCases() []reachCase {
	return []reachCase{
		{"unknown host key", bent(goodSSH, "HOSTS", "NOHOSTS"), 2, `
keyturn: taking the lease of "NAME": reaching SSH: its host key is not known: it shows ssh-ed25519 FINGERPRINT, and NOHOSTS has none for it
hint: ssh-keyscan -p PORT 127.0.0.1 >> NOHOSTS, then compare it with what the host itself says: ssh-keygen -lf /etc/ssh/ssh_host_ed25519_key.pub
`},
		{"changed host key", bent(goodSSH, "HOSTS", "OLDHOSTS"), 2, `
keyturn: taking the lease of "NAME": reaching SSH: its host key has changed: it shows ssh-ed25519 FINGERPRINT, and OLDHOSTS has another in line 1
hint: somebody may stand between: do not go on before its administrator has told you the fingerprint; then replace the line
`},
		{"no known hosts", bent(goodSSH, "HOSTS", "/nowhere/known_hosts"), 2, `
keyturn: swarm.ssh.known-hosts: there is no file /nowhere/known_hosts
hint: ssh-keyscan -p PORT 127.0.0.1 >> /nowhere/known_hosts, then compare it with what the host itself says: ssh-keygen -lf /etc/ssh/ssh_host_ed25519_key.pub
`},
		{"key refused", bent(goodSSH, "GOOD_KEY", "OTHER_KEY"), 2, `
keyturn: taking the lease of "NAME": reaching SSH: it does not take the key of swarm.ssh.key for the user "deploy"
hint: the public half of the key belongs into ~/.ssh/authorized_keys of that user: ssh-keygen -y -f KEY shows it
`},
		{"key missing", bent(goodSSH, "GOOD_KEY", "NO_KEY"), 2, `
keyturn: swarm.ssh.key: reading a secret: environment variable NO_KEY holds no value
hint: it is the private key as ssh-keygen makes it, with its first and its last line
`},
		{"encrypted key", bent(goodSSH, "GOOD_KEY", "LOCKED_KEY"), 2, `
keyturn: swarm.ssh.key: the key in environment variable LOCKED_KEY is encrypted
hint: name its passphrase: ssh: {passphrase: {from-env: NAME}}; or take it off: ssh-keygen -p
`},
		{"wrong passphrase", bent(goodSSH, "{from-env: GOOD_KEY}", "{from-env: LOCKED_KEY}, passphrase: {from-env: WRONG_PHRASE}"), 2, `
keyturn: swarm.ssh.passphrase: what environment variable WRONG_PHRASE holds does not open the key
hint: try it: ssh-keygen -y -f KEY
`},
		{"no key at all", bent(goodSSH, "GOOD_KEY", "WRONG_PHRASE"), 2, `
keyturn: swarm.ssh.key: environment variable WRONG_PHRASE holds no private key that can be read
hint: it is the private key as ssh-keygen makes it, with its first and its last line
`},
		{"no such socket", bent(goodSSH, `SSH"`, `SSH/run/nowhere.sock"`), 4, `
keyturn: taking the lease of "NAME": reaching the socket /run/nowhere.sock on SSH: there is no such socket
hint: is the engine running there? another socket is named behind the host: ssh://…/path
`},
		{"no socket there", bent(goodSSH, `SSH"`, `SSH/etc/passwd"`), 4, `
keyturn: taking the lease of "NAME": reaching the socket /etc/passwd on SSH: it is no socket
hint: write the path of the engine's socket
`},
		{"socket of others", bent(goodSSH, `SSH"`, `SSHCLOSED"`), 4, `
keyturn: taking the lease of "NAME": reaching the socket CLOSED on SSH: the user "deploy" may not open it
hint: put the user into the group that owns it, as root there: usermod -aG docker deploy
`},
		{"forwarding forbidden", bent(goodSSH, "SSH", "STRICT"), 4, `
keyturn: taking the lease of "NAME": reaching the socket /var/run/docker.sock on STRICT: the server does not forward to it, and the user "deploy" may open it
hint: in its sshd_config: AllowStreamLocalForwarding local, and no DisableForwarding; in authorized_keys: no "restrict" without "port-forwarding"; or the engine has ended, and left its socket behind
`},
		{"nothing listens", bent(goodSSH, "SSH", "ssh://deploy@EMPTY"), 4, `
keyturn: taking the lease of "NAME": reaching ssh://deploy@EMPTY: nothing listens there
hint: is it the right port, and does the server run?
`},
		{"no ssh server", bent(goodSSH, "SSH", "ssh://deploy@WEB"), 4, `
keyturn: taking the lease of "NAME": reaching ssh://deploy@WEB: no ssh connection: it ended the connection
hint: is it an ssh server? its log says why it ended the connection
`},
		{"tcp without tls", `host: "TLS"`, 2, `
keyturn: CONFIG:3:8: swarm: tcp:// needs tls: whoever reaches an engine without it owns the machine
         hint: write: tls: {ca: deploy/ca.pem, cert: deploy/cert.pem, key: {from-env: SWARM_TLS_KEY}}
`},
		{"password in the address", bent(goodSSH, "SSH", "ssh://deploy:WRONGWORD@swarm"), 2, `
keyturn: CONFIG:3:15: swarm.host: a password never stands in an address
         hint: write: ssh://deploy@swarm.acme.io, and :PORT or the /path of the engine's socket if they are others than usual
`},
		{"wrong client certificate", bent(bent(goodTLS, "CERT", "STRANGE"), "KEYFILE", "STRANGEKEY"), 2, `
keyturn: taking the lease of "NAME": reaching TLS: the engine ended the connection when it had seen the certificate STRANGE
hint: it must be signed by the authority that dockerd has under --tlscacert, for client authentication; see the engine's log
`},
		{"certificate of a server", bent(bent(goodTLS, "CERT", "SERVER"), "KEYFILE", "SERVERKEY"), 2, `
keyturn: taking the lease of "NAME": reaching TLS: the engine ended the connection when it had seen the certificate SERVER
hint: it must be signed by the authority that dockerd has under --tlscacert, for client authentication; see the engine's log
`},
		{"wrong authority", bent(goodTLS, "AUTHORITY", "STRANGECA"), 2, `
keyturn: taking the lease of "NAME": reaching TLS: the certificate of the engine is not signed by STRANGECA
hint: name the file that dockerd has as the authority of its --tlscert
`},
		{"expired client certificate", bent(bent(goodTLS, "CERT", "EXPIRED"), "KEYFILE", "EXPIREDKEY"), 2, `
keyturn: swarm.tls.cert: the certificate EXPIRED ended at WHEN
hint: make a new one
`},
		{"key of another certificate", bent(goodTLS, "KEYFILE", "EXPIREDKEY"), 2, `
keyturn: swarm.tls.key: file EXPIREDKEY does not hold the key of CERT
hint: it is the private key of that certificate, in PEM and not encrypted
`},
		{"no authority", bent(goodTLS, "AUTHORITY", "KEYFILE"), 2, `
keyturn: swarm.tls.ca: KEYFILE holds no certificate
hint: it begins with -----BEGIN CERTIFICATE-----
`},
		{"expired engine certificate", bent(goodTLS, "TLS", "tcp://OVER"), 2, `
keyturn: taking the lease of "NAME": reaching tcp://OVER: the certificate of the engine ended at WHEN
hint: renew it and start dockerd again; is this machine's clock right?
`},
		{"another name", bent(goodTLS, "TLS", "tcp://ALIAS"), 2, `
keyturn: taking the lease of "NAME": reaching tcp://ALIAS: the certificate of the engine is not for "127.0.0.1", but for ENGINE
hint: write the host as the certificate names it, or issue one that names it
`},
		{"no TLS", bent(goodTLS, "TLS", "tcp://WEB"), 2, `
keyturn: taking the lease of "NAME": reaching tcp://WEB: the engine does not speak TLS on this port
hint: start dockerd with --tlsverify; it is not spoken to without
`},
		{"old TLS", bent(goodTLS, "TLS", "tcp://OLD"), 2, `
keyturn: taking the lease of "NAME": reaching tcp://OLD: the engine does not speak TLS 1.3
hint: an engine since 19.03 does
`},
	}
}

// TestReachErrors meets what can be wrong with the way to an engine: the message
// says it, the hint says what to do, and nothing is changed.
func TestReachErrors(t *testing.T) {
	t.Parallel()
	r := &reaches{stack: newStack(t, servers.postgres.Get(t), nil, replicas(1))}
	r.sshWords()
	r.tlsWords()
	config, err := os.ReadFile(r.config)
	r.must(err)
	whole := regexp.MustCompile(`(?m)^swarm: .*$`)
	for _, c := range append(reachCases(), reachCase{name: "good ssh", swarm: goodSSH}, reachCase{name: "good tls", swarm: goodTLS}) {
		text := strings.NewReplacer(r.words...).Replace(c.swarm)
		r.must(os.WriteFile(r.config, whole.ReplaceAll(config, []byte(`swarm: {`+text+`, image: "`+probeImage+`"}`)), 0o600))
		command := "adopt"
		if c.says == "" {
			command = "plan"
		}
		objects, lines := r.objects(), r.written()
		got := r.run(command, r.name)
		if c.says == "" {
			if got.code != 0 {
				t.Errorf("%s: exit %d, want 0: it says\n%s", c.name, got.code, got.stderr)
			}
			continue
		}
		if said := r.masked(got.stderr); got.code != c.code || said != strings.TrimPrefix(c.says, "\n") {
			t.Errorf("%s: exit %d, want %d; it says\n%s\nwant\n%s", c.name, got.code, c.code, said, c.says)
		}
		if now := r.objects(); !slices.Equal(now, objects) || r.written() != lines {
			t.Errorf("%s: something was changed: %q became %q", c.name, objects, now)
		}
	}
	r.noneFailed()
}

// masked is what is said, with words for what differs from run to run.
func (r *reaches) masked(text string) string {
	var back []string
	for i := 0; i < len(r.words); i += 2 {
		back = append(back, r.words[i+1], r.words[i])
	}
	text = strings.NewReplacer(append([]string{r.config, "CONFIG", r.name, "NAME"}, back...)...).Replace(text)
	for _, m := range [][2]string{{`SHA256:[A-Za-z0-9+/]+`, "FINGERPRINT"}, {`-p \d+`, "-p PORT"}, {`20\d\d-\d\d-\d\d \d\d:\d\d UTC`, "WHEN"}} {
		text = regexp.MustCompile(m[0]).ReplaceAllString(text, m[1])
	}
	return text
}

// sshWords starts two ssh servers, one of which forwards to no socket, and makes
// what is needed to reach them, rightly and wrongly.
func (r *reaches) sshWords() {
	line, good, err := testserver.NewSSHKey()
	r.must(err)
	_, other, err := testserver.NewSSHKey()
	r.must(err)
	_, locked, err := testserver.NewSSHKey("open sesame")
	r.must(err)
	r.hand("GOOD_KEY", string(good))
	r.hand("OTHER_KEY", string(other))
	r.hand("LOCKED_KEY", string(locked))
	r.hand("WRONG_PHRASE", "wrong-phrase-canary-7d31")
	o := testserver.SSHDOptions{Authorized: []string{line}, Socket: r.socket()}
	sshd := testserver.NewSSHD(r.t, o)
	o.Config = []string{"AllowStreamLocalForwarding no"}
	strict := testserver.NewSSHD(r.t, o)
	signer, err := ssh.ParsePrivateKey(other)
	r.must(err)
	closed := filepath.Join(r.engine.Dir(), "closed.sock")
	l, err := net.Listen("unix", closed)
	r.must(err)
	r.t.Cleanup(func() { l.Close() })
	r.must(os.Chmod(closed, 0o600))
	r.word("SSH", sshd.URL(""))
	r.word("STRICT", strict.URL(""))
	r.word("CLOSED", closed)
	r.word("NOHOSTS", r.beside("empty_hosts", ""))
	r.word("OLDHOSTS", r.beside("old_hosts", testserver.KnownHost(sshd.Addr(), signer.PublicKey())))
	r.word("HOSTS", r.beside("known_hosts", sshd.KnownHosts()+strict.KnownHosts()))
	r.word("EMPTY", net.JoinHostPort("127.0.0.1", strconv.Itoa(testserver.DeadPort(r.t))))
	r.secrets = append(r.secrets, "WRONGWORD")
}

// tlsWords makes certificates, rightly and wrongly, and servers that are no
// engine as it must be.
func (r *reaches) tlsWords() {
	strange, err := testserver.NewAuthority()
	r.must(err)
	authority, past := r.engine.Authority(), time.Now().Add(-time.Hour)
	for _, c := range []struct {
		cert, key string
		of        *testserver.Authority
		what      testserver.Certificate
	}{
		{"CERT", "KEYFILE", authority, testserver.Certificate{Client: true}},
		{"STRANGE", "STRANGEKEY", strange, testserver.Certificate{Client: true}},
		{"SERVER", "SERVERKEY", authority, testserver.Certificate{Names: []string{"127.0.0.1"}}},
		{"EXPIRED", "EXPIREDKEY", authority, testserver.Certificate{Client: true, NotBefore: past.Add(-time.Hour), NotAfter: past}},
	} {
		cert, key, err := c.of.Issue(c.what)
		r.must(err)
		r.hand("HANDED_"+c.key, string(key))
		// The longer word first: it holds the shorter.
		r.words = append([]string{c.key, r.beside(c.key, string(key)), c.cert, r.beside(c.cert, string(cert))}, r.words...)
	}
	r.words = append([]string{"STRANGECA", r.beside("strange-ca.pem", string(strange.PEM))}, r.words...)
	r.word("AUTHORITY", r.beside("ca.pem", string(authority.PEM)))
	r.word("TLS", r.engine.TLSHost())
	host, _, err := net.SplitHostPort(strings.TrimPrefix(r.engine.TLSHost(), "tcp://"))
	r.must(err)
	r.word("ENGINE", host)
	r.word("OVER", r.listen(testserver.Certificate{Names: []string{"127.0.0.1"}, NotBefore: past.Add(-time.Hour), NotAfter: past}, tls.VersionTLS13))
	r.word("OLD", r.listen(testserver.Certificate{Names: []string{"127.0.0.1"}}, tls.VersionTLS12))
	r.word("ALIAS", r.alias(strings.TrimPrefix(r.engine.TLSHost(), "tcp://")))
	web, err := net.Listen("tcp", "127.0.0.1:0")
	r.must(err)
	server := &http.Server{Handler: http.NotFoundHandler()}
	r.t.Cleanup(func() { server.Close() })
	go func() { _ = server.Serve(web) }() // until the test ends
	r.word("WEB", web.Addr().String())
}

// listen starts a server whose certificate is of the engine's authority.
func (r *reaches) listen(c testserver.Certificate, newest uint16) string {
	r.t.Helper()
	cert, key, err := r.engine.Authority().Issue(c)
	r.must(err)
	pair, err := tls.X509KeyPair(cert, key)
	r.must(err)
	l, err := tls.Listen("tcp", "127.0.0.1:0", &tls.Config{Certificates: []tls.Certificate{pair}, MaxVersion: newest})
	r.must(err)
	server := &http.Server{Handler: http.NotFoundHandler(), ErrorLog: log.New(io.Discard, "", 0)}
	r.t.Cleanup(func() { server.Close() })
	go func() { _ = server.Serve(l) }() // until the test ends
	return l.Addr().String()
}

// alias is another address of a server.
func (r *reaches) alias(addr string) string {
	r.t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	r.must(err)
	r.t.Cleanup(func() { l.Close() })
	go func() {
		for {
			from, err := l.Accept()
			if err != nil {
				return
			}
			to, err := net.Dial("tcp", addr)
			if err != nil {
				_ = from.Close()
				continue
			}
			go func() { _, _ = io.Copy(to, from); _ = to.Close() }()
			go func() { _, _ = io.Copy(from, to); _ = from.Close() }()
		}
	}()
	return l.Addr().String()
}
