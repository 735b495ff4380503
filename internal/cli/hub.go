package cli

import (
	"cmp"
	"context"
	"fmt"
	"net"
	"net/http"
	"strings"
	"time"

	"github.com/google/go-github/v60/github"

	"github.com/keyturn/keyturn/internal/config"
	"github.com/keyturn/keyturn/internal/githubapp"
	"github.com/keyturn/keyturn/internal/secret"
)

// hub is GitHub, as this run may use it.
type hub struct {
	*githubapp.App
	owner, repo string
}

func (h *hub) String() string { return h.owner + "/" + h.repo }

// onGitHub returns GitHub, as whom the inputs, the configuration or the environment
// say. It asks nothing yet.
func (a *app) onGitHub(cfg *config.Config) (*hub, error) {
	if a.hub != nil {
		return a.hub, nil
	}
	section := config.GitHub{}
	if cfg.GitHub != nil {
		section = *cfg.GitHub
	}
	name := cmp.Or(section.Repository, a.Getenv("GITHUB_REPOSITORY"))
	owner, repo, ok := strings.Cut(name, "/")
	if !ok {
		return nil, usagef("write: github: {repository: acme/orders}", "nothing says which repository on GitHub is meant: neither github.repository nor GITHUB_REPOSITORY")
	}
	o := a.hubOptions(owner, repo)
	if err := a.identify(&o, section); err != nil {
		return nil, err
	}
	made, err := githubapp.New(o)
	if err != nil {
		return nil, &usageError{err: err, hint: hintOf(err)}
	}
	a.hub = &hub{made, owner, repo}
	return a.hub, nil
}

// asking returns GitHub with the given permissions.
func (a *app) asking(cfg *config.Config, may github.InstallationPermissions) (*githubapp.Client, error) {
	h, err := a.onGitHub(cfg)
	if err != nil {
		return nil, err
	}
	return h.Client(may), nil
}

// starter is who started this attempt of the run, by the job's environment.
func (a *app) starter() string {
	return cmp.Or(a.Getenv("GITHUB_TRIGGERING_ACTOR"), a.Getenv("GITHUB_ACTOR"))
}

func (a *app) hubOptions(owner, repo string) githubapp.Options {
	o := githubapp.Options{API: a.Getenv("GITHUB_API_URL"), Owner: owner, Repo: repo, Mask: a.maskValue, Between: a.Between, Now: a.Now,
		Warn: func(text string) { a.notef("%s", text) }}
	if a.urgent { // a GitHub that hangs costs seconds, not minutes
		t := http.DefaultTransport.(*http.Transport).Clone()
		t.DialContext = (&net.Dialer{Timeout: urgentTime}).DialContext
		t.TLSHandshakeTimeout, t.ResponseHeaderTimeout = urgentTime, urgentTime
		o.Transport, o.MaxWait = t, urgentTime
	}
	return o
}

// urgentTime bounds each part of a request where it must go on without GitHub.
const urgentTime = 5 * time.Second

// borrow returns GitHub for a repository of a credential's, as whom its own section
// says, or else as whom the run asks. It asks nothing yet.
func (a *app) borrow(owner, repo string, as config.GitHub) (*githubapp.App, error) {
	o := a.hubOptions(owner, repo)
	var err error
	switch {
	case as.App != nil:
		o.App = int64(as.App.ID)
		o.Key, err = as.App.Key.Read(a.Getenv)
	case !as.Token.IsZero():
		o.Token, err = as.Token.Read(a.Getenv)
	case a.cfg != nil && a.cfg.GitHub != nil:
		err = a.identify(&o, *a.cfg.GitHub)
	default:
		err = a.identify(&o, config.GitHub{})
	}
	if err != nil {
		return nil, &usageError{err: fmt.Errorf("asking GitHub about %s/%s: %w", owner, repo, err), hint: hintOf(err)}
	}
	made, err := githubapp.New(o)
	if err != nil {
		return nil, &usageError{err: err, hint: hintOf(err)}
	}
	a.borrowed = append(a.borrowed, made)
	return made, nil
}

// identify says as whom GitHub is asked: an App before a token, an input before
// the configuration, and that before the environment.
func (a *app) identify(o *githubapp.Options, section config.GitHub) error {
	app := section.App
	if a.step != nil {
		given, err := a.appInputs()
		if err != nil {
			return err
		}
		app = cmp.Or(given, app)
	}
	if app != nil {
		key, err := app.Key.Read(a.Getenv)
		if err != nil {
			return &usageError{err: fmt.Errorf("reading the key of the GitHub App: %w", err), hint: "put the whole PEM text there"}
		}
		o.App, o.Key = int64(app.ID), key
		return nil
	}
	places := []secret.Source{section.Token}
	if a.step != nil {
		places = append([]secret.Source{{Env: inputVariable(inputToken)}}, places...)
	}
	places = append(places, secret.Source{Env: "GITHUB_TOKEN"}, secret.Source{Env: "GH_TOKEN"})
	for _, place := range places {
		if v, err := place.Read(a.Getenv); err == nil {
			o.Token = v
			return nil
		}
	}
	return usagef("write: github: {app: {id: 123456, key: {from-env: KEYTURN_APP_KEY}}}; or set GITHUB_TOKEN",
		"nothing says as whom GitHub is asked: there is neither an App nor a token")
}

// appInputs returns the App that the inputs of the action name; nil if they name none.
func (a *app) appInputs() (*config.App, error) {
	id := a.step.Input(inputAppID)
	if id == "" && a.step.Input(inputAppKey) == "" {
		return nil, nil
	}
	var number uint64
	if _, err := fmt.Sscanf(id, "%d", &number); err != nil || fmt.Sprint(number) != id {
		return nil, usagef("it is the number on the App's page of settings", "input app-id: %q is no number of an App", id)
	}
	return &config.App{ID: number, Key: secret.Source{Env: inputVariable(inputAppKey)}}, nil
}

// inputVariable is where the runner puts an input.
func inputVariable(name string) string { return "INPUT_" + strings.ToUpper(name) }

// maskValue lets the runner hide a value from now on.
func (a *app) maskValue(v secret.Value) {
	if a.step != nil {
		a.step.Mask(v)
	}
}

// leave gives back what GitHub lent: every token that was made in this run. It is
// done at the end of every run, however it ends.
func (a *app) leave(ctx context.Context) {
	lent := a.borrowed
	if a.hub != nil {
		lent = append(lent, a.hub.App)
	}
	a.hub, a.borrowed = nil, nil
	for _, app := range lent {
		calls := app.Calls()
		a.measured.requests = map[string]int{"reads": a.measured.requests["reads"] + calls.Reads,
			"writes": a.measured.requests["writes"] + calls.Writes, "tokens": a.measured.requests["tokens"] + calls.Tokens}
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 3*time.Second)
	defer cancel()
	for _, app := range lent {
		if err := app.Close(ctx); err != nil {
			a.notef("a token of GitHub could not be given back, and ends by itself within an hour: %v", err)
		}
	}
}

// The permissions that a run asks for, and no more: one set for those who look,
// one for a phase, which records and mirrors what it does.
var (
	mayRead = github.InstallationPermissions{Contents: github.String("read")}
	mayWork = github.InstallationPermissions{Contents: github.String("write"), Issues: github.String("write"),
		Statuses: github.String("write"), Actions: github.String("read")}
)
