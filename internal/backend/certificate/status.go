package certificate

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"time"

	"golang.org/x/crypto/ocsp"

	"github.com/keyturn/keyturn/internal/backend/remote"
	"github.com/keyturn/keyturn/internal/rotation"
)

// A lookup asks the authority of a certificate whether it was revoked, as everybody can:
// by OCSP (RFC 6960), or by the list of revoked certificates (RFC 5280). Answers are
// signed, so the way to them needs no trust.
type lookup struct {
	http *http.Client
	crl  string // the list where the certificate names none
	at   places // where neither it nor crl does
	dial remote.Dial
	now  func() time.Time
}

// places are where an authority of the team's own tells what it revoked. They travel to where
// probes run.
type places struct {
	OCSP        []string `json:"ocsp"`
	Lists       []string `json:"lists"`
	CA          []byte   `json:"ca,omitempty"`
	InsecureTLS []string `json:"insecure_tls,omitempty"`
}

// client returns one that believes the servers of the places.
func (p places) client(dial remote.Dial, timeout time.Duration) (*http.Client, error) {
	config, err := remote.TLS(p.CA, p.InsecureTLS)
	if err != nil {
		return nil, err
	}
	return oneByOne(remote.Client(config, dial, timeout), timeout), nil
}

func (b *Backend) lookup() lookup {
	return lookup{httpClient(nil, b.options.Dial, b.options.Timeout), b.settings.CRL, b.places(), b.options.Dial, b.options.Now}
}

// httpClient returns a client of verified TLS 1.3 that follows no redirection. Each request has
// a connection of its own.
func httpClient(roots *x509.CertPool, dial remote.Dial, timeout time.Duration) *http.Client {
	return oneByOne(remote.Client(&tls.Config{MinVersion: tls.VersionTLS13, RootCAs: roots}, dial, timeout), timeout)
}

// web is the client of who issues certificates, once it can be reached.
func (b *Backend) web(ctx context.Context) (*http.Client, error) {
	if b.options.Ready != nil {
		if err := b.options.Ready(ctx); err != nil {
			return nil, err
		}
	}
	pool, err := remote.Pool(b.options.CA)
	if err != nil {
		return nil, err
	}
	client := httpClient(pool, b.options.Dial, b.options.Timeout)
	client.Transport.(*http.Transport).DisableKeepAlives = !b.settings.rolls() // the gap is to be short
	return client, nil
}

// oneByOne has a client make a connection for each request, and answer in time.
func oneByOne(client *http.Client, timeout time.Duration) *http.Client {
	client.Transport.(*http.Transport).DisableKeepAlives = true
	client.Timeout = timeout
	return client
}

// told is what an authority says of a certificate.
type told struct {
	revoked bool
	code    int // the reason, of RFC 5280
	by      string
}

func (t told) reason() string { return reasonText(t.code) + ", by " + t.by }

func reasonText(code int) string {
	names := map[int]string{0: "unspecified", 1: "keyCompromise", 2: "cACompromise", 3: "affiliationChanged", 4: "superseded", 5: "cessationOfOperation", 6: "certificateHold", 9: "privilegeWithdrawn", 10: "aACompromise"}
	if name, ok := names[code]; ok {
		return name
	}
	return fmt.Sprintf("reason %d", code)
}

// tells reports whether a certificate says where its status is told.
func tells(leaf *x509.Certificate) bool {
	return len(leaf.OCSPServer)+len(leaf.CRLDistributionPoints) > 0
}

// status asks; what cannot be asked is of class Unknown.
func (l lookup) status(ctx context.Context, leaf, issuer *x509.Certificate) (told, error) {
	if issuer == nil {
		return told{}, refused("let the PEM file hold its chain, too", "who signed certificate %x is not known: nobody can be asked whether it is revoked", leaf.SerialNumber)
	}
	responders, lists := leaf.OCSPServer, leaf.CRLDistributionPoints
	if len(lists) == 0 && l.crl != "" {
		lists = []string{l.crl}
	}
	if len(responders)+len(lists) == 0 {
		responders, lists = l.at.OCSP, l.at.Lists
		own, err := l.at.client(l.dial, l.http.Timeout)
		if err != nil {
			return told{}, err
		}
		l.http = own
	}
	var errs []error
	for _, responder := range responders {
		t, err := l.ocsp(ctx, responder, leaf, issuer)
		if err == nil {
			return t, nil
		}
		errs = append(errs, fmt.Errorf("asking %s: %w", hostOf(responder), err))
	}
	if len(lists) > 0 {
		t, err := l.listed(ctx, lists, leaf, issuer)
		if err == nil {
			return t, nil
		}
		errs = append(errs, err)
	}
	if len(errs) == 0 {
		return told{}, refused("name the authority's list: certificate: {crl: …}", "certificate %x names nobody who tells whether it is revoked", leaf.SerialNumber)
	}
	return told{}, rotation.Classify(rotation.Unknown, "run it again when the authority answers: whether a certificate is revoked is asked where the certificate says, or at crl:", fmt.Errorf("certificate: whether %x is revoked: %w", leaf.SerialNumber, errors.Join(errs...)))
}

