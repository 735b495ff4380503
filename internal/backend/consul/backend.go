// Package consul rotates Consul's ACL tokens: any number of tokens may do the same at the
// same time, so the next one is made beside the current one, with the same links, and the
// old one is deleted once nothing reads it.
//
// The ids of a token are chosen here, so that a token whose making was not answered is
// found again. An accessor follows from the credential and the version, and is no secret.
package consul

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/hashicorp/consul/api"

	"github.com/keyturn/keyturn/internal/backend/remote"
	"github.com/keyturn/keyturn/internal/rotation"
	"github.com/keyturn/keyturn/internal/secret"
)

// Options are what a [Backend] needs beside its settings. The zero Options work.
type Options struct {
	Credential string // its name, for the description
	remote.Options
}

// A Backend rotates one ACL token of one Consul datacenter.
type Backend struct {
	settings Settings
	options  Options
	title    string // the description without a version
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
	_ rotation.Nouner      = (*Backend)(nil)
	_ rotation.Login       = Login
)

// New returns a Backend for settings that passed [Section]. It does no I/O.
func New(s Settings, o Options) (*Backend, error) {
	o, err := o.complete(s)
	if err != nil {
		return nil, err
	}
	b := &Backend{settings: s, options: o, title: s.Description}
	if b.title == "" {
		b.title = "keyturn " + o.Credential
	}
	return b, nil
}

// complete checks the settings, and fills in the defaults.
func (o Options) complete(s Settings) (Options, error) {
	if err := s.check(); err != nil {
		return o, rotation.Classify(rotation.Invalid, "", fmt.Errorf("consul: %w", err))
	}
	if _, err := remote.TLS(o.CA, s.InsecureTLS); err != nil {
		return o, rotation.Classify(rotation.Invalid, "name a PEM file with the authority's certificate", fmt.Errorf("consul: ca %q: %w", s.CA, err))
	}
	o.Options = o.Complete()
	return o, nil
}

// Noun implements [rotation.Nouner].
func (b *Backend) Noun() string { return "ACL token" }

// accessorOf returns the accessor of a version: a UUID of version 8, which says that its
// bits are the maker's (RFC 9562).
func (b *Backend) accessorOf(number int) string {
	sum := sha256.Sum256(fmt.Appendf(nil, "keyturn accessor\n%s\n%d", b.title, number))
	sum[6], sum[8] = sum[6]&0x0f|0x80, sum[8]&0x3f|0x80
	return fmt.Sprintf("%x-%x-%x-%x-%x", sum[0:4], sum[4:6], sum[6:8], sum[8:10], sum[10:16])
}

// of reports whether a token is a version's: its description says so, whatever the record
// says of its accessor. One that was adopted has any description.
func of(t *api.ACLToken, v rotation.Version) bool {
	_, number := rotation.ParseTitle(t.Description)
	return t.AccessorID == v.Identity && (number == v.Number || number == 0 && v.Number == 1)
}

// publicRightsOf is the public field that says from which token the rights are copied.
const publicRightsOf = "rights-of"

// Identify chooses the accessor of the version's token. A token that has it already was
// made by somebody else: another record rotates the same credential.
func (b *Backend) Identify(ctx context.Context, next rotation.Version, others []rotation.Version) (rotation.Version, error) {
	next = next.Clone()
	next.Identity = b.accessorOf(next.Number)
	next.Public = map[string]string{fieldAccessor: next.Identity, fieldAddress: b.settings.probes()[0]}
	c, err := b.open(ctx)
	if err != nil {
		return next, err
	}
	t, err := c.find(ctx, next.Identity)
	if err != nil {
		return next, err
	}
	if t != nil {
		return next, refused("find out who made it; if nobody else rotates it, delete it by hand, or choose another description: consul: {description: …}",
			"%s is not on this record, whose next version is %d: somebody else rotates, or did", describe(t), next.Number)
	}
	if b.settings.declared() {
		return next, nil
	}
	i := slices.IndexFunc(others, func(v rotation.Version) bool { return v.State == rotation.Current })
	if i < 0 {
		return next, refused("write policies:, roles:, service-identities: or node-identities:", "no token is in service whose rights could be copied")
	}
	if t, err = c.find(ctx, others[i].Identity); err != nil {
		return next, err
	}
	if t == nil {
		return next, refused("write policies:, roles:, service-identities: or node-identities:", "the token of version %d is gone, whose rights are to be copied", others[i].Number)
	}
	next.Public[publicRightsOf] = t.AccessorID
	return next, nil
}

// Draft returns a new SecretID, and the public fields beside it.
func (b *Backend) Draft(v rotation.Version) (rotation.Material, error) {
	if v.Identity == "" {
		return nil, errors.New("consul: drafting a version that has no accessor yet")
	}
	return rotation.Material{fieldToken: secret.GenerateUUID(), fieldAccessor: secret.FromString(v.Identity),
		fieldAddress: secret.FromString(b.settings.probes()[0])}, nil
}

