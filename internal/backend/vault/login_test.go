package vault_test

import (
	"context"
	"encoding/json"
	"net"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/keyturn/keyturn/internal/backend/vault"
	"github.com/keyturn/keyturn/internal/rotation"
	"github.com/keyturn/keyturn/internal/secret"
	"github.com/keyturn/keyturn/internal/testserver"
)

// TestAnswers is what a probe makes of what Vault says.
func TestAnswers(t *testing.T) { onBoth(t, answers) }

func answers(t *testing.T, f *fixture) {
	b := f.backend()
	v, m := f.armed(b, 1)
	spec := b.ProbeSpec(v)
	at := func(change func(*rotation.ProbeSpec)) rotation.ProbeSpec {
		s := spec
		change(&s)
		return s
	}
	with := func(key, value string) rotation.ProbeSpec {
		return at(func(s *rotation.ProbeSpec) {
			var settings map[string]any
			f.must(json.Unmarshal(s.Settings, &settings))
			settings[key] = value
			text, err := json.Marshal(settings)
			f.must(err)
			s.Settings = text
		})
	}
	to := func(endpoints ...string) rotation.ProbeSpec {
		return at(func(s *rotation.ProbeSpec) { s.Endpoints = endpoints })
	}
	answers := func(status int, text string) rotation.ProbeSpec {
		srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Location", f.server.URLs()[0]+r.URL.Path)
			w.WriteHeader(status)
			_, _ = w.Write([]byte(`{"errors":["` + text + `"]}`))
		}))
		t.Cleanup(srv.Close)
		return to(srv.URL)
	}
	only := func(value string) rotation.Material { return rotation.Material{"secret_id": secret.FromString(value)} }
	closed, err := net.Listen("tcp", "127.0.0.1:0")
	f.must(err)
	gone := "https://" + closed.Addr().String()
	f.must(closed.Close())
	stranger, err := testserver.NewAuthority()
	f.must(err)
	other := f.byHand(nil)
	elsewhere := f.byHand(map[string]any{"cidr_list": []string{"10.9.8.0/24"}})
	here := f.server.URLs()[0]
	for name, c := range map[string]struct {
		spec rotation.ProbeSpec
		m    rotation.Material
		want rotation.Answer
	}{
		"right":                     {spec, m, rotation.Alive},
		"its one field":             {spec, rotation.Material{"other": m["secret_id"]}, rotation.Alive},
		"two endpoints":             {to(here, here), m, rotation.Alive},
		"wrong value":               {spec, only(string(secret.Generate().Reveal())), rotation.Dead},
		"wrong value, twice asked":  {to(here, here), only(string(secret.Generate().Reveal())), rotation.Dead},
		"unknown role-id":           {with("role_id", "7a1c8c5e-0000-4000-8000-0123456789ab"), only(string(m["secret_id"].Reveal())), rotation.Inconclusive},
		"unknown mount":             {with("mount", "nowhere"), m, rotation.Inconclusive},
		"another secret-id":         {spec, only(other.Value), rotation.Unfit},
		"of another version":        {at(func(s *rotation.ProbeSpec) { s.Identity = f.name + " v9" }), m, rotation.Unfit},
		"from an address not let":   {spec, only(elsewhere.Value), rotation.Inconclusive},
		"no field":                  {spec, rotation.Material{"a": m["secret_id"], "b": m["secret_id"]}, rotation.Inconclusive},
		"server down":               {to(gone), m, rotation.Inconclusive},
		"one of two down":           {to(gone, here), m, rotation.Inconclusive},
		"dead, and the other down":  {to(here, gone), only("hunter2"), rotation.Inconclusive},
		"unknown authority":         {at(func(s *rotation.ProbeSpec) { s.CA = stranger.PEM }), m, rotation.Inconclusive},
		"sealed":                    {answers(503, "Vault is sealed"), m, rotation.Inconclusive},
		"no leader":                 {answers(500, "local node not active but active cluster node not found"), m, rotation.Inconclusive},
		"overloaded":                {answers(503, "overloaded"), m, rotation.Inconclusive},
		"another node leads":        {answers(307, ""), m, rotation.Inconclusive},
		"refused, role-id unasked":  {answers(400, "invalid role or secret ID"), m, rotation.Inconclusive},
		"another refusal":           {answers(400, "something else"), m, rotation.Inconclusive},
		"the refusal, with no JSON": {at(func(s *rotation.ProbeSpec) { s.Settings = json.RawMessage("[]") }), m, rotation.Inconclusive},
	} {
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
		got := vault.Login(ctx, c.spec, c.m)
		cancel()
		if got.Answer != c.want {
			t.Errorf("%s: %s (%s), want %s", name, got.Answer, got.Reason, c.want)
		}
		if got.Answer != rotation.Alive && got.Reason == "" {
			t.Errorf("%s: no reason is given", name)
		}
		if c.want == rotation.Dead || name == "dead, and the other down" {
			f.login(m) // the count of refusals starts anew
		}
	}
	if st, err := b.Observe(t.Context(), v); err != nil || len(st.Uses) > 4 {
		t.Errorf("the probes left tokens: %+v, %v", st.Uses, err) // the four are of the logins above
	}
}

