package githubapp

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/bradleyfalzon/ghinstallation/v2"
	"github.com/google/go-github/v60/github"
)

// A statusError is a refusal of GitHub, without the request that it answers.
type statusError struct {
	status  int
	message string
	limited bool // it is asked too often
}

func (e *statusError) Error() string {
	text := fmt.Sprintf("GitHub answered %d %s", e.status, http.StatusText(e.status))
	if e.message != "" {
		text += ": " + e.message
	}
	return text
}

// refusal is an answer that refuses.
func refusal(resp *http.Response) *statusError {
	_, limited := limit(resp, time.Now())
	return &statusError{resp.StatusCode, message(peek(resp)), limited}
}

// message returns what an answer of GitHub says in words.
func message(body string) string {
	var answer struct {
		Message string `json:"message"`
	}
	_ = json.Unmarshal([]byte(body), &answer) // what is no JSON says nothing
	return answer.Message
}

// plain returns the error of a mint without the request that the library keeps in it.
func plain(err error) (status int, _ error) {
	var failed *ghinstallation.HTTPError
	if !errors.As(err, &failed) {
		var refused *statusError
		if errors.As(err, &refused) {
			return refused.status, refused
		}
		return 0, err
	}
	if failed.Response == nil {
		return 0, failed.RootCause
	}
	refused := refusal(failed.Response)
	drain(failed.Response)
	return refused.status, refused
}

const wrongKey = "is the key of this App, and does its page of settings still list it? The number of the App stands there, too"

// uninstalled explains why the installation of the App was not found.
func (a *App) uninstalled(err error) error {
	status, err := plain(err)
	hint := ""
	switch status {
	case http.StatusUnauthorized:
		hint = wrongKey
	case http.StatusNotFound:
		hint = fmt.Sprintf("install the App on %s/%s: its page of settings, Install App", a.o.Owner, a.o.Repo)
	}
	return hintf(hint, "looking for the installation of App %d on %s/%s: %w", a.o.App, a.o.Owner, a.o.Repo, err)
}

// unminted explains why there is no token.
func (a *App) unminted(err error, p github.InstallationPermissions) error {
	return a.unmintedWith(err, permissionWords(p))
}

func (a *App) unmintedWith(err error, permissions string) error {
	status, err := plain(err)
	hint := ""
	switch status {
	case http.StatusUnauthorized:
		hint = wrongKey
	case http.StatusForbidden:
		hint = "is the installation suspended? See the settings of the organisation: GitHub Apps"
	case http.StatusNotFound:
		hint = fmt.Sprintf("install the App on %s/%s again: the installation is gone", a.o.Owner, a.o.Repo)
	case http.StatusUnprocessableEntity:
		hint = "grant the App what it lacks of: " + permissions + " (its page of settings, Permissions & events), have the organisation accept it, and see that the App may use this repository"
	}
	return hintf(hint, "asking for a token of App %d: %w", a.o.App, err)
}

// permissionWords lists permissions as GitHub's page of settings calls them.
func permissionWords(p github.InstallationPermissions) string {
	b, err := json.Marshal(p)
	var all map[string]string
	if err != nil || json.Unmarshal(b, &all) != nil {
		return ""
	}
	return words(all)
}

func words(permissions map[string]string) string {
	var out []string
	for name, level := range permissions {
		out = append(out, strings.ReplaceAll(name, "_", " ")+": "+level)
	}
	slices.Sort(out)
	return strings.Join(out, ", ")
}

// StatusOf returns the status of an answer of GitHub in a tree of errors; 0 if there
// is none.
func StatusOf(err error) int {
	var refused *github.ErrorResponse
	if errors.As(err, &refused) && refused.Response != nil {
		return refused.Response.StatusCode
	}
	return 0
}

// Missing reports whether GitHub answered that something is not there, or may not
// be seen.
func Missing(err error) bool { return StatusOf(err) == http.StatusNotFound }

// Hint says what to do about an answer of GitHub in a tree of errors: which
// permission is missing, or that the repository cannot be seen; "" if nothing is known.
func Hint(err error) string {
	var refused *github.ErrorResponse
	if !errors.As(err, &refused) || refused.Response == nil {
		var limited *github.RateLimitError
		var abuse *github.AbuseRateLimitError
		if errors.As(err, &limited) || errors.As(err, &abuse) {
			return "GitHub limits how often it is asked; run it again later"
		}
		if known, ok := errors.AsType[*hinted](err); ok { // there is no token
			return known.hint
		}
		return ""
	}
	accepted := refused.Response.Header.Get("X-Accepted-GitHub-Permissions")
	needs := strings.ReplaceAll(strings.ReplaceAll(accepted, "=", ": "), "_", " ")
	switch refused.Response.StatusCode {
	case http.StatusUnauthorized:
		return "the token is refused: it has ended, was revoked, or is not of this server"
	case http.StatusForbidden, http.StatusNotFound:
		switch {
		case needs != "":
			return "it needs the permission " + needs + ": grant it to the App (its page of settings, Permissions & events), or to the job (permissions:)"
		case refused.Response.StatusCode == http.StatusNotFound:
			return "GitHub also answers so if the App or the token may not see it"
		}
		return "the App or the token may not do this: see permissions: of the job, or the App's page of settings"
	case http.StatusTooManyRequests:
		return "GitHub limits how often it is asked; run it again later"
	}
	if refused.Response.StatusCode >= http.StatusInternalServerError {
		return "GitHub has a failure of its own: see https://www.githubstatus.com, and run it again later"
	}
	return ""
}

// Unanswered reports whether an error of GitHub says nothing about what is true: there
// was no answer, or that of a GitHub that fails or limits how often it is asked.
func Unanswered(err error) bool {
	if refused, ok := errors.AsType[*github.ErrorResponse](err); ok && refused.Response != nil {
		return refused.Response.StatusCode >= http.StatusInternalServerError || refused.Response.StatusCode == http.StatusTooManyRequests
	}
	if refused, ok := errors.AsType[*statusError](err); ok {
		return refused.limited || refused.status >= http.StatusInternalServerError || refused.status == http.StatusTooManyRequests
	}
	return err != nil
}
