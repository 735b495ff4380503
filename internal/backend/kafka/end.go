package kafka

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"

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
	found, answered, unanswered := every(ctx, c, fmt.Sprintf("looking at %q", v.Identity), credentials(v.Identity))
	if !slices.Contains(answered, true) || rotation.ClassOf(unanswered) == rotation.Refused {
		return unanswered
	}
	all := held{}
	ours, others := false, ""
	for _, h := range found {
		maps.Copy(all, h)
		switch alive := h.alive(); {
		case h.standing(v, b.mechanism()) != rotation.Absent:
			ours = true
		case alive != "":
			others = alive
		}
	}
	switch {
	case ours:
	case others != "":
		b.options.Logger.InfoContext(ctx, "the principal is another version's and is left alone", "principal", v.Identity, "has", others, "version", v.Number)
		return unanswered
	default: // it never had the version's value, or has another's end: what it may do is nobody's
		return errors.Join(b.stop(ctx, c, v.Identity, len(all) > 0), unanswered)
	}
	b.options.Logger.InfoContext(ctx, "ending a principal's credential", "principal", v.Identity, "version", v.Number, "reason", string(why))
	if err := b.stop(ctx, c, v.Identity, true); err != nil {
		return err
	}
	all[b.mechanism()] = 0
	return b.overwrite(ctx, c, v, slices.Sorted(maps.Keys(all)))
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

// overwrite gives a version's principal a value for each mechanism that is kept only for as long
// as it takes to see that every broker has it, and to end the principal's tokens with it.
func (b *Backend) overwrite(ctx context.Context, c *cluster, v rotation.Version, all []int8) error {
	value := secret.Generate()
	defer value.Wipe()
	mark := int32(endedMark + v.Number)
	for _, mechanism := range all {
		if err := c.set(ctx, v.Identity, mechanism, mark, value); err != nil {
			return err
		}
	}
	err := c.until(ctx, fmt.Sprintf("ending %q", v.Identity), "it still has the old credential, or is not denied everything", func(ctx context.Context, at broker) (bool, error) {
		h, err := credentials(v.Identity)(ctx, at)
		if err != nil || slices.ContainsFunc(all, func(mechanism int8) bool { return h[mechanism] != mark }) {
			return false, err
		}
		has, err := rightsOf(v.Identity)(ctx, at)
		return len(has.stopped()) == len(stops), err
	})
	if err != nil {
		return err
	}
	owner, err := b.as(v.Identity, b.settings.Mechanism, value)
	if err != nil {
		return err
	}
	defer owner.close()
	if err := owner.accepts(ctx, fmt.Sprintf("looking whether %q has its last value", v.Identity)); err != nil {
		return err
	}
	return owner.endTokens(ctx, v.Identity)
}
