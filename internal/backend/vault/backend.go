// Package vault rotates AppRole secret-ids of HashiCorp Vault and OpenBao: a role takes any
// number of them at the same time, so the next one is made beside the current one, and the
// old one is destroyed once nothing reads it, with the tokens that were made from it.
//
// The value of a secret-id is chosen here and stands where services read it before Vault
// takes it (custom-secret-id): no run that is killed leaves one that is valid and in nobody's
// hand. What Vault keeps of a version is found by a title in its metadata, which every token
// that is made from it has, too.
package vault

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/keyturn/keyturn/internal/backend/remote"
	"github.com/keyturn/keyturn/internal/backend/remote/vaultapi"
	"github.com/keyturn/keyturn/internal/rotation"
	"github.com/keyturn/keyturn/internal/secret"
)

// Options are what a [Backend] needs beside its settings. The zero Options work. Patience is how
// long tokens of a dead secret-id may turn up.
type Options struct {
	Credential string // its name, for the title
	remote.Options

	// Holders are the texts of the keys of those who get a share of a key, in the order of
	// the settings, and Tell is told what is waited for while a run waits for them; it may be nil.
	Holders [][]byte
	Tell    func(what, hint string)

	// Ripe is how long a token must have been there before it is looked up. Default: 2 s.
	Ripe time.Duration
}

// A Backend rotates the secret-id of one role.
type Backend struct {
	settings Settings
	role     AppRole
	options  Options
	known    known
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
	if err := s.usable(o); err != nil {
		return nil, err
	}
	o.Options = o.Complete()
	o.Ripe = cmp.Or(o.Ripe, ripe)
	return &Backend{settings: s, role: *s.AppRole, options: o}, nil
}

// Noun implements [rotation.Nouner].
func (b *Backend) Noun() string { return "secret-id" }

func (b *Backend) titleOf(number int) string { return rotation.Title(b.options.Credential, number) }

// publicLike is the public field that says from which secret-id metadata and addresses are
// copied.
const publicLike = "like"

// Identify chooses the title of the version's secret-id. One that has it already was made by
// somebody else: another record rotates the same role.
func (b *Backend) Identify(ctx context.Context, next rotation.Version, others []rotation.Version) (rotation.Version, error) {
	next = next.Clone()
	next.Identity = b.titleOf(next.Number)
	c, err := b.open(ctx)
	if err != nil {
		return next, err
	}
	defer c.Close()
	roleID, err := b.roleID(ctx, c)
	if err != nil {
		return next, err
	}
	next.Public = map[string]string{fieldRoleID: roleID, fieldAddress: b.settings.probes()[0]}
	all, err := b.secretIDs(ctx, c)
	if err != nil {
		return next, err
	}
	if i := slices.IndexFunc(all, func(s secretID) bool { return s.of(next) }); i >= 0 {
		return next, refused("find out who made it; if nobody else rotates it: vault write "+b.path("/secret-id-accessor/destroy")+" secret_id_accessor="+all[i].Accessor,
			"%s is not on this record, whose next version is %d: somebody else rotates, or did", all[i], next.Number)
	}
	i := slices.IndexFunc(others, func(v rotation.Version) bool { return v.State == rotation.Current })
	if i < 0 || b.role.declared() {
		return next, nil
	}
	j := slices.IndexFunc(all, func(s secretID) bool { return s.of(others[i]) })
	if j < 0 {
		return next, refused("write metadata:, cidr-list: and token-bound-cidrs:", "the secret-id of version %d is gone, of which they are to be copied", others[i].Number)
	}
	next.Public[publicLike] = all[j].Accessor
	return next, nil
}

// declared reports whether the section says all of what a secret-id is made with.
func (a AppRole) declared() bool {
	return a.Metadata != nil && a.CIDRs != nil && a.TokenCIDRs != nil
}

// roleID reads it, and refuses a role that is not there.
func (b *Backend) roleID(ctx context.Context, c *vaultapi.Client) (string, error) {
	var answer struct {
		RoleID string `json:"role_id"`
	}
	found, err := c.Read(ctx, "reading the role-id of "+b.role.Role, b.path("/role-id"), &answer)
	if err == nil && (!found || answer.RoleID == "") {
		err = refused("see: vault list auth/"+b.role.mount()+"/role", "there is no role %q at auth/%s", b.role.Role, b.role.mount())
	}
	return answer.RoleID, err
}

// Draft returns a new value, and the public fields beside it.
func (b *Backend) Draft(v rotation.Version) (rotation.Material, error) {
	if v.Identity == "" {
		return nil, errors.New("vault: drafting a version that was not identified")
	}
	return rotation.Material{fieldSecretID: secret.Generate(), fieldRoleID: secret.FromString(v.Public[fieldRoleID]),
		fieldAddress: secret.FromString(b.settings.probes()[0])}, nil
}

// Observe says whether Vault has the version's secret-id, and which tokens were made from
// it. It is Absent if there is none: Vault keeps nothing of one that was destroyed.
func (b *Backend) Observe(ctx context.Context, v rotation.Version) (rotation.Standing, error) {
	if v.Identity == "" {
		return rotation.Standing{Status: rotation.Absent, Detail: "no title was chosen"}, nil
	}
	c, err := b.open(ctx)
	if err != nil {
		return rotation.Standing{}, err
	}
	defer c.Close()
	s, err := b.find(ctx, c, v)
	if err != nil {
		return rotation.Standing{}, err
	}
	found, err := b.tokens(ctx, c, v)
	standing := rotation.Standing{Status: rotation.Absent, Detail: "no such secret-id", Uses: uses(found)}
	switch {
	case s == nil:
	case s.Expires.IsZero():
		standing.Status, standing.Detail = rotation.Armed, s.String()
	default: // Vault takes it until it is tidied up, a minute or so later
		standing.Status, standing.Until, standing.Detail = rotation.Expiring, s.Expires.UTC(), s.String()
	}
	return standing, err
}

