package telemetry

import (
	"bytes"
	"compress/gzip"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/keyturn/keyturn/internal/secret"
)

// An OTLP is where metrics and traces go, over HTTP in protobuf.
type OTLP struct {
	Resource Resource
	Metrics  *Endpoint // nil: nowhere
	Traces   *Endpoint
}

// An Endpoint is where one kind of signal goes.
type Endpoint struct {
	url     string
	headers []header
	gzip    bool
	client  *http.Client
	timeout time.Duration
}

// A header may hold a token.
type header struct {
	name  string
	value secret.Value
}

// Secrets returns what the endpoints' headers hold, to be masked.
func (o OTLP) Secrets() []secret.Value {
	var out []secret.Value
	for _, e := range []*Endpoint{o.Metrics, o.Traces} {
		if e != nil {
			for _, h := range e.headers {
				out = append(out, h.value)
			}
		}
	}
	return out
}

// FromEnvironment reads OpenTelemetry's variables: OTEL_SDK_DISABLED, OTEL_SERVICE_NAME,
// OTEL_RESOURCE_ATTRIBUTES, OTEL_METRICS_EXPORTER, OTEL_TRACES_EXPORTER and
// OTEL_EXPORTER_OTLP_*, also those of one signal. Without an endpoint or an exporter nothing
// is sent. The error names the variable, and repeats no value.
func FromEnvironment(getenv func(string) string) (OTLP, error) {
	var o OTLP
	if strings.EqualFold(getenv("OTEL_SDK_DISABLED"), "true") {
		return o, nil
	}
	var errs [3]error
	o.Metrics, errs[0] = endpoint(getenv, "METRICS", "v1/metrics")
	o.Traces, errs[1] = endpoint(getenv, "TRACES", "v1/traces")
	o.Resource, errs[2] = resource(getenv)
	return o, errors.Join(errs[:]...)
}

func resource(getenv func(string) string) (Resource, error) {
	r := Resource{}
	name := getenv("OTEL_SERVICE_NAME")
	for pair := range strings.SplitSeq(getenv("OTEL_RESOURCE_ATTRIBUTES"), ",") {
		if strings.TrimSpace(pair) == "" {
			continue
		}
		key, value, ok := strings.Cut(pair, "=")
		key = strings.TrimSpace(key)
		decoded, err := url.PathUnescape(strings.TrimSpace(value))
		switch {
		case !ok || key == "" || err != nil:
			return nil, errors.New("OTEL_RESOURCE_ATTRIBUTES: want key=value,key=value")
		case key == "service.name" && name == "":
			name = decoded
		case key != "service.name":
			r = append(r, Label{key, decoded})
		}
	}
	if name == "" {
		name = "keyturn"
	}
	return append(r, Label{"service.name", name}), nil
}

// endpoint reads where a signal goes; nil is nowhere.
func endpoint(getenv func(string) string, signal, path string) (*Endpoint, error) {
	const base = "OTEL_EXPORTER_OTLP_"
	get := func(what string) (value, name string) {
		if v := getenv(base + signal + "_" + what); v != "" {
			return v, base + signal + "_" + what
		}
		return getenv(base + what), base + what
	}
	exporter := getenv("OTEL_" + signal + "_EXPORTER")
	at, name := get("ENDPOINT")
	switch {
	case exporter == "none", exporter == "" && at == "":
		return nil, nil
	case exporter != "" && exporter != "otlp":
		return nil, fmt.Errorf("OTEL_%s_EXPORTER: only otlp and none are known here", signal)
	case at == "":
		at = "http://localhost:4318"
	}
	u, err := url.Parse(at)
	if err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" {
		return nil, fmt.Errorf("%s: want a URL with http or https", name)
	}
	if name == base+"ENDPOINT" {
		u = u.JoinPath(path)
	}
	if protocol, name := get("PROTOCOL"); protocol != "" && protocol != "http/protobuf" {
		return nil, fmt.Errorf("%s: only http/protobuf is spoken here", name)
	}
	e := &Endpoint{url: u.String(), timeout: 10 * time.Second}
	compression, name := get("COMPRESSION")
	if compression != "" && compression != "none" && compression != "gzip" {
		return nil, fmt.Errorf("%s: want gzip or none", name)
	}
	e.gzip = compression == "gzip"
	if text, name := get("TIMEOUT"); text != "" {
		ms, err := strconv.Atoi(text)
		if err != nil || ms <= 0 {
			return nil, fmt.Errorf("%s: want milliseconds", name)
		}
		e.timeout = time.Duration(ms) * time.Millisecond
	}
	text, name := get("HEADERS")
	if e.headers, err = headers(text); err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	certificate, _ := get("CERTIFICATE")
	own, _ := get("CLIENT_CERTIFICATE")
	key, _ := get("CLIENT_KEY")
	e.client, err = client(certificate, own, key)
	return e, err
}

