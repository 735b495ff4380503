package githubapp_test

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-github/v60/github"

	"github.com/keyturn/keyturn/internal/githubapp"
	"github.com/keyturn/keyturn/internal/secret"
	"github.com/keyturn/keyturn/internal/testserver/githubfake"
)

// A world is a GitHub whose clock, and ours, the test sets.
type world struct {
	*testing.T
	gh     *githubfake.Server
	app    *githubfake.App
	mu     sync.Mutex
	ours   time.Duration // ahead of GitHub's clock
	passed time.Duration
	slept  []time.Duration
	masked []string
	warned []string
}

func newWorld(t *testing.T) *world {
	w := &world{T: t}
	w.gh = githubfake.Start(t, githubfake.Options{Now: func() time.Time { return w.clock() }})
	w.app = w.gh.AddApp("keyturn", map[string]string{"contents": "write", "issues": "write"})
	return w
}

func (w *world) clock() time.Time {
	w.mu.Lock()
	defer w.mu.Unlock()
	return time.Now().Add(w.passed)
}

func (w *world) pass(d time.Duration) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.passed += d
}

func (w *world) options() githubapp.Options {
	return githubapp.Options{
		API: w.gh.URL, Owner: w.gh.Owner, Repo: w.gh.Name, App: w.app.ID, Key: w.app.Key(),
		Mask: func(v secret.Value) { w.masked = append(w.masked, string(v.Reveal())) },
		Warn: func(s string) { w.warned = append(w.warned, s) },
		Now:  func() time.Time { return w.clock().Add(w.ours) },
		Sleep: func(ctx context.Context, d time.Duration) error {
			w.mu.Lock()
			w.slept = append(w.slept, d)
			w.mu.Unlock()
			w.pass(d)
			return ctx.Err()
		},
	}
}

func (w *world) client() (*githubapp.App, *githubapp.Client) {
	w.Helper()
	return w.clientWith(w.options())
}

func (w *world) clientWith(o githubapp.Options) (*githubapp.App, *githubapp.Client) {
	w.Helper()
	app, err := githubapp.New(o)
	w.must(err)
	return app, app.Client(github.InstallationPermissions{Contents: github.String("write")})
}

func (w *world) must(err error) {
	w.Helper()
	if err != nil {
		w.Fatal(err)
	}
}

func (w *world) read(c *githubapp.Client) error {
	_, _, err := c.Git.GetRef(w.Context(), c.Owner, c.Repo, "heads/main")
	return err
}

func (w *world) write(c *githubapp.Client, name string) error {
	_, _, err := c.Repositories.CreateFile(w.Context(), c.Owner, c.Repo, name, &github.RepositoryContentFileOptions{
		Message: github.String("m"), Content: []byte("x"), Branch: github.String("main")})
	return err
}

// clean checks that an error holds no token and no key, in any form.
func (w *world) clean(err error) {
	w.Helper()
	for _, form := range []string{"%v", "%+v", "%#v"} {
		text := fmt.Sprintf(form, err)
		for _, s := range append(slices.Clone(w.masked), "eyJ", "BEGIN RSA") {
			if strings.Contains(text, s) {
				w.Errorf("the error holds a secret: %s", text)
			}
		}
	}
}

func (w *world) mints() (n int) {
	for _, c := range w.gh.Calls() {
		if strings.HasSuffix(c.Path, "/access_tokens") && c.Status == 201 {
			n++
		}
	}
	return n
}

