package certificate

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/keyturn/keyturn/internal/backend/remote"
	"github.com/keyturn/keyturn/internal/rotation"
)

// A stepServer is a step-ca, asked as one of its provisioners.
type stepServer struct {
	url         string
	http        *http.Client
	key         *ecdsa.PrivateKey
	provisioner stepProvisioner
}

// A stepProvisioner is what the authority tells everybody of one.
type stepProvisioner struct {
	Type string `json:"type"`
	Name string `json:"name"`
	Key  struct {
		ID string `json:"kid"`
		X  string `json:"x"`
		Y  string `json:"y"`
	} `json:"key"`
	Claims struct {
		Max string `json:"maxTLSCertDuration"`
	} `json:"claims"`
}

// open reads the provisioner's key, and looks for what the authority knows it by.
func (b stepIssuer) open(ctx context.Context) (*stepServer, error) {
	c := b.settings.StepCA
	value, err := c.Key.Read(b.options.Getenv)
	if err != nil {
		return nil, rotation.Classify(rotation.Invalid, "", fmt.Errorf("certificate: the key of the provisioner: %w", err))
	}
	signer, err := parseKey(value.Reveal())
	key, ok := signer.(*ecdsa.PrivateKey)
	if err == nil && (!ok || key.Curve != elliptic.P256()) {
		err = errors.New("it is no ECDSA key on P-256")
	}
	if err != nil {
		return nil, rotation.Classify(rotation.Invalid, "make one: openssl genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256", fmt.Errorf("certificate: the key of the provisioner (%s): %w", c.Key, err))
	}
	web, err := b.web(ctx)
	if err != nil {
		return nil, err
	}
	s := &stepServer{url: strings.TrimSuffix(c.URL, "/"), http: web, key: key}
	return s, s.find(ctx, c.Provisioner)
}

// find looks for the provisioner, page by page.
func (s *stepServer) find(ctx context.Context, name string) error {
	point, err := s.key.PublicKey.Bytes()
	if err != nil {
		return err
	}
	encode := base64.RawURLEncoding.EncodeToString
	x, y := encode(point[1:33]), encode(point[33:65])
	named := false
	for cursor := ""; ; {
		var page struct {
			Provisioners []stepProvisioner `json:"provisioners"`
			Next         string            `json:"nextCursor"`
		}
		if err := s.ask(ctx, "reading the provisioners", http.MethodGet, "provisioners?limit=100&cursor="+url.QueryEscape(cursor), nil, &page); err != nil {
			return err
		}
		for _, p := range page.Provisioners {
			if p.Name == name && strings.EqualFold(p.Type, "JWK") {
				if named = true; p.Key.X == x && p.Key.Y == y {
					s.provisioner = p
					return nil
				}
			}
		}
		if cursor = page.Next; cursor == "" {
			break
		}
	}
	if named {
		return refused("step ca provisioner list shows the public half of its key", "the provisioner %q of %s has another key", name, s.url)
	}
	return refused("step ca provisioner add "+name+" --type=JWK --public-key=…; see docs/backends/certificate.md", "%s has no JWK provisioner %q", s.url, name)
}

// claims are what a token says; the rest is the same of all.
type claims struct {
	Subject string
	Names   []string
	Request string // SHA-256 of the request that alone may be signed
}

const tokenLife = 5 * time.Minute

