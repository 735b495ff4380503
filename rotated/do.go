package rotated

import (
	"context"
	"errors"
	"fmt"
)

// ErrRefused is wrapped by errors that say that a credential was refused.
var ErrRefused = errors.New("credential refused")

// refusal marks an error as a refusal and leaves its text alone.
type refusal struct{ err error }

func (r refusal) Error() string   { return r.err.Error() }
func (r refusal) Unwrap() []error { return []error{ErrRefused, r.err} }

// Refused marks err, which a login returned, as the refusal of the credential,
// so that [Source.Do] goes on to the next one. Mark only what says for certain
// that the name or the password is not accepted, never a timeout, a lost
// connection or an overloaded server. Refused of nil is nil.
func Refused(err error) error {
	if err == nil {
		return nil
	}
	return refusal{err}
}

// rereads bounds how often Do looks again after everything was refused.
const rereads = 3

// Do calls login with one whole credential after the other, in the order of
// [Source.Candidates], until one call returns nil. An error that [Refused] marked leads to the
// next credential; any other error ends the attempt and is returned as it is.
//
// A credential that was refused is tried after the others from then on, until
// it is accepted again. If all were refused, Do looks whether one has appeared
// in the meantime, and tries that too. If that helps nothing, the error wraps
// [ErrRefused] and the error of every login. Login is called in Do's own goroutine.
func (s *Source) Do(ctx context.Context, login func(context.Context, Credential) error) error {
	var tried []Credential
	var failed error
	for range rereads {
		found, why := s.look(ctx)
		if len(found) == 0 {
			return also(failed, why)
		}
		fresh := 0
		for _, c := range found {
			if contains(tried, c) {
				continue
			}
			if err := ctx.Err(); err != nil {
				return also(failed, err)
			}
			fresh++
			err := login(ctx, c)
			if err == nil {
				s.remember(c, true)
				return nil
			}
			if !errors.Is(err, ErrRefused) {
				return err
			}
			s.remember(c, false)
			tried = append(tried, c)
			failed = also(failed, fmt.Errorf("using the credential from %s: %w", c.Origin(), err))
		}
		if fresh == 0 {
			return also(failed, why)
		}
	}
	return failed
}
