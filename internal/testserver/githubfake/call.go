package githubfake

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"strings"
)

// A call is one request on its way.
type call struct {
	s      *Server
	r      *http.Request
	header http.Header // of the answer
	status int         // of the answer, unless it is a refusal
	repo   *Repo       // the one that the path names, if it does
	by     *token      // who asks
	app    *App        // who asks with a JSON web token
	body   []byte
}

func (c *call) value(name string) string { return c.r.PathValue(name) }

func (c *call) query(name string) string { return c.r.URL.Query().Get(name) }

// number is a number in the path. What is none is not found.
func (c *call) number(name string) (int64, error) {
	n, err := strconv.ParseInt(c.value(name), 10, 64)
	if err != nil {
		return 0, notFound()
	}
	return n, nil
}

// decode reads the body of a call.
func decode[T any](c *call) (T, error) {
	var in T
	if len(c.body) == 0 || string(c.body) == "null\n" || string(c.body) == "null" {
		return in, nil
	}
	if err := json.Unmarshal(c.body, &in); err != nil {
		if _, ok := err.(*json.SyntaxError); ok {
			return in, refuse(http.StatusBadRequest, "Problems parsing JSON")
		}
		return in, refuse(http.StatusUnprocessableEntity, "Invalid request.\n\n%v", err)
	}
	return in, nil
}

// page shows the part of a list that was asked for and links to its others.
func page[T any](c *call, all []T, show func(T) any) []any {
	per, at := bounded(c.query("per_page"), 30, 100), bounded(c.query("page"), 1, 1<<30)
	last := max((len(all)+per-1)/per, 1)
	var links []string
	link := func(to int, rel string) {
		q := c.r.URL.Query()
		q.Set("page", strconv.Itoa(to))
		u := url.URL{Path: c.r.URL.Path, RawQuery: q.Encode()}
		links = append(links, fmt.Sprintf(`<%s%s>; rel="%s"`, c.s.URL, u.String(), rel))
	}
	if at > 1 {
		link(at-1, "prev")
	}
	if at < last {
		link(at+1, "next")
		link(last, "last")
	}
	if at > 1 {
		link(1, "first")
	}
	if links != nil {
		c.header.Set("Link", strings.Join(links, ", "))
	}
	out := []any{}
	for i := (at - 1) * per; i >= 0 && i < min(at*per, len(all)); i++ {
		out = append(out, show(all[i]))
	}
	return out
}

func bounded(text string, usual, most int) int {
	n, err := strconv.Atoi(text)
	if err != nil || n < 1 {
		return usual
	}
	return min(n, most)
}
