package githubfake

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/vektah/gqlparser/v2"
	"github.com/vektah/gqlparser/v2/ast"
	"github.com/vektah/gqlparser/v2/parser"
	"github.com/vektah/gqlparser/v2/validator"
	"github.com/vektah/gqlparser/v2/validator/rules"

	"github.com/keyturn/keyturn/internal/testserver"
)

// graph reads GitHub's own schema of its GraphQL API once for all servers of a process.
var graph = sync.OnceValues(func() (*ast.Schema, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 3*time.Minute)
	defer cancel()
	dir, err := testserver.FetchNPM(ctx, "tools/openapi", "openapi", nil)
	if err != nil {
		return nil, fmt.Errorf("fetching GitHub's GraphQL schema: %w", err)
	}
	text, err := os.ReadFile(filepath.Join(dir, "node_modules", "@octokit", "graphql-schema", "schema.graphql"))
	if err != nil {
		return nil, err
	}
	doc, err := parser.ParseSchemas(validator.Prelude, &ast.Source{Name: "schema.graphql", Input: string(text)})
	if err != nil {
		return nil, err
	}
	for _, d := range doc.Definitions { // GitHub's own has fields that stand there twice
		seen := map[string]bool{}
		d.Fields = slices.DeleteFunc(d.Fields, func(f *ast.FieldDefinition) bool {
			twice := seen[f.Name]
			seen[f.Name] = true
			return twice
		})
	}
	return validator.ValidateSchemaDocument(doc)
})

// A question is the body of a GraphQL request.
type question struct {
	Query     string         `json:"query"`
	Variables map[string]any `json:"variables"`
}

// graphql answers a query, which is held against GitHub's schema. It knows of the
// repository and its pull requests what Keyturn asks.
func (s *Server) graphql(w http.ResponseWriter, r *http.Request) {
	s.handle(w, r, route{status: http.StatusOK, do: func(c *call) (any, error) {
		q, err := decode[question](c)
		if err != nil {
			return nil, err
		}
		schema, err := graph()
		if err != nil {
			s.t.Errorf("githubfake: %v", err)
			return nil, refuse(http.StatusInternalServerError, "%v", err)
		}
		doc, problems := gqlparser.LoadQueryWithRules(schema, q.Query, rules.NewDefaultRules())
		if len(problems) > 0 {
			s.t.Errorf("githubfake: the query is not as GitHub's schema has it: %v\n%s", problems, q.Query)
			return object{"errors": []any{object{"message": problems.Error()}}}, nil
		}
		data := object{}
		for _, field := range doc.Operations[0].SelectionSet {
			f, ok := field.(*ast.Field)
			if !ok || f.Name != "repository" {
				s.t.Errorf("githubfake: a query that the fake does not know: %s", q.Query)
				continue
			}
			data[f.Alias] = c.graphRepository(f, q.Variables)
		}
		return object{"data": data}, nil
	}})
}

// graphRepository answers for a repository, or with nothing, as GitHub does for one that
// the token may not see.
func (c *call) graphRepository(f *ast.Field, variables map[string]any) any {
	args := f.ArgumentMap(variables)
	c.repo = c.s.repos[strings.ToLower(fmt.Sprint(args["owner"], "/", args["name"]))]
	if c.repo == nil || !c.by.sees(c.repo) {
		return nil
	}
	out := object{}
	for _, selection := range f.SelectionSet {
		field := selection.(*ast.Field)
		if field.Name != "pullRequest" {
			c.s.t.Errorf("githubfake: GraphQL: the fake knows nothing of a repository's %s", field.Name)
			continue
		}
		out[field.Alias] = c.graphPull(field, variables)
	}
	return out
}

func (c *call) graphPull(f *ast.Field, variables map[string]any) any {
	number, _ := json.Number(fmt.Sprint(f.ArgumentMap(variables)["number"])).Int64()
	i := c.repo.issues[int(number)]
	if i == nil || i.pull == nil || c.permitted("pull_requests=read") != nil {
		return nil
	}
	out := object{}
	for _, selection := range f.SelectionSet {
		switch field := selection.(*ast.Field); field.Name {
		case "reviewDecision":
			out[field.Alias] = c.repo.reviewDecision(i.pull)
		default:
			c.s.t.Errorf("githubfake: GraphQL: the fake knows nothing of a pull request's %s", field.Name)
		}
	}
	return out
}

// reviewDecision is what GitHub makes of the reviews and the rules of the base; nil where
// no rule asks for reviews.
func (r *Repo) reviewDecision(p *pull) any {
	count, owners, asked := 0, false, false
	for _, rule := range r.rulesFor(p.base) {
		if rule.Type != "pull_request" {
			continue
		}
		asked = true
		count = max(count, asInt(rule.Parameters["required_approving_review_count"]))
		owners = owners || rule.Parameters["require_code_owner_review"] == true
	}
	yes, no := map[string]bool{}, false
	for who, state := range r.latestReviews(p) {
		yes[who.Login] = state == "APPROVED" && atLeast(r.roleOf(who.Login), "write")
		no = no || state == "CHANGES_REQUESTED"
	}
	switch {
	case !asked:
		return nil
	case no:
		return "CHANGES_REQUESTED"
	case r.approvals(p) < count, owners && !r.owned(p, yes):
		return "REVIEW_REQUIRED"
	}
	return "APPROVED"
}

func asInt(v any) int {
	switch n := v.(type) {
	case int:
		return n
	case float64:
		return int(n)
	}
	return 0
}

// owned reports whether an owner of every changed file has said yes.
func (r *Repo) owned(p *pull, yes map[string]bool) bool {
	text := ""
	for _, at := range []string{".github/CODEOWNERS", "CODEOWNERS", "docs/CODEOWNERS"} {
		if found, ok := r.fileAt(p.base, at); ok {
			text = found
			break
		}
	}
	for _, change := range r.pullChanges(p) {
		owners := ownersOf(text, change.path)
		if len(owners) > 0 && !slices.ContainsFunc(owners, func(o string) bool { return r.speaks(o, yes) }) {
			return false
		}
	}
	return true
}

// ownersOf are those of the last line that is about a file.
func ownersOf(text, file string) (owners []string) {
	for line := range strings.Lines(text) {
		line, _, _ = strings.Cut(line, "#")
		fields := strings.Fields(line)
		if len(fields) == 0 {
			continue
		}
		pattern := strings.TrimPrefix(fields[0], "/")
		whole, _ := path.Match(pattern, file)
		if whole || pattern == "*" || strings.HasPrefix(file, strings.TrimSuffix(pattern, "/")+"/") {
			owners = fields[1:]
		}
	}
	return owners
}

// speaks reports whether an owner, @login or @org/team, is among those who said yes.
func (r *Repo) speaks(owner string, yes map[string]bool) bool {
	name := strings.TrimPrefix(owner, "@")
	if t := r.s.teams[name]; t != nil {
		for login, state := range t.members {
			if state == "active" && yes[login] {
				return true
			}
		}
		return false
	}
	return yes[name]
}

// Graph makes a fault of every GraphQL request.
func Graph(f Fault) func(*http.Request) *Fault {
	return func(r *http.Request) *Fault {
		if !strings.HasSuffix(r.URL.Path, "/graphql") {
			return nil
		}
		made := f
		return &made
	}
}
