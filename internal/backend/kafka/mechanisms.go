package kafka

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"

	"github.com/keyturn/keyturn/internal/rotation"
)

// Mechanisms rotates the credential of one principal, which has a password for SCRAM-SHA-256
// and another one for SCRAM-SHA-512: versions take the mechanisms in turn. Its ACLs and quotas
// stay as they are.
//
// The principal stays in service, so it is denied nothing when a version ends: a client that is
// connected by the password that was ended goes on until the broker has it log in again, which
// it does after connections.max.reauth.ms. Without that the rotation is refused, unless
// [Settings.AcceptLiveConnections] is set.
type Mechanisms struct{ turn }

// The interfaces that Mechanisms fulfils.
var (
	_ rotation.Backend     = (*Mechanisms)(nil)
	_ rotation.Drafter     = (*Mechanisms)(nil)
	_ rotation.Preflighter = (*Mechanisms)(nil)
	_ rotation.Adopter     = (*Mechanisms)(nil)
	_ rotation.Warner      = (*Mechanisms)(nil)
	_ rotation.Examiner    = (*Mechanisms)(nil)
)

// NewMechanisms returns Mechanisms for settings that passed [Section] and name one principal.
// It does no I/O.
func NewMechanisms(s Settings, o Options) (*Mechanisms, error) {
	t, err := newTurn(s, o)
	if err != nil {
		return nil, err
	}
	t.kind = "mechanism"
	for _, mechanism := range []string{sha512Name, sha256Name} {
		t.slots = append(t.slots, slot{principal: s.Principal, mechanism: mechanism, one: true})
	}
	if t.settings.Mechanism == sha256Name {
		slices.Reverse(t.slots)
	}
	return &Mechanisms{t}, nil
}

// Preflight checks what [Backend.Preflight] does, that every broker takes both mechanisms, and has
// clients log in again; and that the principal is not denied everything and has no delegation
// tokens: with which password one was made Kafka does not tell, and End ends them all.
func (m *Mechanisms) Preflight(ctx context.Context, cred rotation.Credential) error {
	c, err := m.ready(ctx, cred)
	if err != nil {
		return err
	}
	defer c.close()
	if err := m.takesBoth(ctx, c); err != nil {
		return err
	}
	principal := m.settings.Principal
	if err := c.unstopped(ctx, principal); err != nil {
		return err
	}
	tokens, err := c.tokens(ctx, principal)
	if err != nil {
		return err
	}
	if len(tokens) > 0 {
		return refused("rotate it by principals in turn, or end the tokens: kafka-delegation-tokens --expire",
			"%q has delegation tokens (%d): Kafka does not tell by which password one was made, so that ending a password would end them all", principal, len(tokens))
	}
	without, _, err := m.lasting(ctx, c)
	if err == nil && len(without) > 0 && !m.settings.AcceptLiveConnections {
		err = refused("set it for both mechanisms, to an hour for one; or write accept-live-connections: true",
			"%s is not set on %s: a client that is connected by a password that was ended would go on for ever, for the principal stays in service", reauth, strings.Join(without, ", "))
	}
	return err
}

// takesBoth asks every broker whether it takes both mechanisms, where it is asked, and where
// services connect to as far as its configuration says.
func (m *Mechanisms) takesBoth(ctx context.Context, c *cluster) error {
	_, _, err := every(ctx, c, "asking which mechanisms it takes", func(ctx context.Context, at broker) (struct{}, error) {
		values, err := configOf(ctx, at)
		for _, s := range m.slots {
			if err == nil {
				err = m.takes(ctx, at, s.mechanism, values)
			}
		}
		return struct{}{}, err
	})
	return err
}

func (m *Mechanisms) takes(ctx context.Context, at broker, mechanism string, values map[string]string) error {
	const hint = "have both in sasl.enabled.mechanisms of that listener, on every broker: " + sha256Name + "," + sha512Name
	l := line{mechanism: mechanism, ca: m.options.CA, weaker: m.settings.InsecureTLS, dial: m.options.Dial}
	client, err := l.connect(at.address)
	if err != nil {
		return err
	}
	defer client.close()
	ctx, cancel := context.WithTimeout(ctx, at.timeout)
	defer cancel()
	if err := client.shake(ctx); errors.Is(err, kerr.UnsupportedSaslMechanism) { // nobody is logged in
		return refused(hint, "%s does not take %s", at.address, mechanism)
	} else if err != nil {
		return err
	}
	for _, listener := range m.listeners(values, at.address) {
		if listener != "" && !enables(values, listener, mechanism) {
			return refused(hint, "%s does not take %s on its listener %s", at.address, mechanism, listener)
		}
	}
	return nil
}

