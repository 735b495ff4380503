package github_test

import (
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/keyturn/keyturn/internal/backend/github"
	"github.com/keyturn/keyturn/internal/rotation"
	"github.com/keyturn/keyturn/internal/rotation/rotationtest"
	"github.com/keyturn/keyturn/internal/testserver/githubfake"
)

// newTokens is a fixture whose App makes tokens for one of two repositories. Time goes
// by as the test says.
func newTokens(t *testing.T) (f *fixture, passes func(time.Duration)) {
	t.Helper()
	ahead := time.Duration(0)
	now := func() time.Time { return time.Now().Add(ahead) }
	f = &fixture{T: t, gh: githubfake.Start(t, githubfake.Options{Now: now})}
	f.gh.AddRepo("octo/other")
	f.app = f.gh.AddApp("keyturn", map[string]string{"contents": "write", "issues": "read"})
	f.settings = github.Settings{InstallationToken: &github.InstallationToken{Repositories: []string{f.gh.FullName()}, Permissions: map[string]string{"contents": "read"}}}
	f.options = github.Options{Credential: credential, App: f.connectAt(now), Now: now}
	return f, func(d time.Duration) { ahead += d }
}

func (f *fixture) tokens() *github.TokenBackend {
	f.Helper()
	b, err := github.New(f.settings, f.options)
	f.must(err)
	return b.(*github.TokenBackend)
}

// mint brings a version as far as it is recorded.
func (f *fixture) mint(b *github.TokenBackend, number int) made {
	f.Helper()
	v, err := b.Identify(f.Context(), rotation.Version{Credential: credential, Number: number, State: rotation.Pending}, nil)
	f.must(err)
	v, m, err := b.Mint(f.Context(), v)
	f.must(err)
	return made{v, m}
}

// breaks are the ways in which GitHub gives no answer.
func (f *fixture) breaks() map[string]func(*testing.T) func() {
	ways := map[string]func(*testing.T) func(){}
	for name, fault := range map[string]githubfake.Fault{
		"down": {Status: http.StatusBadGateway}, "cut": {Lose: true},
		"limited":  *githubfake.Limited(http.StatusForbidden, time.Now().Add(time.Hour)),
		"too many": *githubfake.Secondary(http.StatusTooManyRequests, time.Hour),
	} {
		ways[name] = func(*testing.T) func() {
			return f.gh.On(func(*http.Request) *githubfake.Fault { made := fault; return &made })
		}
	}
	return ways
}

// TestTokenContract is what every backend must keep.
func TestTokenContract(t *testing.T) {
	rotationtest.Contract(t, func(t *testing.T) rotationtest.Setup {
		f, _ := newTokens(t)
		return rotationtest.Setup{Backend: f.tokens(), Credential: credential, Login: github.Login, Break: f.breaks(),
			Claims:  &rotationtest.Claims{Kind: "GitHub: installation tokens", Page: "github.md#tokens-for-services", Dead: "its hour is over, and GitHub answers 401"},
			Changes: func(*testing.T) string { return fmt.Sprint(f.gh.LiveTokens()) }}
	})
}

// TestToken follows one from its making to its end, which nobody brings about.
func TestToken(t *testing.T) {
	f, passes := newTokens(t)
	b := f.tokens()
	f.must(b.Preflight(t.Context(), rotation.Credential{}))
	x := f.mint(b, 7)
	token := string(x.m["token"].Reveal())
	if x.Identity != "keyturn orders-git v7" || !strings.HasPrefix(token, "ghs_") || x.Public["expires"] != string(x.m["expires"].Reveal()) {
		t.Errorf("made %+v with the fields %v", x.Version, x.m.Fields())
	}
	if got := github.Login(t.Context(), b.ProbeSpec(x.Version), x.m); got.Answer != rotation.Alive {
		t.Errorf("Login = %+v", got)
	}
	f.must(f.options.App.Close(t.Context()))
	if got := github.Login(t.Context(), b.ProbeSpec(x.Version), x.m); got.Answer != rotation.Alive {
		t.Errorf("the end of a run revoked the services' token: %+v", got)
	}

	f.options.App = f.connectAt(f.options.Now)
	later := f.tokens() // another process, which has no value
	err := later.End(t.Context(), x.Version, rotation.ToDiscard)
	if !errors.Is(err, rotation.ErrLives) || rotation.HintOf(err) == "" || strings.Contains(err.Error(), token) {
		t.Errorf("End of a token that nobody has = %v", err)
	}
	ends, parseErr := time.Parse(time.RFC3339, x.Public["expires"])
	f.must(parseErr)
	st, err := later.Observe(t.Context(), x.Version)
	if f.must(err); st.Status != rotation.Expiring || !st.Until.Equal(ends.Add(time.Minute)) {
		t.Errorf("Observe = %+v", st)
	}
	passes(time.Hour)
	if got := github.Login(t.Context(), later.ProbeSpec(x.Version), x.m); got.Answer != rotation.Dead || got.Endpoints[0].Code != "401" {
		t.Errorf("Login after its time = %+v", got)
	}
	if st, err = later.Observe(t.Context(), x.Version); err != nil || st.Status != rotation.Expiring {
		t.Errorf("Observe at its time = %+v, %v: GitHub's clock may be behind", st, err)
	}
	passes(2 * time.Minute)
	if st, err = later.Observe(t.Context(), x.Version); err != nil || st.Status != rotation.Ended {
		t.Errorf("Observe after its time = %+v, %v", st, err)
	}
	f.must(later.End(t.Context(), x.Version, rotation.ToRetire))
}

