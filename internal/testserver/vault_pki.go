package testserver

import (
	"context"
	"crypto/tls"
	"errors"
	"maps"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

// A PKI is an authority in a [Vault]: a root at NAME-root, an intermediate at NAME, and a role
// there, which is called as the mount and signs for names below test.
type PKI struct {
	*Vault
	Name  string
	roots []byte
	mute  atomic.Bool
}

// PKI makes one. The parameters are those of the role that are not the usual ones.
func (v *Vault) PKI(t testing.TB, name string, parameters map[string]any) *PKI {
	t.Helper()
	p := &PKI{Vault: v, Name: name}
	if err := errors.Join(p.make(context.Background()), p.Role(parameters)); err != nil {
		t.Fatal(err)
	}
	return p
}

func (p *PKI) make(ctx context.Context) error {
	root := p.Name + "-root"
	mount := map[string]any{"type": "pki", "config": map[string]string{"max_lease_ttl": "87600h"}}
	key := map[string]any{"key_type": "ec", "key_bits": 256, "ttl": "8760h"}
	with := func(more map[string]any) map[string]any {
		out := maps.Clone(key)
		maps.Copy(out, more)
		return out
	}
	var self, request, signed struct {
		Data struct {
			Certificate string `json:"certificate"`
			CSR         string `json:"csr"`
		}
	}
	for _, step := range []func() error{
		func() error { return p.Call(ctx, http.MethodPost, "/v1/sys/mounts/"+root, mount, nil) },
		func() error { return p.Call(ctx, http.MethodPost, "/v1/sys/mounts/"+p.Name, mount, nil) },
		func() error {
			return p.Call(ctx, http.MethodPost, "/v1/"+root+"/root/generate/internal", with(map[string]any{"common_name": "Root of " + p.Name}), &self)
		},
		func() error {
			return p.Call(ctx, http.MethodPost, "/v1/"+p.Name+"/intermediate/generate/internal", with(map[string]any{"common_name": p.Name}), &request)
		},
		func() error {
			return p.Call(ctx, http.MethodPost, "/v1/"+root+"/root/sign-intermediate", map[string]any{"csr": request.Data.CSR, "ttl": "8000h", "use_csr_values": true}, &signed)
		},
		func() error {
			chain := signed.Data.Certificate + "\n" + self.Data.Certificate
			return p.Call(ctx, http.MethodPost, "/v1/"+p.Name+"/intermediate/set-signed", map[string]any{"certificate": chain}, nil)
		},
	} {
		if err := step(); err != nil {
			return err
		}
	}
	p.roots = []byte(self.Data.Certificate + "\n")
	return os.WriteFile(p.RootsFile(), p.roots, 0o644)
}

// Role changes the role: the usual parameters, and these.
func (p *PKI) Role(parameters map[string]any) error {
	role := map[string]any{"allowed_domains": "test", "allow_subdomains": true, "key_type": "any", "ttl": "24h", "max_ttl": "48h"}
	maps.Copy(role, parameters)
	return p.Call(context.Background(), http.MethodPost, "/v1/"+p.Name+"/roles/"+p.Name, role, nil)
}

// RootsFile is the path of the root's certificate.
func (p *PKI) RootsFile() string { return filepath.Join(p.dir, p.Name+"-roots.pem") }

// Roots is the root's certificate.
func (p *PKI) Roots() []byte { return p.roots }

// LogFile is the path of the log of the node that is asked first.
func (p *PKI) LogFile() string { return p.Vault.LogFile(0) }

// stored is what Vault keeps of a certificate.
type stored struct {
	Data struct {
		Certificate string `json:"certificate"`
		Revoked     int64  `json:"revocation_time"`
	}
}

func (p *PKI) stored(ctx context.Context, serial string) (s stored, err error) {
	err = p.Call(ctx, http.MethodGet, "/v1/"+p.Name+"/cert/"+serial, nil, &s)
	return s, err
}

// Serials are those of every certificate that was signed, in hexadecimal digits, sorted, but for
// the authority's own.
func (p *PKI) Serials() (out []string, err error) {
	var list struct{ Data struct{ Keys []string } }
	err = p.Call(context.Background(), http.MethodGet, "/v1/"+p.Name+"/certs?list=true", nil, &list)
	if err != nil && strings.Contains(err.Error(), "404") {
		return nil, nil // there are none
	}
	if err != nil {
		return nil, err
	}
	var issuer stored
	if err := p.Call(context.Background(), http.MethodGet, "/v1/"+p.Name+"/issuer/default/json", nil, &issuer); err != nil {
		return nil, err
	}
	own := strings.TrimSpace(issuer.Data.Certificate)
	for _, serial := range list.Data.Keys {
		s, err := p.stored(context.Background(), serial)
		if err != nil {
			return nil, err
		}
		if strings.TrimSpace(s.Data.Certificate) == own {
			continue
		}
		out = append(out, strings.TrimLeft(strings.ReplaceAll(serial, ":", ""), "0"))
	}
	return out, nil
}

// Status is "Valid", or "Revoked", for which Vault knows no reason.
func (p *PKI) Status(ctx context.Context, serial string) (status string, reason int, err error) {
	if len(serial)%2 == 1 {
		serial = "0" + serial
	}
	var pairs []string
	for i := 0; i < len(serial); i += 2 {
		pairs = append(pairs, serial[i:i+2])
	}
	s, err := p.stored(ctx, strings.Join(pairs, ":"))
	if err == nil && s.Data.Revoked != 0 {
		return "Revoked", 0, nil
	}
	return "Valid", 0, err
}

// Mute has what [PKI.Tell] began answer nothing, or answer again.
func (p *PKI) Mute(mute bool) { p.mute.Store(mute) }

// Tell has an address tell what was revoked, without TLS, as long as the test runs, and has what is
// signed from now on say so.
func (p *PKI) Tell(t testing.TB, address string) {
	t.Helper()
	at, err := url.Parse(p.URLs()[0])
	if err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", net.JoinHostPort(address, "0"))
	if err != nil {
		t.Fatal(err)
	}
	proxy := &httputil.ReverseProxy{Rewrite: func(r *httputil.ProxyRequest) { r.SetURL(at) }, Transport: p.http.Transport}
	server := &http.Server{ReadHeaderTimeout: 10 * time.Second, Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if p.mute.Load() || r.URL.Path != "/v1/"+p.Name+"/ocsp" && r.URL.Path != "/v1/"+p.Name+"/crl" {
			panic(http.ErrAbortHandler)
		}
		proxy.ServeHTTP(w, r)
	})}
	go func() { _ = server.Serve(l) }() // until it is closed
	t.Cleanup(func() { _ = server.Close() })
	base := "http://" + l.Addr().String() + "/v1/" + p.Name
	urls := map[string]string{"crl_distribution_points": base + "/crl", "ocsp_servers": base + "/ocsp"}
	if err := p.Call(context.Background(), http.MethodPost, "/v1/"+p.Name+"/config/urls", urls, nil); err != nil {
		t.Fatal(err)
	}
}

