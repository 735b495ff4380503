// Package kafka rotates the SCRAM credentials of Kafka's clients, so that the next one works
// beside the current one: principals in turn, with the same ACLs and quotas ([Backend]), or the
// two mechanisms of one principal ([Mechanisms]).
//
// Kafka has no way to end a connection, and a deleted credential ends none. So a principal that
// is ended is denied everything first, which bites live clients at their next request; then its
// credential is overwritten with a value that nobody keeps. It is not deleted: brokers up to 4.4
// may lose all users of a mechanism at a restart after that.
package kafka

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/keyturn/keyturn/internal/backend/remote"
	"github.com/keyturn/keyturn/internal/rotation"
	"github.com/keyturn/keyturn/internal/secret"
)

// Options are what a [Backend] needs beside its settings. The zero Options work.
type Options struct {
	Emergency bool // Identify may take the principal that is kept for emergencies
	remote.Options
}

// A Backend rotates one credential of one Kafka cluster by principals in turn.
type Backend struct{ turn }

// The interfaces that a Backend fulfils.
var (
	_ rotation.Backend     = (*Backend)(nil)
	_ rotation.Drafter     = (*Backend)(nil)
	_ rotation.Preflighter = (*Backend)(nil)
	_ rotation.Comparer    = (*Backend)(nil)
	_ rotation.Adopter     = (*Backend)(nil)
	_ rotation.Warner      = (*Backend)(nil)
	_ rotation.Examiner    = (*Backend)(nil)
	_ rotation.Login       = Login
)

// New returns a Backend for settings that passed [Section] and name principals. It does no I/O.
func New(s Settings, o Options) (*Backend, error) {
	t, err := newTurn(s, o)
	if err != nil {
		return nil, err
	}
	t.kind = "principal"
	for _, principal := range s.Principals {
		t.slots = append(t.slots, slot{principal: principal, mechanism: t.settings.Mechanism})
	}
	return &Backend{t}, nil
}

// publicRightsOf is the public field that says from which principal the rights are copied.
const publicRightsOf = "rights-of"

// Identify picks a principal whose credential nobody has the value of on any broker, and which
// is none of others'. The last of three or more is left for emergencies.
func (b *Backend) Identify(ctx context.Context, next rotation.Version, others []rotation.Version) (rotation.Version, error) {
	v, err := b.turn.Identify(ctx, next, others)
	if err != nil {
		return v, err
	}
	v.Public[publicRightsOf] = b.settings.RightsOf
	if b.settings.RightsOf != "" {
		return v, nil
	}
	i := slices.IndexFunc(others, func(o rotation.Version) bool { return o.State == rotation.Current })
	if i < 0 {
		return v, refused("name a user that has them: kafka: {rights-of: …}", "no principal is in service whose ACLs and quotas could be copied")
	}
	v.Public[publicRightsOf] = others[i].Identity
	return v, nil
}

// Arm gives the principal the rights of the one in service and takes away what stopped it; then
// it gets its value, which from then on says whose it is. Last, every broker must accept a
// login with it. Kafka has no expiry, so none is set.
func (b *Backend) Arm(ctx context.Context, v rotation.Version, m rotation.Material, _ time.Time) error {
	value, err := valueIn(v, m)
	if err != nil {
		return err
	}
	c, err := b.open(ctx)
	if err != nil {
		return err
	}
	defer c.close()
	armed, err := b.armed(ctx, c, v)
	if err != nil {
		return err
	}
	if !armed {
		if err := b.make(ctx, c, v, value); err != nil {
			return err
		}
	}
	err = c.until(ctx, fmt.Sprintf("arming %q", v.Identity), "it is still denied everything", func(ctx context.Context, at broker) (bool, error) {
		has, err := rightsOf(v.Identity)(ctx, at)
		return len(has.stopped()) == 0, err
	})
	if err != nil {
		return err
	}
	return b.accepted(ctx, v, value)
}

// make makes a version's credential, after the rights that go with it.
func (b *Backend) make(ctx context.Context, c *cluster, v rotation.Version, value secret.Value) error {
	want, err := c.level(ctx, v.Public[publicRightsOf], v.Identity)
	if err != nil {
		return err
	}
	has, err := c.rights(ctx, v.Identity)
	if err != nil {
		return err
	}
	if err := c.remove(ctx, v.Identity, has.stopped()); err != nil {
		return err
	}
	err = c.until(ctx, fmt.Sprintf("giving %q its rights", v.Identity), "it has others", func(ctx context.Context, at broker) (bool, error) {
		has, err := rightsOf(v.Identity)(ctx, at)
		return has.differ(want) == "", err
	})
	if err != nil {
		return err
	}
	return b.give(ctx, c, v, value)
}

// valueIn returns the value that is to be armed.
func valueIn(v rotation.Version, m rotation.Material) (secret.Value, error) {
	value, ok := m[fieldPassword]
	if !ok {
		return value, fmt.Errorf("kafka: arming version %d: its value is missing", v.Number)
	}
	return value, nil
}

// Compare checks that both principals may do the same, and as much of it.
func (b *Backend) Compare(ctx context.Context, next, current rotation.Version) error {
	c, err := b.open(ctx)
	if err != nil {
		return err
	}
	defer c.close()
	var found [2]rights
	for i, v := range []rotation.Version{next, current} {
		if found[i], err = c.rights(ctx, v.Identity); err != nil {
			return err
		}
	}
	if text := found[0].differ(found[1]); text != "" {
		return rotation.Errorf(rotation.Failed, "give both the same ACLs and quotas, or rotate again: the next version takes those of the one in service",
			"kafka: %q and %q may not do the same: %s", next.Identity, current.Identity, text)
	}
	return nil
}
