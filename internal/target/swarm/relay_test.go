package swarm_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"testing"
	"time"

	engineapi "github.com/docker/docker/api/types/swarm"

	"github.com/keyturn/keyturn/internal/rotation"
	"github.com/keyturn/keyturn/internal/target/swarm"
)

// echo serves on loopback what it is sent, and returns its address.
func echo(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				_, _ = io.Copy(c, c)
				_ = c.Close()
			}()
		}
	}()
	return l.Addr().String()
}

// A connection through a relay is one like others: whole, with deadlines, and closed
// under whoever reads it.
func TestRelay(t *testing.T) {
	s := newStage(t)
	s.serve(s.put(1, "one"), withImage(imagePlain))
	r := s.target.Relay(s.credential)
	defer func() { s.must(r.Close()) }()
	s.must(r.Start(s.ctx()))
	conn, err := r.Dial(s.ctx(), "tcp", echo(t))
	s.must(err)
	sent := bytes.Repeat([]byte("0123456789abcdef"), 1<<16)
	go func() { _, _ = conn.Write(sent) }() // what is lost shows below
	got := make([]byte, len(sent))
	if _, err := io.ReadFull(conn, got); err != nil || !bytes.Equal(got, sent) {
		t.Errorf("a megabyte came back broken: %v", err)
	}
	s.must(conn.SetReadDeadline(time.Now().Add(50 * time.Millisecond)))
	if _, err := conn.Read(got); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("Read past the deadline = %v", err)
	}
	s.must(conn.SetReadDeadline(time.Time{}))
	time.AfterFunc(100*time.Millisecond, func() { _ = conn.Close() })
	if _, err := conn.Read(got); err == nil {
		t.Error("Read of a connection that was closed = nil")
	}
	_, err = r.Dial(s.ctx(), "tcp", "127.0.0.1:1")
	var op *net.OpError
	if !errors.As(err, &op) || !strings.Contains(err.Error(), "dial tcp 127.0.0.1:1: ") || !strings.Contains(err.Error(), "connection refused (from a relay on the network of the services)") {
		t.Errorf("Dial of a port where nobody listens = %v", err)
	}
	s.must(r.Close())
	s.noRelays()
	if conn, err := r.Dial(s.ctx(), "tcp", echo(t)); err != nil { // another one is started
		t.Errorf("Dial after Close = %v", err)
	} else {
		s.must(conn.Close())
	}
	s.must(r.Close())
	s.noRelays()
}

// Whoever cannot connect is told what may mend it.
func TestRelayHints(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{
		"lookup db: i/o timeout":                   "the services are on no network: attach them to that of the database",
		"lookup db on 127.0.0.11:53: no such host": "the services are on no network: attach them to that of the database",
		"connect: connection refused":              "is the server running there, at this port?",
		"i/o timeout":                              "does the database's host let connections from the network of the services in?",
		"connect: no route to host":                "",
	} {
		if got := swarm.DialHint(text); got != want {
			t.Errorf("the hint of %q is %q, want %q", text, got, want)
		}
	}
	if got := swarm.DialHint("lookup db: no such host", "back", "front"); !strings.Contains(got, "(back, front)") {
		t.Errorf("the hint %q does not name the networks", got)
	}
}

// What was written before a connection is closed arrives, as it does over TCP.
func TestRelayClose(t *testing.T) {
	s := newStage(t)
	s.serve(s.put(1, "one"), withImage(imagePlain))
	r := s.target.Relay(s.credential)
	defer func() { s.must(r.Close()) }()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	s.must(err)
	defer func() { _ = l.Close() }()
	for i := range 20 {
		conn, err := r.Dial(s.ctx(), "tcp", l.Addr().String())
		s.must(err)
		there, err := l.Accept()
		s.must(err)
		sent := fmt.Sprintf("the last words of connection %d", i)
		_, err = conn.Write([]byte(sent))
		s.must(err)
		s.must(conn.Close())
		s.must(there.SetReadDeadline(time.Now().Add(time.Minute)))
		got, err := io.ReadAll(there)
		if err != nil || string(got) != sent {
			t.Errorf("after Close the other side has %q, %v, want %q", got, err, sent)
		}
		_ = there.Close()
	}
}

func (s *stage) noRelays() {
	s.Helper()
	s.eventually(func() bool {
		list, err := s.client.ServiceList(s.Context(), engineapi.ServiceListOptions{})
		s.must(err)
		for _, o := range list {
			if o.Spec.Labels["keyturn.relay"] != "" && o.Spec.Labels["keyturn.credential"] == s.credential {
				return false
			}
		}
		return true
	})
}

// What keeps a relay from being of use is said, with what mends it, and none is left.
func TestRelayRefusals(t *testing.T) {
	s := newStage(t)
	s.refusal("a service that is not there", s.target.Relay(s.credential).Start(s.ctx()), rotation.Invalid, "starting a relay", "there is no service", "docker service ls")
	s.serve(s.put(1, "one"), withImage(imagePlain))
	answer := func(status int, was *http.Response, edit func(string) string) *http.Response {
		b, err := io.ReadAll(was.Body)
		s.must(err)
		text := edit(string(b))
		was.StatusCode, was.ContentLength, was.Body = status, int64(len(text)), io.NopCloser(strings.NewReader(text))
		was.Header.Del("Content-Length")
		return was
	}
	for _, tt := range []struct {
		name, path string
		status     int
		edit       func(string) string
		class      rotation.Class
		words      []string
	}{
		{"a drained manager", "/nodes/", 200, func(b string) string {
			return strings.Replace(b, `"Availability":"active"`, `"Availability":"drain"`, 1)
		}, rotation.Invalid, []string{"takes no tasks: it is set to drain", "docker node update --availability active "}},
		{"an address that several managers share", "/containers/", 404, func(string) string { return `{"message":"No such container: x"}` },
			rotation.Unknown, []string{"its container is not on the engine that was asked", "let swarm.host be one manager"}},
		{"an engine that forbids exec", "/exec", 403, func(string) string { return `{"message":"a proxy forbids it"}` },
			rotation.Failed, []string{"starting a relay", "a proxy forbids it"}},
	} {
		before := s.client
		s.client = s.through(func(r *http.Request, next http.RoundTripper) (*http.Response, error) {
			resp, err := next.RoundTrip(r)
			if err == nil && strings.Contains(r.URL.Path, tt.path) {
				resp = answer(tt.status, resp, tt.edit)
			}
			return resp, err
		})
		s.retarget()
		s.refusal(tt.name, s.target.Relay(s.credential).Start(s.ctx()), tt.class, tt.words...)
		s.client = before
		s.noRelays()
	}
	s.target.ProbeImage = ""
	s.refusal("no image", s.target.Relay(s.credential).Start(s.ctx()), rotation.Invalid, "no image is configured", "set swarm.image")
}
