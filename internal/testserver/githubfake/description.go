package githubfake

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/santhosh-tekuri/jsonschema/v6"

	"github.com/keyturn/keyturn/internal/testserver"
)

// A description is GitHub's own of its API (OpenAPI 3.0), which every request and
// every answer of the fake is held against.
type description struct {
	operations []operation

	mu       sync.Mutex
	compiler *jsonschema.Compiler
	compiled map[string]*jsonschema.Schema
}

// An operation is a method of a path.
type operation struct {
	method  string
	path    *regexp.Regexp
	words   int // of its own, in the path
	pointer string
	node    map[string]any
}

const descriptionURL = "https://github.example/api.json"

// described reads the description once for all servers of a process.
var described = sync.OnceValues(func() (*description, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 3*time.Minute)
	defer cancel()
	dir, err := testserver.FetchNPM(ctx, "tools/openapi", "openapi", nil)
	if err != nil {
		return nil, fmt.Errorf("fetching GitHub's description of its API: %w", err)
	}
	text, err := os.ReadFile(filepath.Join(dir, "node_modules", "@octokit", "openapi", "generated", "api.github.com.json"))
	if err != nil {
		return nil, err
	}
	return newDescription(text)
})

// describe holds a server against the description. Where it cannot be fetched, a
// test fails in CI, and elsewhere goes on without.
func (s *Server) describe(t testing.TB) {
	d, err := described()
	switch {
	case err == nil:
		s.description = d
	case errors.Is(err, testserver.ErrMissing) && os.Getenv("CI") != "true":
		t.Logf("githubfake: not held against GitHub's description: %v", err)
	default:
		t.Fatalf("githubfake: %v", err)
	}
}

func newDescription(text []byte) (*description, error) {
	var doc map[string]any
	if err := json.Unmarshal(text, &doc); err != nil {
		return nil, err
	}
	paths, _ := doc["paths"].(map[string]any)
	d := &description{compiled: map[string]*jsonschema.Schema{}, compiler: jsonschema.NewCompiler()}
	for path, item := range paths {
		methods, _ := item.(map[string]any)
		for method, node := range methods {
			op, ok := node.(map[string]any)
			if !ok || !slices.Contains([]string{"get", "put", "post", "patch", "delete"}, method) {
				continue
			}
			expr, words := expression(path)
			d.operations = append(d.operations, operation{strings.ToUpper(method), expr, words, "/paths/" + escaped(path) + "/" + method, op})
		}
	}
	if len(d.operations) < 500 {
		return nil, fmt.Errorf("the description has %d operations: it is another one", len(d.operations))
	}
	d.compiler.DefaultDraft(jsonschema.Draft7)
	return d, d.compiler.AddResource(descriptionURL, schematic(doc))
}

var parameter = regexp.MustCompile(`\\\{[a-z_]+\\\}`)

// expression is a path as an expression. A reference and a file's path may have
// slashes, which the description cannot say.
func expression(path string) (*regexp.Regexp, int) {
	quoted := regexp.QuoteMeta(path)
	words := len(strings.Split(path, "/")) - strings.Count(path, "{")
	expr := parameter.ReplaceAllStringFunc(quoted, func(p string) string {
		if (p == `\{ref\}` || p == `\{path\}`) && strings.HasSuffix(quoted, p) {
			return "(.+)"
		}
		return "([^/]+)"
	})
	return regexp.MustCompile("^" + expr + "$"), words
}

func escaped(s string) string { return strings.ReplaceAll(strings.ReplaceAll(s, "~", "~0"), "/", "~1") }

// schematic makes JSON Schema of OpenAPI's dialect: null is a type there.
func schematic(node any) any {
	switch n := node.(type) {
	case []any:
		for i := range n {
			n[i] = schematic(n[i])
		}
	case map[string]any:
		for _, word := range []string{"discriminator", "xml", "example", "examples", "x-github", "externalDocs", "deprecated", "pattern", "format"} {
			if _, named := n[word].(map[string]any); named && word != "x-github" && word != "discriminator" && word != "externalDocs" && word != "xml" && n["type"] == nil && n["$ref"] == nil {
				continue // it is the name of a property
			}
			delete(n, word)
		}
		for k := range n {
			n[k] = schematic(n[k])
		}
		if n["nullable"] == true {
			delete(n, "nullable")
			return map[string]any{"anyOf": []any{n, map[string]any{"type": "null"}}}
		}
	}
	return node
}

// find returns the operation of a request: the one with the most words of its own.
func (d *description) find(method, path string) (operation, bool) {
	best, found := operation{}, false
	for _, op := range d.operations {
		if op.method == method && (!found || op.words > best.words) && op.path.MatchString(path) {
			best, found = op, true
		}
	}
	return best, found
}

