package main

import (
	"context"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"time"

	"github.com/keyturn/keyturn/internal/testserver/outcome"
)

// linger is how long a server that shall end still serves: until nobody finds it any more.
const linger = 2 * time.Second

// A tlsLoad is a server of TLS and a client of all of its kind. The server reads its
// certificate once, when it starts, as most do.
type tlsLoad struct {
	listen, certFile, keyFile string // of the server
	connect, name             string // of the client: where, and as whom the server must show itself
	roots                     *tls.Config
	found                     bool // the name was resolved before
}

func readTLS(getenv func(string) string) (*tlsLoad, error) {
	if getenv("TLS_LISTEN") == "" {
		return nil, nil
	}
	t := &tlsLoad{listen: getenv("TLS_LISTEN"), certFile: getenv("TLS_CERT_FILE"), keyFile: getenv("TLS_KEY_FILE"), connect: getenv("TLS_CONNECT"), name: getenv("TLS_NAME")}
	roots, err := os.ReadFile(getenv("TLS_ROOTS"))
	if err != nil {
		return nil, fmt.Errorf("reading TLS_ROOTS: %w", err)
	}
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(roots)
	t.roots = &tls.Config{RootCAs: pool, ServerName: t.name, MinVersion: tls.VersionTLS13}
	return t, nil
}

// serve serves until stop is called.
func (t *tlsLoad) serve() (stop func(), err error) {
	pair, err := tls.LoadX509KeyPair(t.certFile, t.keyFile)
	if err != nil {
		return nil, fmt.Errorf("reading TLS_CERT_FILE and TLS_KEY_FILE: they are no pair")
	}
	l, err := tls.Listen("tcp", t.listen, &tls.Config{Certificates: []tls.Certificate{pair}, MinVersion: tls.VersionTLS13})
	if err != nil {
		return nil, err
	}
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer conn.Close()
				_ = conn.SetDeadline(time.Now().Add(10 * time.Second)) // a connection has one question
				_, _ = io.CopyN(conn, conn, int64(len(greeting)))      // who asked sees that it failed
			}()
		}
	}()
	return func() {
		time.Sleep(linger)
		_ = l.Close() // nobody is left who could be told
	}, nil
}

const greeting = "is it you?"

// use asks this task itself, and whichever task the name leads to, with a handshake of TLS 1.3
// that is verified.
func (t *tlsLoad) use(ctx context.Context, o *outcome.Login) error {
	host, port, err := net.SplitHostPort(t.connect)
	if err != nil {
		return err
	}
	if o.Session, err = t.ask(ctx, net.JoinHostPort("127.0.0.1", port)); err != nil {
		return err
	}
	if !t.found {
		ctx, cancel := context.WithTimeout(ctx, time.Second) // what is not known here may be asked elsewhere
		defer cancel()
		if _, err := net.DefaultResolver.LookupHost(ctx, host); err != nil {
			return nil // no task of the service is ready yet
		}
		t.found = true
	}
	o.Current, err = t.ask(ctx, t.connect)
	return err
}

// ask makes one connection, and returns the fingerprint of what is served.
func (t *tlsLoad) ask(ctx context.Context, address string) (string, error) {
	conn, err := (&tls.Dialer{Config: t.roots}).DialContext(ctx, "tcp", address)
	if err != nil {
		return "", err
	}
	defer conn.Close()
	if deadline, ok := ctx.Deadline(); ok {
		_ = conn.SetDeadline(deadline) // a connection that is closed says so below
	}
	if _, err := io.WriteString(conn, greeting); err != nil {
		return "", err
	}
	answer := make([]byte, len(greeting))
	if _, err := io.ReadFull(conn, answer); err != nil {
		return "", err
	}
	if string(answer) != greeting {
		return "", errors.New("the answer is another one")
	}
	sum := sha256.Sum256(conn.(*tls.Conn).ConnectionState().PeerCertificates[0].Raw)
	return hex.EncodeToString(sum[:]), nil
}
