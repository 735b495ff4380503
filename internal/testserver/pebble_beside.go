package testserver

import (
	"bytes"
	"context"
	"crypto"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/mholt/acmez/v3/acme"
	"golang.org/x/crypto/ocsp"
	"golang.org/x/net/dns/dnsmessage"
)

// management asks Pebble's port for management.
func (p *Pebble) management(ctx context.Context, path string) ([]byte, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, fmt.Sprintf("https://127.0.0.1:%d%s", p.manage, path), nil)
	if err != nil {
		return nil, err
	}
	resp, err := p.http.Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err == nil && resp.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s: %s", path, resp.Status)
	}
	return body, err
}

// Status is what Pebble says of the certificate with a serial in hexadecimal digits:
// "Valid", or "Revoked" with a reason of RFC 5280.
func (p *Pebble) Status(ctx context.Context, serial string) (status string, reason int, err error) {
	body, err := p.management(ctx, "/cert-status-by-serial/"+serial)
	if err != nil {
		return "", 0, err
	}
	var found struct {
		Status string
		Reason int
	}
	err = json.Unmarshal(body, &found)
	return found.Status, found.Reason, err
}

// Suggest sets the window in which a certificate is to be renewed, by the port for management.
func (p *Pebble) Suggest(ctx context.Context, certificate []byte, start, end time.Time) error {
	answer, err := json.Marshal(map[string]any{"suggestedWindow": map[string]time.Time{"start": start.UTC(), "end": end.UTC()}})
	if err != nil {
		return err
	}
	body, err := json.Marshal(map[string]string{"Certificate": string(certificate), "ARIResponse": string(answer)})
	if err != nil {
		return err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, fmt.Sprintf("https://127.0.0.1:%d/set-renewal-info/", p.manage), bytes.NewReader(body))
	if err != nil {
		return err
	}
	resp, err := p.http.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		text, _ := io.ReadAll(resp.Body)
		return fmt.Errorf("setting the window of renewal: %s: %s", resp.Status, text)
	}
	return nil
}

var issued = regexp.MustCompile(`Issued certificate serial 0*([0-9a-f]+) for order`)

// Serials are those of every certificate that was issued, the oldest first.
func (p *Pebble) Serials() ([]string, error) {
	log, err := os.ReadFile(p.LogFile())
	var out []string
	for _, m := range issued.FindAllSubmatch(log, -1) {
		out = append(out, string(m[1]))
	}
	return out, err
}

// Kept is how many accounts, orders and authorizations were made: it changes whenever
// Pebble was written to.
func (p *Pebble) Kept() (int, error) {
	log, err := os.ReadFile(p.LogFile())
	return bytes.Count(log, []byte("There are now ")), err
}

// resolve answers questions by UDP until the socket is closed.
func (p *Pebble) resolve() {
	buffer := make([]byte, 1500)
	for {
		n, from, err := p.dns.ReadFrom(buffer)
		if err != nil {
			return
		}
		if answer := p.answer(buffer[:n]); answer != nil {
			_, _ = p.dns.WriteTo(answer, from) // the client asks again
		}
	}
}

// resolveStream answers questions by TCP until the listener is closed.
func (p *Pebble) resolveStream() {
	for {
		conn, err := p.dnsStream.Accept()
		if err != nil {
			return
		}
		go func() {
			defer conn.Close()
			_ = conn.SetDeadline(time.Now().Add(10 * time.Second)) // who is slower asks again
			for {
				var size [2]byte
				if _, err := io.ReadFull(conn, size[:]); err != nil {
					return
				}
				question := make([]byte, binary.BigEndian.Uint16(size[:]))
				if _, err := io.ReadFull(conn, question); err != nil {
					return
				}
				answer := p.answer(question)
				if _, err := conn.Write(append(binary.BigEndian.AppendUint16(nil, uint16(len(answer))), answer...)); err != nil {
					return
				}
			}
		}()
	}
}