// TestTokenAnswers shows what a probe makes of tokens that are for other repositories,
// of an App that is suspended, and of servers that are none.
func TestTokenAnswers(t *testing.T) {
	f, _ := newTokens(t)
	b := f.tokens()
	x := f.mint(b, 1)
	spec := b.ProbeSpec(x.Version)
	f.settings.InstallationToken = &github.InstallationToken{Repositories: []string{f.gh.FullName(), "octo/other"}, Permissions: map[string]string{"contents": "read"}}
	wider := f.tokens()
	if got := github.Login(t.Context(), wider.ProbeSpec(x.Version), x.m); got.Answer != rotation.Unfit || !strings.Contains(got.Endpoints[0].Reason, "octo/other") {
		t.Errorf("Login with a token of one repository where two are wanted = %+v", got)
	}
	if got := github.Login(t.Context(), spec, f.mint(wider, 2).m); got.Answer != rotation.Unfit {
		t.Errorf("Login with a token of two repositories where one is wanted = %+v", got)
	}
	for name, fault := range map[string]githubfake.Fault{
		"a redirection": {Status: http.StatusFound, Header: map[string]string{"Location": "http://127.0.0.1:1/"}}, "a failure": {Status: 500}, "no answer": {Lose: true}, "a refusal of another kind": {Status: 403},
	} {
		back := f.gh.On(func(*http.Request) *githubfake.Fault { made := fault; return &made })
		if got := github.Login(t.Context(), spec, x.m); got.Answer != rotation.Inconclusive {
			t.Errorf("Login and %s = %+v", name, got)
		}
		back()
	}
	if got := github.Login(t.Context(), spec, rotation.Material{}); got.Answer != rotation.Inconclusive || !strings.Contains(got.Reason, "mount token") {
		t.Errorf("Login without a token = %+v", got)
	}
	f.app.Suspend()
	if st, err := b.Observe(t.Context(), x.Version); err != nil || st.Status != rotation.Ended {
		t.Errorf("Observe of a suspended App = %+v, %v", st, err)
	}
	if err := b.Preflight(t.Context(), rotation.Credential{}); rotation.ClassOf(err) != rotation.Refused || !strings.Contains(err.Error(), "suspended") {
		t.Errorf("Preflight of a suspended App = %v", err)
	}
}

// TestTokenRights shows that a token is never made with more or less than was asked for.
func TestTokenRights(t *testing.T) {
	f, _ := newTokens(t)
	f.settings.InstallationToken.Permissions = map[string]string{"issues": "write"}
	err := f.tokens().Preflight(t.Context(), rotation.Credential{})
	if rotation.ClassOf(err) != rotation.Refused || !strings.Contains(err.Error(), "issues: write") || rotation.HintOf(err) == "" {
		t.Errorf("Preflight = %v", err)
	}
	v, err := f.tokens().Identify(t.Context(), rotation.Version{Credential: credential, Number: 1}, nil)
	f.must(err)
	if _, _, err := f.tokens().Mint(t.Context(), v); rotation.ClassOf(err) != rotation.Failed || !strings.Contains(rotation.HintOf(err), "issues: write") {
		t.Errorf("Mint = %v, hint %q", err, rotation.HintOf(err))
	}
	f.settings.Token.Env = "X"
	if _, err := github.New(f.settings, f.options); err == nil || rotation.ClassOf(err) != rotation.Invalid {
		t.Errorf("New with a token to make tokens with = %v", err)
	}
	if n := f.gh.LiveTokens(); n != 0 {
		t.Errorf("%d tokens are alive", n)
	}
}

// TestTokenMintLost shows that a token whose answer was lost is in nobody's hand: another
// one is made, and a version on whose record there is none can be given up.
func TestTokenMintLost(t *testing.T) {
	f, _ := newTokens(t)
	b := f.tokens()
	f.gh.On(githubfake.Times(1, func(r *http.Request) *githubfake.Fault {
		if strings.HasSuffix(r.URL.Path, "/access_tokens") {
			return &githubfake.Fault{Do: true, Lose: true}
		}
		return nil
	}))
	x := f.mint(b, 1)
	if got := github.Login(t.Context(), b.ProbeSpec(x.Version), x.m); got.Answer != rotation.Alive {
		t.Errorf("Login = %+v", got)
	}
	v, err := b.Identify(t.Context(), rotation.Version{Credential: credential, Number: 2}, nil)
	f.must(err)
	if st, err := b.Observe(t.Context(), v); err != nil || st.Status != rotation.Absent {
		t.Errorf("Observe of one that was never recorded = %+v, %v", st, err)
	}
	f.must(b.End(t.Context(), v, rotation.ToDiscard))
	if fields := x.m.Fields(); !slices.Equal(fields, []string{"expires", "token"}) {
		t.Errorf("the fields are %v", fields)
	}
}
