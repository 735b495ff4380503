package githubfake

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"
)

// web is where people would see what the API tells of. Nothing asks there.
const web = "https://github.com"

const documentation = "https://docs.github.com/rest"

type object = map[string]any

// A failure is an answer that refuses.
type failure struct {
	status  int
	message string
	errors  []any
	header  map[string]string
}

func (f *failure) Error() string { return fmt.Sprintf("%d %s", f.status, f.message) }

func (f *failure) body() object {
	o := object{"message": f.message, "documentation_url": documentation, "status": fmt.Sprint(f.status)}
	if f.errors != nil {
		o["errors"] = f.errors
	}
	return o
}

func refuse(status int, format string, args ...any) *failure {
	return &failure{status: status, message: fmt.Sprintf(format, args...)}
}

func notFound() *failure { return refuse(http.StatusNotFound, "Not Found") }

// invalid is the refusal of one field of a body, as GitHub tells it: "missing",
// "missing_field", "invalid", "already_exists", "unprocessable" or "custom".
func invalid(resource, field, code, message string) *failure {
	e := object{"resource": resource, "field": field, "code": code}
	if message != "" {
		e["message"] = message
	}
	return &failure{status: http.StatusUnprocessableEntity, message: "Validation Failed", errors: []any{e}}
}

// inaccessible refuses an App's token that lacks a permission.
func inaccessible(permission string) *failure {
	f := refuse(http.StatusForbidden, "Resource not accessible by integration")
	if permission != "" {
		f.header = map[string]string{"X-Accepted-GitHub-Permissions": permission}
	}
	return f
}

// raw is an answer that is not JSON.
type raw struct {
	kind string
	text []byte
}

func answer(w http.ResponseWriter, status int, body any, err error) {
	var f *failure
	if errors.As(err, &f) {
		status, body = f.status, f.body()
		for name, value := range f.header {
			w.Header().Set(name, value)
		}
	}
	if r, ok := body.(raw); ok {
		w.Header().Set("Content-Type", r.kind)
		w.WriteHeader(status)
		_, _ = w.Write(r.text)
		return
	}
	if body == nil || status == http.StatusNoContent {
		w.WriteHeader(status)
		return
	}
	w.Header().Set("Content-Type", "application/json; charset=utf-8")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(body) // the client is gone
}

// date shows a time as the API does, or null for none.
func date(t time.Time) any {
	if t.IsZero() {
		return nil
	}
	return t.UTC().Format(time.RFC3339)
}

// node is the id of a thing in the other API.
func node(kind string, id any) string {
	return kind + "_" + strings.TrimRight(base64.URLEncoding.EncodeToString(fmt.Append(nil, id)), "=")
}

// nullable is null for an empty text.
func nullable(s string) any {
	if s == "" {
		return nil
	}
	return s
}
