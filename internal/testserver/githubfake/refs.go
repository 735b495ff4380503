package githubfake

import (
	"maps"
	"slices"
	"strings"
)

func refRoutes() []route {
	return []route{
		{"GET /repos/{owner}/{repo}/git/ref/{ref...}", 200, "contents=read", getRef},
		{"GET /repos/{owner}/{repo}/git/matching-refs/{ref...}", 200, "contents=read", matchingRefs},
		{"POST /repos/{owner}/{repo}/git/refs", 201, "contents=write", createRef},
		{"PATCH /repos/{owner}/{repo}/git/refs/{ref...}", 200, "contents=write", updateRef},
		{"DELETE /repos/{owner}/{repo}/git/refs/{ref...}", 204, "contents=write", deleteRef},
	}
}

func (r *Repo) showRef(name string) any {
	sha := r.refs[name]
	return object{"ref": "refs/" + name, "node_id": node("REF", name), "url": r.api() + "/git/refs/" + name,
		"object": object{"type": "commit", "sha": sha, "url": r.api() + "/git/commits/" + sha}}
}

func getRef(c *call) (any, error) {
	if _, ok := c.repo.refs[c.value("ref")]; !ok {
		return nil, notFound()
	}
	return c.repo.showRef(c.value("ref")), nil
}

func matchingRefs(c *call) (any, error) {
	var names []string
	for _, name := range slices.Sorted(maps.Keys(c.repo.refs)) {
		if strings.HasPrefix(name, c.value("ref")) {
			names = append(names, name)
		}
	}
	return page(c, names, c.repo.showRef), nil
}

func createRef(c *call) (any, error) {
	in, err := decode[struct{ Ref, SHA string }](c)
	if err != nil {
		return nil, err
	}
	name, ok := strings.CutPrefix(in.Ref, "refs/")
	switch {
	case !ok || strings.Count(in.Ref, "/") < 2:
		return nil, refuse(422, "Reference name must start with 'refs/' and have at least two slashes.")
	case c.s.git.commits[in.SHA] == nil:
		return nil, refuse(422, "Object does not exist")
	case c.repo.refs[name] != "":
		return nil, refuse(422, "Reference already exists")
	}
	if err := c.ruled(name, in.SHA, "creation", false); err != nil {
		return nil, err
	}
	c.repo.refs[name] = in.SHA
	return c.repo.showRef(name), nil
}

func updateRef(c *call) (any, error) {
	in, err := decode[struct {
		SHA   string
		Force bool
	}](c)
	name := c.value("ref")
	old, ok := c.repo.refs[name]
	switch {
	case err != nil:
		return nil, err
	case !ok:
		return nil, refuse(422, "Reference does not exist")
	case c.s.git.commits[in.SHA] == nil:
		return nil, refuse(422, "Object does not exist")
	}
	forward := c.s.git.reaches(in.SHA, old)
	if !forward && !in.Force {
		return nil, refuse(422, "Update is not a fast forward")
	}
	if err := c.ruled(name, in.SHA, "update", !forward); err != nil {
		return nil, err
	}
	c.repo.move(name, in.SHA)
	return c.repo.showRef(name), nil
}

func deleteRef(c *call) (any, error) {
	name := c.value("ref")
	if _, ok := c.repo.refs[name]; !ok {
		return nil, refuse(422, "Reference does not exist")
	}
	if err := c.ruled(name, "", "deletion", false); err != nil {
		return nil, err
	}
	delete(c.repo.refs, name)
	return nil, nil
}

// move sets a branch, and what hangs on it: pull requests from it have a new head.
func (r *Repo) move(name, sha string) {
	r.refs[name] = sha
	if branch, ok := strings.CutPrefix(name, "heads/"); ok {
		r.pushed(branch)
	}
}
