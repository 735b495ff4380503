package github_test

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/keyturn/keyturn/internal/backend/github"
	"github.com/keyturn/keyturn/internal/rotation"
	"github.com/keyturn/keyturn/internal/rotation/rotationtest"
	"github.com/keyturn/keyturn/internal/testserver/githubfake"
)

// A receiver takes deliveries, as a service does.
type receiver struct {
	url string

	mu      sync.Mutex
	knows   func() []string // the secrets that it reads now
	taken   map[string]int  // X-GitHub-Delivery → how often
	refused int             // what GitHub sent and was not taken
	answer  int             // to everything, if it is not 0
}

func newReceiver(t *testing.T) *receiver {
	r := &receiver{taken: map[string]int{}}
	s := httptest.NewServer(r)
	t.Cleanup(s.Close)
	r.url = s.URL + "/github"
	return r
}

// ServeHTTP takes what is signed with a secret that it knows.
func (r *receiver) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	body, _ := io.ReadAll(req.Body)
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.answer != 0 {
		w.WriteHeader(r.answer)
		return
	}
	signed := slices.ContainsFunc(r.knows(), func(key string) bool {
		return githubfake.Signature(key, body) == req.Header.Get("X-Hub-Signature-256")
	})
	if req.Header.Get("X-GitHub-Event") == "push" {
		if signed {
			r.taken[req.Header.Get("X-GitHub-Delivery")]++
		} else {
			r.refused++
		}
	}
	if !signed {
		w.WriteHeader(http.StatusUnauthorized)
	}
}

func (r *receiver) set(change func()) {
	r.mu.Lock()
	defer r.mu.Unlock()
	change()
}

const firstSecret = "made by hand"

// newHooks is a fixture with a webhook that people made.
func newHooks(t *testing.T) (*fixture, *receiver) {
	t.Helper()
	f := &fixture{T: t, gh: githubfake.Start(t, githubfake.Options{})}
	f.app = f.gh.AddApp("keyturn", map[string]string{"repository_hooks": "write"})
	r := newReceiver(t)
	f.gh.AddHook(r.url, firstSecret, "push", "release")
	r.knows = func() []string {
		var all []string
		for _, h := range f.gh.Hooks() {
			all = append(all, h.Secret)
		}
		return all
	}
	f.settings = github.Settings{Webhook: &github.Webhook{Repository: f.gh.FullName(), URL: r.url}}
	f.options = github.Options{Credential: credential, App: f.connect()}
	return f, r
}

func (f *fixture) hooks() *github.HookBackend {
	f.Helper()
	b, err := github.New(f.settings, f.options)
	f.must(err)
	return b.(*github.HookBackend)
}

// hook brings a version as far as it is armed.
func (f *fixture) hook(b *github.HookBackend, number int) made {
	f.Helper()
	v, err := b.Identify(f.Context(), rotation.Version{Credential: credential, Number: number, State: rotation.Pending}, nil)
	f.must(err)
	m, err := b.Draft(v)
	f.must(err)
	f.must(b.Arm(f.Context(), v, m, time.Time{}))
	return made{v, m}
}

// state is which webhooks there are, as "1 2+": those with a plus are active.
func (f *fixture) state() string {
	var out []string
	for _, h := range append(f.gh.Hooks(), f.gh.OrgHooks("octo")...) {
		_, n, _ := strings.Cut(h.URL, "?keyturn=v")
		if n == "" {
			n = "-"
		}
		if h.Active {
			n += "+"
		}
		out = append(out, n)
	}
	return strings.Join(out, " ")
}

// TestHookContract is what every backend must keep. The receiver knows the secrets of
// all webhooks that there are.
func TestHookContract(t *testing.T) {
	rotationtest.Contract(t, func(t *testing.T) rotationtest.Setup {
		f, r := newHooks(t)
		breaks := f.breaks()
		for name, way := range breaks {
			breaks[name] = func(t *testing.T) func() {
				back := way(t)
				r.set(func() { r.answer = http.StatusBadGateway })
				return func() { back(); r.set(func() { r.answer = 0 }) }
			}
		}
		return rotationtest.Setup{Backend: f.hooks(), Credential: credential, Login: github.Login, Break: breaks,
			Claims: &rotationtest.Claims{Kind: "GitHub: webhook secrets", Page: "github.md#webhook-secrets",
				Dead: "its webhook is gone, and the receiver refuses what is signed with it"},
			Changes: func(*testing.T) string { return fmt.Sprint(f.gh.Hooks()) }}
	})
}

