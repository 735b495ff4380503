package connect

import (
	"context"
	"errors"
	"net"
	"net/url"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/crypto/ssh"

	"github.com/keyturn/keyturn/internal/rotation"
)

const (
	sshPort       = "22"
	defaultSocket = "/var/run/docker.sock"
	goesOn        = "run it again: it looks at what is true, and goes on from there"
)

// A tunnel is the way over ssh: one connection, made when it is first needed and
// again when it broke.
type tunnel struct {
	Settings
	name   string // ssh://user@host, for messages
	addr   string // host:port
	socket string // of the engine, on the other side
	config ssh.ClientConfig
	hosts  *knownHosts

	turn   chan struct{} // holds one: who has it connects, and the others wait
	trusts               // whether the engine was reached before
	ended  sync.WaitGroup
	live   *session // guarded by turn
	closed bool     // guarded by turn
	failed failure  // guarded by turn
}

// A failure to connect stands for a moment: a client that gets one asks again at
// once, and a server that refuses is not to be asked more often.
type failure struct {
	err   error
	until time.Time
}

const failureStands = time.Second

func newTunnel(s Settings, u *url.URL) (*tunnel, error) {
	t := &tunnel{Settings: s, name: "ssh://" + u.User.Username() + "@" + u.Host, addr: withPort(u, sshPort), socket: u.Path,
		turn: make(chan struct{}, 1)}
	if t.socket == "" {
		t.socket = defaultSocket
	}
	signer, err := signer(s)
	if err != nil {
		return nil, err
	}
	if t.hosts, err = readKnownHosts(s.SSH.KnownHosts, t.addr); err != nil {
		return nil, err
	}
	t.config = ssh.ClientConfig{User: u.User.Username(), Auth: []ssh.AuthMethod{ssh.PublicKeys(signer)},
		HostKeyAlgorithms: t.hosts.algorithms, ClientVersion: "SSH-2.0-Keyturn"}
	return t, nil
}

// dial implements [way]: it opens a channel to the engine's socket. A connection
// that broke unnoticed is made once more.
func (t *tunnel) dial(ctx context.Context) (net.Conn, error) {
	for again := false; ; again = true {
		s, fresh, err := t.session(ctx)
		if err != nil {
			return nil, err
		}
		conn, err := s.client.DialContext(ctx, "unix", t.socket)
		switch {
		case err == nil:
			t.trusted()
			return &channel{Conn: conn, s: s}, nil
		case ctx.Err() != nil:
			return nil, ctx.Err()
		case s.broken() && (fresh || again):
			return nil, s.lost()
		case !s.broken():
			return nil, t.refused(ctx, s, err)
		}
	}
}

// session returns the connection, made now if there is none that works.
func (t *tunnel) session(ctx context.Context) (_ *session, fresh bool, err error) {
	select {
	case t.turn <- struct{}{}:
		defer func() { <-t.turn }()
	case <-ctx.Done():
		return nil, false, ctx.Err()
	}
	switch {
	case t.closed:
		return nil, false, net.ErrClosed
	case t.live != nil && !t.live.broken():
		return t.live, false, nil
	case t.failed.err != nil && t.Now().Before(t.failed.until):
		return nil, false, t.failed.err
	}
	s, err := t.connect(ctx)
	if ctx.Err() != nil && err != nil {
		return nil, false, ctx.Err()
	}
	t.failed = failure{err, t.Now().Add(failureStands)}
	if err != nil {
		return nil, false, err
	}
	t.live = s
	t.ended.Go(s.wait)
	t.ended.Go(s.keepAlive)
	return s, true, nil
}