// Arm gives the principal a value for the version's mechanism, which from then on says whose it is.
// The other mechanism's is not touched. Last, every broker must accept a login with it. Kafka
// has no expiry, so none is set.
func (m *Mechanisms) Arm(ctx context.Context, v rotation.Version, material rotation.Material, _ time.Time) error {
	value, err := valueIn(v, material)
	if err != nil {
		return err
	}
	c, err := m.open(ctx)
	if err != nil {
		return err
	}
	defer c.close()
	armed, err := m.armed(ctx, c, v)
	if err != nil {
		return err
	}
	if !armed {
		if err := m.give(ctx, c, v, value); err != nil {
			return err
		}
	}
	return m.accepted(ctx, v, value)
}

// End overwrites the credential of the version's mechanism with a value that nobody keeps, and
// ends the delegation tokens of the principal. That every broker takes the new value proves that
// none takes the old one. Clients that are connected by the old one go on until they must log in
// again. A mechanism that is another version's by now is left alone.
func (m *Mechanisms) End(ctx context.Context, v rotation.Version, why rotation.Why) error {
	if v.Identity == "" {
		return nil
	}
	if !slices.Contains(m.slots, m.slotOf(v)) {
		return refused("end it by the settings that it was made by", "version %d is %q, which is no mechanism of %q", v.Number, v.Identity, m.settings.Principal)
	}
	c, err := m.open(ctx)
	if err != nil {
		return err
	}
	defer c.close()
	e, err := m.ending(ctx, c, v)
	if err != nil {
		return err
	}
	if !e.ours {
		return e.unanswered
	}
	m.telling(ctx, v, why)
	return m.overwrite(ctx, c, v, e.all, "it still has the old credential", func(context.Context, broker) (bool, error) { return true, nil })
}

// Warnings implements [rotation.Warner].
func (m *Mechanisms) Warnings(ctx context.Context, _ string) ([]string, error) {
	out := []string{fmt.Sprintf(untold, "password")}
	c, err := m.open(ctx)
	if err != nil {
		return out, err
	}
	defer c.close()
	without, longest, err := m.lasting(ctx, c)
	if err != nil {
		return out, err
	}
	const connected = "a client that is connected by a password which cleanup, rollback or revoke ended goes on "
	if len(without) > 0 {
		out = append(out, connected+fmt.Sprintf("for as long as it stays connected, for %s is not set on %s: nothing stops it but a restart of the brokers", reauth, strings.Join(without, ", ")))
	}
	if longest > 0 {
		out = append(out, connected+fmt.Sprintf("until it must log in again: within %s, by %s", span(longest), reauth))
	}
	return out, nil
}

// Adopt takes over what the principal logs in with today, by the mechanism of the settings, as
// version 1. The other mechanism must be free for the next version.
func (m *Mechanisms) Adopt(ctx context.Context, v rotation.Version) (rotation.Version, error) {
	as, other := m.slots[0], m.slots[1]
	if err := m.reads(v, as); err != nil {
		return v, err
	}
	c, err := m.open(ctx)
	if err != nil {
		return v, err
	}
	defer c.close()
	found, _, err := every(ctx, c, fmt.Sprintf("looking at %q", as.principal), credentials(as.principal))
	if err != nil {
		return v, err
	}
	has := found[0]
	if _, there := has[mechanisms[as.mechanism]]; !there && len(has) > 0 {
		return v, refused("say by which one services log in: kafka: {mechanism: "+other.mechanism+"}", "%q has no credential for %s; it has %s", as.principal, as.mechanism, has)
	}
	if alive := has.within(other).alive(); alive != "" {
		return v, refused("if nobody logs in by it, overwrite it with a random value: "+byHand(other),
			"%q has %s too, which the next version would take the place of", as.principal, alive)
	}
	return m.adopted(ctx, c, v, as, has.within(as))
}

// Examine implements [rotation.Examiner]: what the principal has.
func (m *Mechanisms) Examine(ctx context.Context) ([]rotation.Remark, error) {
	c, err := m.open(ctx)
	if err != nil {
		return nil, err
	}
	defer c.close()
	principal := m.settings.Principal
	found, _, err := every(ctx, c, fmt.Sprintf("looking at %q", principal), credentials(principal))
	if err != nil {
		return nil, err
	}
	return []rotation.Remark{{Level: rotation.Fine, Text: fmt.Sprintf("principal %q has %s", principal, found[0])}}, nil
}
