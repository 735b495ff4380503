package githubfake

import (
	"encoding/json"
	"net/url"
	"slices"
	"strings"
)

type label struct {
	id                       int64
	name, color, description string
}

func labelRoutes() []route {
	return []route{
		{"GET /repos/{owner}/{repo}/labels", 200, "issues=read; pull_requests=read", func(c *call) (any, error) {
			return page(c, c.repo.labels, c.repo.showLabel), nil
		}},
		{"POST /repos/{owner}/{repo}/labels", 201, "issues=write; pull_requests=write", createLabel},
		{"GET /repos/{owner}/{repo}/labels/{name}", 200, "issues=read; pull_requests=read", func(c *call) (any, error) {
			l := c.repo.label(c.value("name"))
			if l == nil {
				return nil, notFound()
			}
			return c.repo.showLabel(l), nil
		}},
		{"PATCH /repos/{owner}/{repo}/labels/{name}", 200, "issues=write; pull_requests=write", editLabel},
		{"POST /repos/{owner}/{repo}/issues/{number}/labels", 200, "issues=write; pull_requests=write", addLabels},
		{"DELETE /repos/{owner}/{repo}/issues/{number}/labels/{name}", 200, "issues=write; pull_requests=write", dropLabel},
	}
}

func (r *Repo) showLabel(l *label) any {
	return object{"id": l.id, "node_id": node("LA", l.id), "url": r.api() + "/labels/" + url.PathEscape(l.name), "name": l.name,
		"color": l.color, "default": false, "description": l.description}
}

func (r *Repo) label(name string) *label {
	i := slices.IndexFunc(r.labels, func(l *label) bool { return strings.EqualFold(l.name, name) })
	if i < 0 {
		return nil
	}
	return r.labels[i]
}

// labelled finds labels, and makes those that there are none of.
func (r *Repo) labelled(names []string) []*label {
	var out []*label
	for _, name := range names {
		l := r.label(name)
		if l == nil {
			l = &label{id: r.s.id(), name: name, color: "ededed"}
			r.labels = append(r.labels, l)
		}
		if !slices.Contains(out, l) {
			out = append(out, l)
		}
	}
	return out
}

// labelNames reads labels, which are texts or objects with a name.
func labelNames(all []json.RawMessage) []string {
	var names []string
	for _, one := range all {
		var name string
		if json.Unmarshal(one, &name) != nil {
			var o struct{ Name string }
			if json.Unmarshal(one, &o) != nil {
				continue
			}
			name = o.Name
		}
		names = append(names, name)
	}
	return names
}

type sentLabel struct {
	Name, Color, Description *string
	NewName                  *string `json:"new_name"`
}

func (in sentLabel) apply(l *label) {
	for to, from := range map[*string]*string{&l.name: in.NewName, &l.color: in.Color, &l.description: in.Description} {
		if from != nil {
			*to = *from
		}
	}
}

func createLabel(c *call) (any, error) {
	in, err := decode[sentLabel](c)
	if err != nil {
		return nil, err
	}
	if in.Name == nil || *in.Name == "" {
		return nil, invalid("Label", "name", "missing_field", "")
	}
	if c.repo.label(*in.Name) != nil {
		return nil, invalid("Label", "name", "already_exists", "")
	}
	l := c.repo.labelled([]string{*in.Name})[0]
	in.apply(l)
	return c.repo.showLabel(l), nil
}

func editLabel(c *call) (any, error) {
	l := c.repo.label(c.value("name"))
	if l == nil {
		return nil, notFound()
	}
	in, err := decode[sentLabel](c)
	if err != nil {
		return nil, err
	}
	in.apply(l)
	return c.repo.showLabel(l), nil
}

func addLabels(c *call) (any, error) {
	i, err := c.issue()
	if err != nil {
		return nil, err
	}
	var names []string
	if bare, err := decode[[]string](c); err == nil {
		names = bare
	} else {
		in, err := decode[struct{ Labels []string }](c)
		if err != nil {
			return nil, err
		}
		names = in.Labels
	}
	for _, l := range c.repo.labelled(names) {
		if !slices.Contains(i.labels, l) {
			i.labels = append(i.labels, l)
		}
	}
	return page(c, i.labels, c.repo.showLabel), nil
}

func dropLabel(c *call) (any, error) {
	i, err := c.issue()
	if err != nil {
		return nil, err
	}
	at := slices.Index(i.labels, c.repo.label(c.value("name")))
	if at < 0 {
		return nil, refuse(404, "Label does not exist")
	}
	i.labels = slices.Delete(slices.Clone(i.labels), at, at+1)
	return page(c, i.labels, c.repo.showLabel), nil
}
