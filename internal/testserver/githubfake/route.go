package githubfake

import (
	"bytes"
	"io"
	"net/http"
	"slices"
	"strings"
	"time"
)

// A route is a kind of call.
type route struct {
	pattern    string // as http.ServeMux has them; {x...} takes the rest
	status     int    // of its usual answer
	permission string // that it needs: "contents=read"; several with "; " are alternatives; "app" needs a JSON web token; "" needs any token
	do         func(*call) (any, error)
}

// A Call is a request that came, for tests that count.
type Call struct {
	Method, Path string
	Query        string
	Login        string // of whose token it was
	Status       int    // that was answered; 0 if the answer was withheld
	At           time.Time
}

// Write reports whether the call was one of those that GitHub wants a second apart.
func (c Call) Write() bool { return c.Method != http.MethodGet && c.Method != http.MethodHead }

// Calls returns what came so far, oldest first.
func (s *Server) Calls() []Call {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.calls)
}

// routes are all the calls that the fake knows.
func routes() []route {
	return slices.Concat(accountRoutes(), repoRoutes(), refRoutes(), objectRoutes(), commitRoutes(), contentRoutes(), archiveRoutes(),
		statusRoutes(), issueRoutes(), labelRoutes(), commentRoutes(), appRoutes(),
		memberRoutes(), pullRoutes(), mergeRoutes(), reviewRoutes(), ruleRoutes(), actionRoutes(), keyRoutes(), secretRoutes(), hookRoutes(), runnerRoutes())
}

func (s *Server) routed() *router {
	mux := &router{}
	for _, r := range routes() {
		mux.add(r.pattern, func(w http.ResponseWriter, req *http.Request) { s.handle(w, req, r) })
	}
	mux.add("GET /_raw/{owner}/{repo}/{ref}/{path...}", s.download)
	mux.add("GET /_codeload/{owner}/{repo}/{sha}", s.codeload)
	return mux
}

// unknown answers a call that the fake was not told of.
func (s *Server) unknown(w http.ResponseWriter, r *http.Request) {
	s.t.Errorf("githubfake: %s %s is a call that the fake does not know", r.Method, r.URL.Path)
	answer(w, 0, nil, notFound())
}

// ServeHTTP makes a fault of a call if a rule says so, and else does it.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Date", s.now().UTC().Format(http.TimeFormat))
	w.Header().Set("X-GitHub-Media-Type", "github.v3; format=json")
	// GHES has the API below this path.
	if after, ok := strings.CutPrefix(r.URL.Path, "/api/v3"); ok {
		r.URL.Path, r.URL.RawPath = after, strings.TrimPrefix(r.URL.RawPath, "/api/v3")
	}
	if strings.HasPrefix(r.URL.Path, "/_") {
		s.mux.serve(w, r, s.unknown)
		return
	}
	f := s.fault(r)
	if f == nil && (r.URL.Path == "/graphql" || r.URL.Path == "/api/graphql") {
		s.graphql(w, r)
		return
	}
	if f == nil && s.description != nil {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			return // the client is gone
		}
		r.Body = io.NopCloser(bytes.NewReader(body))
		s.held(w, r, body, func(w http.ResponseWriter, r *http.Request) { s.mux.serve(w, r, s.unknown) })
		return
	}
	if f == nil {
		s.mux.serve(w, r, s.unknown)
		return
	}
	f.serve(s, w, r)
}

func (s *Server) handle(w http.ResponseWriter, r *http.Request, to route) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return // the client is gone
	}
	s.mu.Lock()
	c := &call{s: s, r: r, header: w.Header(), status: to.status, body: body}
	out, err := c.allowed(to)
	if err == nil {
		out, err = to.do(c)
	}
	s.limits(c)
	seen := &Call{Method: r.Method, Path: r.URL.Path, Query: r.URL.RawQuery, At: s.now()}
	if c.by != nil {
		seen.Login = c.by.account.Login
	}
	if f, ok := err.(*failure); ok {
		seen.Status = f.status
	} else {
		seen.Status = c.status
	}
	s.calls = append(s.calls, *seen)
	s.mu.Unlock()
	answer(w, c.status, out, err)
}

// limits tells of the primary limit, which is never reached by itself.
func (s *Server) limits(c *call) {
	c.header.Set("X-RateLimit-Limit", "5000")
	c.header.Set("X-RateLimit-Remaining", "4999")
	c.header.Set("X-RateLimit-Used", "1")
	c.header.Set("X-RateLimit-Resource", "core")
	c.header.Set("X-RateLimit-Reset", intText(s.now().Add(time.Hour).Unix()))
}
