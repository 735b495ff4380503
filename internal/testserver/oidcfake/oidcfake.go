// Package oidcfake is what signs the tokens of jobs, on loopback, for the tests: the
// address that a job asks, and the keys of the issuer, as an Enterprise server has them.
package oidcfake

import (
	"crypto/rand"
	"crypto/rsa"
	"encoding/base64"
	"encoding/json"
	"maps"
	"math/big"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v4"
)

// An Issuer signs claims for whoever has the request token.
type Issuer struct {
	*httptest.Server
	RequestToken string
	Claims       map[string]any                                    // of every token, beside the issuer, the audience and the times
	Change       func(claims jwt.MapClaims, header map[string]any) // of a token, before it is signed; nil: nothing
	Sign         *rsa.PrivateKey                                   // who signs, nil: the key that is shown
}

// Start starts an issuer that ends with the test.
func Start(t testing.TB, requestToken string, claims map[string]any) *Issuer {
	t.Helper()
	key := NewKey(t)
	i := &Issuer{RequestToken: requestToken, Claims: claims}
	i.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var out any
		switch {
		case r.URL.Path == "/_services/token/.well-known/jwks":
			out = map[string]any{"keys": []any{map[string]string{"kty": "RSA", "kid": "k1", "use": "sig", "alg": "RS256",
				"n": number(key.N), "e": number(big.NewInt(int64(key.E)))}}}
		case r.URL.Path == "/request" && r.Header.Get("Authorization") == "Bearer "+i.RequestToken:
			out = map[string]string{"value": i.token(t, key, r.URL.Query().Get("audience"))}
		default:
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		_ = json.NewEncoder(w).Encode(out) // a client that is gone needs no answer
	}))
	t.Cleanup(i.Close)
	return i
}

// NewKey makes a key.
func NewKey(t testing.TB) *rsa.PrivateKey {
	t.Helper()
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func number(n *big.Int) string { return base64.RawURLEncoding.EncodeToString(n.Bytes()) }

// Request is the address that a job asks for its token.
func (i *Issuer) Request() string { return i.URL + "/request?api-version=2" }

func (i *Issuer) token(t testing.TB, key *rsa.PrivateKey, audience string) string {
	claims := jwt.MapClaims{"iss": i.URL + "/_services/token", "aud": audience,
		"exp": time.Now().Add(5 * time.Minute).Unix(), "nbf": time.Now().Add(-time.Minute).Unix()}
	maps.Copy(claims, i.Claims)
	made := jwt.NewWithClaims(jwt.SigningMethodRS256, claims)
	made.Header["kid"] = "k1"
	if i.Change != nil {
		i.Change(claims, made.Header)
	}
	if i.Sign != nil {
		key = i.Sign
	}
	text, err := made.SignedString(key)
	if err != nil {
		t.Error(err)
	}
	return text
}