func headers(text string) (out []header, err error) {
	for pair := range strings.SplitSeq(text, ",") {
		if strings.TrimSpace(pair) == "" {
			continue
		}
		key, value, ok := strings.Cut(pair, "=")
		decoded, err := url.PathUnescape(strings.TrimSpace(value))
		if key = strings.TrimSpace(key); !ok || key == "" || err != nil {
			return nil, errors.New("want key=value,key=value")
		}
		out = append(out, header{key, secret.FromString(decoded)})
	}
	return out, nil
}

// client returns a client that follows no redirection: headers may hold a token.
func client(authorities, certificate, key string) (*http.Client, error) {
	t := http.DefaultTransport.(*http.Transport).Clone()
	t.TLSClientConfig = &tls.Config{MinVersion: tls.VersionTLS12}
	t.DialContext = (&net.Dialer{Timeout: 3 * time.Second}).DialContext
	if authorities != "" {
		pem, err := os.ReadFile(authorities)
		pool := x509.NewCertPool()
		if err != nil || !pool.AppendCertsFromPEM(pem) {
			return nil, errors.New("OTEL_EXPORTER_OTLP_CERTIFICATE: no certificate can be read there")
		}
		t.TLSClientConfig.RootCAs = pool
	}
	if certificate != "" || key != "" {
		pair, err := tls.LoadX509KeyPair(certificate, key)
		if err != nil {
			return nil, errors.New("OTEL_EXPORTER_OTLP_CLIENT_CERTIFICATE, OTEL_EXPORTER_OTLP_CLIENT_KEY: no pair can be read there")
		}
		t.TLSClientConfig.Certificates = []tls.Certificate{pair}
	}
	return &http.Client{Transport: t, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}, nil
}

// NewClient returns a client for a [Pushgateway].
func NewClient() *http.Client {
	c, _ := client("", "", "") // only files can fail
	return c
}

// Send sends the body of a request. What may be over soon is tried again, three times in all
// and within the time of ctx and the endpoint. The error repeats no URL and no header.
func (e *Endpoint) Send(ctx context.Context, body []byte) error {
	ctx, cancel := context.WithTimeout(ctx, e.timeout)
	defer cancel()
	if e.gzip {
		var b bytes.Buffer
		z := gzip.NewWriter(&b)
		_, err1 := z.Write(body)
		if err := errors.Join(err1, z.Close()); err != nil {
			return err
		}
		body = b.Bytes()
	}
	pause := time.Second
	for try := 1; ; try++ {
		err := e.once(ctx, body)
		if err == nil || try == 3 || !passing(err) || ctx.Err() != nil {
			return err
		}
		if s, ok := errors.AsType[*statusError](err); ok {
			if seconds, err := strconv.Atoi(s.after); err == nil && seconds > 0 {
				pause = time.Duration(seconds) * time.Second
			}
		}
		if until, ok := ctx.Deadline(); ok && time.Until(until) < pause {
			return err
		}
		select {
		case <-ctx.Done():
			return err
		case <-time.After(pause):
			pause *= 2
		}
	}
}

func (e *Endpoint) once(ctx context.Context, body []byte) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, e.url, bytes.NewReader(body))
	if err != nil {
		return errors.New("the endpoint is no URL")
	}
	req.Header.Set("Content-Type", "application/x-protobuf")
	if e.gzip {
		req.Header.Set("Content-Encoding", "gzip")
	}
	for _, h := range e.headers {
		req.Header.Set(h.name, string(h.value.Reveal()))
	}
	return send(e.client, req)
}

// passing reports whether an error may be over soon, as OTLP says: there was no answer, or
// one of 429, 502, 503 and 504.
func passing(err error) bool {
	s, answered := errors.AsType[*statusError](err)
	if !answered {
		return true
	}
	switch s.code {
	case http.StatusTooManyRequests, http.StatusBadGateway, http.StatusServiceUnavailable, http.StatusGatewayTimeout:
		return true
	}
	return false
}