// TestLifeOfRole is what a probe says when something happens to the role.
func TestLifeOfRole(t *testing.T) { onBoth(t, lifeOfRole) }

func lifeOfRole(t *testing.T, f *fixture) {
	b := f.backend(func(s *vault.Settings) { s.AppRole.TTL = "1m" })
	v, m := f.armed(b, 1)
	try := func() rotation.ProbeResult { return vault.Login(t.Context(), b.ProbeSpec(v), m) }
	is := func(when string, want rotation.Answer) {
		t.Helper()
		if got := try(); got.Answer != want {
			t.Errorf("%s: %s (%s), want %s", when, got.Answer, got.Reason, want)
		}
	}
	is("at first", rotation.Alive)
	if st, err := b.Observe(t.Context(), v); err != nil || st.Status != rotation.Expiring || time.Until(st.Until) > time.Minute {
		t.Errorf("a secret-id with a minute to live is %+v, %v", st, err)
	}

	f.call(http.MethodPost, "/v1/sys/quotas/rate-limit/"+f.name, map[string]any{"path": "auth/approle", "rate": 0.001, "role": f.name}, nil)
	for range 3 {
		if r := try(); r.Answer == rotation.Inconclusive && r.Reason == "it answers Too Many Requests" {
			break
		}
	}
	is("over the rate limit", rotation.Inconclusive)
	f.call(http.MethodDelete, "/v1/sys/quotas/rate-limit/"+f.name, nil, nil)

	f.role("token_policies", "nothing", "token_type", "batch")
	is("with batch tokens", rotation.Unfit)
	f.role("token_policies", "nothing", "token_type", "service")
	is("without a right", rotation.Alive)
	f.call(http.MethodDelete, "/v1/auth/approle/role/"+f.name, nil, nil)
	is("without the role", rotation.Inconclusive)
}

// TestNoLockout tries dead secret-ids more often than Vault forgives: in a proof as the core
// makes it, one refusal and then a good login, nobody is locked out.
func TestNoLockout(t *testing.T) { onBoth(t, noLockout) }

func noLockout(t *testing.T, f *fixture) {
	endpoint := f.server.URLs()[0]
	b := f.backend(func(s *vault.Settings) { s.AppRole.Probe = []string{endpoint, endpoint + "/"} })
	_, good := f.armed(b, 1)
	dead, m := f.armed(b, 2)
	f.must(b.End(t.Context(), dead, rotation.ToDiscard))
	for range 7 {
		if r := vault.Login(t.Context(), b.ProbeSpec(dead), m); r.Answer != rotation.Dead {
			t.Fatalf("the dead one is %s (%s)", r.Answer, r.Reason)
		}
		f.login(good)
	}
	// What it is about: five in a row lock the role.
	for range 5 {
		vault.Login(t.Context(), b.ProbeSpec(dead), m)
	}
	if r := vault.Login(t.Context(), b.ProbeSpec(dead), m); r.Answer != rotation.Inconclusive || r.Endpoints[0].Code != "permission-denied" {
		t.Errorf("a locked role is %s (%s), want unknown", r.Answer, r.Reason)
	}
}