// schema compiles what a pointer names; nil if there is nothing.
func (d *description) schema(pointer string) (*jsonschema.Schema, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if s, ok := d.compiled[pointer]; ok {
		return s, nil
	}
	s, err := d.compiler.Compile(descriptionURL + "#" + pointer)
	if err == nil {
		d.compiled[pointer] = s
	}
	return s, err
}

func dig(node any, names ...string) any {
	for _, name := range names {
		m, ok := node.(map[string]any)
		if !ok {
			return nil
		}
		node = m[name]
	}
	return node
}

// undocumented are members that GitHub takes and its description does not name.
var undocumented = map[string][]string{"PUT /environments/": {"can_admins_bypass"}}

// request says what is wrong with the body of a request.
func (d *description) request(op operation, path string, body []byte) error {
	has := dig(op.node, "requestBody", "content", "application/json", "schema")
	if has == nil {
		if len(bytes.TrimSpace(body)) > 0 && string(bytes.TrimSpace(body)) != "null" {
			return errors.New("the call takes no body")
		}
		return nil
	}
	if len(bytes.TrimSpace(body)) == 0 || string(bytes.TrimSpace(body)) == "null" {
		if dig(op.node, "requestBody", "required") == true {
			return errors.New("there is no body")
		}
		return nil
	}
	value, err := jsonschema.UnmarshalJSON(bytes.NewReader(body))
	if err != nil {
		return err
	}
	// The description lets unknown members pass: a mistake in a name would not be seen.
	members, _ := value.(map[string]any)
	known, closed := dig(has, "properties").(map[string]any)
	for name := range members {
		switch {
		case tolerated(op.method, path, name):
			delete(members, name)
		case closed && known[name] == nil:
			return fmt.Errorf("GitHub knows no member %q of this body", name)
		}
	}
	return d.valid(op.pointer+"/requestBody/content/application~1json/schema", value)
}

func tolerated(method, path, name string) bool {
	for at, names := range undocumented {
		m, part, _ := strings.Cut(at, " ")
		if m == method && strings.Contains(path, part) && slices.Contains(names, name) {
			return true
		}
	}
	return false
}

func (d *description) valid(pointer string, value any) error {
	s, err := d.schema(pointer)
	if err != nil {
		return err
	}
	return s.Validate(value)
}

// answer says what is wrong with an answer.
func (d *description) answer(op operation, status int, body []byte) error {
	code := fmt.Sprint(status)
	response := dig(op.node, "responses", code)
	pointer := op.pointer + "/responses/" + code
	if response == nil {
		if status < 300 {
			return fmt.Errorf("GitHub never answers %d here", status)
		}
		return nil // failures are described for few calls
	}
	if ref, ok := dig(response, "$ref").(string); ok {
		pointer = strings.TrimPrefix(ref, "#")
		return d.answered(pointer, body, status)
	}
	if dig(response, "content", "application/json", "schema") == nil {
		return nil
	}
	return d.answered(pointer, body, status)
}

func (d *description) answered(pointer string, body []byte, status int) error {
	if status >= 400 || len(bytes.TrimSpace(body)) == 0 {
		return nil
	}
	value, err := jsonschema.UnmarshalJSON(bytes.NewReader(body))
	if err != nil {
		return err
	}
	return d.valid(pointer+"/content/application~1json/schema", value)
}

// first reports whether something is said for the first time.
func (s *Server) first(what string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.said[what] {
		return false
	}
	s.said[what] = true
	return true
}

// held does a call, and fails the test if the request or the answer is not as
// GitHub describes them.
func (s *Server) held(w http.ResponseWriter, r *http.Request, body []byte, do http.HandlerFunc) {
	op, known := s.description.find(r.Method, r.URL.EscapedPath())
	if !known {
		s.t.Errorf("githubfake: %s %s is no call that GitHub describes", r.Method, r.URL.Path)
		do(w, r)
		return
	}
	if err := s.description.request(op, r.URL.Path, body); err != nil && s.first("request "+op.pointer) {
		s.t.Errorf("githubfake: the request %s %s is not as GitHub describes it: %v\n%s", r.Method, r.URL.Path, err, body)
	}
	rec := httptest.NewRecorder()
	do(rec, r)
	if err := s.description.answer(op, rec.Code, rec.Body.Bytes()); err != nil && s.first("answer "+op.pointer) {
		s.t.Errorf("githubfake: the answer %d to %s %s is not as GitHub describes it: %v\n%.600s", rec.Code, r.Method, r.URL.Path, err, rec.Body.Bytes())
	}
	for name, values := range rec.Header() {
		w.Header()[name] = values
	}
	w.WriteHeader(rec.Code)
	_, _ = w.Write(rec.Body.Bytes())
}
