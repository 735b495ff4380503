package connect_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"encoding/pem"
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/docker/docker/api/types/events"
	"golang.org/x/crypto/ssh"
	"golang.org/x/crypto/ssh/knownhosts"

	"github.com/keyturn/keyturn/internal/rotation"
	"github.com/keyturn/keyturn/internal/secret"
	"github.com/keyturn/keyturn/internal/target/swarm/connect"
	"github.com/keyturn/keyturn/internal/testserver"
)

// TestBrokenConnections cuts the ssh connection, and lets its server fall silent,
// while a stream is open: the stream ends with an error that says so, and the next
// request goes over a new connection.
func TestBrokenConnections(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		do   func(*testserver.SSHD) (int, error)
		says string
	}{
		"cut":    {(*testserver.SSHD).Cut, " broke"},
		"silent": {(*testserver.SSHD).Silence, " was silent for 400ms"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := newPlace(t)
			s := p.settings(p.sshd.URL(""))
			if name == "silent" {
				s.Keepalive = 200 * time.Millisecond
			}
			e := p.open(s)
			if _, err := e.Info(t.Context()); err != nil {
				t.Fatal(err)
			}
			heard, errs := e.Events(t.Context(), events.ListOptions{})
			if n, err := tt.do(p.sshd); err != nil || n == 0 {
				t.Fatalf("%d processes were reached: %v", n, err)
			}
			var err error
			for limit := time.After(time.Minute); err == nil; {
				select {
				case <-heard: // of what other tests do
				case err = <-errs:
				case <-limit:
					t.Fatal("the stream goes on after a minute")
				}
			}
			classed, ok := errors.AsType[*rotation.Error](err)
			if !ok || classed.Class != rotation.Unknown || !strings.HasSuffix(classed.Error(), tt.says) || classed.Hint == "" {
				t.Errorf("the stream ended with %v, want an unknown end that says %q", err, tt.says)
			}
			if _, err := e.Info(t.Context()); err != nil {
				t.Errorf("the next request: %v", err)
			}
		})
	}
}

// TestHangingServers dials what takes connections and says nothing: the time is
// bounded, a cancellation is heard at once, and nothing is open afterwards.
func TestHangingServers(t *testing.T) {
	t.Parallel()
	p := newPlace(t)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	p.must(err)
	defer l.Close()
	addr := l.Addr().String()
	p.write("known_hosts", p.sshd.KnownHosts())
	for kind, host := range map[string]string{"ssh": "ssh://deploy@" + addr, "tls": "tcp://" + addr} {
		s := p.settings(host)
		s.Timeout = 300 * time.Millisecond
		_, err := p.open(s).Info(t.Context())
		if got := rotation.ClassOf(err); got != rotation.Unknown || !strings.Contains(err.Error(), "does not answer within 300ms") {
			t.Errorf("%s: Info() = %v, want an unknown error that says the time", kind, err)
		}
		s.Timeout = time.Hour
		ctx, cancel := context.WithCancel(t.Context())
		time.AfterFunc(100*time.Millisecond, cancel)
		if _, err := p.open(s).Info(ctx); !errors.Is(err, context.Canceled) {
			t.Errorf("%s: Info() of a cancelled context = %v, want it to say so", kind, err)
		}
	}
}

// hostKeys returns an ed25519 and an ECDSA host key.
func hostKeys(t *testing.T) (keys [][]byte, signers []ssh.Signer) {
	t.Helper()
	_, first, err := testserver.NewSSHKey()
	check(t, err)
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	check(t, err)
	block, err := ssh.MarshalPrivateKey(key, "")
	check(t, err)
	for _, k := range [][]byte{first, pem.EncodeToMemory(block)} {
		signer, err := ssh.ParsePrivateKey(k)
		check(t, err)
		keys, signers = append(keys, k), append(signers, signer)
	}
	return keys, signers
}

