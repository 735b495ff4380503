package cli

import (
	"net/http"
	"regexp"

	"github.com/keyturn/keyturn/internal/config"
	"github.com/keyturn/keyturn/internal/target/swarm/connect"
)

// docker returns a client of the Swarm's engine, and reads the keys that it is
// reached with. The hook of crash tests, if there is one, is called around every
// request of it that changes something.
func (a *app) docker(s *config.Swarm) (*connect.Engine, error) {
	o := connect.Settings{Host: s.Host, Getenv: a.Getenv, Now: a.Now, Logger: a.log}
	if s.SSH != nil {
		o.SSH = connect.SSH{Key: s.SSH.Key, Passphrase: s.SSH.Passphrase, KnownHosts: s.SSH.KnownHosts}
	}
	if s.TLS != nil {
		o.TLS = connect.TLS{CA: s.TLS.CA, Cert: s.TLS.Cert, Key: s.TLS.Key}
	}
	if a.Hook != nil {
		o.Wrap = func(t http.RoundTripper) http.RoundTripper { return hookedTransport{t, a.Hook} }
	}
	return connect.Open(o)
}

// hookedTransport calls a hook before and after requests that change something.
type hookedTransport struct {
	http.RoundTripper
	hook func(at string)
}

// variable matches what differs from run to run in the path of a request.
var variable = regexp.MustCompile(`^/v[0-9.]+|\b[0-9a-z]{25}\b`)

// RoundTrip implements [http.RoundTripper].
func (t hookedTransport) RoundTrip(req *http.Request) (*http.Response, error) {
	if req.Method == http.MethodGet || req.Method == http.MethodHead {
		return t.RoundTripper.RoundTrip(req)
	}
	at := "request: " + req.Method + " " + variable.ReplaceAllStringFunc(req.URL.Path, func(part string) string {
		if part[0] == '/' {
			return ""
		}
		return "ID"
	})
	t.hook("before " + at)
	resp, err := t.RoundTripper.RoundTrip(req)
	t.hook("after " + at)
	return resp, err
}
