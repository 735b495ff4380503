// Package connect makes the way to the engine of a Swarm manager: a client of
// its API over a unix socket, over ssh, or over TLS. Whatever the client does
// goes that way: requests, the event stream, and connections that are taken over
// (exec).
//
//   - unix:///path is the socket itself.
//   - ssh://user@host[:port][/path] is one ssh connection, on which each connection
//     to the engine is a channel that the server forwards to the socket
//     (direct-streamlocal@openssh.com); nothing is run on the other side. It is made
//     when it is first needed, and again when it broke. The key of the host must
//     stand in the file of known hosts: nothing is learnt.
//   - tcp://host[:port] is TLS 1.3 at least. Both sides show certificates; the
//     authority is the one that was named, and none of the machine's.
//
// # Errors
//
// What keeps us from reaching the engine is a [rotation.Error] that says what is
// wrong and has a hint. Its class is Unknown, for a request whose answer was lost
// may have had its effect; but if the other side is not the right one, or does not
// take us, and nothing has been asked of it yet, it is Invalid: the configuration
// is wrong, and nothing was changed. No error and no log has a part of a key.
package connect

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"time"

	"github.com/docker/docker/client"

	"github.com/keyturn/keyturn/internal/rotation"
	"github.com/keyturn/keyturn/internal/secret"
)

// Settings say where an engine is, and how it is reached.
type Settings struct {
	Host string // unix://, ssh:// or tcp://
	SSH  SSH    // for ssh://
	TLS  TLS    // for tcp://

	// Getenv looks up the variables that hold keys ([os.Getenv]).
	Getenv func(string) string

	// Now is the clock; nil means [time.Now].
	Now func() time.Time

	// Wrap, if it is not nil, is put around whatever carries requests.
	Wrap func(http.RoundTripper) http.RoundTripper

	// Logger is told when a connection is made or breaks. Nil: nobody is told.
	Logger *slog.Logger

	// Timeout bounds the making of a connection; 0 means 20 seconds.
	Timeout time.Duration

	// Keepalive is after how long a silent peer is asked whether it is there,
	// and how long it may take to answer; 0 means 15 seconds.
	Keepalive time.Duration
}

// SSH is what an ssh connection needs.
type SSH struct {
	Key        secret.Source // of the user, in any form that ssh-keygen writes
	Passphrase secret.Source // of an encrypted key; zero: it is not encrypted
	KnownHosts string        // path of a file as ssh has it
}

// TLS is what a TLS connection needs.
type TLS struct {
	CA   string // path of the authority of the engine's certificate
	Cert string // path of our certificate
	Key  secret.Source
}

// An Engine is a client of an engine, and the way to it.
type Engine struct {
	*client.Client
	way way // nil: the client's own
}

// A way makes connections to an engine, until it is closed.
type way interface {
	dial(ctx context.Context) (net.Conn, error)
	close()
}

// Close closes the way with every connection on it.
func (e *Engine) Close() error {
	err := e.Client.Close()
	if e.way != nil {
		e.way.close()
	}
	return err
}

// Open reads what the settings name and returns a client of the engine, which
// agrees on the version of the API by itself. It connects to nothing.
func Open(s Settings) (*Engine, error) {
	s.fill()
	u, err := url.Parse(s.Host)
	if err != nil {
		return nil, rotation.Errorf(rotation.Invalid, "write it as unix:///var/run/docker.sock", "swarm.host is no address")
	}
	e, host := &Engine{}, s.Host
	switch u.Scheme {
	case "ssh":
		host = "ssh://" + u.Host // for the client it is a name, and shows in messages
		e.way, err = newTunnel(s, u)
	case "tcp":
		host = "tcp://" + withPort(u, tlsPort)
		e.way, err = newSecure(s, u)
	}
	if err != nil {
		return nil, err
	}
	transport := &http.Transport{MaxIdleConns: 6, IdleConnTimeout: 30 * time.Second}
	own := &http.Client{Transport: transport, CheckRedirect: client.CheckRedirect}
	e.Client, err = client.NewClientWithOpts(client.WithHTTPClient(own), client.WithHost(host), client.WithAPIVersionNegotiation())
	if err != nil {
		return nil, rotation.Classify(rotation.Invalid, "write it as unix:///var/run/docker.sock", fmt.Errorf("swarm.host: %w", err))
	}
	if e.way != nil {
		transport.Proxy = nil // an engine is not reached through a proxy of the web
		transport.DialContext = func(ctx context.Context, _, _ string) (net.Conn, error) { return e.way.dial(ctx) }
	}
	if s.Wrap != nil {
		own.Transport = s.Wrap(own.Transport)
	}
	return e, nil
}

func (s *Settings) fill() {
	if s.Now == nil {
		s.Now = time.Now
	}
	if s.Logger == nil {
		s.Logger = slog.New(slog.DiscardHandler)
	}
	if s.Timeout == 0 {
		s.Timeout = 20 * time.Second
	}
	if s.Keepalive == 0 {
		s.Keepalive = 15 * time.Second
	}
}

// withPort returns the host and port of an address, with a port if it has none.
func withPort(u *url.URL, usual string) string {
	if u.Port() != "" {
		return u.Host
	}
	return net.JoinHostPort(u.Hostname(), usual)
}