// answer says of every name that it is this machine; of TXT, what the folder of records
// holds. It is nil if nothing was asked.
func (p *Pebble) answer(question []byte) []byte {
	var m dnsmessage.Message
	if m.Unpack(question) != nil || len(m.Questions) != 1 {
		return nil
	}
	q := m.Questions[0]
	m = dnsmessage.Message{Header: dnsmessage.Header{ID: m.ID, Response: true, Authoritative: true}, Questions: m.Questions}
	head := dnsmessage.ResourceHeader{Name: q.Name, Class: q.Class, TTL: 1}
	switch q.Type {
	case dnsmessage.TypeA:
		m.Answers = []dnsmessage.Resource{{Header: head, Body: &dnsmessage.AResource{A: [4]byte{127, 0, 0, 1}}}}
	case dnsmessage.TypeTXT:
		name := strings.ToLower(strings.TrimSuffix(q.Name.String(), "."))
		text, err := os.ReadFile(filepath.Join(p.Records(), filepath.Base(name)))
		if err == nil {
			for _, line := range strings.Fields(string(text)) {
				m.Answers = append(m.Answers, dnsmessage.Resource{Header: head, Body: &dnsmessage.TXTResource{TXT: []string{line}}})
			}
		}
	}
	packed, err := m.Pack()
	if err != nil {
		return nil
	}
	return packed
}

// tell answers a question by OCSP with what Pebble says.
func (p *Pebble) tell(w http.ResponseWriter, r *http.Request) {
	if p.mute.Load() {
		panic(http.ErrAbortHandler)
	}
	body, err := io.ReadAll(io.LimitReader(r.Body, 1<<16))
	if r.Method == http.MethodGet {
		body, err = base64.StdEncoding.DecodeString(strings.TrimPrefix(r.URL.Path, "/"))
	}
	asked, err2 := ocsp.ParseRequest(body)
	if err != nil || err2 != nil {
		http.Error(w, "malformed", http.StatusBadRequest)
		return
	}
	now := time.Now().UTC()
	answer := ocsp.Response{Status: ocsp.Unknown, SerialNumber: asked.SerialNumber, ThisUpdate: now.Add(-time.Minute), NextUpdate: now.Add(time.Hour)}
	status, reason, err := p.Status(r.Context(), asked.SerialNumber.Text(16))
	switch {
	case err != nil && !strings.Contains(err.Error(), "404"):
		http.Error(w, "Pebble does not answer", http.StatusServiceUnavailable)
		return
	case status == "Valid":
		answer.Status = ocsp.Good
	case status == "Revoked":
		answer.Status, answer.RevocationReason, answer.RevokedAt = ocsp.Revoked, reason, now
	}
	signed, err := ocsp.CreateResponse(p.issuer, p.issuer, answer, p.signer)
	if err != nil {
		http.Error(w, "signing", http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "application/ocsp-response")
	_, _ = io.Copy(w, bytes.NewReader(signed)) // whoever asked is gone if it fails
}

// Forge stands between a client and Pebble, as long as the test runs: connections that are made to
// the address that it returns get other certificates than Pebble's, signed by the same
// authority for the same key, with what change makes of them.
func (p *Pebble) Forge(t testing.TB, change func(*x509.Certificate)) (address string) {
	t.Helper()
	proxy := &httputil.ReverseProxy{
		Rewrite:   p.toItself,
		Transport: p.http.Transport,
		ModifyResponse: func(r *http.Response) error {
			if !strings.HasPrefix(r.Header.Get("Content-Type"), "application/pem-certificate-chain") {
				return nil
			}
			body, err := io.ReadAll(r.Body)
			if err != nil {
				return err
			}
			block, rest := pem.Decode(body)
			if block == nil {
				return errors.New("there is no certificate")
			}
			leaf, err := x509.ParseCertificate(block.Bytes)
			if err != nil {
				return err
			}
			forged := &x509.Certificate{SerialNumber: leaf.SerialNumber, Subject: leaf.Subject, NotBefore: leaf.NotBefore, NotAfter: leaf.NotAfter, DNSNames: leaf.DNSNames,
				KeyUsage: leaf.KeyUsage, ExtKeyUsage: leaf.ExtKeyUsage, OCSPServer: leaf.OCSPServer, BasicConstraintsValid: true}
			change(forged)
			der, err := x509.CreateCertificate(rand.Reader, forged, p.issuer, leaf.PublicKey, p.signer)
			if err != nil {
				return err
			}
			body = append(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), rest...)
			r.Body, r.ContentLength = io.NopCloser(bytes.NewReader(body)), int64(len(body))
			r.Header.Set("Content-Length", strconv.Itoa(len(body)))
			return nil
		}}
	return p.front(t, proxy)
}

