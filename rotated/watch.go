package rotated

import (
	"context"
	"iter"
	"time"
)

// Watch returns an iterator that tells when another credential has come to the
// front than the one given, and then than the one it told of last: the zero
// [Credential] makes it tell of the present one at once. It looks when it
// begins and then every so often, in the goroutine that ranges over it, and
// ends with the context.
//
// When nothing can be read, it yields the error, once until the error's text
// changes or it is over, and goes on. Every must be above zero.
func (s *Source) Watch(ctx context.Context, last Credential, every time.Duration) iter.Seq2[Credential, error] {
	return func(yield func(Credential, error) bool) {
		tick := time.NewTicker(every)
		defer tick.Stop()
		said := ""
		for ctx.Err() == nil {
			c, err := s.Current(ctx)
			switch {
			case ctx.Err() != nil:
				return
			case err != nil && err.Error() != said:
				said = err.Error()
				if !yield(Credential{}, err) {
					return
				}
			case err == nil:
				said = ""
				if !c.Equal(last) {
					last = c
					if !yield(c, nil) {
						return
					}
				}
			}
			select {
			case <-ctx.Done():
			case <-tick.C:
			}
		}
	}
}