// Arm has Vault take the secret-id. Its time to live is set at birth and never again, so the
// bound is not set: one that outlives its rotation is better than services that lose theirs.
// After an answer that was lost, it is looked for by its title.
func (b *Backend) Arm(ctx context.Context, v rotation.Version, m rotation.Material, _ time.Time) error {
	if v.Identity != b.titleOf(v.Number) {
		return fmt.Errorf("vault: the title %q is not of version %d", v.Identity, v.Number)
	}
	value, ok := m[fieldSecretID]
	if !ok {
		return fmt.Errorf("vault: making the secret-id of version %d: its value is missing", v.Number)
	}
	c, err := b.open(ctx)
	if err != nil {
		return err
	}
	defer c.Close()
	if made, err := b.made(ctx, c, v, value); made || err != nil {
		return err
	}
	want, err := b.wanted(ctx, c, v)
	if err != nil {
		return err
	}
	if err := rotation.CheckLease(ctx); err != nil {
		return err
	}
	failed := b.register(ctx, c, value, want)
	if failed == nil {
		return nil
	}
	made, err := b.made(ctx, c, v, value)
	switch {
	case err != nil && rotation.ClassOf(err) == rotation.Unknown:
		return rotation.Classify(rotation.Unknown, rotation.HintOf(failed), failed)
	case err != nil:
		return err
	case made:
		return nil
	}
	return failed
}

// made reports whether Vault has the version's secret-id, and refuses one with another value.
func (b *Backend) made(ctx context.Context, c *vaultapi.Client, v rotation.Version, value secret.Value) (bool, error) {
	s, err := b.find(ctx, c, v)
	if err != nil || s == nil {
		return false, err
	}
	accessor, err := b.findValue(ctx, c, value)
	if err == nil && accessor != s.Accessor {
		err = refused("find out who made it", "%s is there, and is not what version %d is to be", s, v.Number)
	}
	return err == nil, err
}

// wanted is what the secret-id of a version is made with.
func (b *Backend) wanted(ctx context.Context, c *vaultapi.Client, v rotation.Version) (secretID, error) {
	var from secretID
	if like := v.Public[publicLike]; like != "" {
		s, err := b.lookup(ctx, c, like)
		if err != nil {
			return from, err
		}
		if s == nil {
			return from, refused("write metadata:, cidr-list: and token-bound-cidrs:", "the secret-id %s is gone, of which they are to be copied", like)
		}
		from = *s
	}
	return b.role.next(from, v.Identity), nil
}

// next is what a secret-id is made with that follows another one.
func (a AppRole) next(from secretID, title string) secretID {
	if a.Metadata != nil {
		from.Metadata = a.Metadata
	}
	if a.CIDRs != nil {
		from.CIDRs = a.CIDRs
	}
	if a.TokenCIDRs != nil {
		from.TokenCIDRs = a.TokenCIDRs
	}
	metadata := map[string]string{}
	maps.Copy(metadata, from.Metadata)
	metadata[metaKey] = title
	return secretID{Metadata: metadata, CIDRs: from.CIDRs, TokenCIDRs: from.TokenCIDRs, TTL: int64(a.life() / time.Second)}
}

// End destroys the version's secret-id, and revokes the tokens that were made from it: they
// would live on. Those that they made, and the leases of all of them, end with them.
func (b *Backend) End(ctx context.Context, v rotation.Version, why rotation.Why) error {
	if v.Identity == "" {
		return nil
	}
	c, err := b.open(ctx)
	if err != nil {
		return err
	}
	defer c.Close()
	s, err := b.find(ctx, c, v)
	if err != nil {
		return err
	}
	looks := 1
	if s != nil {
		looks = 2
		if err := rotation.CheckLease(ctx); err != nil {
			return err
		}
		b.options.Logger.InfoContext(ctx, "destroying a secret-id", "accessor", s.Accessor, "version", v.Number, "reason", string(why))
		if failed := b.destroy(ctx, c, *s); failed != nil {
			left, err := b.find(ctx, c, v)
			if err != nil {
				return rotation.Classify(rotation.Unknown, rotation.HintOf(failed), failed)
			}
			if left != nil {
				return failed
			}
		}
	}
	return b.revoke(ctx, c, v, looks)
}

// Compare checks that the next secret-id brings what the current one does, but for what the
// configuration says otherwise.
func (b *Backend) Compare(ctx context.Context, next, current rotation.Version) error {
	c, err := b.open(ctx)
	if err != nil {
		return err
	}
	defer c.Close()
	var found [2]secretID
	for i, v := range []rotation.Version{next, current} {
		s, err := b.find(ctx, c, v)
		if err != nil {
			return err
		}
		if s == nil {
			return fmt.Errorf("vault: comparing the secret-ids: there is none of version %d", v.Number)
		}
		found[i] = *s
	}
	if text := rotation.Difference(found[0].traits(), b.role.next(found[1], next.Identity).traits()); text != "" {
		return rotation.Errorf(rotation.Failed, "write what the next one is to have: metadata:, cidr-list:, token-bound-cidrs:, secret-id-ttl:",
			"vault: the secret-id of version %d is not like that of version %d: %s", next.Number, current.Number, text)
	}
	return nil
}
