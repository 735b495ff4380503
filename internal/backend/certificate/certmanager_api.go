package certificate

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/keyturn/keyturn/internal/backend/remote"
	"github.com/keyturn/keyturn/internal/rotation"
	"github.com/keyturn/keyturn/internal/secret"
)

// A cluster is the API of Kubernetes, asked as a service account: JSON over HTTP.
type cluster struct {
	settings CertManager
	http     *http.Client
	token    secret.Value
	timeout  time.Duration
}

// open reads the token, which a kubelet may have replaced since. It does no I/O on the network.
func (m *Managed) open() (*cluster, error) {
	token, err := m.manager.Token.Read(m.options.Getenv)
	if err != nil {
		return nil, rotation.Classify(rotation.Invalid, "", fmt.Errorf("certificate: the token of the service account: %w", err))
	}
	if bytes.ContainsAny(token.Reveal(), "\r\n\x00 ") {
		return nil, rotation.Errorf(rotation.Invalid, "let nothing but the token stand there", "certificate: what stands in the place of the service account's token is no token")
	}
	config, err := remote.TLS(m.options.CA, m.manager.InsecureTLS)
	if err != nil {
		return nil, err
	}
	return &cluster{m.manager, remote.Client(config, m.options.Dial, m.options.Timeout), token, m.options.Timeout}, nil
}

func (c *cluster) close() { c.http.CloseIdleConnections() }

// A refusal is what the API said instead of success: a Status of Kubernetes.
type refusal struct {
	Code    int    `json:"code"`
	Reason  string `json:"reason"`
	Message string `json:"message"`
}

func (r *refusal) Error() string {
	return strings.TrimSpace(fmt.Sprintf("%d %s", r.Code, r.Message))
}

// said returns the code that the API answered with; 0 if it did not.
func said(err error) int {
	if r, ok := errors.AsType[*refusal](err); ok {
		return r.Code
	}
	return 0
}

// longestAnswer bounds an answer: lists come in pages.
const longestAnswer = 16 << 20

// ask sends one request, and decodes what is answered.
func (c *cluster) ask(ctx context.Context, doing, method, path string, body, into any) error {
	ctx, cancel := context.WithTimeout(ctx, c.timeout)
	defer cancel()
	var sent io.Reader
	if body != nil {
		b, err := json.Marshal(body)
		if err != nil {
			return fmt.Errorf("certificate: %s: %w", doing, err)
		}
		sent = bytes.NewReader(b)
	}
	req, err := http.NewRequestWithContext(ctx, method, strings.TrimSuffix(c.settings.API, "/")+path, sent)
	if err != nil {
		return fmt.Errorf("certificate: %s: the URL of the API cannot be asked", doing)
	}
	req.Header.Set("Authorization", "Bearer "+string(c.token.Reveal()))
	req.Header.Set("Accept", "application/json")
	req.Header.Set("User-Agent", "keyturn")
	if body != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	resp, err := c.http.Do(req)
	if err != nil {
		return c.unanswered(doing, err)
	}
	defer resp.Body.Close()
	answer, err := io.ReadAll(io.LimitReader(resp.Body, longestAnswer+1))
	switch {
	case err != nil:
		return c.unanswered(doing, err)
	case len(answer) > longestAnswer:
		return fmt.Errorf("certificate: %s: the answer is too long", doing)
	case resp.StatusCode/100 != 2:
		return c.wrap(doing, c.refusal(resp, answer))
	}
	decoder := json.NewDecoder(bytes.NewReader(answer))
	decoder.UseNumber() // what is sent back must be as it came
	if err := decoder.Decode(into); err != nil {
		return rotation.Errorf(rotation.Unknown, "is this the URL of a Kubernetes API server?", "certificate: %s: the answer cannot be read", doing)
	}
	return nil
}

func (c *cluster) unanswered(doing string, err error) error {
	return rotation.Errorf(rotation.Unknown, "is cert-manager.api right, and can it be reached from here?", "certificate: %s: %s", doing, remote.Cause(err))
}

// refusal reads why something was refused. The text is the server's; one that holds our
// token is not repeated.
func (c *cluster) refusal(resp *http.Response, body []byte) *refusal {
	r := &refusal{}
	_ = json.Unmarshal(body, r) // of a proxy: the status says enough
	r.Code = resp.StatusCode
	r.Message = strings.Join(strings.Fields(r.Message), " ")
	if len(r.Message) > 400 {
		r.Message = r.Message[:400] + "…"
	}
	if r.Message == "" || strings.Contains(r.Message, string(c.token.Reveal())) {
		r.Message = http.StatusText(r.Code)
	}
	return r
}