func check(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// TestKnownHosts tries what a file of known hosts can say of a host that has two
// keys, the second of them certified by an authority.
func TestKnownHosts(t *testing.T) {
	t.Parallel()
	p := newPlace(t)
	keys, signers := hostKeys(t)
	_, authorities := hostKeys(t)
	host, other, authority := signers[0].PublicKey(), authorities[1].PublicKey(), authorities[0]
	cert := &ssh.Certificate{Key: signers[0].PublicKey(), CertType: ssh.HostCert, ValidPrincipals: []string{"127.0.0.1"}, ValidBefore: ssh.CertTimeInfinity}
	check(t, cert.SignCert(rand.Reader, authority))
	line, private, err := testserver.NewSSHKey()
	check(t, err)
	p.env["SSH_KEY"] = string(private)
	sshd := testserver.NewSSHD(t, testserver.SSHDOptions{Authorized: []string{line}, HostKeys: keys, HostCertificate: ssh.MarshalAuthorizedKey(cert),
		Socket: strings.TrimPrefix(p.engine.Host(), "unix://")})
	addr := sshd.Addr()
	name := knownhosts.Normalize(addr)
	entry := func(marker, name string, key ssh.PublicKey) string {
		return strings.TrimSpace(marker+" "+name+" "+string(ssh.MarshalAuthorizedKey(key))) + "\n"
	}
	for _, tt := range []struct{ name, file, says string }{
		{"its first key", entry("", name, host), ""},
		{"its second key alone", entry("", name, signers[1].PublicKey()), ""},
		{"hashed", entry("", knownhosts.HashHostname(name), host), ""},
		{"a pattern", entry("", "127.0.0.*", host), ""},
		{"beside a wrong one", entry("", name, authority.PublicKey()) + entry("", name, host), ""},
		{"its authority", entry("@cert-authority", "*", authority.PublicKey()), ""},
		{"another authority", entry("@cert-authority", name, other), "not valid"},
		{"an authority for others", entry("@cert-authority", "*.acme.io", authority.PublicKey()), "its host key is not known: it shows ssh-ed25519 SHA256:"},
		{"nothing", "# nobody\n", "its host key is not known: it shows ssh-ed25519 SHA256:"},
		{"another host", entry("", "[127.0.0.1]:1", host), "its host key is not known"},
		{"another key of that kind", entry("", name, authority.PublicKey()), "its host key has changed: it shows ssh-ed25519 SHA256:"},
		{"revoked", entry("@revoked", "*", host) + entry("", name, host), "is revoked in line 1"},
		{"another key of another kind", entry("", name, other), "its host key has changed: it shows ecdsa-sha2-nistp256"},
		{"not a line of it", "127.0.0.1 what\n", "swarm.ssh.known-hosts: "},
	} {
		p.write("known_hosts", tt.file)
		e, err := connect.Open(p.settings("ssh://" + testserver.SSHUser + "@" + addr))
		if err == nil {
			_, err = e.Info(t.Context())
			check(t, e.Close())
		}
		switch {
		case tt.says == "" && err != nil:
			t.Errorf("%s: %v", tt.name, err)
		case tt.says != "" && (err == nil || !strings.Contains(err.Error(), tt.says) || rotation.ClassOf(err) != rotation.Invalid):
			t.Errorf("%s: %v, want an invalid one that says %q", tt.name, err, tt.says)
		}
	}
}

// TestHostThatChangesLater meets another server when the connection is made again:
// it is refused, and as something was asked before, what became of it is unknown.
func TestHostThatChangesLater(t *testing.T) {
	t.Parallel()
	p := newPlace(t)
	other := testserver.NewSSHD(t, testserver.SSHDOptions{})
	var now atomic.Pointer[testserver.SSHD]
	now.Store(p.sshd)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	check(t, err)
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			from, err := l.Accept()
			if err != nil {
				return
			}
			to, err := net.Dial("tcp", now.Load().Addr())
			if err != nil {
				_ = from.Close()
				continue
			}
			go func() { _, _ = io.Copy(to, from); _ = to.Close() }()
			go func() { _, _ = io.Copy(from, to); _ = from.Close() }()
		}
	}()
	_, _, key, _, _, err := ssh.ParseKnownHosts([]byte(p.sshd.KnownHosts()))
	check(t, err)
	p.write("known_hosts", testserver.KnownHost(l.Addr().String(), key))
	e := p.open(p.settings("ssh://" + testserver.SSHUser + "@" + l.Addr().String()))
	if _, err := e.Info(t.Context()); err != nil {
		t.Fatal(err)
	}
	now.Store(other)
	if n, err := p.sshd.Cut(); err != nil || n == 0 {
		t.Fatalf("%d connections were cut: %v", n, err)
	}
	for { // until the cut is noticed
		_, err = e.Info(t.Context())
		if err != nil && !strings.Contains(err.Error(), " broke") {
			break
		}
	}
	if rotation.ClassOf(err) != rotation.Unknown || !strings.Contains(err.Error(), "its host key has changed") {
		t.Errorf("Info() = %v, want an unknown error that says that the key has changed", err)
	}
}

// TestKeyKinds logs in with keys of other kinds, from files, and encrypted.
func TestKeyKinds(t *testing.T) {
	t.Parallel()
	keys, signers := hostKeys(t)
	locked, private, err := testserver.NewSSHKey("open sesame")
	check(t, err)
	authorized := []string{locked}
	for _, s := range signers {
		authorized = append(authorized, string(ssh.MarshalAuthorizedKey(s.PublicKey())))
	}
	p := newPlace(t)
	sshd := testserver.NewSSHD(t, testserver.SSHDOptions{Authorized: authorized, Socket: strings.TrimPrefix(p.engine.Host(), "unix://")})
	p.write("known_hosts", sshd.KnownHosts())
	for i, key := range append(keys, private) {
		file := filepath.Join(p.dir, "key")
		check(t, os.WriteFile(file, []byte(strings.ReplaceAll(string(key), "\n", "\r\n")), 0o644))
		s := p.settings("ssh://" + testserver.SSHUser + "@" + sshd.Addr())
		s.SSH.Key, s.SSH.Passphrase = secret.Source{File: file}, secret.Source{Env: "PASSPHRASE"}
		p.env["PASSPHRASE"] = "open sesame"
		if _, err := p.open(s).Info(t.Context()); err != nil {
			t.Errorf("key %d: %v", i, err)
		}
	}
}
