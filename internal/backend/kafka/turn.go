package kafka

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/keyturn/keyturn/internal/backend/remote"
	"github.com/keyturn/keyturn/internal/rotation"
	"github.com/keyturn/keyturn/internal/secret"
)

// A slot is what a version has to itself: a principal, or what one of two mechanisms is to it.
type slot struct {
	principal, mechanism string
	one                  bool // the other mechanism is another slot
}

// identity is how the journal calls a slot. No name of a principal has a space.
func (s slot) identity() string {
	if s.one {
		return s.principal + " " + s.mechanism
	}
	return s.principal
}

// A turn is what [Backend] and [Mechanisms] have in common: versions take slots in turn.
type turn struct {
	settings Settings
	options  Options
	slots    []slot
	kind     string // of the slots, for people
}

// newTurn checks the settings and completes them. It does no I/O.
func newTurn(s Settings, o Options) (turn, error) {
	if err := s.check(); err != nil {
		return turn{}, rotation.Classify(rotation.Invalid, "", fmt.Errorf("kafka: %w", err))
	}
	if _, err := remote.TLS(o.CA, s.InsecureTLS); err != nil {
		return turn{}, rotation.Classify(rotation.Invalid, "name a PEM file with the authority's certificate", fmt.Errorf("kafka: ca %q: %w", s.CA, err))
	}
	o.Options = o.Complete()
	return turn{settings: s.withDefaults(), options: o}, nil
}

// slotOf returns the slot of a version; of one that has no place in the turn, such as an adopted
// user, the principal that it is.
func (t *turn) slotOf(v rotation.Version) slot {
	for _, s := range t.slots {
		if s.identity() == v.Identity {
			return s
		}
	}
	return slot{principal: v.Identity, mechanism: t.settings.Mechanism}
}

// ours refuses a credential whose live versions were made by settings of the other kind.
func (t *turn) ours(c rotation.Credential) error {
	one := t.slots[0].one
	for _, v := range c.Live() {
		if v.Identity == "" {
			continue // it is to be made
		}
		if strings.Contains(v.Identity, " ") != one || one && !slices.Contains(t.slots, t.slotOf(v)) {
			return refused("keep to what it was made by, or begin a credential of another name",
				"version %d is %q, which is none of these settings' turn", v.Number, v.Identity)
		}
	}
	return nil
}

// Identify picks a slot whose value nobody has on any broker, and which is none of others'. The
// last of three or more is left for emergencies.
func (t *turn) Identify(ctx context.Context, next rotation.Version, others []rotation.Version) (rotation.Version, error) {
	if next.Number > mostNumber {
		return next, refused("begin a credential of another name, with other principals", "version %d: no more than %d can be told apart by their iterations", next.Number, mostNumber)
	}
	c, err := t.open(ctx)
	if err != nil {
		return next, err
	}
	defer c.close()
	candidates := t.slots
	if next.Identity != "" {
		candidates = []slot{t.slotOf(next)}
	}
	var taken []string
	for _, s := range candidates {
		why, err := t.busy(ctx, c, s, others)
		if err != nil {
			return next, err
		}
		if why == "" {
			v := next.Clone()
			v.Identity, v.Public = s.identity(), t.public(s)
			return v, nil
		}
		taken = append(taken, fmt.Sprintf("%q %s", s.identity(), why))
	}
	hint := "cleanup ends the previous version and frees its " + t.kind + "; what Keyturn did not make, overwrite by hand with a random value: " + byHand(candidates[0])
	if !t.options.Emergency && len(t.slots) > 2 {
		hint += "; in an emergency, revoke may take the last one"
	}
	return next, refused(hint, "no free %s: %s", t.kind, strings.Join(taken, "; "))
}

// byHand is how people free a slot: these iterations say that nobody has the value.
func byHand(s slot) string {
	return fmt.Sprintf("kafka-configs --alter --entity-type users --entity-name … --add-config '%s=[iterations=%d,password=…]'", s.mechanism, endedMark+mostNumber)
}

// busy says why a slot cannot be taken, or "".
func (t *turn) busy(ctx context.Context, c *cluster, s slot, others []rotation.Version) (string, error) {
	for _, o := range others {
		if o.Identity == s.identity() {
			return fmt.Sprintf("is version %d's", o.Number), nil
		}
	}
	at := slices.Index(t.slots, s)
	if at < 0 {
		return "is none of principals", nil
	}
	found, _, err := s.look(ctx, c)
	if err != nil {
		return "", err
	}
	for _, h := range found {
		if alive := h.alive(); alive != "" {
			return "has " + alive, nil
		}
	}
	if n := len(t.slots); n > 2 && at == n-1 && !t.options.Emergency {
		return "is kept for emergencies", nil
	}
	return "", nil
}

