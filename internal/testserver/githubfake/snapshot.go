package githubfake

import (
	"maps"
	"slices"
)

// Snapshot remembers the repository's branches, issues, comments and statuses, and
// returns what puts them back as they were.
func (r *Repo) Snapshot() (back func()) {
	r.s.mu.Lock()
	defer r.s.mu.Unlock()
	refs, statuses, last := maps.Clone(r.refs), slices.Clone(r.statuses), r.last
	issues := map[int]*issue{}
	for n, i := range r.issues {
		copied := *i
		copied.comments = nil
		for _, c := range i.comments {
			kept := *c
			copied.comments = append(copied.comments, &kept)
		}
		issues[n] = &copied
	}
	return func() {
		r.s.mu.Lock()
		defer r.s.mu.Unlock()
		r.refs, r.statuses, r.issues, r.last = refs, statuses, issues, last
	}
}
