package actionsecrets_test

import (
	"context"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/keyturn/keyturn/internal/githubapp"
	"github.com/keyturn/keyturn/internal/rotation"
	"github.com/keyturn/keyturn/internal/secret"
	"github.com/keyturn/keyturn/internal/target/actionsecrets"
	"github.com/keyturn/keyturn/internal/testserver/githubfake"
)

const credential = "orders-db"

type fixture struct {
	*testing.T
	gh  *githubfake.Server
	app *githubfake.App
	now time.Time
}

func newFixture(t *testing.T, permissions map[string]string) *fixture {
	f := &fixture{T: t, now: time.Date(2026, 11, 25, 12, 0, 0, 0, time.UTC)}
	f.gh = githubfake.Start(t, githubfake.Options{Now: func() time.Time { return f.now }})
	f.app = f.gh.AddApp("keyturn", permissions)
	return f
}

func (f *fixture) must(err error) {
	f.Helper()
	if err != nil {
		f.Fatal(err)
	}
}

func (f *fixture) target(p actionsecrets.Place) *actionsecrets.Target {
	f.Helper()
	app, err := githubapp.New(githubapp.Options{API: f.gh.URL, Owner: f.gh.Owner, Repo: f.gh.Name, App: f.app.ID, Key: f.app.Key(), Between: -1,
		Now: func() time.Time { return f.now }, Sleep: func(ctx context.Context, _ time.Duration) error { return ctx.Err() }})
	f.must(err)
	p.Owner, p.Repo = f.gh.Owner, f.gh.Name
	t, err := actionsecrets.New(actionsecrets.Options{Place: p, App: app, Names: map[string]map[string]string{credential: {"password": "DB_PASSWORD", "username": "DB_USER"}}})
	f.must(err)
	return t
}

func material(password string) rotation.Material {
	return rotation.Material{"username": secret.FromString("orders_a"), "password": secret.FromString(password), "host": secret.FromString("db")}
}

func version(n int) rotation.Version {
	return rotation.Version{Credential: credential, Number: n, State: rotation.Pending}
}

// TestPut overwrites the secrets of every place, twice.
func TestPut(t *testing.T) {
	for _, tt := range []struct {
		place       actionsecrets.Place
		owner, kind string
		permission  string
	}{
		{actionsecrets.Place{}, "octo/shop", "actions", "secrets"},
		{actionsecrets.Place{Environment: "prod/eu"}, "octo/shop", "environment prod/eu", "environments"},
		{actionsecrets.Place{Dependabot: true}, "octo/shop", "dependabot", "dependabot_secrets"},
		{actionsecrets.Place{Organization: "octo"}, "octo", "actions", "organization_secrets"},
		{actionsecrets.Place{Organization: "octo", Dependabot: true}, "octo", "dependabot", "organization_dependabot_secrets"},
	} {
		t.Run(tt.place.String(), func(t *testing.T) {
			f := newFixture(t, map[string]string{tt.permission: "write"})
			f.gh.SetEnvironment("prod/eu", githubfake.Environment{})
			if tt.place.Organization != "" {
				f.gh.SetSecret("octo", tt.kind, "DB_PASSWORD", "placeholder")
				f.gh.SetSecret("octo", tt.kind, "DB_USER", "placeholder")
			}
			target := f.target(tt.place)
			f.must(target.Preflight(t.Context(), rotation.Credential{Name: credential}))
			var versions []rotation.Version
			for n := 1; n <= 2; n++ {
				f.now = f.now.Add(time.Minute)
				v, err := target.Put(t.Context(), version(n), material(fmt.Sprintf("canary-%d\n", n)))
				f.must(err)
				versions = append(versions, v)
				for name, want := range map[string]string{"DB_PASSWORD": fmt.Sprintf("canary-%d\n", n), "DB_USER": "orders_a"} {
					if got, _ := f.gh.Secret(tt.owner, tt.kind, name); got != want {
						t.Errorf("%s is %q, want %q", name, got, want)
					}
				}
			}
			want := rotation.Object{Name: "DB_PASSWORD", ID: "2026-11-25T12:02:00Z"}
			if d := cmp.Diff(want, versions[1].Objects["password"]); d != "" {
				t.Errorf("the object (-want +got):\n%s", d)
			}
			for i, complete := range []bool{false, true} {
				if h, err := target.Observe(t.Context(), versions[i]); err != nil || h.Complete != complete || (len(h.Objects) == 2) != complete {
					t.Errorf("Observe of version %d = %+v, %v, want complete: %t", i+1, h, err, complete)
				}
			}
			// Somebody changes one by hand.
			f.now = f.now.Add(time.Minute)
			f.gh.SetSecret(tt.owner, tt.kind, "DB_USER", "root")
			if h, err := target.Observe(t.Context(), versions[1]); err != nil || h.Complete {
				t.Errorf("Observe = %+v, %v, want that one was changed", h, err)
			}
			if h, err := target.Observe(t.Context(), version(3)); err != nil || h.Complete || len(h.Objects) > 0 {
				t.Errorf("Observe of one that was never put = %+v, %v", h, err)
			}
		})
	}
}