// look asks every broker what a slot has.
func (s slot) look(ctx context.Context, c *cluster) (found []held, answered []bool, err error) {
	return every(ctx, c, fmt.Sprintf("looking at %q", s.principal), func(ctx context.Context, b broker) (held, error) {
		h, err := credentials(s.principal)(ctx, b)
		return h.within(s), err
	})
}

// within returns what a slot has of a principal's credentials.
func (h held) within(s slot) held {
	out := maps.Clone(h)
	maps.DeleteFunc(out, func(mechanism int8, _ int32) bool { return s.one && mechanism != mechanisms[s.mechanism] })
	return out
}

// public are the public fields that services may read.
func (t *turn) public(s slot) map[string]string {
	return map[string]string{fieldUsername: s.principal, fieldMechanism: s.mechanism, fieldBrokers: strings.Join(t.settings.Probe, ",")}
}

// Draft returns a new password, and the public fields beside it.
func (t *turn) Draft(v rotation.Version) (rotation.Material, error) {
	if v.Identity == "" {
		return nil, errors.New("kafka: drafting a version that has no principal yet")
	}
	m := rotation.Material{fieldPassword: secret.Generate()}
	for field, value := range t.public(t.slotOf(v)) {
		m[field] = secret.FromString(value)
	}
	return m, nil
}

// Observe asks every broker. A version whose slot has another version's credential, or none, is
// Absent. Sessions cannot be told: Kafka has no list of them. The delegation tokens of a version's
// own principal are, as far as the administrator may see them.
func (t *turn) Observe(ctx context.Context, v rotation.Version) (rotation.Standing, error) {
	if v.Identity == "" {
		return rotation.Standing{Status: rotation.Absent, Detail: "no principal was chosen"}, nil
	}
	c, err := t.open(ctx)
	if err != nil {
		return rotation.Standing{}, err
	}
	defer c.close()
	s := t.slotOf(v)
	found, _, err := s.look(ctx, c)
	if err != nil {
		return rotation.Standing{}, err
	}
	st := rotation.Standing{Status: rotation.Absent}
	for i, h := range found {
		is := h.standing(v, mechanisms[s.mechanism])
		if i == 0 || is == rotation.Armed || is == rotation.Ended && st.Status == rotation.Absent {
			st.Status, st.Detail = is, fmt.Sprintf("%q has %s on %s", s.principal, h, c.brokers[i].address)
		}
	}
	if st.Status == rotation.Absent || s.one {
		return st, nil
	}
	tokens, err := c.tokens(ctx, s.principal)
	for _, token := range tokens {
		st.Uses = append(st.Uses, rotation.Use{Kind: "session", Name: "delegation token " + token.TokenID, Detail: "until " + time.UnixMilli(token.MaxTimestamp).UTC().Format(time.RFC3339)})
	}
	return st, err
}

// armed reports whether every broker has a version's credential, and refuses a slot that is not free
// for it.
func (t *turn) armed(ctx context.Context, c *cluster, v rotation.Version) (bool, error) {
	s := t.slotOf(v)
	if !slices.Contains(t.slots, s) {
		return false, fmt.Errorf("kafka: arming version %d: %q is none of principals", v.Number, v.Identity)
	}
	found, _, err := s.look(ctx, c)
	if err != nil {
		return false, err
	}
	armed := true
	for _, h := range found {
		if h.standing(v, mechanisms[s.mechanism]) == rotation.Armed {
			continue
		}
		armed = false
		if alive := h.alive(); alive != "" {
			return false, refused("find out who rotates it", "%q has %s, and is not free for version %d", v.Identity, alive, v.Number)
		}
	}
	return armed, nil
}

// give gives a version's slot its value.
func (t *turn) give(ctx context.Context, c *cluster, v rotation.Version, value secret.Value) error {
	s := t.slotOf(v)
	return c.set(ctx, s.principal, mechanisms[s.mechanism], int32(aliveMark+v.Number), value)
}

// accepted waits until every broker takes a value of a version's slot.
func (t *turn) accepted(ctx context.Context, v rotation.Version, value secret.Value) error {
	s := t.slotOf(v)
	c, err := t.as(s.principal, s.mechanism, value)
	if err != nil {
		return err
	}
	defer c.close()
	return c.accepts(ctx, fmt.Sprintf("logging in as %q", v.Identity), nothing)
}

// ProbeSpec says how to try a version. It does no I/O.
func (t *turn) ProbeSpec(v rotation.Version) rotation.ProbeSpec {
	s := t.slotOf(v)
	settings, err := json.Marshal(probeSettings{Mechanism: s.mechanism, Topics: t.settings.Topics, InsecureTLS: t.settings.InsecureTLS})
	if err != nil {
		panic("kafka: " + err.Error()) // texts have a JSON form
	}
	return rotation.ProbeSpec{Backend: "kafka", Identity: s.principal, Endpoints: t.settings.Probe, CA: t.options.CA, Settings: settings}
}
