package githubapp

import (
	"bytes"
	"context"
	"io"
	"math/rand/v2"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"time"
)

const (
	attempts = 3 // of a request that may be repeated
	waits    = 3 // for a limit to pass

	// secondaryWait is GitHub's advice for a secondary limit that names no time.
	secondaryWait = time.Minute
	maxMessage    = 64 << 10
)

// polite sends requests as GitHub asks for: writes one after the other and apart,
// limits waited for. It repeats what reads when an answer is lost; what writes is
// repeated only if GitHub said that it did nothing.
type polite struct {
	next http.RoundTripper
	o    Options

	mu    sync.Mutex
	calls Calls
	ends  time.Time // of the plain token, as GitHub said

	writing sync.Mutex
	wrote   time.Time
}

type kind int

const (
	reads kind = iota
	writes
	tokens
)

func kindOf(req *http.Request) kind {
	switch {
	case strings.HasSuffix(req.URL.Path, "/access_tokens"), strings.HasSuffix(req.URL.Path, "/installation/token"):
		return tokens
	case req.Method == http.MethodGet, req.Method == http.MethodHead, strings.HasSuffix(req.URL.Path, "/graphql"):
		return reads
	}
	return writes
}

// RoundTrip implements [http.RoundTripper].
func (p *polite) RoundTrip(req *http.Request) (*http.Response, error) {
	k := kindOf(req)
	if k == writes {
		p.writing.Lock()
		defer p.writing.Unlock()
	}
	waited := 0
	for try := 1; ; try++ {
		if k == writes {
			if err := p.apart(req.Context()); err != nil {
				return nil, err
			}
		}
		resp, err := p.send(req, k)
		if err == nil {
			wait, limited := limit(resp, p.o.Now())
			if !limited {
				if resp.StatusCode < 500 || k == writes || try >= attempts {
					return resp, nil
				}
			} else if waited++; waited > waits || wait > p.o.MaxWait {
				return resp, nil
			} else if next := again(req); next != nil {
				drain(resp)
				if err := p.o.Sleep(req.Context(), wait); err != nil {
					return nil, err
				}
				req, try = next, try-1
				continue
			}
		}
		next := again(req)
		if err != nil && (k == writes || try >= attempts || req.Context().Err() != nil) || next == nil {
			return resp, err
		}
		drain(resp)
		if err := p.o.Sleep(req.Context(), backoff(try)); err != nil {
			return nil, err
		}
		req = next
	}
}

// apart waits until some time has passed since the last write.
func (p *polite) apart(ctx context.Context) error {
	if rest := p.wrote.Add(p.o.Between).Sub(p.o.Now()); !p.wrote.IsZero() && rest > 0 {
		if err := p.o.Sleep(ctx, rest); err != nil {
			return err
		}
	}
	return nil
}

func (p *polite) send(req *http.Request, k kind) (*http.Response, error) {
	p.mu.Lock()
	switch k {
	case reads:
		p.calls.Reads++
	case writes:
		p.calls.Writes++
	case tokens:
		p.calls.Tokens++
	}
	p.mu.Unlock()
	resp, err := p.next.RoundTrip(req)
	if k == writes {
		p.wrote = p.o.Now()
	}
	if err == nil {
		p.noteEnd(resp)
	}
	return resp, err
}

// noteEnd keeps what GitHub tells of the end of a plain token.
func (p *polite) noteEnd(resp *http.Response) {
	told := resp.Header.Get("GitHub-Authentication-Token-Expiration")
	for _, form := range []string{"2006-01-02 15:04:05 MST", "2006-01-02 15:04:05 -0700"} {
		if at, err := time.Parse(form, told); err == nil {
			p.mu.Lock()
			p.ends = at.UTC()
			p.mu.Unlock()
		}
	}
}

// again returns the request with its body at the beginning; nil if it has one that
// can be read once only.
func again(req *http.Request) *http.Request {
	if req.Body == nil || req.Body == http.NoBody {
		return req
	}
	if req.GetBody == nil {
		return nil
	}
	body, err := req.GetBody()
	if err != nil {
		return nil
	}
	next := req.Clone(req.Context())
	next.Body = body
	return next
}

func drain(resp *http.Response) {
	if resp == nil {
		return
	}
	_, _ = io.CopyN(io.Discard, resp.Body, maxMessage)
	_ = resp.Body.Close()
}

// backoff is how long to wait before a request is repeated: 0.5, 1, 2 s, and up to
// half of it more.
func backoff(try int) time.Duration {
	d := 500 * time.Millisecond << (try - 1)
	return d + rand.N(d/2)
}

// limit reports whether an answer is that of a limit, primary (403 or 429 with
// nothing remaining) or secondary, and how long to wait.
func limit(resp *http.Response, now time.Time) (time.Duration, bool) {
	if resp.StatusCode != http.StatusTooManyRequests && resp.StatusCode != http.StatusForbidden {
		return 0, false
	}
	if after := resp.Header.Get("Retry-After"); after != "" {
		if n, err := strconv.Atoi(after); err == nil {
			return time.Duration(n) * time.Second, true
		}
		if at, err := http.ParseTime(after); err == nil {
			return max(at.Sub(serverTime(resp, now)), 0), true
		}
	}
	if resp.Header.Get("X-RateLimit-Remaining") == "0" {
		if n, err := strconv.ParseInt(resp.Header.Get("X-RateLimit-Reset"), 10, 64); err == nil {
			return max(time.Unix(n, 0).Sub(serverTime(resp, now)), 0) + time.Second, true
		}
	}
	if resp.StatusCode == http.StatusTooManyRequests || strings.Contains(strings.ToLower(peek(resp)), "secondary rate limit") {
		return secondaryWait, true
	}
	return 0, false
}

// serverTime is what the clock of GitHub says.
func serverTime(resp *http.Response, now time.Time) time.Time {
	if at, err := http.ParseTime(resp.Header.Get("Date")); err == nil {
		return at
	}
	return now
}

// peek reads the beginning of a body, and leaves it to be read again.
func peek(resp *http.Response) string {
	b, err := io.ReadAll(io.LimitReader(resp.Body, maxMessage))
	rest := resp.Body
	resp.Body = struct {
		io.Reader
		io.Closer
	}{io.MultiReader(bytes.NewReader(b), rest), rest}
	if err != nil {
		return ""
	}
	return string(b)
}