func TestTokenIsNarrowMaskedAndRevoked(t *testing.T) {
	w := newWorld(t)
	app, c := w.client()
	w.must(w.read(c))
	w.must(w.write(c, "a"))
	if _, _, err := c.Issues.Create(t.Context(), c.Owner, c.Repo, &github.IssueRequest{Title: github.String("x")}); err == nil {
		t.Error("a token for contents opened an issue")
	} else if hint := githubapp.Hint(err); !strings.Contains(hint, "issues: write") {
		t.Errorf("the hint does not name the permission: %q (%v)", hint, err)
	}
	if w.mints() != 1 || len(w.masked) != 1 || w.gh.LiveTokens() != 1 {
		t.Errorf("%d mints, %d masked, %d alive; want one of each", w.mints(), len(w.masked), w.gh.LiveTokens())
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	w.must(app.Close(context.WithoutCancel(ctx)))
	if n := w.gh.LiveTokens(); n != 0 {
		t.Errorf("%d tokens are alive after Close", n)
	}
	w.must(app.Close(t.Context()))
	if err := w.read(c); err == nil {
		t.Error("a client works on after Close")
	}
}

func TestTokenIsReplacedBeforeItEnds(t *testing.T) {
	w := newWorld(t)
	app, c := w.client()
	w.must(w.read(c))
	w.pass(54 * time.Minute)
	w.must(w.read(c))
	if w.mints() != 1 {
		t.Errorf("%d tokens after 54 minutes, want 1", w.mints())
	}
	w.pass(2 * time.Minute)
	w.must(w.read(c))
	if w.mints() != 2 {
		t.Errorf("%d tokens after 56 minutes, want 2", w.mints())
	}
	w.must(app.Close(t.Context()))
	if n := w.gh.LiveTokens(); n != 0 {
		t.Errorf("%d tokens are alive after Close, want the replaced one dead, too", n)
	}
}

func TestRevokedTokenIsMintedOnce(t *testing.T) {
	w := newWorld(t)
	_, c := w.client()
	w.must(w.read(c))
	w.pass(time.Minute)
	w.gh.ExpireTokens()
	w.must(w.write(c, "b")) // a 401 did nothing: what writes may be sent again
	if w.mints() != 2 {
		t.Errorf("%d mints, want 2", w.mints())
	}
	w.gh.On(func(r *http.Request) *githubfake.Fault {
		if strings.Contains(r.URL.Path, "/git/ref/") {
			return &githubfake.Fault{Status: 401, Body: `{"message":"Bad credentials"}`}
		}
		return nil
	})
	w.pass(time.Minute)
	err := w.read(c)
	if err == nil || w.mints() != 3 {
		t.Errorf("refused twice: %v after %d mints", err, w.mints())
	}
	w.clean(err)
	if githubapp.Hint(err) == "" {
		t.Errorf("no hint for %v", err)
	}
}

func TestReplicaThatDoesNotKnowTheToken(t *testing.T) {
	w := newWorld(t)
	_, c := w.client()
	w.gh.On(githubfake.Times(2, func(r *http.Request) *githubfake.Fault {
		if strings.Contains(r.URL.Path, "/git/ref/") {
			return &githubfake.Fault{Status: 401, Body: `{"message":"Bad credentials"}`}
		}
		return nil
	}))
	w.must(w.read(c))
	if w.mints() != 1 {
		t.Errorf("%d mints, want the first token to be tried again", w.mints())
	}
}

func TestClocksThatDiffer(t *testing.T) {
	for _, ahead := range []time.Duration{-10 * time.Minute, 10 * time.Minute} {
		t.Run(ahead.String(), func(t *testing.T) {
			w := newWorld(t)
			w.ours = ahead
			_, c := w.client()
			w.must(w.read(c))
			if len(w.warned) != 1 || !strings.Contains(w.warned[0], "clock") {
				t.Errorf("warned: %q", w.warned)
			}
		})
	}
}

func TestLimits(t *testing.T) {
	for name, c := range map[string]struct {
		fault func(w *world) *githubfake.Fault
		waits time.Duration
	}{
		"429 with Retry-After":     {func(*world) *githubfake.Fault { return githubfake.Secondary(429, 7*time.Second) }, 7 * time.Second},
		"403 with Retry-After":     {func(*world) *githubfake.Fault { return githubfake.Secondary(403, 9*time.Second) }, 9 * time.Second},
		"secondary without a time": {func(*world) *githubfake.Fault { return githubfake.Secondary(403, 0) }, time.Minute},
		"primary, 403":             {func(w *world) *githubfake.Fault { return githubfake.Limited(403, w.clock().Add(30*time.Second)) }, 30 * time.Second},
		"primary, 429":             {func(w *world) *githubfake.Fault { return githubfake.Limited(429, w.clock().Add(30*time.Second)) }, 30 * time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			_, client := w.client()
			w.must(w.read(client))
			w.slept = nil
			w.gh.On(githubfake.Times(1, func(r *http.Request) *githubfake.Fault {
				if r.Method != http.MethodPut {
					return nil
				}
				return c.fault(w)
			}))
			w.must(w.write(client, "c"))
			if len(w.slept) == 0 || w.slept[0] < c.waits-2*time.Second || w.slept[0] > c.waits+3*time.Second {
				t.Errorf("waited %v, want %v", w.slept, c.waits)
			}
		})
	}
	w := newWorld(t)
	_, client := w.client()
	w.must(w.read(client))
	w.gh.On(func(*http.Request) *githubfake.Fault { return githubfake.Limited(403, w.clock().Add(50*time.Minute)) })
	begun := w.clock()
	if err := w.read(client); err == nil || w.clock().Sub(begun) > time.Minute {
		t.Errorf("a limit that lasts: %v, after %v", err, w.clock().Sub(begun))
	}
}

func TestLostAnswers(t *testing.T) {
	w := newWorld(t)
	_, c := w.client()
	lose := func(method string, n int64) {
		w.gh.On(githubfake.Times(n, func(r *http.Request) *githubfake.Fault {
			if r.Method != method || strings.HasSuffix(r.URL.Path, "/installation/token") {
				return nil
			}
			return &githubfake.Fault{Status: 502, Do: true}
		}))
	}
	lose(http.MethodPost, 2) // two mints
	w.must(w.read(c))
	lose(http.MethodGet, 2)
	w.must(w.read(c))
	lose(http.MethodPut, 1)
	if err := w.write(c, "d"); err == nil {
		t.Error("a write whose answer was lost was sent again")
	}
}

