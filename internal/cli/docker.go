package cli

import (
	"net/http"
	"regexp"

	"github.com/docker/docker/client"
)

// docker returns a client of the engine. The hook of crash tests, if there is
// one, is called around every request of it that changes something.
func (a *app) docker(host string) (*client.Client, error) {
	opts := []client.Opt{client.WithHost(host), client.WithAPIVersionNegotiation()}
	plain, err := client.NewClientWithOpts(opts...)
	if err != nil || a.Hook == nil {
		return plain, err
	}
	hooked := plain.HTTPClient()
	hooked.Transport = hookedTransport{hooked.Transport, a.Hook}
	return client.NewClientWithOpts(append(opts, client.WithHTTPClient(hooked))...)
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
