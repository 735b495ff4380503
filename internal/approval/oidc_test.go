package approval_test

import (
	"strings"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v4"

	"github.com/keyturn/keyturn/internal/approval"
	"github.com/keyturn/keyturn/internal/testserver/oidcfake"
)

const requestToken = "canary-request-token-77"

// issuer signs for a job of alice.
func issuer(t *testing.T) *oidcfake.Issuer {
	return oidcfake.Start(t, requestToken, map[string]any{"sub": "repo:acme@1/orders@2:environment:prod", "actor": "alice",
		"repository": "acme/orders", "event_name": "workflow_dispatch", "ref": "refs/heads/main", "environment": "prod", "run_id": "77", "run_attempt": "1",
		"job_workflow_ref": "acme/orders/.github/workflows/cutover.yml@refs/heads/main"})
}

func witness(i *oidcfake.Issuer) approval.Witness {
	return approval.Witness{RequestURL: i.Request(), RequestToken: requestToken, Server: i.URL, Client: i.Client(), Now: time.Now}
}

func TestClaims(t *testing.T) {
	i := issuer(t)
	c, err := witness(i).Claims(t.Context())
	if err != nil || c.Actor != "alice" || c.Environment != "prod" || c.Workflow() != ".github/workflows/cutover.yml" {
		t.Fatalf("Claims = %+v, %v", c, err)
	}
	if got := (approval.Witness{Server: "https://github.com"}).Issuer(); got != "https://token.actions.githubusercontent.com" {
		t.Errorf("the issuer of github.com is %s", got)
	}
	other := oidcfake.NewKey(t)
	for name, change := range map[string]func(*oidcfake.Issuer, *approval.Witness){
		"another key": func(i *oidcfake.Issuer, _ *approval.Witness) { i.Sign = other },
		"an unknown key": func(i *oidcfake.Issuer, _ *approval.Witness) {
			i.Change = func(_ jwt.MapClaims, h map[string]any) { h["kid"] = "k2" }
		},
		"another issuer": func(i *oidcfake.Issuer, _ *approval.Witness) {
			i.Change = func(c jwt.MapClaims, _ map[string]any) { c["iss"] = "https://evil.example" }
		},
		"another audience": func(i *oidcfake.Issuer, _ *approval.Witness) {
			i.Change = func(c jwt.MapClaims, _ map[string]any) { c["aud"] = "sts.amazonaws.com" }
		},
		"one that has ended": func(i *oidcfake.Issuer, _ *approval.Witness) {
			i.Change = func(c jwt.MapClaims, _ map[string]any) { c["exp"] = time.Now().Add(-time.Hour).Unix() }
		},
		"one without an end": func(i *oidcfake.Issuer, _ *approval.Witness) {
			i.Change = func(c jwt.MapClaims, _ map[string]any) { delete(c, "exp") }
		},
		"one of later": func(i *oidcfake.Issuer, _ *approval.Witness) {
			i.Change = func(c jwt.MapClaims, _ map[string]any) { c["nbf"] = time.Now().Add(time.Hour).Unix() }
		},
		"nobody": func(i *oidcfake.Issuer, _ *approval.Witness) {
			i.Change = func(c jwt.MapClaims, _ map[string]any) { delete(c, "actor") }
		},
		"no permission":     func(_ *oidcfake.Issuer, w *approval.Witness) { w.RequestURL = "" },
		"a refused request": func(_ *oidcfake.Issuer, w *approval.Witness) { w.RequestToken = "other" },
		"no issuer":         func(_ *oidcfake.Issuer, w *approval.Witness) { w.Server = "http://127.0.0.1:1" },
		"a broken algorithm": func(i *oidcfake.Issuer, _ *approval.Witness) {
			i.Change = func(_ jwt.MapClaims, h map[string]any) { h["alg"] = "none" }
		},
	} {
		t.Run(name, func(t *testing.T) {
			i := issuer(t)
			w := witness(i)
			change(i, &w)
			c, err := w.Claims(t.Context())
			if err == nil {
				t.Fatalf("it was taken: %+v", c)
			}
			if text := err.Error(); strings.Contains(text, requestToken) || strings.Contains(text, "eyJ") || strings.Contains(text, "/request") {
				t.Errorf("the error holds what it must not: %s", text)
			}
		})
	}
}

func TestAllow(t *testing.T) {
	whole := approval.Allow{By: []string{"acme/sre", "alice"}, Workflows: []string{".github/workflows/cutover.yml"}, Environments: []string{"prod"}, Verified: true}
	actor := approval.Actor{Login: "alice", Verified: true, Workflow: ".github/workflows/cutover.yml", Environment: "prod", InActions: true}
	for name, c := range map[string]struct {
		change func(*approval.Allow, *approval.Actor)
		want   string
	}{
		"all is given":              {func(*approval.Allow, *approval.Actor) {}, ""},
		"by a team":                 {func(_ *approval.Allow, w *approval.Actor) { w.Login, w.MemberOf = "bob", []string{"Acme/SRE"} }, ""},
		"nothing is asked":          {func(a *approval.Allow, w *approval.Actor) { *a, w.Verified = approval.Allow{}, false }, ""},
		"outside of Actions":        {func(_ *approval.Allow, w *approval.Actor) { w.InActions = false }, "outside"},
		"not verified":              {func(_ *approval.Allow, w *approval.Actor) { w.Verified = false }, "unverified"},
		"an environment by hearsay": {func(a *approval.Allow, w *approval.Actor) { a.Verified, w.Verified = false, false }, "unverified"},
		"nobody":                    {func(_ *approval.Allow, w *approval.Actor) { w.Login = "" }, "unknown"},
		"somebody else":             {func(_ *approval.Allow, w *approval.Actor) { w.Login = "mallory" }, "not-named"},
		"of another team":           {func(_ *approval.Allow, w *approval.Actor) { w.Login, w.MemberOf = "bob", []string{"acme/web"} }, "not-named"},
		"another workflow":          {func(_ *approval.Allow, w *approval.Actor) { w.Workflow = ".github/workflows/x.yml" }, "workflow"},
		"another environment":       {func(_ *approval.Allow, w *approval.Actor) { w.Environment = "staging" }, "environment"},
		"no environment":            {func(_ *approval.Allow, w *approval.Actor) { w.Environment = "" }, "environment"},
	} {
		a, w := whole, actor
		c.change(&a, &w)
		if v := a.Decide(w); v.Approved != (c.want == "") || c.want != "" && !v.Has(c.want) {
			t.Errorf("%s: %v, %v", name, v.Approved, v.Reasons)
		}
	}
}
