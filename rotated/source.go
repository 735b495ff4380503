package rotated

import (
	"context"
	"fmt"
	"slices"
	"sync"
)

// A Source is a place where the application finds its credential. It reads
// afresh on each call and keeps nothing but the credentials that it saw
// refused. Make one with [Env], [Files] or [Dir], and share it: it is safe for concurrent use.
type Source struct {
	// read returns the whole credentials in their order, and why others are
	// not among them.
	read func() ([]Credential, error)

	mu      sync.Mutex
	refused []Credential // go to the end of the order; only ones still there
}

// Candidates returns the whole credentials that are there now, the one to try
// first at the front: the current, the next, the one from the plain
// environment; those that were refused before ([Source.Do]) behind the others.
//
// What is missing is passed over. What is there and cannot be read
// (permission, a directory) is not missing: the search ends at it. The error is
// not nil exactly if no credential was found; it wraps [ErrMissing] if nothing
// is there, and the error of the file system otherwise.
func (s *Source) Candidates(ctx context.Context) ([]Credential, error) {
	found, why := s.look(ctx)
	if len(found) == 0 {
		return nil, why
	}
	return found, nil
}

// Current returns the first of [Source.Candidates], for an application that
// logs in with it and has no use for another.
func (s *Source) Current(ctx context.Context) (Credential, error) {
	found, err := s.Candidates(ctx)
	if err != nil {
		return Credential{}, err
	}
	return found[0], nil
}

// look returns the candidates, and why others are none, which may be set also
// when there are some.
func (s *Source) look(ctx context.Context) ([]Credential, error) {
	if err := ctx.Err(); err != nil {
		return nil, fmt.Errorf("reading a credential: %w", err)
	}
	found, why := s.read()
	if why != nil {
		why = fmt.Errorf("reading a credential: %w", why)
	}
	return s.order(found), why
}

// order puts those that were refused behind the others, and forgets refusals
// of credentials that are gone.
func (s *Source) order(found []Credential) []Credential {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.refused = slices.DeleteFunc(s.refused, func(c Credential) bool { return !contains(found, c) })
	var fine, not []Credential
	for _, c := range found {
		if contains(s.refused, c) {
			not = append(not, c)
		} else {
			fine = append(fine, c)
		}
	}
	return append(fine, not...)
}

// remember records how a login with c went.
func (s *Source) remember(c Credential, accepted bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.refused = slices.DeleteFunc(s.refused, c.Equal)
	if !accepted {
		s.refused = append(s.refused, c)
	}
}
