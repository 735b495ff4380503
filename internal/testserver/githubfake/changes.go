package githubfake

import (
	"fmt"
	"maps"
	"slices"
	"strings"
)

// A change is one file that differs between two trees.
type change struct {
	path, status   string // added, removed, modified
	sha            string // of the blob; of the old one, if it was removed
	added, removed int    // lines
	patch          string
}

// changes are the files that differ, in the order of their paths.
func (o objects) changes(from, to tree) []change {
	var all []change
	for _, path := range slices.Sorted(maps.Keys(from)) {
		if _, still := to[path]; !still {
			all = append(all, o.change(path, "removed", from[path].sha, ""))
		}
	}
	for _, path := range slices.Sorted(maps.Keys(to)) {
		old, had := from[path]
		switch {
		case !had:
			all = append(all, o.change(path, "added", "", to[path].sha))
		case old.sha != to[path].sha:
			all = append(all, o.change(path, "modified", old.sha, to[path].sha))
		}
	}
	slices.SortStableFunc(all, func(a, b change) int { return strings.Compare(a.path, b.path) })
	return all
}

// change counts lines, as if all that is between the first and the last line that
// differ had changed.
func (o objects) change(path, status, old, now string) change {
	a, b := linesOf(o.blobs[old]), linesOf(o.blobs[now])
	head := 0
	for head < len(a) && head < len(b) && a[head] == b[head] {
		head++
	}
	tail := 0
	for tail < len(a)-head && tail < len(b)-head && a[len(a)-1-tail] == b[len(b)-1-tail] {
		tail++
	}
	gone, come := a[head:len(a)-tail], b[head:len(b)-tail]
	d := change{path: path, status: status, sha: now, added: len(come), removed: len(gone)}
	if now == "" {
		d.sha = old
	}
	text := fmt.Sprintf("@@ -%d,%d +%d,%d @@", head+1, len(gone), head+1, len(come))
	for _, line := range gone {
		text += "\n-" + line
	}
	for _, line := range come {
		text += "\n+" + line
	}
	d.patch = text
	return d
}

func linesOf(text []byte) []string {
	if len(text) == 0 {
		return nil
	}
	return strings.Split(strings.TrimSuffix(string(text), "\n"), "\n")
}

func (r *Repo) showChanges(changes []change, at string) (files []any, added, removed int) {
	files = []any{}
	for _, d := range changes {
		files = append(files, r.showChange(d, at))
		added += d.added
		removed += d.removed
	}
	return files, added, removed
}

func (r *Repo) showChange(d change, at string) any {
	return object{
		"sha": d.sha, "filename": d.path, "status": d.status, "additions": d.added, "deletions": d.removed, "changes": d.added + d.removed,
		"blob_url": r.web() + "/blob/" + at + "/" + d.path, "raw_url": r.web() + "/raw/" + at + "/" + d.path,
		"contents_url": r.api() + "/contents/" + d.path + "?ref=" + at, "patch": d.patch,
	}
}
