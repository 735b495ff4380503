package githubfake

import (
	"bytes"
	"crypto/sha1"
	"encoding/hex"
	"fmt"
	"slices"
	"strings"
	"time"
)

// objects are Git's: by the hashes that Git gives them. All repositories share
// them, as those of one network of forks do.
type objects struct {
	blobs   map[string][]byte
	trees   map[string][]row
	commits map[string]*commit
}

func newObjects() objects {
	return objects{blobs: map[string][]byte{}, trees: map[string][]row{}, commits: map[string]*commit{}}
}

// A tree is the files of a commit or folder by their whole paths; [objects.files]
// makes it of what is kept.
type tree map[string]entry

type entry struct{ mode, sha string } // of a blob

// A commit has an author with an account where the address is that of one.
type commit struct {
	sha, tree         string
	parents           []string
	message           string
	author, committer signature
	signed            bool // by GitHub
}

type signature struct {
	Name  string    `json:"name"`
	Email string    `json:"email"`
	Date  time.Time `json:"date"`
}

func hashOf(kind string, text []byte) string {
	h := sha1.New()
	fmt.Fprintf(h, "%s %d\x00", kind, len(text))
	h.Write(text)
	return hex.EncodeToString(h.Sum(nil))
}

func (o objects) addBlob(text []byte) string {
	sha := hashOf("blob", text)
	o.blobs[sha] = bytes.Clone(text)
	return sha
}

// addTree keeps a tree, and those of all its folders.
func (o objects) addTree(t tree) string {
	var text []byte
	rows := o.rows(t)
	for _, row := range rows {
		raw, _ := hex.DecodeString(row.sha)
		text = fmt.Appendf(text, "%s %s\x00%s", strings.TrimPrefix(row.mode, "0"), row.path, raw)
	}
	sha := hashOf("tree", text)
	o.trees[sha] = rows
	return sha
}

// files are all that a tree and its folders hold.
func (o objects) files(sha string) tree {
	all := tree{}
	var add func(at, sha string)
	add = func(at, sha string) {
		for _, row := range o.trees[sha] {
			if row.kind == "tree" {
				add(at+row.path+"/", row.sha)
				continue
			}
			all[at+row.path] = entry{row.mode, row.sha}
		}
	}
	add("", sha)
	return all
}

// A row is one line of a tree: a file or a folder.
type row struct{ path, mode, kind, sha string }

// rows are what stands in a folder itself, in Git's order.
func (o objects) rows(t tree) []row {
	folders := map[string]tree{}
	var rows []row
	for path, e := range t {
		folder, rest, inside := strings.Cut(path, "/")
		if !inside {
			rows = append(rows, row{path, e.mode, "blob", e.sha})
			continue
		}
		if folders[folder] == nil {
			folders[folder] = tree{}
		}
		folders[folder][rest] = e
	}
	for name, sub := range folders {
		rows = append(rows, row{name, "040000", "tree", o.addTree(sub)})
	}
	key := func(r row) string {
		if r.kind == "tree" {
			return r.path + "/"
		}
		return r.path
	}
	slices.SortFunc(rows, func(a, b row) int { return strings.Compare(key(a), key(b)) })
	return rows
}

// below is the folder of a tree with that path, or nil.
func below(t tree, folder string) tree {
	if folder == "" {
		return t
	}
	var sub tree
	for path, e := range t {
		if rest, ok := strings.CutPrefix(path, folder+"/"); ok {
			if sub == nil {
				sub = tree{}
			}
			sub[rest] = e
		}
	}
	return sub
}

func (o objects) addCommit(c *commit) *commit {
	var text strings.Builder
	fmt.Fprintf(&text, "tree %s\n", c.tree)
	for _, p := range c.parents {
		fmt.Fprintf(&text, "parent %s\n", p)
	}
	for _, by := range []struct {
		as string
		s  signature
	}{{"author", c.author}, {"committer", c.committer}} {
		fmt.Fprintf(&text, "%s %s <%s> %d +0000\n", by.as, by.s.Name, by.s.Email, by.s.Date.Unix())
	}
	fmt.Fprintf(&text, "\n%s", c.message)
	c.sha = hashOf("commit", []byte(text.String()))
	o.commits[c.sha] = c
	return c
}

// history is a commit and all before it: first parents first, newest first.
func (o objects) history(sha string) []*commit {
	var all []*commit
	seen := map[string]bool{}
	for next := []string{sha}; len(next) > 0; next = next[1:] {
		c := o.commits[next[0]]
		if c == nil || seen[c.sha] {
			continue
		}
		seen[c.sha] = true
		all = append(all, c)
		next = append(next, c.parents...)
	}
	return all
}

// reaches reports whether a commit is another or comes after it.
func (o objects) reaches(from, to string) bool {
	return slices.ContainsFunc(o.history(from), func(c *commit) bool { return c.sha == to })
}