// TestHookSwitch has events happen all the time while the webhook of today is followed
// by another one: each is delivered, and taken. Hard problem 21: nothing is lost between.
func TestHookSwitch(t *testing.T) {
	f, r := newHooks(t)
	b := f.hooks()
	first, err := b.Adopt(t.Context(), rotation.Version{Credential: credential, Number: 1})
	f.must(err)
	if first.Identity != r.url {
		t.Errorf("adopted %q", first.Identity)
	}
	var happened []string
	stop, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		for {
			select {
			case <-stop:
				return
			case <-time.After(25 * time.Millisecond):
			}
			happened = append(happened, f.gh.Happen("push", map[string]any{"ref": "refs/heads/main"}))
		}
	}()
	last := made{Version: first}
	for number := 2; number <= 4; number++ {
		next := f.hook(b, number)
		if hooks := f.gh.Hooks(); hooks[len(hooks)-1].Active || strings.Join(hooks[len(hooks)-1].Events, " ") != "push release" {
			t.Errorf("the webhook of version %d is %+v before the cutover", number, hooks[len(hooks)-1])
		}
		f.must(b.Compare(t.Context(), next.Version, last.Version))
		f.must(b.Activate(t.Context(), next.Version))
		f.must(b.Activate(t.Context(), next.Version))
		f.must(b.End(t.Context(), last.Version, rotation.ToRetire))
		if got, want := f.state(), fmt.Sprintf("%d+", number); got != want {
			t.Fatalf("the webhooks are %q, want %q", got, want)
		}
		last = next
	}
	close(stop)
	<-done
	f.gh.Delivered()
	r.set(func() {
		lost, twice := 0, 0
		for _, id := range happened {
			switch r.taken[id] {
			case 0:
				lost++
			case 1:
			default:
				twice++
			}
		}
		if lost > 0 || len(happened) < 20 {
			t.Errorf("%d of %d events were not delivered", lost, len(happened))
		}
		t.Logf("%d events, %d delivered twice", len(happened), twice)
	})
}

// TestHookRefusedPing shows that a receiver which does not know the new secret keeps the
// webhook of before active: GitHub's own ping says so.
func TestHookRefusedPing(t *testing.T) {
	f, r := newHooks(t)
	b := f.hooks()
	x := f.hook(b, 2)
	r.set(func() { r.knows = func() []string { return []string{firstSecret} } })
	err := b.Activate(t.Context(), x.Version)
	if rotation.ClassOf(err) != rotation.Failed || !strings.Contains(err.Error(), "401") || rotation.HintOf(err) == "" {
		t.Errorf("Activate = %v", err)
	}
	if got := f.state(); got != "-+ 2" {
		t.Errorf("the webhooks are %q", got)
	}
	f.must(b.End(t.Context(), x.Version, rotation.ToDiscard))
	if err := b.End(t.Context(), rotation.Version{Credential: credential, Number: 1, Identity: r.url}, rotation.ToRetire); rotation.ClassOf(err) != rotation.Refused {
		t.Errorf("End of the only active webhook = %v", err)
	}
}

// TestHookLogin tries receivers of all kinds.
func TestHookLogin(t *testing.T) {
	f, r := newHooks(t)
	b := f.hooks()
	spec := b.ProbeSpec(rotation.Version{})
	right := rotation.Material{"secret": secretOf(firstSecret)}
	for _, tt := range []struct {
		name   string
		set    func()
		m      rotation.Material
		want   rotation.Answer
		reason string
	}{
		{"the right secret", func() {}, right, rotation.Alive, ""},
		{"under another name", func() {}, rotation.Material{"WEBHOOK": secretOf(firstSecret)}, rotation.Alive, ""},
		{"another secret", func() {}, rotation.Material{"secret": secretOf("other")}, rotation.Dead, "refuses"},
		{"no secret", func() {}, rotation.Material{}, rotation.Inconclusive, "mount secret"},
		{"a receiver that takes everything", func() { r.answer = 204 }, right, rotation.Unfit, "any secret"},
		{"a receiver that is not there", func() { r.answer = 404 }, right, rotation.Inconclusive, "404"},
		{"a receiver that fails", func() { r.answer = 503 }, right, rotation.Inconclusive, "503"},
		{"a receiver that refuses everything", func() { r.answer = 403 }, right, rotation.Dead, "refuses"},
		{"a redirection", func() { r.answer = 307 }, right, rotation.Inconclusive, "307"},
	} {
		r.set(tt.set)
		got := github.Login(t.Context(), spec, tt.m)
		if got.Answer != tt.want || !strings.Contains(fmt.Sprint(got), tt.reason) || strings.Contains(fmt.Sprint(got), firstSecret) {
			t.Errorf("%s: %+v, want %s", tt.name, got, tt.want)
		}
		r.set(func() { r.answer = 0 })
	}
}

