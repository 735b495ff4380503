package githubfake

import (
	"net/http"
	"net/url"
	"strings"
)

// A router finds the route of a request. GitHub has paths of which none is more
// special than the other ("issues/comments/{id}" and "issues/{number}/comments"),
// and so http.ServeMux cannot serve.
type router struct{ routes []pattern }

type pattern struct {
	method   string
	segments []string
	serve    http.HandlerFunc
}

func (m *router) add(text string, serve http.HandlerFunc) {
	method, path, _ := strings.Cut(text, " ")
	m.routes = append(m.routes, pattern{method, strings.Split(path, "/"), serve})
}

// find returns the route with the most words of its own that fits, and sets the
// values of its names on the request.
func (m *router) find(r *http.Request) (http.HandlerFunc, bool) {
	path := strings.Split(r.URL.EscapedPath(), "/")
	for i := range path {
		if plain, err := url.PathUnescape(path[i]); err == nil {
			path[i] = plain
		}
	}
	best, most := pattern{}, -1
	for _, p := range m.routes {
		if words, ok := p.fits(path); ok && p.method == r.Method && words > most {
			best, most = p, words
		}
	}
	if most < 0 {
		return nil, false
	}
	for i, name := range best.segments {
		if !strings.HasPrefix(name, "{") {
			continue
		}
		name = strings.Trim(name, "{}")
		if rest, ok := strings.CutSuffix(name, "..."); ok {
			r.SetPathValue(rest, strings.Join(path[i:], "/"))
			break
		}
		r.SetPathValue(name, path[i])
	}
	return best.serve, true
}

// fits counts the words that a path has in common with the pattern.
func (p pattern) fits(path []string) (words int, ok bool) {
	for i, s := range p.segments {
		switch {
		case strings.HasSuffix(s, "...}"):
			return words, i <= len(path)
		case i >= len(path):
			return 0, false
		case strings.HasPrefix(s, "{"):
			if path[i] == "" {
				return 0, false
			}
		case s != path[i]:
			return 0, false
		default:
			words++
		}
	}
	return words, len(p.segments) == len(path)
}

func (m *router) serve(w http.ResponseWriter, r *http.Request, otherwise http.HandlerFunc) {
	do, ok := m.find(r)
	if !ok {
		do = otherwise
	}
	do(w, r)
}