// rights is the hint for whoever makes the role.
func (c *cluster) rights() string {
	return fmt.Sprintf("the service account needs, in namespace %s: get on certificates, update on certificates/status, list on certificaterequests (all of cert-manager.io); see docs/backends/certificate.md", c.settings.Namespace)
}

// wrap gives a refusal its class: what was refused was not done.
func (c *cluster) wrap(doing string, r *refusal) error {
	class, hint := rotation.Failed, ""
	switch {
	case r.Code == http.StatusUnauthorized:
		class, hint = rotation.Refused, "has the token of the service account ended? make another: kubectl create token NAME --duration 24h"
	case r.Code == http.StatusForbidden:
		class, hint = rotation.Refused, c.rights()
	case r.Code == http.StatusNotFound:
		class, hint = rotation.Refused, "look: kubectl get certificates --namespace "+c.settings.Namespace+"; is cert-manager installed there?"
	case r.Code == http.StatusConflict:
		class, hint = rotation.Unknown, "something else writes to it all the time; run it again"
	case r.Code >= http.StatusInternalServerError || slices.Contains([]int{http.StatusTooManyRequests, http.StatusRequestTimeout, http.StatusGone}, r.Code): // gone: a page of a list
		class, hint = rotation.Unknown, "run it again when the API server answers"
	case r.Code/100 == 3:
		class, hint = rotation.Unknown, "is cert-manager.api the URL of the API server itself?"
	}
	return rotation.Classify(class, hint, fmt.Errorf("certificate: %s: %w", doing, r))
}

const managerAPI = "/apis/cert-manager.io/v1/namespaces/"

func (c *cluster) path() string {
	return managerAPI + url.PathEscape(c.settings.Namespace) + "/certificates/" + url.PathEscape(c.settings.Certificate)
}

// certificate reads the Certificate.
func (c *cluster) certificate(ctx context.Context) (*resource, error) {
	var raw json.RawMessage
	if err := c.ask(ctx, "reading Certificate "+c.settings.name(), http.MethodGet, c.path(), nil, &raw); err != nil {
		return nil, err
	}
	return parseResource(raw)
}

// mayUpdate asks whether the service account may write the status. It changes nothing.
func (c *cluster) mayUpdate(ctx context.Context) error {
	type attributes map[string]string
	question := map[string]any{"apiVersion": "authorization.k8s.io/v1", "kind": "SelfSubjectAccessReview", "spec": map[string]any{
		"resourceAttributes": attributes{"namespace": c.settings.Namespace, "name": c.settings.Certificate,
			"group": "cert-manager.io", "version": "v1", "resource": "certificates", "subresource": "status", "verb": "update"}}}
	var answer struct {
		Status struct {
			Allowed bool   `json:"allowed"`
			Reason  string `json:"reason"`
		} `json:"status"`
	}
	const doing = "asking whether the Certificate may be told to be issued"
	err := c.ask(ctx, doing, http.MethodPost, "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews", question, &answer)
	switch {
	case said(err) == http.StatusForbidden: // who may not even ask is told by the update itself
		return nil
	case err == nil && !answer.Status.Allowed:
		return refused(c.rights(), "the service account may not update the status of Certificate %s", c.settings.name())
	}
	return err
}

// requests reads the CertificateRequests of the namespace, page by page, until take has
// what it looks for.
func (c *cluster) requests(ctx context.Context, take func(request) (found bool)) error {
	for next := ""; ; {
		path := managerAPI + url.PathEscape(c.settings.Namespace) + "/certificaterequests?limit=100"
		if next != "" {
			path += "&continue=" + url.QueryEscape(next)
		}
		var page struct {
			Metadata struct {
				Continue string `json:"continue"`
			} `json:"metadata"`
			Items []request `json:"items"`
		}
		if err := c.ask(ctx, "listing what cert-manager asked issuers for", http.MethodGet, path, nil, &page); err != nil {
			return err
		}
		for _, r := range page.Items {
			if take(r) {
				return nil
			}
		}
		if next = page.Metadata.Continue; next == "" {
			return nil
		}
	}
}

func (c CertManager) name() string { return c.Namespace + "/" + c.Certificate }