// Observe asks every server. The version is Absent if none knows it: Consul keeps nothing of
// a token that was deleted.
func (b *Backend) Observe(ctx context.Context, v rotation.Version) (rotation.Standing, error) {
	if v.Identity == "" {
		return rotation.Standing{Status: rotation.Absent, Detail: "no accessor was chosen"}, nil
	}
	c, err := b.open(ctx)
	if err != nil {
		return rotation.Standing{}, err
	}
	found, err := c.everywhere(ctx, v)
	if err != nil {
		return rotation.Standing{}, err
	}
	for _, t := range found {
		switch {
		case t == nil:
		case t.ExpirationTime != nil:
			return rotation.Standing{Status: rotation.Expiring, Until: *t.ExpirationTime, Detail: describe(t)}, nil
		default:
			return rotation.Standing{Status: rotation.Armed, Detail: describe(t)}, nil
		}
	}
	return rotation.Standing{Status: rotation.Absent, Detail: fmt.Sprintf("no such token on %d servers", len(found))}, nil
}

// Arm makes the token, and waits until every server knows it: one that does not would
// refuse it, and remember that. Consul takes an expiry at birth only, which is not set:
// a token that outlives its rotation is better than services that lose theirs. After an
// answer that was lost, the token is looked for by its accessor.
func (b *Backend) Arm(ctx context.Context, v rotation.Version, m rotation.Material, _ time.Time) error {
	if v.Identity != b.accessorOf(v.Number) {
		return fmt.Errorf("consul: the accessor %q is not of version %d", v.Identity, v.Number)
	}
	value, ok := m[fieldToken]
	if !ok {
		return fmt.Errorf("consul: making the token of version %d: its value is missing", v.Number)
	}
	c, err := b.open(ctx)
	if err != nil {
		return err
	}
	t, err := c.find(ctx, v.Identity)
	if err != nil {
		return err
	}
	if t == nil {
		if t, err = b.make(ctx, c, v, value); err != nil {
			return err
		}
	}
	if !of(t, v) || t.SecretID != string(value.Reveal()) {
		return refused("find out who made it", "%s is there, and is not what version %d is to be", describe(t), v.Number)
	}
	return c.known(ctx, v, true)
}

// make makes the token of a version.
func (b *Backend) make(ctx context.Context, c *cluster, v rotation.Version, value secret.Value) (*api.ACLToken, error) {
	want := b.settings.declaredRights()
	if !b.settings.declared() {
		from, err := c.find(ctx, v.Public[publicRightsOf])
		if err != nil {
			return nil, err
		}
		if from == nil {
			return nil, refused("write policies:, roles:, service-identities: or node-identities:", "the token %s is gone, whose rights are to be copied", v.Public[publicRightsOf])
		}
		want = copiedRights(from)
	}
	if err := rotation.CheckLease(ctx); err != nil {
		return nil, err
	}
	want.AccessorID, want.SecretID, want.Description = v.Identity, string(value.Reveal()), rotation.Title(b.title, v.Number)
	made, failed := c.create(ctx, want)
	if failed == nil {
		return made, nil
	}
	found, err := c.after(ctx, v.Identity, failed)
	if err == nil && found == nil {
		err = failed
	}
	return found, err
}

// End deletes the version's token, and waits until no server knows it, and until the agents
// that services ask cannot believe in it any more. Only the token whose accessor is on the
// record is deleted, and only if it says that it is the version's.
func (b *Backend) End(ctx context.Context, v rotation.Version, why rotation.Why) error {
	if v.Identity == "" {
		return nil
	}
	c, err := b.open(ctx)
	if err != nil {
		return err
	}
	t, err := c.find(ctx, v.Identity)
	if err != nil {
		return err
	}
	if t != nil && !of(t, v) {
		b.options.Logger.InfoContext(ctx, "the token is of another version and is left alone", "token", describe(t), "version", v.Number)
		return nil
	}
	if t != nil {
		if err := c.another(ctx, v); err != nil {
			return err
		}
		if err := rotation.CheckLease(ctx); err != nil {
			return err
		}
		b.options.Logger.InfoContext(ctx, "deleting a token", "token", describe(t), "version", v.Number, "reason", string(why))
		if failed := c.delete(ctx, v.Identity); failed != nil {
			left, err := c.after(ctx, v.Identity, failed)
			if err == nil && left != nil {
				err = failed
			}
			if err != nil {
				return err
			}
		}
	}
	if err := c.known(ctx, v, false); err != nil {
		return err
	}
	if t != nil && b.cached() {
		return pause(ctx, b.settings.cacheTime())
	}
	return nil
}

// cached reports whether services ask agents that may remember what a token was.
func (b *Backend) cached() bool {
	return slices.ContainsFunc(b.settings.probes(), func(u string) bool { return !slices.Contains(b.settings.Servers, u) })
}

// Compare checks that both tokens may do the same.
func (b *Backend) Compare(ctx context.Context, next, current rotation.Version) error {
	c, err := b.open(ctx)
	if err != nil {
		return err
	}
	var found [2]rights
	for i, v := range []rotation.Version{next, current} {
		t, err := c.find(ctx, v.Identity)
		if err != nil {
			return err
		}
		if t == nil {
			return fmt.Errorf("consul: comparing the tokens: there is none of version %d", v.Number)
		}
		found[i] = rightsOf(t)
	}
	if text := found[0].differ(found[1]); text != "" {
		return rotation.Errorf(rotation.Failed, "link both alike, or write what the next one is to be linked with: policies:, roles:, service-identities:, node-identities:",
			"consul: the tokens of versions %d and %d may not do the same: %s", next.Number, current.Number, text)
	}
	return nil
}
