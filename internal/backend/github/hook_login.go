package github

import (
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"net/http"

	"github.com/keyturn/keyturn/internal/rotation"
	"github.com/keyturn/keyturn/internal/secret"
)

// hookSettings travel in [rotation.ProbeSpec.Settings].
type hookSettings struct {
	Kind string `json:"kind"`
}

// ProbeSpec says how to try a version. It does no I/O.
func (b *HookBackend) ProbeSpec(v rotation.Version) rotation.ProbeSpec {
	endpoints := b.of.Probe
	if len(endpoints) == 0 {
		endpoints = []string{b.of.URL}
	}
	return rotation.ProbeSpec{Backend: "github", Identity: v.Identity, Endpoints: endpoints, Settings: settingsOf(hookSettings{kindHook})}
}

// deliverTo sends every receiver a ping as GitHub would, signed with the secret, after
// one that is signed with a value that nobody knows. A receiver that takes that one
// checks nothing: Unfit. One that refuses both in the same way says Dead.
func deliverTo(ctx context.Context, spec rotation.ProbeSpec, m rotation.Material) rotation.ProbeResult {
	value, ok := fieldOf(m, fieldSecret)
	if !ok {
		return rotation.ProbeResult{Answer: rotation.Inconclusive, Reason: "no field holds the secret: mount secret"}
	}
	return rotation.ProbeEach(spec.Endpoints, func(endpoint string) rotation.EndpointResult {
		ctx, cancel := context.WithTimeout(ctx, probeTimeout)
		defer cancel()
		r := rotation.EndpointResult{Answer: rotation.Inconclusive}
		control, problem := ping(ctx, endpoint, secret.Generate())
		if problem != "" {
			r.Reason = problem
			return r
		}
		status, problem := ping(ctx, endpoint, value)
		r.Code = statusCode(status)
		switch {
		case problem != "":
			r.Reason = problem
		case taken(control):
			r.Answer, r.Reason = rotation.Unfit, "the receiver takes what is signed with any secret: it does not check X-Hub-Signature-256"
		case !refuses(control):
			r.Reason = fmt.Sprintf("the receiver answers %d to a wrong signature, want 400, 401 or 403: nothing can be told of the right one", control)
		case taken(status):
			r.Answer = rotation.Alive
		case status == control:
			r.Answer, r.Reason = rotation.Dead, "the receiver refuses what is signed with the secret"
		default:
			r.Reason = fmt.Sprintf("the receiver answered %d", status)
		}
		return r
	})
}

func taken(status int) bool { return status >= 200 && status <= 299 }

func refuses(status int) bool {
	return status == http.StatusBadRequest || status == http.StatusUnauthorized || status == http.StatusForbidden
}

// ping delivers a ping, as "Webhook events and payloads" describes it.
func ping(ctx context.Context, endpoint string, key secret.Value) (status int, problem string) {
	body, err := json.Marshal(map[string]any{"zen": "Approachable is better than simple.", "hook_id": 0,
		"hook": map[string]any{"type": "Repository", "id": 0, "name": "web", "active": true, "events": []string{"ping"}}})
	if err != nil {
		return 0, "the ping cannot be written"
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, endpoint, bytes.NewReader(body))
	if err != nil {
		return 0, "the receiver's URL is none"
	}
	mac := hmac.New(sha256.New, key.Reveal())
	mac.Write(body)
	req.Header = http.Header{
		"Content-Type": {"application/json"}, "User-Agent": {"GitHub-Hookshot/keyturn"}, "X-GitHub-Event": {"ping"},
		"X-GitHub-Delivery": {guid()}, "X-Hub-Signature-256": {"sha256=" + hex.EncodeToString(mac.Sum(nil))},
	}
	status, _, problem = ask(ctx, req)
	return status, problem
}

// guid is a random one, as deliveries have.
func guid() string {
	var b [16]byte
	_, _ = rand.Read(b[:]) // it never fails
	b[6], b[8] = b[6]&0x0f|0x40, b[8]&0x3f|0x80
	return fmt.Sprintf("%x-%x-%x-%x-%x", b[:4], b[4:6], b[6:8], b[8:10], b[10:])
}