// Dial is how its nodes are reached from where the test runs.
func (v *Vault) Dial() func(ctx context.Context, network, address string) (net.Conn, error) {
	return v.http.Transport.(*http.Transport).DialContext
}

// Between stands before Vault as long as the test runs: of every answer to a request it is asked
// whether it is lost, which then happens behind Vault's back: what was asked for was done. It
// returns the URL.
func (v *Vault) Between(t testing.TB, lost func(r *http.Request) bool) (at string) {
	t.Helper()
	to, err := url.Parse(v.URLs()[0])
	if err != nil {
		t.Fatal(err)
	}
	cert, key, err := v.authority.Issue(Certificate{Names: []string{"127.0.0.1"}})
	if err != nil {
		t.Fatal(err)
	}
	pair, err := tls.X509KeyPair(cert, key)
	if err != nil {
		t.Fatal(err)
	}
	l, err := tls.Listen("tcp", "127.0.0.1:0", &tls.Config{Certificates: []tls.Certificate{pair}, MinVersion: tls.VersionTLS13})
	if err != nil {
		t.Fatal(err)
	}
	proxy := &httputil.ReverseProxy{Rewrite: func(r *httputil.ProxyRequest) { r.SetURL(to) }, Transport: v.http.Transport,
		ModifyResponse: func(r *http.Response) error {
			if lost(r.Request) {
				panic(http.ErrAbortHandler)
			}
			return nil
		}}
	server := &http.Server{Handler: proxy, ReadHeaderTimeout: 10 * time.Second}
	go func() { _ = server.Serve(l) }() // until it is closed
	t.Cleanup(func() { _ = server.Close() })
	return "https://" + l.Addr().String()
}