// TestHookRefusals shows what stands in the way.
func TestHookRefusals(t *testing.T) {
	f, r := newHooks(t)
	b := f.hooks()
	f.must(b.Preflight(t.Context(), rotation.Credential{}))
	id := f.gh.Hooks()[0].ID
	refuses := func(what, word string, err error) {
		t.Helper()
		if rotation.ClassOf(err) != rotation.Refused || !strings.Contains(err.Error(), word) || rotation.HintOf(err) == "" {
			t.Errorf("%s: %v (hint %q), want a refusal with %q", what, err, rotation.HintOf(err), word)
		}
	}
	refuses("a first version", "not on the record", b.Preflight(t.Context(), rotation.Credential{Name: "x", Open: &rotation.Rotation{To: 1}}))
	f.gh.EditHook(id, func(h *githubfake.Hook) { h.Active = false })
	refuses("no active webhook", "no active webhook", b.Preflight(t.Context(), rotation.Credential{}))
	f.gh.EditHook(id, func(h *githubfake.Hook) { h.Active = true })
	f.gh.AddHook(r.url+"?keyturn=v9", "x", "issues")
	refuses("two active webhooks", "several active webhooks", b.Preflight(t.Context(), rotation.Credential{}))
	_, err := b.Identify(t.Context(), rotation.Version{Number: 3}, nil)
	refuses("somebody else's webhook", "somebody else rotates", err)
	f.gh.EditHook(id, func(h *githubfake.Hook) { h.Active = false })
	_, err = b.Adopt(t.Context(), rotation.Version{Number: 1})
	refuses("adopting what a rotation made", "made by a rotation", err)
	f.app.Permissions["repository_hooks"] = "read"
	f.options.App = f.connect()
	refuses("an App that may only read", "repository hooks: write", f.hooks().Preflight(t.Context(), rotation.Credential{}))
}

// TestHookChanged shows that a webhook which somebody changed meanwhile is no equal of
// the next one.
func TestHookChanged(t *testing.T) {
	f, r := newHooks(t)
	b := f.hooks()
	x := f.hook(b, 2)
	f.gh.EditHook(f.gh.Hooks()[0].ID, func(h *githubfake.Hook) { h.Events = []string{"push"} })
	err := b.Compare(t.Context(), x.Version, rotation.Version{Credential: credential, Number: 1, Identity: r.url})
	if rotation.ClassOf(err) != rotation.Failed || !strings.Contains(err.Error(), "other events") || rotation.HintOf(err) == "" {
		t.Errorf("Compare = %v", err)
	}
}

// TestHookLostAnswers makes, switches and deletes webhooks whose answers are lost.
func TestHookLostAnswers(t *testing.T) {
	f, _ := newHooks(t)
	b := f.hooks()
	lose := func(method string) {
		f.gh.On(githubfake.Times(1, func(r *http.Request) *githubfake.Fault {
			if r.Method == method && strings.Contains(r.URL.Path, "/hooks") && !strings.Contains(r.URL.Path, "/pings") {
				return &githubfake.Fault{Do: true, Lose: true}
			}
			return nil
		}))
	}
	lose(http.MethodPost)
	x := f.hook(b, 2)
	if got := f.state(); got != "-+ 2" {
		t.Errorf("after a lost answer: %q", got)
	}
	lose(http.MethodPatch)
	if err := b.Activate(t.Context(), x.Version); err != nil && rotation.ClassOf(err) != rotation.Unknown {
		t.Errorf("Activate with a lost answer = %v", err)
	}
	f.must(b.Activate(t.Context(), x.Version))
	if got := f.state(); got != "- 2+" {
		t.Errorf("activated after a lost answer: %q", got)
	}
	lose(http.MethodDelete)
	f.must(b.End(t.Context(), rotation.Version{Credential: credential, Number: 1, Identity: f.settings.Webhook.URL}, rotation.ToRetire))
	if got := f.state(); got != "2+" {
		t.Errorf("after the end: %q", got)
	}
}

// TestHookOfAnOrganization switches one of an organisation, whose App is found by a
// repository of it.
func TestHookOfAnOrganization(t *testing.T) {
	f := &fixture{T: t, gh: githubfake.Start(t, githubfake.Options{})}
	f.app = f.gh.AddApp("keyturn", map[string]string{"organization_hooks": "write"})
	r := newReceiver(t)
	f.gh.AddOrgHook("octo", r.url, firstSecret, "push")
	r.knows = func() (all []string) {
		for _, h := range f.gh.OrgHooks("octo") {
			all = append(all, h.Secret)
		}
		return all
	}
	f.settings = github.Settings{Webhook: &github.Webhook{Organization: "octo", URL: r.url}}
	f.options = github.Options{Credential: credential, App: f.connect()}
	b := f.hooks()
	f.must(b.Preflight(t.Context(), rotation.Credential{}))
	first, err := b.Adopt(t.Context(), rotation.Version{Credential: credential, Number: 1})
	f.must(err)
	x := f.hook(b, 2)
	if got := github.Login(t.Context(), b.ProbeSpec(x.Version), x.m); got.Answer != rotation.Alive {
		t.Errorf("Login = %+v", got)
	}
	f.must(b.Activate(t.Context(), x.Version))
	f.must(b.End(t.Context(), first, rotation.ToRetire))
	if got := f.state(); got != "2+" {
		t.Errorf("the webhooks are %q", got)
	}
}