func TestWritesAreApart(t *testing.T) {
	w := newWorld(t)
	app, c := w.client()
	w.must(w.write(c, "e"))
	w.slept = nil
	w.must(w.write(c, "f"))
	if len(w.slept) != 1 || w.slept[0] < 900*time.Millisecond {
		t.Errorf("between two writes: %v, want a second", w.slept)
	}
	if calls := app.Calls(); calls.Writes != 2 || calls.Tokens != 1 || calls.Reads != 1 {
		t.Errorf("counted %+v", calls)
	}
}

func TestKeys(t *testing.T) {
	w := newWorld(t)
	pem := string(w.app.Key().Reveal())
	for name, text := range map[string]string{
		"PEM": pem, "newlines as \\n": strings.ReplaceAll(pem, "\n", `\n`), "base64": base64.StdEncoding.EncodeToString([]byte(pem)),
		"white space around": "\n " + pem + "\n\n",
	} {
		o := w.options()
		o.Key = secret.FromString(text)
		_, c := w.clientWith(o)
		if err := w.read(c); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	for name, text := range map[string]string{"nothing": "", "words": "canary-key-5512", "no key": strings.Replace(pem, "MII", "XXX", 1)} {
		o := w.options()
		o.Key = secret.FromString(text)
		_, err := githubapp.New(o)
		hint, ok := errors.AsType[interface {
			error
			Hint() string
		}](err)
		if !ok || hint.Hint() == "" || strings.Contains(err.Error(), "canary") {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestRefusals(t *testing.T) {
	for name, c := range map[string]struct {
		change func(*world, *githubapp.Options)
		hint   string
	}{
		"another key":        {func(w *world, o *githubapp.Options) { o.Key = w.gh.AddApp("other", nil).Key() }, "key of this App"},
		"another repository": {func(_ *world, o *githubapp.Options) { o.Repo = "elsewhere" }, "install the App"},
		"a permission that the App lacks": {func(w *world, _ *githubapp.Options) {
			w.gh.On(func(r *http.Request) *githubfake.Fault {
				if !strings.HasSuffix(r.URL.Path, "/access_tokens") {
					return nil
				}
				return &githubfake.Fault{Status: 422, Body: `{"message":"The permissions requested are not granted to this installation."}`}
			})
		}, "contents: write"},
		"suspended": {func(w *world, _ *githubapp.Options) {
			w.gh.On(func(r *http.Request) *githubfake.Fault {
				if !strings.HasSuffix(r.URL.Path, "/access_tokens") {
					return nil
				}
				return &githubfake.Fault{Status: 403, Body: `{"message":"This installation has been suspended"}`}
			})
		}, "suspended"},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			o := w.options()
			c.change(w, &o)
			_, client := w.clientWith(o)
			err := w.read(client)
			hint, ok := errors.AsType[interface {
				error
				Hint() string
			}](err)
			if !ok || !strings.Contains(hint.Hint(), c.hint) {
				t.Errorf("%v, want a hint with %q", err, c.hint)
			}
			w.clean(err)
		})
	}
}

// TestEnterprisePath asks a server whose API has a path.
func TestEnterprisePath(t *testing.T) {
	w := newWorld(t)
	at, err := url.Parse(w.gh.URL)
	w.must(err)
	server := httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		path, ok := strings.CutPrefix(r.URL.Path, "/api/v3")
		if !ok {
			t.Errorf("asked %s", r.URL.Path)
		}
		next := r.Clone(r.Context())
		next.URL.Path, next.URL.Host, next.URL.Scheme, next.RequestURI = path, at.Host, at.Scheme, ""
		resp, err := http.DefaultTransport.RoundTrip(next)
		if err != nil {
			t.Error(err)
			return
		}
		defer resp.Body.Close()
		rw.WriteHeader(resp.StatusCode)
		b := make([]byte, 1<<16)
		for {
			n, err := resp.Body.Read(b)
			_, _ = rw.Write(b[:n])
			if err != nil {
				return
			}
		}
	}))
	defer server.Close()
	o := w.options()
	o.API = server.URL + "/api/v3"
	_, c := w.clientWith(o)
	w.must(w.read(c))
}

func TestPlainToken(t *testing.T) {
	w := newWorld(t)
	w.gh.AddUser("alice", "write")
	o := w.options()
	o.App, o.Key, o.Token = 0, secret.Value{}, w.gh.Token("alice")
	app, c := w.clientWith(o)
	w.must(w.read(c))
	w.must(app.Close(t.Context()))
	w.must(w.read(c)) // it is not ours to end
	if len(w.masked) != 1 {
		t.Errorf("%d values were masked, want the token", len(w.masked))
	}
	o.Token = secret.Value{}
	if _, err := githubapp.New(o); err == nil {
		t.Error("GitHub is asked as nobody")
	}
}
