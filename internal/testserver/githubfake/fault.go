package githubfake

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strconv"
	"sync/atomic"
	"time"
)

// A Fault is what becomes of a call instead of its answer.
type Fault struct {
	Delay  time.Duration // before anything else
	Do     bool          // the call is done, and then its answer is not given
	Status int           // that is answered instead; 0 with Lose unset lets the call go its way after the delay
	Header map[string]string
	Body   string // "" is an error as GitHub's are
	Lose   bool   // no answer at all: the connection is cut
}

type faultRule struct{ of func(*http.Request) *Fault }

// On asks of every call whether it shall go wrong, the latest rule first. Nil
// lets it be. The rule ends when remove is called, or with the test.
func (s *Server) On(rule func(*http.Request) *Fault) (remove func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	added := &faultRule{of: rule}
	s.faults = append(s.faults, added)
	return func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		added.of = func(*http.Request) *Fault { return nil }
	}
}

func (s *Server) fault(r *http.Request) *Fault {
	s.mu.Lock()
	rules := make([]func(*http.Request) *Fault, len(s.faults))
	for i, rule := range s.faults {
		rules[len(rules)-1-i] = rule.of
	}
	s.mu.Unlock()
	for _, rule := range rules {
		if f := rule(r); f != nil {
			return f
		}
	}
	return nil
}

// Times lets a rule make the given number of faults and then no more.
func Times(n int64, rule func(*http.Request) *Fault) func(*http.Request) *Fault {
	var made atomic.Int64
	return func(r *http.Request) *Fault {
		f := rule(r)
		if f == nil || made.Add(1) > n {
			return nil
		}
		return f
	}
}

// Secondary is the answer of GitHub's secondary limit, with status 403 or 429.
func Secondary(status int, after time.Duration) *Fault {
	f := &Fault{Status: status, Header: map[string]string{}, Body: `{"message":"You have exceeded a secondary rate limit. Please wait a few minutes before you try again.",` +
		`"documentation_url":"https://docs.github.com/rest/overview/rate-limits-for-the-rest-api#about-secondary-rate-limits"}`}
	if after > 0 {
		f.Header["Retry-After"] = strconv.Itoa(int(after.Seconds()))
	}
	return f
}

// Limited is the answer when no call is left until a time.
func Limited(status int, until time.Time) *Fault {
	return &Fault{Status: status,
		Header: map[string]string{"X-RateLimit-Limit": "5000", "X-RateLimit-Remaining": "0", "X-RateLimit-Used": "5000", "X-RateLimit-Reset": intText(until.Unix())},
		Body:   `{"message":"API rate limit exceeded for installation.","documentation_url":"https://docs.github.com/rest/overview/rate-limits-for-the-rest-api"}`}
}

func (f *Fault) serve(s *Server, w http.ResponseWriter, r *http.Request) {
	if f.Delay > 0 {
		select {
		case <-time.After(f.Delay):
		case <-r.Context().Done():
			return
		}
	}
	if f.Status == 0 && !f.Lose {
		s.mux.serve(w, r, s.unknown)
		return
	}
	if f.Do {
		s.mux.serve(httptest.NewRecorder(), r, s.unknown)
	} else {
		_, _ = io.Copy(io.Discard, r.Body)
		s.note(r, f.Status)
	}
	if f.Lose {
		panic(http.ErrAbortHandler)
	}
	for name, value := range f.Header {
		w.Header().Set(name, value)
	}
	body := f.Body
	if body == "" {
		body = fmt.Sprintf(`{"message":%q,"documentation_url":%q}`, http.StatusText(f.Status), documentation)
	}
	w.Header().Set("Content-Type", "application/json; charset=utf-8")
	w.WriteHeader(f.Status)
	_, _ = io.WriteString(w, body)
}

// note counts a call that was refused before it was done.
func (s *Server) note(r *http.Request, status int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.calls = append(s.calls, Call{Method: r.Method, Path: r.URL.Path, Query: r.URL.RawQuery, Status: status, At: s.now()})
}

func intText(n int64) string { return strconv.FormatInt(n, 10) }
