package testserver

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"
)

// SSHUser is who may log in at an [SSHD], with a shell and no other rights, and
// SSHGroup the number of his group.
const (
	SSHUser  = "deploy"
	SSHGroup = 61999
)

// SSHDOptions say how an ssh server is started. The zero value is a server that
// lets its user in by key, and forwards to the sockets that he may open.
type SSHDOptions struct {
	// Authorized are the public keys, as lines of authorized_keys.
	Authorized []string
	// Socket is what the server's users find at /var/run/docker.sock; "": nothing.
	Socket string
	// Netns is the network namespace that the server listens in; "" is ours.
	Netns string
	// Config are further lines of sshd_config; the first of a keyword counts.
	Config []string
	// HostKeys are private host keys in PEM; none means a fresh ed25519 key.
	HostKeys [][]byte
	// HostCertificate is a certificate of the first of them.
	HostCertificate []byte
}

// An SSHD is Debian's ssh server with a host key, a port of 127.0.0.1 and a user
// of its own: it sees other files in place of /etc/passwd, /etc/shadow and /run than
// the machine has.
type SSHD struct {
	opts    SSHDOptions
	dir     string
	port    int
	hostKey ssh.PublicKey
	process *process
	guard   *guard
	stop    sync.Once
	stopErr error
}

// innerSSHD runs as process 1 of a namespace, with a user of its own. Its
// arguments: folder, socket, and the server with its arguments. Whoever sees the
// socket in /run reaches it by the link alone.
const innerSSHD = `
set -e
dir=$1 socket=$2; shift 2
mount --bind "$dir/passwd" /etc/passwd
mount --bind "$dir/shadow" /etc/shadow
mount -t tmpfs -o mode=755 tmpfs /run
mkdir /run/sshd
if [ -n "$socket" ]; then ln -s "$socket" /run/docker.sock; fi
exec "$@"
`

// cleanSSHD ends the server below the folder $1, with everything in its
// namespace, and removes the folder.
const cleanSSHD = `
dir=$1
pid=$(cat "$dir/pid" 2>/dev/null)
if [ -n "$pid" ] && tr '\0' ' ' <"/proc/$pid/cmdline" 2>/dev/null | grep -qF "$dir"; then kill -KILL "$pid"; fi
rm -rf "$dir" || { sleep 1; rm -rf "$dir"; }
`

// StartSSHD starts an ssh server. It needs root, sshd and unshare; if they are
// missing the error wraps [ErrMissing]. The caller calls [SSHD.Stop].
func StartSSHD(ctx context.Context, opts SSHDOptions) (*SSHD, error) {
	if os.Geteuid() != 0 {
		return nil, fmt.Errorf("starting an ssh server needs root: %w", ErrMissing)
	}
	for _, program := range []string{"sshd", "unshare"} {
		if _, err := lookPath(program); err != nil {
			return nil, fmt.Errorf("starting an ssh server: no %s on the PATH, run .ci/install: %w", program, ErrMissing)
		}
	}
	reap()
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	s := &SSHD{opts: opts}
	if err := s.start(ctx); err != nil {
		return nil, errors.Join(fmt.Errorf("starting an ssh server: %w", err), s.Stop())
	}
	return s, nil
}

// NewSSHD starts an ssh server that is stopped at the end of the test.
func NewSSHD(t testing.TB, opts SSHDOptions) *SSHD {
	t.Helper()
	s, err := StartSSHD(context.Background(), opts)
	Require(t, err)
	t.Cleanup(func() {
		if err := s.Stop(); err != nil {
			t.Errorf("stopping the ssh server: %v", err)
		}
	})
	return s
}

func (s *SSHD) start(ctx context.Context) error {
	var err error
	if s.dir, err = tempDir("sshd"); err != nil {
		return err
	}
	if s.guard, err = startGuard("sshd", s.dir); err != nil {
		return err
	}
	if s.port, err = freePort("tcp", "127.0.0.1"); err != nil {
		return err
	}
	if err := s.write(); err != nil {
		return err
	}
	sshd, err := lookPath("sshd")
	if err != nil {
		return err
	}
	cmd := exec.Command("unshare", "--mount", "--pid", "--fork", "--kill-child=SIGKILL", "--mount-proc", "--propagation", "private",
		"/bin/sh", "-c", innerSSHD, "keyturn-sshd", s.dir, s.opts.Socket, sshd, "-D", "-e", "-f", s.path("sshd_config"))
	cmd.Env = []string{"PATH=/usr/sbin:/sbin:/usr/bin:/bin"}
	cmd.Dir = "/"
	if s.opts.Netns != "" {
		cmd.SysProcAttr = &syscall.SysProcAttr{}
		within(cmd, s.opts.Netns)
	}
	if s.process, err = startProcess(cmd, s.path("log")); err != nil {
		return err
	}
	if err := os.WriteFile(s.path("pid"), []byte(strconv.Itoa(s.process.pid())), 0o600); err != nil {
		return err
	}
	return s.waitReady(ctx)
}

