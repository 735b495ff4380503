// Package remote is what backends share that speak to servers of the team's own: what they
// need for it, how connections are verified, which URLs of an HTTP API they take, and what is
// said of a connection that broke.
package remote

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"slices"
	"time"
)

// The names by which connections may be weakened. Without any they are verified TLS 1.3.
const (
	WeakerTLS = "tls-1.2"
	Plaintext = "plaintext" // http://
)

// Weakenings are all of them.
var Weakenings = []string{WeakerTLS, Plaintext}

// A Dial makes a connection; nil is the network.
type Dial func(ctx context.Context, network, address string) (net.Conn, error)

// TLS returns what a connection must fulfil. Without an authority (PEM) the system's are
// believed.
func TLS(ca []byte, weaker []string) (*tls.Config, error) {
	config := &tls.Config{MinVersion: tls.VersionTLS13}
	if slices.Contains(weaker, WeakerTLS) {
		config.MinVersion = tls.VersionTLS12
	}
	var err error
	config.RootCAs, err = Pool(ca)
	return config, err
}

// Pool returns the authorities of a file (PEM); nil, which are the system's, for none.
func Pool(ca []byte) (*x509.CertPool, error) {
	if len(ca) == 0 {
		return nil, nil
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(ca) {
		return nil, errors.New("there is no certificate in it")
	}
	return pool, nil
}

// ErrRedirected is that a server sends elsewhere.
var ErrRedirected = errors.New("the server answers with a redirection")

// Client returns a client that takes nothing from the environment and follows nobody
// elsewhere: what it sends may be a secret.
func Client(config *tls.Config, dial Dial, timeout time.Duration) *http.Client {
	return &http.Client{
		Transport: &http.Transport{TLSClientConfig: config, DialContext: dial, TLSHandshakeTimeout: timeout, ResponseHeaderTimeout: timeout,
			MaxIdleConnsPerHost: 8, IdleConnTimeout: 5 * time.Second},
		CheckRedirect: func(*http.Request, []*http.Request) error { return ErrRedirected },
	}
}

// Problem says what is wrong with the URL of an API, and repeats nothing of it. Example is
// one that is right.
func Problem(text, example string, weaker []string) (tip, problem string) {
	u, err := url.Parse(text)
	switch {
	case err != nil || u.Scheme != "https" && u.Scheme != "http" || u.Hostname() == "":
		return "write it as " + example, "this is no URL that begins with https:// and names a host"
	case u.User != nil || u.RawQuery != "" || u.Fragment != "":
		return "leave them out", "the URL has a user, a query or a fragment"
	case u.Scheme == "http" && !slices.Contains(weaker, Plaintext):
		return "write https://, or insecure-tls: [plaintext]: then everybody on the way reads the secrets", "the URL has no TLS"
	}
	return "", ""
}

// Cause says in words of ours what broke, without the URL.
func Cause(err error) string {
	switch {
	case errors.Is(err, context.DeadlineExceeded):
		return "no answer in time"
	case errors.Is(err, context.Canceled):
		return "stopped"
	}
	for unwrapped := err; unwrapped != nil; unwrapped = errors.Unwrap(unwrapped) {
		err = unwrapped
	}
	return fmt.Sprint(err)
}

// Pause waits, or returns why it did not.
func Pause(ctx context.Context, d time.Duration) error {
	select {
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-time.After(d):
		return nil
	}
}