func hostOf(text string) string {
	u, err := url.Parse(text)
	if err != nil {
		return "a responder"
	}
	return u.Host
}

// ocsp asks a responder.
func (l lookup) ocsp(ctx context.Context, responder string, leaf, issuer *x509.Certificate) (told, error) {
	question, err := ocsp.CreateRequest(leaf, issuer, nil)
	if err != nil {
		return told{}, err
	}
	body, err := l.fetch(ctx, http.MethodPost, responder, question, 1<<16)
	if err != nil {
		return told{}, err
	}
	answer, err := ocsp.ParseResponseForCert(body, leaf, issuer)
	if err != nil {
		return told{}, fmt.Errorf("reading the answer: %w", err)
	}
	switch now := l.now(); {
	case !answer.NextUpdate.IsZero() && now.After(answer.NextUpdate), answer.ThisUpdate.After(now.Add(skew)):
		return told{}, errors.New("the answer is out of date")
	case answer.Status == ocsp.Good:
		return told{by: "OCSP"}, nil
	case answer.Status == ocsp.Revoked:
		return told{true, answer.RevocationReason, "OCSP"}, nil
	}
	return told{}, errors.New("the responder does not know the certificate")
}

// skew is how far clocks may differ.
const skew = 5 * time.Minute

// listed reads the lists of revoked certificates.
func (l lookup) listed(ctx context.Context, lists []string, leaf, issuer *x509.Certificate) (told, error) {
	read := 0
	for _, list := range lists {
		if !strings.HasPrefix(list, "http://") && !strings.HasPrefix(list, "https://") {
			continue
		}
		body, err := l.fetch(ctx, http.MethodGet, list, nil, 32<<20)
		if err != nil {
			return told{}, fmt.Errorf("reading the list of %s: %w", hostOf(list), err)
		}
		crl, err := x509.ParseRevocationList(body)
		if err != nil {
			return told{}, fmt.Errorf("reading the list of %s: %w", hostOf(list), err)
		}
		if err := crl.CheckSignatureFrom(issuer); err != nil {
			return told{}, fmt.Errorf("the list of %s is not by who signed the certificate: %w", hostOf(list), err)
		}
		if now := l.now(); !crl.NextUpdate.IsZero() && now.After(crl.NextUpdate) || crl.ThisUpdate.After(now.Add(skew)) {
			return told{}, fmt.Errorf("the list of %s is out of date", hostOf(list))
		}
		for _, e := range crl.RevokedCertificateEntries {
			if e.SerialNumber.Cmp(leaf.SerialNumber) == 0 {
				return told{true, e.ReasonCode, "its list"}, nil
			}
		}
		read++
	}
	if read == 0 {
		return told{}, errors.New("no list of revoked certificates has a URL that can be read")
	}
	return told{by: "its list"}, nil
}

// own asks a place that the certificates do not name. What it says instead of success is a
// [webAnswer].
func (l lookup) own(ctx context.Context, method, url string) ([]byte, error) {
	client, err := l.at.client(l.dial, l.http.Timeout)
	if err != nil {
		return nil, err
	}
	l.http = client
	return l.fetch(ctx, method, url, nil, 32<<20)
}

// fetch asks by HTTP.
func (l lookup) fetch(ctx context.Context, method, url string, body []byte, most int64) ([]byte, error) {
	req, err := http.NewRequestWithContext(ctx, method, url, bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	if method == http.MethodPost {
		req.Header.Set("Content-Type", "application/ocsp-request")
	}
	resp, err := l.http.Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("it answered %w", &webAnswer{resp.StatusCode, http.StatusText(resp.StatusCode)})
	}
	answer, err := io.ReadAll(io.LimitReader(resp.Body, most+1))
	if err == nil && int64(len(answer)) > most {
		err = errors.New("the answer is too long")
	}
	return answer, err
}