// write writes everything that the server reads.
func (s *SSHD) write() error {
	if len(s.opts.HostKeys) == 0 {
		_, private, err := NewSSHKey()
		if err != nil {
			return err
		}
		s.opts.HostKeys = [][]byte{private}
	}
	config := slices.Concat(s.opts.Config, []string{"ListenAddress 127.0.0.1:" + strconv.Itoa(s.port), "LogLevel DEBUG3", "UsePAM no", "PidFile none",
		"AuthorizedKeysFile " + s.path("authorized_keys"), "PasswordAuthentication no", "KbdInteractiveAuthentication no",
		"StrictModes no", "PrintMotd no", "PrintLastLog no", "MaxStartups 200", "MaxSessions 100"})
	for i, key := range s.opts.HostKeys {
		signer, err := ssh.ParsePrivateKey(key)
		if err != nil {
			return fmt.Errorf("reading a host key: %w", err)
		}
		if i == 0 {
			s.hostKey = signer.PublicKey()
		}
		name := fmt.Sprintf("host%d", i)
		config = append(config, "HostKey "+s.path(name))
		if err := os.WriteFile(s.path(name), key, 0o600); err != nil {
			return err
		}
	}
	if s.opts.HostCertificate != nil {
		config = append(config, "HostCertificate "+s.path("host0-cert.pub"))
		if err := os.WriteFile(s.path("host0-cert.pub"), s.opts.HostCertificate, 0o644); err != nil {
			return err
		}
	}
	passwd, err := os.ReadFile("/etc/passwd")
	if err != nil {
		return err
	}
	for name, text := range map[string]string{
		"passwd":          fmt.Sprintf("%s\n%s:x:%d:%[3]d::/:/bin/sh\n", strings.TrimSpace(string(passwd)), SSHUser, SSHGroup),
		"shadow":          SSHUser + ":*:19000:0:99999:7:::\nroot:*:19000:0:99999:7:::\nsshd:*:19000:0:99999:7:::\n",
		"authorized_keys": strings.Join(s.opts.Authorized, "\n") + "\n",
		"sshd_config":     strings.Join(config, "\n") + "\n",
	} {
		if err := os.WriteFile(s.path(name), []byte(text), 0o644); err != nil {
			return err
		}
	}
	return nil
}

func (s *SSHD) dial(ctx context.Context) (net.Conn, error) {
	if s.opts.Netns != "" {
		return DialIn(s.opts.Netns)(ctx, "tcp", s.Addr())
	}
	return (&net.Dialer{}).DialContext(ctx, "tcp", s.Addr())
}

func (s *SSHD) waitReady(ctx context.Context) error {
	for {
		conn, err := s.dial(ctx)
		if err == nil {
			return conn.Close()
		}
		select {
		case <-s.process.done:
			text, _ := s.LogText() // the error says enough
			return fmt.Errorf("sshd ended: %s", text)
		case <-ctx.Done():
			return fmt.Errorf("waiting for sshd: %w", ctx.Err())
		case <-time.After(10 * time.Millisecond):
		}
	}
}

// Dir is the server's folder, which Stop removes.
func (s *SSHD) Dir() string { return s.dir }

// Addr is the server's host and port.
func (s *SSHD) Addr() string { return net.JoinHostPort("127.0.0.1", strconv.Itoa(s.port)) }

// URL is the server's address for swarm.host, with the path of a socket or "".
func (s *SSHD) URL(socket string) string { return "ssh://" + SSHUser + "@" + s.Addr() + socket }

// KnownHosts is the line of known_hosts for the server.
func (s *SSHD) KnownHosts() string { return KnownHost(s.Addr(), s.hostKey) }

// Authorize sets the lines of authorized_keys; who is logged in stays so.
func (s *SSHD) Authorize(lines []string) error {
	fresh := s.path("authorized_keys.new")
	if err := os.WriteFile(fresh, []byte(strings.Join(lines, "\n")+"\n"), 0o644); err != nil {
		return fmt.Errorf("authorizing keys: %w", err)
	}
	return os.Rename(fresh, s.path("authorized_keys"))
}

// LogText returns what the server has logged.
func (s *SSHD) LogText() (string, error) {
	data, err := os.ReadFile(s.path("log"))
	if err != nil {
		return "", fmt.Errorf("reading the ssh server's log: %w", err)
	}
	return string(data), nil
}

// Cut kills every process that serves a connection, so that all of them break.
// The server goes on. It returns how many it killed.
func (s *SSHD) Cut() (int, error) { return s.signal(syscall.SIGKILL) }

// Silence stops every process that serves a connection: they stay open, and
// nothing comes any more.
func (s *SSHD) Silence() (int, error) { return s.signal(syscall.SIGSTOP) }

// signal sends a signal to the processes below the server's own: unshare is
// their grandmother, and the server their mother.
func (s *SSHD) signal(sig syscall.Signal) (int, error) {
	count := 0
	for _, server := range childrenOf(s.process.pid()) {
		for found := childrenOf(server); len(found) > 0; {
			pid := found[0]
			found = append(found[1:], childrenOf(pid)...)
			switch err := syscall.Kill(pid, sig); {
			case err == nil:
				count++
			case !errors.Is(err, syscall.ESRCH): // it has just ended
				return count, err
			}
		}
	}
	return count, nil
}

// childrenOf returns the children of a process.
func childrenOf(pid int) []int {
	files, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", pid)) // the pattern is well formed
	var children []int
	for _, file := range files {
		b, _ := os.ReadFile(file) // it may have ended
		for _, word := range strings.Fields(string(b)) {
			if child, err := strconv.Atoi(word); err == nil {
				children = append(children, child)
			}
		}
	}
	return children
}

// Stop ends the server with all of its connections, and removes what it has
// made. It may be called again.
func (s *SSHD) Stop() error {
	s.stop.Do(func() {
		if s.process != nil {
			s.process.kill()
		}
		if s.guard != nil {
			s.stopErr = s.guard.close()
		} else if s.dir != "" {
			s.stopErr = os.RemoveAll(s.dir)
		}
		if s.stopErr != nil {
			s.stopErr = fmt.Errorf("stopping the ssh server: %w", s.stopErr)
		}
	})
	return s.stopErr
}

func (s *SSHD) path(name string) string { return filepath.Join(s.dir, name) }
