// Package kafka rotates the SCRAM credentials of Kafka's clients: principals in turn, with the
// same ACLs and quotas, so that the next credential works beside the current one.
//
// Kafka has no way to end a connection, and a deleted credential ends none. So a version that
// is ended is denied everything first, which bites live clients at their next request; then its
// credential is overwritten with a value that nobody keeps. It is not deleted: brokers up to 4.4
// may lose all users of a mechanism at a restart after that.
package kafka

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
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

// A Backend rotates one credential of one Kafka cluster.
type Backend struct {
	settings Settings
	options  Options
}

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

// New returns a Backend for settings that passed [Section]. It does no I/O.
func New(s Settings, o Options) (*Backend, error) {
	if err := s.check(); err != nil {
		return nil, rotation.Classify(rotation.Invalid, "", fmt.Errorf("kafka: %w", err))
	}
	if _, err := remote.TLS(o.CA, s.InsecureTLS); err != nil {
		return nil, rotation.Classify(rotation.Invalid, "name a PEM file with the authority's certificate", fmt.Errorf("kafka: ca %q: %w", s.CA, err))
	}
	o.Options = o.Complete()
	return &Backend{settings: s.withDefaults(), options: o}, nil
}

func (b *Backend) mechanism() int8 { return mechanisms[b.settings.Mechanism] }

// publicRightsOf is the public field that says from which principal the rights are copied.
const publicRightsOf = "rights-of"

// Identify picks a principal whose credential nobody has the value of on any broker, and which
// is none of others'. The last of three or more is left for emergencies.
func (b *Backend) Identify(ctx context.Context, next rotation.Version, others []rotation.Version) (rotation.Version, error) {
	if next.Number > mostNumber {
		return next, refused("begin a credential of another name, with other principals", "version %d: no more than %d can be told apart by their iterations", next.Number, mostNumber)
	}
	c, err := b.open(ctx)
	if err != nil {
		return next, err
	}
	defer c.close()
	candidates := b.settings.Principals
	if next.Identity != "" {
		candidates = []string{next.Identity}
	}
	var taken []string
	for _, principal := range candidates {
		why, err := b.busy(ctx, c, principal, others)
		if err != nil {
			return next, err
		}
		if why == "" {
			return b.identified(next, principal, others)
		}
		taken = append(taken, fmt.Sprintf("%q %s", principal, why))
	}
	hint := "cleanup ends the previous version and frees its principal; what Keyturn did not make, overwrite by hand with a random value"
	if !b.options.Emergency && len(b.settings.Principals) > 2 {
		hint += "; in an emergency, revoke may take the last one"
	}
	return next, refused(hint, "no free principal: %s", strings.Join(taken, "; "))
}

// busy says why a principal cannot be taken, or "".
func (b *Backend) busy(ctx context.Context, c *cluster, principal string, others []rotation.Version) (string, error) {
	for _, o := range others {
		if o.Identity == principal {
			return fmt.Sprintf("is version %d's", o.Number), nil
		}
	}
	if !slices.Contains(b.settings.Principals, principal) {
		return "is none of principals", nil
	}
	found, _, err := every(ctx, c, fmt.Sprintf("looking at %q", principal), credentials(principal))
	if err != nil {
		return "", err
	}
	for _, h := range found {
		if alive := h.alive(); alive != "" {
			return "has " + alive, nil
		}
	}
	if n := len(b.settings.Principals); n > 2 && principal == b.settings.Principals[n-1] && !b.options.Emergency {
		return "is kept for emergencies", nil
	}
	return "", nil
}

