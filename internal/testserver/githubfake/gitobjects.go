package githubfake

import (
	"encoding/base64"
	"maps"
	"path"
	"slices"
	"strings"
)

func objectRoutes() []route {
	return []route{
		{"GET /repos/{owner}/{repo}/git/blobs/{sha}", 200, "contents=read", getBlob},
		{"POST /repos/{owner}/{repo}/git/blobs", 201, "contents=write", createBlob},
		{"GET /repos/{owner}/{repo}/git/trees/{sha...}", 200, "contents=read", getTree},
		{"POST /repos/{owner}/{repo}/git/trees", 201, "contents=write", createTree},
	}
}

func getBlob(c *call) (any, error) {
	sha := c.value("sha")
	text, ok := c.s.git.blobs[sha]
	if !ok {
		return nil, notFound()
	}
	if strings.Contains(c.r.Header.Get("Accept"), "raw") {
		return raw{"application/vnd.github.raw; charset=utf-8", text}, nil
	}
	return object{"sha": sha, "node_id": node("B", sha), "url": c.repo.api() + "/git/blobs/" + sha, "size": len(text),
		"content": wrapped(text), "encoding": "base64"}, nil
}

// wrapped is base64 as GitHub has it: in lines of 60.
func wrapped(text []byte) string {
	all := base64.StdEncoding.EncodeToString(text)
	var b strings.Builder
	for len(all) > 0 {
		n := min(60, len(all))
		b.WriteString(all[:n] + "\n")
		all = all[n:]
	}
	return b.String()
}

func createBlob(c *call) (any, error) {
	in, err := decode[struct{ Content, Encoding string }](c)
	if err != nil {
		return nil, err
	}
	text := []byte(in.Content)
	if in.Encoding == "base64" {
		if text, err = base64.StdEncoding.DecodeString(strings.ReplaceAll(in.Content, "\n", "")); err != nil {
			return nil, refuse(422, "content is not valid Base64")
		}
	}
	sha := c.s.git.addBlob(text)
	return object{"url": c.repo.api() + "/git/blobs/" + sha, "sha": sha}, nil
}

// getTree shows a tree, or that of a commit or a branch.
func getTree(c *call) (any, error) {
	sha := c.value("sha")
	if _, ok := c.s.git.trees[sha]; !ok {
		commit := c.repo.resolve(sha)
		if commit == nil {
			return nil, notFound()
		}
		sha = commit.tree
	}
	return c.repo.showTree(sha, c.query("recursive") != ""), nil
}

func (r *Repo) showTree(sha string, deep bool) object {
	git := r.s.git
	items := []any{}
	var add func(at, sha string)
	add = func(at, sha string) {
		for _, row := range git.trees[sha] {
			item := object{"path": path.Join(at, row.path), "mode": row.mode, "type": row.kind, "sha": row.sha,
				"url": r.api() + "/git/" + row.kind + "s/" + row.sha}
			if row.kind == "blob" {
				item["size"] = len(git.blobs[row.sha])
			}
			items = append(items, item)
			if row.kind == "tree" && deep {
				add(path.Join(at, row.path), row.sha)
			}
		}
	}
	add("", sha)
	return object{"sha": sha, "url": r.api() + "/git/trees/" + sha, "tree": items, "truncated": false}
}

type newEntry struct {
	Path, Mode, Type string
	SHA              *string
	Content          *string
}

func createTree(c *call) (any, error) {
	in, err := decode[struct {
		BaseTree string `json:"base_tree"`
		Tree     []newEntry
	}](c)
	if err != nil {
		return nil, err
	}
	t := tree{}
	if in.BaseTree != "" {
		base := in.BaseTree
		if commit := c.s.git.commits[base]; commit != nil {
			base = commit.tree
		}
		if _, ok := c.s.git.trees[base]; !ok {
			return nil, refuse(422, "base_tree is not a valid tree oid")
		}
		t = c.s.git.files(base)
	}
	if len(in.Tree) == 0 {
		return nil, refuse(422, "Invalid tree info")
	}
	for _, e := range in.Tree {
		if err := c.s.git.put(t, e); err != nil {
			return nil, err
		}
	}
	return c.repo.showTree(c.s.git.addTree(t), false), nil
}

// put makes one change to a tree.
func (o objects) put(t tree, e newEntry) error {
	modes := []string{"100644", "100755", "040000", "160000", "120000"}
	switch {
	case e.Path == "" || strings.HasPrefix(e.Path, "/"):
		return refuse(422, "tree.path cannot start with a slash")
	case e.Content != nil:
		t[e.Path] = entry{e.Mode, o.addBlob([]byte(*e.Content))}
	case e.SHA == nil:
		delete(t, e.Path)
		maps.DeleteFunc(t, func(p string, _ entry) bool { return strings.HasPrefix(p, e.Path+"/") })
	case e.Type == "tree":
		if _, ok := o.trees[*e.SHA]; !ok {
			return refuse(422, "tree.sha %s is not a valid tree", *e.SHA)
		}
		for name, one := range o.files(*e.SHA) {
			t[path.Join(e.Path, name)] = one
		}
	case o.blobs[*e.SHA] == nil:
		return refuse(422, "tree.sha %s is not a valid blob", *e.SHA)
	default:
		t[e.Path] = entry{e.Mode, *e.SHA}
	}
	if e.Mode != "" && !slices.Contains(modes, e.Mode) {
		return refuse(422, "tree.mode contains invalid file mode")
	}
	return nil
}
