package connect_test

import (
	"bufio"
	"errors"
	"io"
	"net/http"
	"testing"
)

var kinds = []string{"unix", "ssh", "tls"}

// BenchmarkRequest is a request on a connection that is kept.
func BenchmarkRequest(b *testing.B) {
	p := newPlace(b, "LogLevel QUIET")
	for _, kind := range kinds {
		b.Run(kind, func(b *testing.B) {
			e := p.open(p.settings(p.ways()[kind]))
			ping(b, func() error { _, err := e.Ping(b.Context()); return err })
		})
	}
}

// BenchmarkConnection is a connection of its own to the engine, as an exec needs
// one, and a request on it. Over ssh it is a channel of the connection that is there.
func BenchmarkConnection(b *testing.B) {
	p := newPlace(b, "LogLevel QUIET")
	for _, kind := range kinds {
		b.Run(kind, func(b *testing.B) {
			e := p.open(p.settings(p.ways()[kind]))
			ping(b, func() error {
				conn, err := e.Dialer()(b.Context())
				if err != nil {
					return err
				}
				defer conn.Close()
				if _, err := io.WriteString(conn, "HEAD /_ping HTTP/1.1\r\nHost: docker\r\n\r\n"); err != nil {
					return err
				}
				_, err = http.ReadResponse(bufio.NewReader(conn), &http.Request{Method: http.MethodHead})
				return err
			})
		})
	}
}

// BenchmarkStart is a way from its keys to the first answer.
func BenchmarkStart(b *testing.B) {
	p := newPlace(b, "LogLevel QUIET")
	for _, kind := range kinds {
		b.Run(kind, func(b *testing.B) {
			ping(b, func() error {
				e := p.open(p.settings(p.ways()[kind]))
				_, err := e.Ping(b.Context())
				return errors.Join(err, e.Close())
			})
		})
	}
}

// ping measures something that must work, the first time apart.
func ping(b *testing.B, do func() error) {
	if err := do(); err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		if err := do(); err != nil {
			b.Fatal(err)
		}
	}
}
