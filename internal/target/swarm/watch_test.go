package swarm_test

import (
	"context"
	"io"
	"net"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/docker/docker/client"

	"github.com/keyturn/keyturn/internal/target/swarm"
)

// A meddler stands between a client and the engine.
type meddler func(r *http.Request, next http.RoundTripper) (*http.Response, error)

// through returns a client whose requests go through a meddler.
func (s *stage) through(m meddler) *client.Client {
	s.Helper()
	socket := strings.TrimPrefix(s.client.DaemonHost(), "unix://")
	transport := &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "unix", socket)
	}}
	c, err := client.NewClientWithOpts(client.WithHost(s.client.DaemonHost()), client.WithAPIVersionNegotiation(),
		client.WithHTTPClient(&http.Client{Transport: tripper(func(r *http.Request) (*http.Response, error) { return m(r, transport) })}))
	s.must(err)
	s.Cleanup(func() { _ = c.Close(); transport.CloseIdleConnections() })
	return c
}

type tripper func(*http.Request) (*http.Response, error)

func (t tripper) RoundTrip(r *http.Request) (*http.Response, error) { return t(r) }

// Events alone make a move quick: without them it would look once a minute.
// The first stream of them ends at once, as when the engine is restarted.
func TestWatch(t *testing.T) {
	s := newStage(t)
	v1, v2 := s.put(1, "one"), s.put(2, "two")
	s.serve(v1)
	var streams atomic.Int32
	cut := func(r *http.Request, next http.RoundTripper) (*http.Response, error) {
		resp, err := next.RoundTrip(r)
		if err == nil && strings.HasSuffix(r.URL.Path, "/events") && streams.Add(1) == 1 {
			resp.Body = struct {
				io.Reader
				io.Closer
			}{strings.NewReader(""), resp.Body}
		}
		return resp, err
	}
	s.target = swarm.New(s.through(cut), swarm.Options{Layouts: map[string]swarm.Layout{s.credential: s.layout}, Poll: time.Minute})
	begun := time.Now()
	s.must(errOf(s.target.Move(s.ctx(), s.shift(v2, nil, s.snapshot(), v1, v2))))
	if took := time.Since(begun); took > 40*time.Second || streams.Load() < 2 {
		t.Errorf("the move took %s with %d event streams, want seconds and a second stream", took, streams.Load())
	}
}
