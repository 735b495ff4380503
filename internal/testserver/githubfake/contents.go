package githubfake

import (
	"encoding/base64"
	"net/http"
	"path"
	"strings"
	"time"
)

func contentRoutes() []route {
	return []route{
		{"GET /repos/{owner}/{repo}/contents/{path...}", 200, "contents=read", getContents},
		{"PUT /repos/{owner}/{repo}/contents/{path...}", 200, "contents=write", putContents},
		{"DELETE /repos/{owner}/{repo}/contents/{path...}", 200, "contents=write", deleteContents},
	}
}

func getContents(c *call) (any, error) {
	at := c.repo.resolve(c.query("ref"))
	if at == nil {
		return nil, refuse(404, "No commit found for the ref %s", c.query("ref"))
	}
	files, name := c.s.git.files(at.tree), strings.Trim(c.value("path"), "/")
	if e, ok := files[name]; ok {
		if strings.Contains(c.r.Header.Get("Accept"), "raw") {
			return raw{"application/vnd.github.raw; charset=utf-8", c.s.git.blobs[e.sha]}, nil
		}
		text := c.s.git.blobs[e.sha]
		o := c.repo.showEntry(name, at.sha, row{path.Base(name), e.mode, "blob", e.sha})
		o["content"], o["encoding"] = wrapped(text), "base64"
		return o, nil
	}
	folder := below(files, name)
	if folder == nil {
		return nil, notFound()
	}
	out := []any{}
	for _, row := range c.s.git.rows(folder) {
		out = append(out, c.repo.showEntry(path.Join(name, row.path), at.sha, row))
		if len(out) == 1000 {
			break // GitHub lists no more of a folder
		}
	}
	return out, nil
}

// showEntry shows a file or folder without what is in it.
func (r *Repo) showEntry(name, at string, e row) object {
	kind, git := "file", "blobs"
	if e.kind == "tree" {
		kind, git = "dir", "trees"
	}
	self, page, data := r.api()+"/contents/"+name+"?ref="+at, r.web()+"/blob/"+at+"/"+name, r.api()+"/git/"+git+"/"+e.sha
	o := object{"type": kind, "name": path.Base(name), "path": name, "sha": e.sha, "size": len(r.s.git.blobs[e.sha]), "url": self,
		"git_url": data, "html_url": page, "download_url": nil, "_links": object{"self": self, "git": data, "html": page}}
	if kind == "file" {
		o["download_url"] = r.s.URL + "/_raw/" + r.FullName() + "/" + at + "/" + name
	}
	return o
}

type putFile struct {
	Message           string
	Content           *string
	SHA, Branch       string
	Author, Committer *sentBy
}

func putContents(c *call) (any, error) {
	in, err := decode[putFile](c)
	if err != nil {
		return nil, err
	}
	if in.Message == "" || in.Content == nil {
		return nil, refuse(422, "Invalid request.\n\n\"message\" or \"content\" wasn't supplied.")
	}
	text, err := base64.StdEncoding.DecodeString(*in.Content)
	if err != nil {
		return nil, refuse(422, "content is not valid Base64")
	}
	name := c.value("path")
	made, err := c.write(in, func(files tree) error {
		old, there := files[name]
		switch {
		case there && in.SHA == "":
			return refuse(422, "Invalid request.\n\n\"sha\" wasn't supplied.")
		case in.SHA != "" && old.sha != in.SHA:
			return refuse(http.StatusConflict, "%s does not match %s", name, in.SHA)
		case !there:
			c.status = http.StatusCreated
		}
		files[name] = entry{"100644", c.s.git.addBlob(text)}
		return nil
	})
	if err != nil {
		return nil, err
	}
	e := c.s.git.files(made.tree)[name]
	return object{"content": c.repo.showEntry(name, made.sha, row{path.Base(name), e.mode, "blob", e.sha}), "commit": c.repo.showGitCommit(made)}, nil
}

func deleteContents(c *call) (any, error) {
	in, err := decode[putFile](c)
	if err != nil {
		return nil, err
	}
	name := c.value("path")
	made, err := c.write(in, func(files tree) error {
		old, there := files[name]
		switch {
		case !there:
			return notFound()
		case in.SHA == "":
			return refuse(422, "Invalid request.\n\n\"sha\" wasn't supplied.")
		case old.sha != in.SHA:
			return refuse(http.StatusConflict, "%s does not match %s", name, in.SHA)
		}
		delete(files, name)
		return nil
	})
	if err != nil {
		return nil, err
	}
	return object{"content": nil, "commit": c.repo.showGitCommit(made)}, nil
}

// write makes a commit of one change. Between its look at the branch and the move
// of the branch others are let in, and whoever is second there has lost.
func (c *call) write(in putFile, edit func(tree) error) (*commit, error) {
	branch := in.Branch
	if branch == "" {
		branch = c.repo.main
	}
	branch = strings.TrimPrefix(branch, "refs/heads/")
	old, ok := c.repo.refs["heads/"+branch]
	if !ok {
		return nil, refuse(404, "Branch %s not found", branch)
	}
	files := c.s.git.files(c.s.git.commits[old].tree)
	if err := edit(files); err != nil {
		return nil, err
	}
	made := c.signs(&commit{tree: c.s.git.addTree(files), parents: []string{old}, message: in.Message}, in.Author, in.Committer)
	c.s.git.addCommit(made)
	c.s.letIn()
	if now := c.repo.refs["heads/"+branch]; now != old {
		return nil, refuse(http.StatusConflict, "%s is at %s but expected %s", branch, now, old)
	}
	if err := c.ruled("heads/"+branch, made.sha, "update", false); err != nil {
		return nil, err
	}
	c.repo.move("heads/"+branch, made.sha)
	return made, nil
}

// letIn lets other calls be done while this one waits.
func (s *Server) letIn() {
	if s.race < 0 {
		return
	}
	s.mu.Unlock()
	time.Sleep(s.race)
	s.mu.Lock()
}