// Between stands between a client and Pebble, as long as the test runs: what is asked at the
// address that it returns, handle answers, or lets pass.
func (p *Pebble) Between(t testing.TB, handle func(w http.ResponseWriter, r *http.Request, pass http.Handler)) (address string) {
	t.Helper()
	pass := &httputil.ReverseProxy{
		Rewrite:   p.toItself,
		Transport: p.http.Transport,
		ErrorHandler: func(http.ResponseWriter, *http.Request, error) {
			panic(http.ErrAbortHandler) // as if nothing stood between
		}}
	return p.front(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { handle(w, r, pass) }))
}

// Client is one of Pebble, by its directory, or by that of what stands between.
func (p *Pebble) Client(directory string) *acme.Client {
	return &acme.Client{Directory: directory, HTTPClient: p.http}
}

// Owner is the URL of the account that has a key, by a directory; "" if none has.
func (p *Pebble) Owner(ctx context.Context, directory string, key crypto.Signer) (string, error) {
	found, err := p.Client(directory).GetAccount(ctx, acme.Account{PrivateKey: key})
	if problem, ok := errors.AsType[acme.Problem](err); ok && problem.Type == acme.ProblemTypeAccountDoesNotExist {
		return "", nil
	}
	return found.Location, err
}

// Accounts is how many accounts were made.
func (p *Pebble) Accounts() (int, error) {
	log, err := os.ReadFile(p.LogFile())
	return bytes.Count(log, []byte("accounts in memory")), err
}

// ChangesKey reports whether a request is to change an account's key.
func ChangesKey(r *http.Request) bool { return strings.HasSuffix(r.URL.Path, "/rollover-account-key") }

// LoseAnswer lets a request pass, and ends the connection once it was done. What Pebble refuses, such as a
// nonce, is answered.
func LoseAnswer(w http.ResponseWriter, r *http.Request, pass http.Handler) {
	done := httptest.NewRecorder()
	if pass.ServeHTTP(done, r); done.Code < http.StatusMultipleChoices {
		panic(http.ErrAbortHandler)
	}
	maps.Copy(w.Header(), done.Header())
	w.WriteHeader(done.Code)
	_, _ = w.Write(done.Body.Bytes()) // whoever asked is gone if it fails
}

// toItself leads a request to Pebble. The Host stays: what clients sign holds it.
func (p *Pebble) toItself(r *httputil.ProxyRequest) {
	r.Out.URL.Scheme, r.Out.URL.Host = "https", p.Addr()
}

// front serves with a certificate as Pebble has one, as long as the test runs.
func (p *Pebble) front(t testing.TB, handler http.Handler) (address string) {
	t.Helper()
	cert, key, err := p.authority.Issue(Certificate{Names: []string{"127.0.0.1"}})
	if err != nil {
		t.Fatal(err)
	}
	pair, err := tls.X509KeyPair(cert, key)
	if err != nil {
		t.Fatal(err)
	}
	server := httptest.NewUnstartedServer(handler)
	server.TLS = &tls.Config{Certificates: []tls.Certificate{pair}, MinVersion: tls.VersionTLS13}
	server.StartTLS()
	t.Cleanup(server.Close)
	return server.Listener.Addr().String()
}
