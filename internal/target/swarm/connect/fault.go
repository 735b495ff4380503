package connect

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/crypto/ssh"

	"github.com/keyturn/keyturn/internal/rotation"
)

// trusts remembers whether the engine was reached. What is wrong with a key or a
// certificate before that is a wrong configuration; later it says nothing about
// what was begun.
type trusts struct{ reached atomic.Bool }

func (t *trusts) trusted() { t.reached.Store(true) }

func (t *trusts) class() rotation.Class {
	if t.reached.Load() {
		return rotation.Unknown
	}
	return rotation.Invalid
}

// unreachable is the error of a host to which no connection can be made. The
// words are our own: the client of the engine has others for errors of the network.
func unreachable(name string, err error) error {
	hint := "is the host up, and does every firewall on the way let this machine through?"
	var dns *net.DNSError
	var why string
	switch {
	case errors.As(err, &dns) && dns.IsNotFound:
		why, hint = fmt.Sprintf("the name %q has no address", dns.Name), "is it spelt right, and does this machine's resolver know it?"
	case errors.As(err, &dns):
		why, hint = fmt.Sprintf("the name %q cannot be looked up now", dns.Name), "does this machine's resolver answer?"
	case errors.Is(err, syscall.ECONNREFUSED):
		why, hint = "nothing listens there", "is it the right port, and does the server run?"
	case errors.Is(err, syscall.EHOSTUNREACH), errors.Is(err, syscall.ENETUNREACH):
		why = "there is no route to it"
	case errors.Is(err, context.DeadlineExceeded), errors.Is(err, os.ErrDeadlineExceeded), errors.Is(err, syscall.ETIMEDOUT):
		why = "it does not answer"
	default:
		why = broken(err)
	}
	return rotation.Errorf(rotation.Unknown, hint, "reaching %s: %s", name, why)
}

// broken says how a connection ended, without the addresses that change.
func broken(err error) string {
	var errno syscall.Errno
	if errors.As(err, &errno) {
		return errno.Error()
	}
	if errors.Is(err, io.EOF) {
		return "it ended the connection"
	}
	return strings.TrimPrefix(strings.TrimPrefix(err.Error(), "ssh: handshake failed: "), "ssh: ")
}

// handshakeFault is the error of an ssh connection that was not made.
func (t *tunnel) handshakeFault(err, hostFault error, known, late bool) error {
	none, hostless := errors.AsType[*ssh.AlgorithmNegotiationError](err)
	if hostFault == nil && hostless && t.hosts.known && strings.Contains(none.Error(), "host key") {
		hostFault = t.hosts.otherKinds()
	}
	if h, ok := errors.AsType[*hostError](hostFault); ok {
		return rotation.Errorf(t.class(), h.hint, "reaching %s: %w", t.name, h)
	}
	switch {
	case late:
		return rotation.Errorf(rotation.Unknown, "is it an ssh server, and is it overloaded?", "reaching %s: it does not answer within %s", t.name, t.Timeout)
	case known && strings.Contains(err.Error(), "unable to authenticate"): // the library has no type for it
		return rotation.Errorf(t.class(), "the public half of the key belongs into ~/.ssh/authorized_keys of that user: ssh-keygen -y -f KEY shows it",
			"reaching %s: it does not take the key of swarm.ssh.key for the user %q", t.name, t.config.User)
	case hostless:
		return rotation.Errorf(t.class(), "the server is very old, or was restricted", "reaching %s: %s", t.name, strings.TrimPrefix(none.Error(), "ssh: "))
	}
	return rotation.Errorf(rotation.Unknown, "is it an ssh server? its log says why it ended the connection", "reaching %s: no ssh connection: %s",
		t.name, broken(err))
}

// refused is the error of a server that does not forward to the socket. It says
// as good as nothing about the reason, so the reason is looked for.
func (t *tunnel) refused(ctx context.Context, s *session, err error) error {
	refusal, ok := errors.AsType[*ssh.OpenChannelError](err)
	if !ok {
		return rotation.Errorf(rotation.Unknown, goesOn, "reaching the socket %s on %s: %s", t.socket, t.name, broken(err))
	}
	const (
		forward = "in its sshd_config: AllowStreamLocalForwarding local, and no DisableForwarding; in authorized_keys: no \"restrict\" without \"port-forwarding\""
		name    = " another socket is named behind the host: ssh://…/path"
	)
	what := fmt.Sprintf("the socket %s on %s", t.socket, t.name)
	if refusal.Reason == ssh.Prohibited || refusal.Reason == ssh.UnknownChannelType {
		return rotation.Errorf(rotation.Unknown, forward, "reaching %s: the server forwards to no socket", what)
	}
	switch s.ask(ctx) {
	case "none":
		return rotation.Errorf(rotation.Unknown, "is the engine running there?"+name, "reaching %s: there is no such socket", what)
	case "file":
		return rotation.Errorf(rotation.Unknown, "write the path of the engine's socket", "reaching %s: it is no socket", what)
	case "closed":
		return rotation.Errorf(rotation.Unknown, "put the user into the group that owns it, as root there: usermod -aG docker "+t.config.User,
			"reaching %s: the user %q may not open it", what, t.config.User)
	case "open":
		return rotation.Errorf(rotation.Unknown, forward+"; or the engine has ended, and left its socket behind",
			"reaching %s: the server does not forward to it, and the user %q may open it", what, t.config.User)
	}
	return rotation.Errorf(rotation.Unknown, "is it there, and may the user open it (group docker)? "+forward, "reaching %s: the server does not open it for us", what)
}

// look says in one word what a path is to the user.
const look = `keyturn=$1; if [ ! -e "$keyturn" ]; then echo none; elif [ ! -S "$keyturn" ]; then echo file; elif [ ! -w "$keyturn" ]; then echo closed; else echo open; fi`

// askLimit bounds the search for a reason.
const askLimit = 5 * time.Second

// ask runs a shell on the other side that looks at the socket. A user who may
// run none gives no answer.
func (s *session) ask(ctx context.Context) string {
	shell, err := s.client.NewSession()
	if err != nil {
		return ""
	}
	ctx, cancel := context.WithTimeout(ctx, askLimit)
	defer cancel()
	defer context.AfterFunc(ctx, func() { _ = shell.Close() })()
	out, err := shell.Output("sh -c " + quoted(look) + " sh " + quoted(s.socket))
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(out))
}

// quoted is a text as one word of a shell.
func quoted(s string) string { return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'" }