// TestPutAgain puts the same value again when an answer was lost, and gives up when
// GitHub does not come back, or refuses.
func TestPutAgain(t *testing.T) {
	put := func(r *http.Request) bool { return r.Method == http.MethodPut }
	for _, tt := range []struct {
		name  string
		fault githubfake.Fault
		times int64
		class rotation.Class
		ok    bool
	}{
		{"an answer is lost", githubfake.Fault{Do: true, Lose: true}, 1, 0, true},
		{"two are lost before it is done", githubfake.Fault{Lose: true}, 2, 0, true},
		{"GitHub stays away", githubfake.Fault{Status: http.StatusBadGateway}, 9, rotation.Unknown, false},
		{"GitHub refuses", githubfake.Fault{Status: http.StatusForbidden}, 9, rotation.Failed, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			f := newFixture(t, map[string]string{"secrets": "write"})
			f.gh.On(githubfake.Times(tt.times, func(r *http.Request) *githubfake.Fault {
				if !put(r) {
					return nil
				}
				made := tt.fault
				return &made
			}))
			_, err := f.target(actionsecrets.Place{}).Put(t.Context(), version(1), material("canary-1"))
			if tt.ok != (err == nil) || err != nil && rotation.ClassOf(err) != tt.class {
				t.Errorf("Put = %v of class %d, want success: %t", err, rotation.ClassOf(err), tt.ok)
			}
			if err != nil && strings.Contains(err.Error(), "canary") {
				t.Errorf("the error holds a value: %v", err)
			}
			if got, _ := f.gh.Secret("octo/shop", "actions", "DB_PASSWORD"); (got == "canary-1") != tt.ok {
				t.Errorf("the secret is %q", got)
			}
		})
	}
}

// TestReaders keeps an organisation's secret to those who may read it.
func TestReaders(t *testing.T) {
	for _, tt := range []struct {
		name         string
		selected     []string
		repositories []string
		want         string
	}{
		{"as they were", []string{"octo/shop", "octo/other"}, []string{"octo/other", "Octo/Shop"}, ""},
		{"one is not told of", []string{"octo/shop", "octo/other"}, []string{"octo/shop"}, "octo/other may read DB_PASSWORD"},
		{"one cannot be seen", []string{"octo/shop"}, []string{"octo/shop", "octo/other"}, "octo/other is under repositories, and cannot be seen"},
		{"none is told of", []string{"octo/shop"}, nil, "octo/shop may read DB_PASSWORD"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			f := newFixture(t, map[string]string{"organization_secrets": "write"})
			repos := map[string]*githubfake.Repo{"octo/shop": f.gh.Repo, "octo/other": f.gh.AddRepo("octo/other")}
			var chosen []*githubfake.Repo
			for _, name := range tt.selected {
				chosen = append(chosen, repos[name])
			}
			for _, name := range []string{"DB_PASSWORD", "DB_USER"} {
				f.gh.SetSecret("octo", "actions", name, "placeholder", chosen...)
			}
			target := f.target(actionsecrets.Place{Organization: "octo", Repositories: tt.repositories})
			err := target.Preflight(t.Context(), rotation.Credential{Name: credential})
			if tt.want != "" {
				if rotation.ClassOf(err) != rotation.Refused || err == nil || !strings.Contains(err.Error(), tt.want) {
					t.Errorf("Preflight = %v, want a refusal: %q", err, tt.want)
				}
				if _, err := target.Put(t.Context(), version(1), material("canary-1")); err == nil {
					t.Errorf("Put goes on all the same")
				}
				return
			}
			f.must(err)
			_, err = target.Put(t.Context(), version(1), material("canary-1"))
			f.must(err)
			if value, ids := f.gh.Secret("octo", "actions", "DB_PASSWORD"); value != "canary-1" || len(ids) != len(tt.selected) {
				t.Errorf("the secret is %q for the repositories %v", value, ids)
			}
		})
	}
}

// TestPreflight is refused for what would make the cutover fail.
func TestPreflight(t *testing.T) {
	for _, tt := range []struct {
		name       string
		place      actionsecrets.Place
		permission string
		want, hint string
	}{
		{"the App lacks the right", actionsecrets.Place{}, "issues", "lacks secrets: write", "Permissions & events"},
		{"no such environment", actionsecrets.Place{Environment: "prod"}, "environments", "404", "may not see it"},
		{"the organisation has no such secret", actionsecrets.Place{Organization: "octo"}, "organization_secrets", "has no secret DB_PASSWORD", "make it once"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			f := newFixture(t, map[string]string{tt.permission: "write"})
			err := f.target(tt.place).Preflight(t.Context(), rotation.Credential{Name: credential})
			if err == nil || !strings.Contains(err.Error(), tt.want) || !strings.Contains(rotation.HintOf(err), tt.hint) {
				t.Errorf("Preflight = %v (%s), want %q (%s)", err, rotation.HintOf(err), tt.want, tt.hint)
			}
		})
	}
}

// TestPutRefusesWhatIsNotWhole overwrites nothing if a field is missing or too large.
func TestPutRefusesWhatIsNotWhole(t *testing.T) {
	f := newFixture(t, map[string]string{"secrets": "write"})
	target := f.target(actionsecrets.Place{})
	for _, m := range []rotation.Material{{"password": secret.FromString("x")}, material(strings.Repeat("x", 48<<10+1)), material("")} {
		if _, err := target.Put(t.Context(), version(1), m); rotation.ClassOf(err) != rotation.Invalid {
			t.Errorf("Put = %v, want that it is invalid", err)
		}
	}
	if n := len(f.gh.Calls()); n != 0 {
		t.Errorf("%d calls were made", n)
	}
}
