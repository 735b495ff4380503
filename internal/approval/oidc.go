package approval

import (
	"context"
	"crypto/rsa"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/golang-jwt/jwt/v4"
)

// Audience is whom the token of a job is for.
const Audience = "keyturn"

// Claims are what GitHub signs of a job: who started it, and what it is. See
// GitHub's page "OpenID Connect reference".
type Claims struct {
	Actor       string `json:"actor"`
	Repository  string `json:"repository"`
	Event       string `json:"event_name"`
	Ref         string `json:"ref"`
	WorkflowRef string `json:"job_workflow_ref"` // owner/name/path@ref
	Environment string `json:"environment"`
	RunID       string `json:"run_id"`
	RunAttempt  string `json:"run_attempt"`
	jwt.RegisteredClaims
}

// Workflow is the path of the workflow's file.
func (c Claims) Workflow() string { return workflowOf(c.WorkflowRef) }

// workflowOf takes the path out of owner/name/path@ref.
func workflowOf(ref string) string {
	path, _, _ := strings.Cut(ref, "@")
	parts := strings.SplitN(path, "/", 3)
	if len(parts) < 3 {
		return ""
	}
	return parts[2]
}

// A Witness asks GitHub for the signed claims of this job, and verifies them.
type Witness struct {
	RequestURL   string // $ACTIONS_ID_TOKEN_REQUEST_URL; "" is a job without id-token: write
	RequestToken string // $ACTIONS_ID_TOKEN_REQUEST_TOKEN
	Server       string // $GITHUB_SERVER_URL
	Client       *http.Client
	Now          func() time.Time
}

// Issuer is who signs for a server.
func (w Witness) Issuer() string {
	if server := strings.TrimRight(w.Server, "/"); server != "" && server != "https://github.com" {
		return server + "/_services/token" // an Enterprise server signs itself
	}
	return "https://token.actions.githubusercontent.com"
}

// Claims returns the claims of this job. They were verified: the signature by a key of
// the issuer, the issuer, the audience, the times. The error holds no token.
func (w Witness) Claims(ctx context.Context) (Claims, error) {
	var c Claims
	if w.RequestURL == "" {
		return c, errors.New("the job has no permission id-token: write")
	}
	var answer struct{ Value string }
	if err := w.get(ctx, w.RequestURL+"&audience="+url.QueryEscape(Audience), w.RequestToken, &answer); err != nil {
		return c, fmt.Errorf("asking for the token of this job: %w", err)
	}
	keys, err := w.keys(ctx)
	if err != nil {
		return c, fmt.Errorf("reading the keys of %s: %w", w.Issuer(), err)
	}
	parser := jwt.NewParser(jwt.WithValidMethods([]string{"RS256"}), jwt.WithoutClaimsValidation())
	_, err = parser.ParseWithClaims(answer.Value, &c, func(t *jwt.Token) (any, error) {
		id, _ := t.Header["kid"].(string)
		if key, ok := keys[id]; ok {
			return key, nil
		}
		return nil, errors.New("it is signed by a key that the issuer does not have")
	})
	if err != nil {
		return Claims{}, errors.New("the token of this job is not signed by " + w.Issuer())
	}
	return c, w.check(c)
}

// leeway is how far clocks may differ.
const leeway = time.Minute

func (w Witness) check(c Claims) error {
	now := w.Now()
	switch {
	case c.Issuer != w.Issuer():
		return errors.New("the token of this job is of another issuer")
	case !c.VerifyAudience(Audience, true):
		return errors.New("the token of this job is for somebody else")
	case c.ExpiresAt == nil || now.After(c.ExpiresAt.Add(leeway)):
		return errors.New("the token of this job has ended")
	case c.NotBefore != nil && now.Before(c.NotBefore.Add(-leeway)):
		return errors.New("the token of this job is not good yet")
	case c.Actor == "":
		return errors.New("the token of this job names nobody")
	}
	return nil
}

// keys are the issuer's, by their ids.
func (w Witness) keys(ctx context.Context) (map[string]*rsa.PublicKey, error) {
	var set struct {
		Keys []struct {
			Type string `json:"kty"`
			ID   string `json:"kid"`
			N    string `json:"n"`
			E    string `json:"e"`
		} `json:"keys"`
	}
	if err := w.get(ctx, w.Issuer()+"/.well-known/jwks", "", &set); err != nil {
		return nil, err
	}
	out := map[string]*rsa.PublicKey{}
	for _, k := range set.Keys {
		n, err := base64.RawURLEncoding.DecodeString(k.N)
		e, err2 := base64.RawURLEncoding.DecodeString(k.E)
		if k.Type != "RSA" || errors.Join(err, err2) != nil {
			continue
		}
		out[k.ID] = &rsa.PublicKey{N: new(big.Int).SetBytes(n), E: int(new(big.Int).SetBytes(e).Int64())}
	}
	return out, nil
}

// maxAnswer bounds what is read of an answer.
const maxAnswer = 1 << 20

func (w Witness) get(ctx context.Context, address, token string, into any) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, address, nil)
	if err != nil {
		return errors.New("the address cannot be read")
	}
	if token != "" {
		req.Header.Set("Authorization", "Bearer "+token)
	}
	resp, err := w.Client.Do(req)
	if asked, ok := errors.AsType[*url.Error](err); ok {
		return asked.Err // without the address
	}
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return errors.New(resp.Status)
	}
	if err := json.NewDecoder(io.LimitReader(resp.Body, maxAnswer)).Decode(into); err != nil {
		return errors.New("the answer is no JSON")
	}
	return nil
}
