package kafka

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/keyturn/keyturn/internal/rotation"
	"github.com/keyturn/keyturn/internal/secret"
)

// End denies the version's principal everything, which stops its live clients with their next
// request; overwrites its credential with a value that nobody keeps; and ends its delegation
// tokens. That every broker takes the new value proves that none takes the old one. What a broker
// that is down would have to say is not waited for before the others are changed; it is an
// error of class Unknown.
//
// A principal that is another version's by now is left alone. Its ACLs and quotas stay: the next
// version takes them, after a revocation too.
func (b *Backend) End(ctx context.Context, v rotation.Version, why rotation.Why) error {
	if v.Identity == "" {
		return nil
	}
	c, err := b.open(ctx)
	if err != nil {
		return err
	}
	defer c.close()
	e, err := b.ending(ctx, c, v)
	if err != nil {
		return err
	}
	switch {
	case e.ours:
	case e.others != "":
		return e.unanswered
	default: // it never had the version's value, or has another's end: what it may do is nobody's
		return errors.Join(b.stop(ctx, c, v.Identity, len(e.all) > 0), e.unanswered)
	}
	b.telling(ctx, v, why)
	if err := b.stop(ctx, c, v.Identity, true); err != nil {
		return err
	}
	return b.overwrite(ctx, c, v, e.all, "it still has the old credential, or is not denied everything", func(ctx context.Context, at broker) (bool, error) {
		has, err := rightsOf(v.Identity)(ctx, at)
		return len(has.stopped()) == len(stops), err
	})
}

// stop denies a principal everything, if it is there or has any right.
func (b *Backend) stop(ctx context.Context, c *cluster, principal string, there bool) error {
	has, err := c.rights(ctx, principal)
	if err != nil || !there && has.empty() {
		return err
	}
	stopped := has.stopped()
	return c.add(ctx, principal, slices.DeleteFunc(slices.Clone(stops), func(r rule) bool { return slices.Contains(stopped, r) }))
}

// An ending is what brokers say of a version's slot before its end.
type ending struct {
	all        held   // what it has on any of them
	ours       bool   // that is the version's, or is its end
	others     string // what it has of another one, or ""
	unanswered error  // of brokers that say nothing
}

// ending looks at a version that is to be ended. With no answer at all it is an error.
func (t *turn) ending(ctx context.Context, c *cluster, v rotation.Version) (ending, error) {
	s := t.slotOf(v)
	found, answered, unanswered := s.look(ctx, c)
	if !slices.Contains(answered, true) || rotation.ClassOf(unanswered) == rotation.Refused {
		return ending{}, unanswered
	}
	e := ending{all: held{}, unanswered: unanswered}
	for _, h := range found {
		maps.Copy(e.all, h)
		switch alive := h.alive(); {
		case h.standing(v, mechanisms[s.mechanism]) != rotation.Absent:
			e.ours = true
		case alive != "":
			e.others = alive
		}
	}
	if !e.ours && e.others != "" {
		t.options.Logger.InfoContext(ctx, "the "+t.kind+" is another version's and is left alone", "identity", v.Identity, "has", e.others, "version", v.Number)
	}
	return e, nil
}

func (t *turn) telling(ctx context.Context, v rotation.Version, why rotation.Why) {
	t.options.Logger.InfoContext(ctx, "ending a credential", "identity", v.Identity, "version", v.Number, "reason", string(why))
}

// overwrite gives a version's slot, for each mechanism that it has, a value that is kept only for as
// long as it takes to see that every broker has it, and to end the principal's tokens with it. Also is
// what a broker must say besides; late says what one lacks.
func (t *turn) overwrite(ctx context.Context, c *cluster, v rotation.Version, has held, late string, also func(context.Context, broker) (bool, error)) error {
	s := t.slotOf(v)
	value := secret.Generate()
	defer value.Wipe()
	mark := int32(endedMark + v.Number)
	has[mechanisms[s.mechanism]] = 0
	all := slices.Sorted(maps.Keys(has))
	var written time.Time
	write := func() error {
		for _, mechanism := range all {
			if err := c.set(ctx, s.principal, mechanism, mark, value); err != nil {
				return err
			}
		}
		written = time.Now()
		return nil
	}
	if err := write(); err != nil {
		return err
	}
	err := c.until(ctx, fmt.Sprintf("ending %q", v.Identity), late, func(ctx context.Context, at broker) (bool, error) {
		h, err := credentials(s.principal)(ctx, at)
		if err != nil || slices.ContainsFunc(all, func(mechanism int8) bool { return h[mechanism] != mark }) {
			return false, err
		}
		return also(ctx, at)
	})
	if err != nil {
		return err
	}
	owner, err := t.as(s.principal, s.mechanism, value)
	if err != nil {
		return err
	}
	defer owner.close()
	// What a run before this one wrote, to a broker that stood still, may have come after it: then
	// it is written once more.
	err = owner.accepts(ctx, fmt.Sprintf("looking whether %q has its last value", v.Identity), func() error {
		if time.Since(written) < c.patience/5 {
			return nil
		}
		return write()
	})
	if err != nil {
		return err
	}
	return owner.endTokens(ctx, s.principal)
}