// identified fills in the identity and the public fields.
func (b *Backend) identified(v rotation.Version, principal string, others []rotation.Version) (rotation.Version, error) {
	v = v.Clone()
	v.Identity = principal
	v.Public = b.public(principal)
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

// public are the public fields that services may read.
func (b *Backend) public(principal string) map[string]string {
	return map[string]string{fieldUsername: principal, fieldMechanism: b.settings.Mechanism, fieldBrokers: strings.Join(b.settings.Probe, ",")}
}

// Draft returns a new password, and the public fields beside it.
func (b *Backend) Draft(v rotation.Version) (rotation.Material, error) {
	if v.Identity == "" {
		return nil, errors.New("kafka: drafting a version that has no principal yet")
	}
	m := rotation.Material{fieldPassword: secret.Generate()}
	for field, value := range b.public(v.Identity) {
		m[field] = secret.FromString(value)
	}
	return m, nil
}

// Observe asks every broker. A version whose principal has another version's credential, or
// none, is Absent. Sessions cannot be told: Kafka has no list of them. The delegation tokens of
// the principal are, as far as the administrator may see them.
func (b *Backend) Observe(ctx context.Context, v rotation.Version) (rotation.Standing, error) {
	if v.Identity == "" {
		return rotation.Standing{Status: rotation.Absent, Detail: "no principal was chosen"}, nil
	}
	c, err := b.open(ctx)
	if err != nil {
		return rotation.Standing{}, err
	}
	defer c.close()
	found, _, err := every(ctx, c, fmt.Sprintf("looking at %q", v.Identity), credentials(v.Identity))
	if err != nil {
		return rotation.Standing{}, err
	}
	st := rotation.Standing{Status: rotation.Absent}
	for i, h := range found {
		s := h.standing(v, b.mechanism())
		if i == 0 || s == rotation.Armed || s == rotation.Ended && st.Status == rotation.Absent {
			st.Status, st.Detail = s, fmt.Sprintf("%q has %s on %s", v.Identity, h, c.brokers[i].address)
		}
	}
	if st.Status == rotation.Absent {
		return st, nil
	}
	err = c.any(ctx, fmt.Sprintf("looking at the delegation tokens of %q", v.Identity), func(ctx context.Context, at broker) error {
		tokens, err := tokensOf(v.Identity)(ctx, at)
		for _, t := range tokens {
			st.Uses = append(st.Uses, rotation.Use{Kind: "session", Name: "delegation token " + t.TokenID, Detail: "until " + time.UnixMilli(t.MaxTimestamp).UTC().Format(time.RFC3339)})
		}
		return err
	})
	return st, err
}

// Arm gives the principal the rights of the one in service and takes away what stopped it; then
// it gets its value, which from then on says whose it is. Last, every broker must accept a
// login with it. Kafka has no expiry, so none is set.
func (b *Backend) Arm(ctx context.Context, v rotation.Version, m rotation.Material, _ time.Time) error {
	value, ok := m[fieldPassword]
	if !ok {
		return fmt.Errorf("kafka: arming version %d: its value is missing", v.Number)
	}
	if !slices.Contains(b.settings.Principals, v.Identity) {
		return fmt.Errorf("kafka: arming version %d: %q is none of principals", v.Number, v.Identity)
	}
	c, err := b.open(ctx)
	if err != nil {
		return err
	}
	defer c.close()
	found, _, err := every(ctx, c, fmt.Sprintf("looking at %q", v.Identity), credentials(v.Identity))
	if err != nil {
		return err
	}
	armed := !slices.ContainsFunc(found, func(h held) bool { return h.standing(v, b.mechanism()) != rotation.Armed })
	for _, h := range found {
		if alive := h.alive(); alive != "" && h.standing(v, b.mechanism()) != rotation.Armed {
			return refused("find out who rotates it", "%q has %s, and is not free for version %d", v.Identity, alive, v.Number)
		}
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
	return c.set(ctx, v.Identity, b.mechanism(), int32(aliveMark+v.Number), value)
}

// accepted waits until every broker takes a value of a version's principal.
func (b *Backend) accepted(ctx context.Context, v rotation.Version, value secret.Value) error {
	c, err := b.as(v.Identity, b.settings.Mechanism, value)
	if err != nil {
		return err
	}
	defer c.close()
	return c.accepts(ctx, fmt.Sprintf("logging in as %q", v.Identity))
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