// token makes a token that is good for one request (RFC 7519).
func (s *stepServer) token(to string, c claims) (string, error) {
	id := make([]byte, 16)
	if _, err := rand.Read(id); err != nil {
		return "", err
	}
	now := time.Now()
	body := map[string]any{"iss": s.provisioner.Name, "sub": c.Subject, "aud": s.url + "/1.0/" + to, "jti": hex.EncodeToString(id),
		"iat": now.Unix(), "nbf": now.Unix(), "exp": now.Add(tokenLife).Unix()}
	if len(c.Names) > 0 {
		body["sans"], body["cnf"] = c.Names, map[string]string{"x5rt#S256": c.Request}
	}
	var parts []string
	for _, part := range []any{map[string]string{"alg": "ES256", "typ": "JWT", "kid": s.provisioner.Key.ID}, body} {
		text, err := json.Marshal(part)
		if err != nil {
			return "", err
		}
		parts = append(parts, base64.RawURLEncoding.EncodeToString(text))
	}
	signed := strings.Join(parts, ".")
	sum := sha256.Sum256([]byte(signed))
	r, t, err := ecdsa.Sign(rand.Reader, s.key, sum[:])
	if err != nil {
		return "", fmt.Errorf("certificate: signing a token: %w", err)
	}
	signature := make([]byte, 64)
	r.FillBytes(signature[:32])
	t.FillBytes(signature[32:])
	return signed + "." + base64.RawURLEncoding.EncodeToString(signature), nil
}

// digestOf is the SHA-256 of a request, as tokens have it.
func digestOf(der []byte) string {
	sum := sha256.Sum256(der)
	return base64.RawURLEncoding.EncodeToString(sum[:])
}

// A webAnswer is what an authority says instead of success.
type webAnswer struct {
	Status  int    `json:"status"`
	Message string `json:"message"`
}

func (a *webAnswer) Error() string { return fmt.Sprintf("%d: %s", a.Status, a.Message) }

// saidBy returns what the authority said; nil if it did not.
func saidBy(err error) *webAnswer {
	a, _ := errors.AsType[*webAnswer](err)
	return a
}

func (s *stepServer) post(ctx context.Context, doing, path string, in, out any) error {
	text, err := json.Marshal(in)
	if err != nil {
		return err
	}
	return s.ask(ctx, doing, http.MethodPost, path, text, out)
}

// ask asks once; what is decoded is JSON.
func (s *stepServer) ask(ctx context.Context, doing, method, path string, body []byte, out any) error {
	req, err := http.NewRequestWithContext(ctx, method, s.url+"/1.0/"+path, bytes.NewReader(body))
	if err != nil {
		return err
	}
	req.Header.Set("Content-Type", "application/json")
	resp, err := s.http.Do(req)
	if err != nil {
		return unknown("is it running, and can it be reached from here?", "%s: %s: %s", s.url, doing, remote.Cause(err))
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(io.LimitReader(resp.Body, 1<<20))
	if err != nil {
		return unknown("run it again", "%s: %s: %s", s.url, doing, remote.Cause(err))
	}
	if resp.StatusCode/100 != 2 {
		a := &webAnswer{}
		_ = json.Unmarshal(text, a) // what is no JSON says nothing
		a.Status = resp.StatusCode
		if a.Message = strings.Join(strings.Fields(a.Message), " "); a.Message == "" {
			a.Message = http.StatusText(a.Status)
		}
		return s.wrap(doing, a)
	}
	if out == nil {
		return nil
	}
	if json.Unmarshal(text, out) != nil {
		return unknown("is the URL that of a step-ca?", "%s: %s: the answer cannot be read", s.url, doing)
	}
	return nil
}

// wrap says what was being done when the authority refused. What it refused was not done.
func (s *stepServer) wrap(doing string, a *webAnswer) error {
	err := fmt.Errorf("certificate: %s: %s: %w", s.url, doing, a)
	switch {
	case a.Status >= http.StatusInternalServerError || a.Status == http.StatusTooManyRequests:
		return rotation.Classify(rotation.Unknown, "run it again later; the authority's log says more", err)
	case a.Status == http.StatusUnauthorized:
		return rotation.Classify(rotation.Refused, "do the clocks here and there agree? The authority's log says more", err)
	case a.Status == http.StatusNotFound:
		return rotation.Classify(rotation.Refused, "is the URL that of a step-ca, without a path?", err)
	}
	return rotation.Classify(rotation.Failed, "look at the provisioner's claims, its policy and its template; the authority's log says more", err)
}