// connect makes an ssh connection: the host is known, and we are let in.
func (t *tunnel) connect(ctx context.Context) (*session, error) {
	ctx, cancel := context.WithTimeout(ctx, t.Timeout)
	defer cancel()
	began := time.Now()
	raw, err := (&net.Dialer{}).DialContext(ctx, "tcp", t.addr)
	if err != nil {
		return nil, unreachable(t.name, err)
	}
	w := &wire{Conn: raw}
	stop := context.AfterFunc(ctx, func() { _ = raw.Close() })
	var hostFault error
	known, config := false, t.config
	config.HostKeyCallback = func(addr string, remote net.Addr, key ssh.PublicKey) error {
		hostFault = t.hosts.check(addr, remote, key)
		known = hostFault == nil
		return hostFault
	}
	conn, channels, requests, err := ssh.NewClientConn(w, t.addr, &config)
	if !stop() && err == nil { // the time was over in the last moment
		_ = conn.Close()
		err = context.DeadlineExceeded
	}
	if err != nil {
		_ = raw.Close()
		return nil, t.handshakeFault(err, hostFault, known, ctx.Err() != nil)
	}
	t.Logger.Debug("an ssh connection was made", "to", t.name, "after", time.Since(began))
	return &session{tunnel: t, client: ssh.NewClient(conn, channels, requests), wire: w, over: make(chan struct{})}, nil
}

// close implements [way].
func (t *tunnel) close() {
	t.turn <- struct{}{}
	t.closed = true
	if t.live != nil {
		t.live.end()
	}
	<-t.turn
	t.ended.Wait()
}

// A session is one ssh connection.
type session struct {
	*tunnel
	client *ssh.Client
	wire   *wire
	over   chan struct{} // closed when the connection has ended
	silent atomic.Bool   // it was given up, since nothing came any more
}

// wait waits for the end of the connection.
func (s *session) wait() {
	err := s.client.Wait()
	s.wire.broken.Store(true)
	close(s.over)
	s.Logger.Debug("an ssh connection ended", "to", s.name, "error", err)
}

// keepAlive asks the server for an answer, again and again, and gives the
// connection up if there is none.
func (s *session) keepAlive() {
	for {
		select {
		case <-s.over:
			return
		case <-time.After(s.Keepalive):
		}
		answered := make(chan struct{})
		s.ended.Go(func() {
			_, _, _ = s.client.SendRequest("keepalive@openssh.com", true, nil) // no is an answer, too
			close(answered)
		})
		select {
		case <-s.over:
			return
		case <-answered:
		case <-time.After(s.Keepalive):
			s.silent.Store(true)
			s.end()
			return
		}
	}
}

// end ends the connection, also if the peer is silent and what is sent piles up.
func (s *session) end() {
	s.wire.broken.Store(true)
	_ = s.wire.Close() // whatever is wrong with it, it is closed
}

func (s *session) broken() bool { return s.wire.broken.Load() }

// lost is the error of what was on its way when the connection broke.
func (s *session) lost() error {
	if s.silent.Load() {
		return rotation.Errorf(rotation.Unknown, goesOn, "the connection to %s was silent for %s", s.name, 2*s.Keepalive)
	}
	return rotation.Errorf(rotation.Unknown, goesOn, "the connection to %s broke", s.name)
}

// A wire notes that it broke before anybody is told: the channels of an ssh
// connection end as if the engine had closed them.
type wire struct {
	net.Conn
	broken atomic.Bool
}

// Read implements [net.Conn].
func (w *wire) Read(b []byte) (int, error) {
	n, err := w.Conn.Read(b)
	if err != nil {
		w.broken.Store(true)
		return n, err
	}
	acknowledge(w.Conn)
	return n, nil
}

// A channel is a connection to the engine.
type channel struct {
	net.Conn
	s *session
}

// Read implements [net.Conn].
func (c *channel) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	return n, c.told(err)
}

// Write implements [net.Conn].
func (c *channel) Write(b []byte) (int, error) {
	n, err := c.Conn.Write(b)
	return n, c.told(err)
}

func (c *channel) told(err error) error {
	if err != nil && c.s.broken() {
		return c.s.lost()
	}
	return err
}

// CloseWrite says that nothing more will be written.
func (c *channel) CloseWrite() error {
	half, ok := c.Conn.(interface{ CloseWrite() error })
	if !ok {
		return errors.ErrUnsupported
	}
	return half.CloseWrite()
}
