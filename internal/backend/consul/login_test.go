package consul_test

import (
	"context"
	"net"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/keyturn/keyturn/internal/backend/consul"
	"github.com/keyturn/keyturn/internal/rotation"
	"github.com/keyturn/keyturn/internal/secret"
	"github.com/keyturn/keyturn/internal/testserver"
)

// TestAnswers is what a probe makes of what Consul says.
func TestAnswers(t *testing.T) {
	f := newFixture(t, shared.Get(t))
	b := f.backend()
	v, m := f.armed(b, 1)
	other := f.token(map[string]any{"Description": "another", "Policies": links(f.policy)})
	bare := f.token(map[string]any{"Description": "without any right"})
	brief := f.token(map[string]any{"Description": "ends", "ExpirationTTL": "1m"})
	of := func(value string) rotation.Material { return rotation.Material{"token": secret.FromString(value)} }
	spec := b.ProbeSpec(v)
	at := func(change func(*rotation.ProbeSpec)) rotation.ProbeSpec {
		s := spec
		change(&s)
		return s
	}
	answers := func(status int, text string) rotation.ProbeSpec {
		srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { http.Error(w, text, status) }))
		t.Cleanup(srv.Close)
		return at(func(s *rotation.ProbeSpec) { s.Endpoints = []string{srv.URL} })
	}
	closed, err := net.Listen("tcp", "127.0.0.1:0")
	f.must(err)
	gone := "https://" + closed.Addr().String()
	f.must(closed.Close())
	stranger, err := testserver.NewAuthority()
	f.must(err)
	for name, c := range map[string]struct {
		spec rotation.ProbeSpec
		m    rotation.Material
		want rotation.Answer
	}{
		"right":                {spec, m, rotation.Alive},
		"its one field":        {spec, rotation.Material{"other": m["token"]}, rotation.Alive},
		"wrong value":          {spec, of(string(secret.GenerateUUID().Reveal())), rotation.Dead},
		"no UUID":              {spec, of("hunter2"), rotation.Dead},
		"another token":        {spec, of(other.SecretID), rotation.Unfit},
		"no right":             {at(func(s *rotation.ProbeSpec) { s.Identity = bare.AccessorID }), of(bare.SecretID), rotation.Alive},
		"one that will end":    {at(func(s *rotation.ProbeSpec) { s.Identity = brief.AccessorID }), of(brief.SecretID), rotation.Alive},
		"no field":             {spec, rotation.Material{"a": m["token"], "b": m["token"]}, rotation.Inconclusive},
		"server down":          {at(func(s *rotation.ProbeSpec) { s.Endpoints = []string{gone} }), m, rotation.Inconclusive},
		"one of two down":      {at(func(s *rotation.ProbeSpec) { s.Endpoints = append([]string{gone}, s.Endpoints...) }), m, rotation.Inconclusive},
		"unknown authority":    {at(func(s *rotation.ProbeSpec) { s.CA = stranger.PEM }), m, rotation.Inconclusive},
		"no leader":            {answers(500, "No cluster leader"), m, rotation.Inconclusive},
		"overloaded":           {answers(503, "overloaded"), m, rotation.Inconclusive},
		"rate-limited":         {answers(429, "rate limit exceeded"), m, rotation.Inconclusive},
		"denied":               {answers(403, "Permission denied"), m, rotation.Inconclusive},
		"ACLs are off":         {answers(401, "ACL support disabled"), m, rotation.Inconclusive},
		"refused by its words": {answers(403, "ACL not found"), m, rotation.Dead},
	} {
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
		got := consul.Login(ctx, c.spec, c.m)
		cancel()
		if got.Answer != c.want {
			t.Errorf("%s: %s (%s), want %s", name, got.Answer, got.Reason, c.want)
		}
		if got.Answer != rotation.Alive && got.Reason == "" {
			t.Errorf("%s: no reason is given", name)
		}
	}
}
