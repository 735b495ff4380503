package swarm

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
	"time"

	"github.com/docker/docker/api/types"
	"github.com/docker/docker/api/types/container"
	"github.com/docker/docker/pkg/stdcopy"

	"github.com/keyturn/keyturn/internal/rotation"
)

// relayReady is the line that the inside of a connection begins with, before the
// bytes; whatever else it says is why there is none.
const relayReady = "keyturn relay: connected"

// through connects to an address by an exec in the relay.
func (t *Target) through(ctx context.Context, task *relayTask, address string) (net.Conn, error) {
	conn, err := t.exec(ctx, task, "--to", address)
	if refused, ok := errors.AsType[dialError](err); ok {
		refused.networks = task.networks
		return nil, &net.OpError{Op: "dial", Net: "tcp", Addr: relayAddr(address), Err: refused}
	}
	if err != nil {
		return nil, fmt.Errorf("connecting through the relay: %w", err)
	}
	return conn, nil
}

// A dialError is why a relay could not connect, in the words of its network.
type dialError struct {
	text     string
	networks []string // that the relay is on
}

func (e dialError) Error() string {
	return e.text + " (from a relay on the network of the services)"
}

// Unwrap returns the same with its class and what may mend it.
func (e dialError) Unwrap() error {
	return rotation.Errorf(rotation.Unknown, e.hint(), "%s", e.Error())
}

func (e dialError) hint() string {
	// A name that no task has is asked of the outside, which may not answer either.
	unknown := strings.HasPrefix(e.text, "lookup ")
	switch {
	case unknown && len(e.networks) == 0:
		return "the services are on no network: attach them to that of the database"
	case unknown:
		return "is the database on a network of the services (" + strings.Join(e.networks, ", ") + "), and is this its name there?"
	case strings.Contains(e.text, "connection refused"):
		return "is the server running there, at this port?"
	case e.Timeout():
		return "does the database's host let connections from the network of the services in?"
	}
	return ""
}

// Timeout and Temporary say that it may be tried again.
func (e dialError) Timeout() bool   { return strings.Contains(e.text, "timeout") }
func (e dialError) Temporary() bool { return true }

// relayAddr is an address that was dialled elsewhere.
type relayAddr string

func (relayAddr) Network() string  { return "tcp" }
func (a relayAddr) String() string { return string(a) }

// exec starts the relay program once more in the container, and returns its
// standard input and output as a connection, once it says that it is ready.
func (t *Target) exec(ctx context.Context, task *relayTask, args ...string) (_ net.Conn, err error) {
	made, err := t.engine.ContainerExecCreate(ctx, task.container, container.ExecOptions{
		Cmd: append(append(append([]string{}, task.program...), "relay"), args...), AttachStdin: true, AttachStdout: true, AttachStderr: true})
	if err != nil {
		return nil, fault(err)
	}
	attached, err := t.engine.ContainerExecAttach(ctx, made.ID, container.ExecAttachOptions{})
	if err != nil {
		return nil, fault(err)
	}
	ours, theirs := net.Pipe()
	c := &relayConn{Conn: ours, far: theirs, attached: attached, remote: relayAddr(args[len(args)-1])}
	stop := context.AfterFunc(ctx, func() { _ = c.Close() })
	c.begin()
	line, err := c.first()
	if !stop() && ctx.Err() != nil {
		return nil, ctx.Err()
	}
	switch {
	case err == nil && line == relayReady:
		return c, nil
	case err == nil:
		err = dialError{text: line}
	default:
		// The engine's own words come where the program's would have been.
		err = rotation.Errorf(rotation.Unknown, fmt.Sprintf("is %q the image of this release of Keyturn?", t.ProbeImage),
			"the relay did not start a connection: %s", strings.TrimSpace(line+" "+err.Error()))
	}
	_ = c.Close()
	return nil, err
}

// A relayConn is a connection through a relay. It has deadlines as a pipe has.
type relayConn struct {
	net.Conn // ours: one end of a pipe
	far      net.Conn
	attached types.HijackedResponse
	remote   relayAddr

	said    bytes.Buffer   // on the standard error, once reading has ended
	writing sync.WaitGroup // to the exec
	reading sync.WaitGroup
	once    sync.Once
}

// begin copies between the pipe and the exec, until either ends.
func (c *relayConn) begin() {
	c.writing.Go(func() {
		_, _ = io.Copy(c.attached.Conn, c.far)
		_ = c.attached.CloseWrite()
	})
	c.reading.Go(func() {
		_, _ = stdcopy.StdCopy(c.far, &c.said, c.attached.Reader)
		_ = c.far.Close()
	})
}

// first reads the first line, byte by byte: what follows is another's.
func (c *relayConn) first() (string, error) {
	var line []byte
	b := make([]byte, 1)
	for len(line) < 4096 {
		if _, err := c.Conn.Read(b); err != nil {
			c.stop()
			return strings.TrimSpace(string(line) + " " + c.said.String()), err
		}
		if b[0] == '\n' {
			return string(line), nil
		}
		line = append(line, b[0])
	}
	return string(line), bufio.ErrTooLong
}

// Close ends the connection, and with it the process in the relay.
func (c *relayConn) Close() error {
	c.stop()
	return nil
}

// stop lets what was written before pass, unless the engine takes nothing any more.
func (c *relayConn) stop() {
	c.once.Do(func() {
		_ = c.Conn.Close()
		late := time.AfterFunc(relayLast, c.attached.Close)
		c.writing.Wait()
		late.Stop()
		_ = c.far.Close()
		c.attached.Close()
	})
	c.reading.Wait()
}

// LocalAddr implements [net.Conn].
func (c *relayConn) LocalAddr() net.Addr { return relayAddr("relay") }

// RemoteAddr implements [net.Conn].
func (c *relayConn) RemoteAddr() net.Addr { return c.remote }

var _ net.Conn = (*relayConn)(nil)

// relayIdle is how long a relay lives with nobody in it.
const relayIdle = 10 * time.Second

// relayLast bounds how long a connection that is closed waits for its last bytes to go.
const relayLast = time.Second
