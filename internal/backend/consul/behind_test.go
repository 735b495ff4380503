package consul_test

import (
	"context"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/keyturn/keyturn/internal/backend/consul"
	"github.com/keyturn/keyturn/internal/backend/remote"
	"github.com/keyturn/keyturn/internal/rotation"
	"github.com/keyturn/keyturn/internal/rotation/rotationtest"
	"github.com/keyturn/keyturn/internal/secret"
	"github.com/keyturn/keyturn/internal/testserver"
)

// TestServerThatStarts asks a server from its first moment on: it knows no token before it has
// read its log, which is nothing against a token, and nothing against the administrator's.
func TestServerThatStarts(t *testing.T) {
	dc := testserver.NewConsul(t, 3)
	f := newFixture(t, dc)
	b := f.backend()
	v, m := f.armed(b, 1)
	rotationtest.AsItStarts(t, b, consul.Login, v, m, dc.URLs()[2], func() {
		dc.Kill(2)
		f.must(dc.Start(2))
	})
}

// TestBehind puts a server in the place of the real one that knows nobody, as one that starts,
// for a while and for good: only what the leader says, too, is a refusal.
func TestBehind(t *testing.T) {
	const id = "7ede893f-39ed-89df-a6c2-ebc445b0b550"
	var early atomic.Int64 // how many answers are those of a server that knows nobody
	front := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		consistent := r.URL.Query().Has("consistent") && r.URL.Path == "/v1/acl/token/self"
		switch {
		case !consistent && early.Add(-1) >= 0:
			http.Error(w, "ACL system must be bootstrapped before making any requests that require authorization: ACL not found", http.StatusForbidden)
		case r.URL.Path == "/v1/agent/services":
			_, _ = w.Write([]byte(`{}`))
		case !strings.HasPrefix(r.URL.Path, "/v1/acl/token/"):
			http.Error(w, "nobody should ask for "+r.URL.Path, http.StatusTeapot)
		default:
			_, _ = w.Write([]byte(`{"AccessorID": "` + id + `", "Description": "keyturn orders v1"}`))
		}
	}))
	t.Cleanup(front.Close)
	value := string(secret.GenerateUUID().Reveal())
	b, err := consul.New(consul.Settings{Servers: []string{front.URL}, Token: secret.Source{Env: tokenVariable}, InsecureTLS: []string{"plaintext"}},
		consul.Options{Credential: "orders", Options: remote.Options{Patience: time.Second, Timeout: 500 * time.Millisecond, Getenv: func(string) string { return value }}})
	if err != nil {
		t.Fatal(err)
	}
	v := rotation.Version{Credential: "orders", Number: 1, State: rotation.Current, Identity: id}

	early.Store(3)
	if _, err := b.Observe(t.Context(), v); err != nil {
		t.Errorf("of a server that knows the administrator in a moment: %v", err)
	}
	early.Store(1 << 40)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	if _, err := b.Observe(ctx, v); rotation.ClassOf(err) != rotation.Unknown || !strings.Contains(rotation.HintOf(err), "a moment ago") || strings.Contains(err.Error(), value) {
		t.Errorf("of a server that goes on knowing nobody: %v (hint: %s), want class Unknown and what to do", err, rotation.HintOf(err))
	}
	got := consul.Login(ctx, b.ProbeSpec(v), rotation.Material{"token": secret.FromString(value)})
	if got.Answer != rotation.Inconclusive || !strings.Contains(got.Reason, "the leader does") {
		t.Errorf("a token that the leader knows is %s (%s), want it to be unknown", got.Answer, got.Reason)
	}
	early.Store(0)
	if got := consul.Login(ctx, b.ProbeSpec(v), rotation.Material{"token": secret.FromString(value)}); got.Answer != rotation.Alive {
		t.Errorf("a token that is known is %s (%s), want it to be alive", got.Answer, got.Reason)
	}
}
