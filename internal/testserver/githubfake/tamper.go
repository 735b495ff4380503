package githubfake

import (
	"fmt"
	"strings"
)

// Commit makes a commit of a person on a branch, as a push does, and returns its
// hash. The branch is made from the default branch if there is none; a file whose
// text is "\x00" is removed.
func (r *Repo) Commit(branch, login, message string, files map[string]string) string {
	r.s.mu.Lock()
	defer r.s.mu.Unlock()
	return r.commit(branch, r.s.account(login), message, files)
}

func (r *Repo) commit(branch string, by *Account, message string, files map[string]string) string {
	at := r.resolve("heads/" + branch)
	if at == nil {
		at = r.resolve("")
	}
	now := r.s.time()
	made := &commit{message: message, author: signature{by.Name, by.Email, now}}
	made.committer = made.author
	t := tree{}
	if at != nil {
		made.parents = []string{at.sha}
		t = r.s.git.files(at.tree)
	}
	for name, text := range files {
		if text == "\x00" {
			delete(t, name)
			continue
		}
		t[name] = entry{"100644", r.s.git.addBlob([]byte(text))}
	}
	made.tree = r.s.git.addTree(t)
	r.s.git.addCommit(made)
	r.move("heads/"+branch, made.sha)
	return made.sha
}

// Head is the newest commit of a branch, "" if there is none.
func (r *Repo) Head(branch string) string {
	r.s.mu.Lock()
	defer r.s.mu.Unlock()
	return r.refs["heads/"+branch]
}

// File is a file's text at the end of a branch.
func (r *Repo) File(branch, name string) (string, bool) {
	r.s.mu.Lock()
	defer r.s.mu.Unlock()
	return r.fileAt(branch, name)
}

// fileAt is File. The server is locked.
func (r *Repo) fileAt(branch, name string) (string, bool) {
	at := r.resolve("heads/" + branch)
	if at == nil {
		return "", false
	}
	e, ok := r.s.git.files(at.tree)[name]
	return string(r.s.git.blobs[e.sha]), ok
}

// Force sets a branch to a commit, wherever it was. "" removes it.
func (r *Repo) Force(branch, sha string) {
	r.s.mu.Lock()
	defer r.s.mu.Unlock()
	if sha == "" {
		delete(r.refs, "heads/"+branch)
		return
	}
	if r.s.git.commits[sha] == nil {
		panic(fmt.Sprintf("githubfake: no commit %q", sha))
	}
	r.move("heads/"+branch, sha)
}

// A Kept is a commit of a branch's history while it is rewritten.
type Kept struct {
	SHA     string
	Message string
	Files   map[string]string // all of them: path → text
	Author  string            // login
	Signed  bool              // shown as verified
}

// Rewrite gives a branch another history: edit is handed the commits, oldest
// first, and what it returns is committed again, by whoever it says.
func (r *Repo) Rewrite(branch string, edit func([]Kept) []Kept) {
	r.s.mu.Lock()
	defer r.s.mu.Unlock()
	git := r.s.git
	old := git.history(r.refs["heads/"+branch])
	history := make([]Kept, len(old))
	for i, c := range old {
		k := Kept{SHA: c.sha, Message: c.message, Files: map[string]string{}, Signed: c.signed}
		if a := r.s.byEmail(c.author.Email); a != nil {
			k.Author = a.Login
		}
		for name, e := range git.files(c.tree) {
			k.Files[name] = string(git.blobs[e.sha])
		}
		history[len(old)-1-i] = k
	}
	var parents []string
	tip := ""
	for _, k := range edit(history) {
		tip = r.remake(k, parents)
		parents = []string{tip}
	}
	r.move("heads/"+branch, tip)
}

func (r *Repo) remake(k Kept, parents []string) string {
	git, when := r.s.git, r.s.time()
	if old := git.commits[k.SHA]; old != nil {
		when = old.author.Date
	}
	by := r.s.account(k.Author)
	c := &commit{parents: parents, message: k.Message, author: signature{by.Name, by.Email, when}, signed: k.Signed}
	c.committer = c.author
	if k.Signed {
		flow := r.s.accounts["web-flow"]
		c.committer = signature{flow.Name, flow.Email, when}
	}
	t := tree{}
	for name, text := range k.Files {
		t[strings.TrimPrefix(name, "/")] = entry{"100644", git.addBlob([]byte(text))}
	}
	c.tree = git.addTree(t)
	return git.addCommit(c).sha
}
