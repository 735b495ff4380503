package certificate_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"math/big"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"golang.org/x/crypto/ocsp"

	"github.com/keyturn/keyturn/internal/backend/certificate"
	"github.com/keyturn/keyturn/internal/rotation"
	"github.com/keyturn/keyturn/internal/secret"
)

// A signer is an authority of a test's own, which says what it is told to.
type signer struct {
	key  *ecdsa.PrivateKey
	cert *x509.Certificate
}

func newSigner(t *testing.T) signer {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	of := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "of a test"}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageCRLSign, SubjectKeyId: []byte{1}}
	der, err := x509.CreateCertificate(rand.Reader, of, of, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return signer{key, cert}
}

// answer is what a responder says of certificate 7.
func (s signer) answer(t *testing.T, status int, until time.Duration) []byte {
	t.Helper()
	der, err := ocsp.CreateResponse(s.cert, s.cert, ocsp.Response{Status: status, SerialNumber: big.NewInt(7), RevocationReason: 4, RevokedAt: time.Now(),
		ThisUpdate: time.Now().Add(-time.Hour), NextUpdate: time.Now().Add(until)}, s.key)
	if err != nil {
		t.Fatal(err)
	}
	return der
}

// list is a list of what was revoked.
func (s signer) list(t *testing.T, serial int64, until time.Duration) []byte {
	t.Helper()
	der, err := x509.CreateRevocationList(rand.Reader, &x509.RevocationList{Number: big.NewInt(1), ThisUpdate: time.Now().Add(-time.Hour), NextUpdate: time.Now().Add(until),
		RevokedCertificateEntries: []x509.RevocationListEntry{{SerialNumber: big.NewInt(serial), RevocationTime: time.Now(), ReasonCode: 4}}}, s.cert, s.key)
	if err != nil {
		t.Fatal(err)
	}
	return der
}

// TestTold is what is made of what an authority says of a certificate: only its own word, of
// today, makes one dead.
func TestTold(t *testing.T) {
	t.Parallel()
	ours, stranger := newSigner(t), newSigner(t)
	says := func(status int, body []byte) string {
		s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			_, _ = io.Copy(io.Discard, r.Body)
			w.WriteHeader(status)
			_, _ = w.Write(body)
		}))
		t.Cleanup(s.Close)
		return s.URL
	}
	const closed = "http://127.0.0.1:1"
	ok, busy := http.StatusOK, []byte("slow down")
	for name, c := range map[string]struct {
		responder, list string
		want            rotation.Answer
	}{
		"good":                         {says(ok, ours.answer(t, ocsp.Good, time.Hour)), "", rotation.Alive},
		"revoked":                      {says(ok, ours.answer(t, ocsp.Revoked, time.Hour)), "", rotation.Dead},
		"not known":                    {says(ok, ours.answer(t, ocsp.Unknown, time.Hour)), "", rotation.Inconclusive},
		"revoked, says a stranger":     {says(ok, stranger.answer(t, ocsp.Revoked, time.Hour)), "", rotation.Inconclusive},
		"good, says a stranger":        {says(ok, stranger.answer(t, ocsp.Good, time.Hour)), "", rotation.Inconclusive},
		"good, some time ago":          {says(ok, ours.answer(t, ocsp.Good, -time.Minute)), "", rotation.Inconclusive},
		"revoked, some time ago":       {says(ok, ours.answer(t, ocsp.Revoked, -time.Minute)), "", rotation.Inconclusive},
		"responder: try later":         {says(ok, ocsp.TryLaterErrorResponse), "", rotation.Inconclusive},
		"responder: overloaded":        {says(503, busy), "", rotation.Inconclusive},
		"responder: too many requests": {says(429, busy), "", rotation.Inconclusive},
		"responder: down":              {closed, "", rotation.Inconclusive},
		"responder: another page":      {says(ok, busy), "", rotation.Inconclusive},
		"responder down, in the list":  {closed, says(ok, ours.list(t, 7, time.Hour)), rotation.Dead},
		"responder down, not in it":    {closed, says(ok, ours.list(t, 8, time.Hour)), rotation.Alive},
		"good, and in the list":        {says(ok, ours.answer(t, ocsp.Good, time.Hour)), says(ok, ours.list(t, 7, time.Hour)), rotation.Alive}, // who answers now knows more
		"in the list":                  {"", says(ok, ours.list(t, 7, time.Hour)), rotation.Dead},
		"not in the list":              {"", says(ok, ours.list(t, 8, time.Hour)), rotation.Alive},
		"in a stranger's list":         {"", says(ok, stranger.list(t, 7, time.Hour)), rotation.Inconclusive},
		"not in a stranger's list":     {"", says(ok, stranger.list(t, 8, time.Hour)), rotation.Inconclusive},
		"in an old list":               {"", says(ok, ours.list(t, 7, -time.Minute)), rotation.Inconclusive},
		"not in an old list":           {"", says(ok, ours.list(t, 8, -time.Minute)), rotation.Inconclusive},
		"no list there":                {"", says(404, busy), rotation.Inconclusive},
		"a list of another kind":       {"", "ldap://ca/list", rotation.Inconclusive},
		"nobody is named":              {"", "", rotation.Inconclusive},
	} {
		key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		of := &x509.Certificate{SerialNumber: big.NewInt(7), NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), DNSNames: []string{"orders.test"},
			KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}}
		if c.responder != "" {
			of.OCSPServer = []string{c.responder}
		}
		if c.list != "" {
			of.CRLDistributionPoints = []string{c.list}
		}
		der, err := x509.CreateCertificate(rand.Reader, of, ours.cert, key.Public(), ours.key)
		if err != nil {
			t.Fatal(err)
		}
		keyDER, err := x509.MarshalPKCS8PrivateKey(key)
		if err != nil {
			t.Fatal(err)
		}
		root := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: ours.cert.Raw})
		m := rotation.Material{"certificate": secret.New(append(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), root...)),
			"key": secret.New(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: keyDER}))}
		settings, err := json.Marshal(map[string]any{"names": of.DNSNames, "state": rotation.Pending})
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
		got := certificate.Login(ctx, rotation.ProbeSpec{Backend: "certificate", Endpoints: []string{"it"}, CA: root, Settings: settings}, m)
		cancel()
		if got.Answer != c.want || got.Answer != rotation.Alive && got.Reason == "" {
			t.Errorf("%s: %s (%s), want %s, with a reason", name, got.Answer, got.Reason, c.want)
		}
		if strings.Contains(fmt.Sprint(got), string(m["key"].Reveal()[40:80])) {
			t.Errorf("%s: the answer holds the key", name)
		}
	}
}
