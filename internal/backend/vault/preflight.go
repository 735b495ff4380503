package vault

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/keyturn/keyturn/internal/backend/remote/vaultapi"
	"github.com/keyturn/keyturn/internal/rotation"
)

// A roleInfo is what Vault says of a role.
type roleInfo struct {
	Bind      bool   `json:"bind_secret_id"`
	Uses      int    `json:"secret_id_num_uses"`
	TTL       int64  `json:"secret_id_ttl"` // seconds
	TokenType string `json:"token_type"`
	TokenMax  int64  `json:"token_max_ttl"`
	Period    int64  `json:"token_period"`
	NoDefault bool   `json:"token_no_default_policy"`
}

func (b *Backend) info(ctx context.Context, c *vaultapi.Client) (info roleInfo, err error) {
	found, err := c.Read(ctx, "reading role "+b.role.Role, b.path(""), &info)
	if err == nil && !found {
		err = refused("see: vault list auth/"+b.role.mount()+"/role", "there is no role %q at auth/%s", b.role.Role, b.role.mount())
	}
	return info, err
}

// Preflight checks that every server is there and unsealed, that the role takes any number
// of secret-ids that are used any number of times, and that the administrator's token may do
// what is needed. It reads only.
func (b *Backend) Preflight(ctx context.Context, _ rotation.Credential) error {
	c, err := b.open(ctx)
	if err != nil {
		return err
	}
	defer c.Close()
	if err := c.Able(ctx, b.needs()); err != nil {
		return err
	}
	info, err := b.info(ctx, c)
	if err != nil {
		return err
	}
	return b.fits(info)
}

// fits refuses a role whose secret-ids cannot be rotated without a gap, or whose tokens
// nobody could revoke.
func (b *Backend) fits(info roleInfo) error {
	set := "vault write " + b.path("") + " "
	life := time.Duration(info.TTL) * time.Second
	switch {
	case !info.Bind:
		return refused(set+"bind_secret_id=true", "role %q lets in without a secret-id", b.role.Role)
	case info.Uses != 0:
		return refused(set+"secret_id_num_uses=0", "a secret-id of role %q is used up after %d logins: every start of a task and every probe is one", b.role.Role, info.Uses)
	case strings.HasSuffix(info.TokenType, "batch"):
		return refused(set+"token_type=service", "role %q makes batch tokens, which nobody can revoke: those of a dead secret-id would live on", b.role.Role)
	case life > 0 && (b.role.life() == 0 || b.role.life() > life):
		return refused(fmt.Sprintf("write approle: {secret-id-ttl: %s}, so that every and overlap are held against it", vaultapi.ShowTTL(life)),
			"a secret-id of role %q lives for %s, and the configuration says nothing of that, or longer", b.role.Role, vaultapi.ShowTTL(life))
	}
	return nil
}

// needs are the paths that the administrator's token must be let at, and how.
func (b *Backend) needs() map[string][]string {
	return map[string][]string{
		b.path(""):                            {"read"},
		b.path("/role-id"):                    {"read"},
		b.path("/secret-id"):                  {"list"},
		b.path("/custom-secret-id"):           {"update"},
		b.path("/secret-id/lookup"):           {"update"},
		b.path("/secret-id-accessor/lookup"):  {"update"},
		b.path("/secret-id-accessor/destroy"): {"update"},
		"auth/token/accessors":                {"list", "sudo"},
		"auth/token/lookup-accessor":          {"update"},
		"auth/token/revoke-accessor":          {"update"},
	}
}

// Warnings implements [rotation.Warner].
func (b *Backend) Warnings(ctx context.Context, _ string) (out []string, err error) {
	c, err := b.open(ctx)
	if err != nil {
		return nil, err
	}
	defer c.Close()
	info, err := b.info(ctx, c)
	if err != nil {
		return nil, err
	}
	if most := time.Duration(cmp.Or(info.Period, info.TokenMax)) * time.Second; info.Period > 0 || most == 0 || most > 24*time.Hour {
		out = append(out, "tokens of role "+b.role.Role+" may live for long: those of the old secret-id are revoked when its overlap and grace are over, so an application must log in again by then")
	}
	if info.NoDefault {
		out = append(out, "tokens of role "+b.role.Role+" may not revoke themselves (token_no_default_policy): each probe leaves one, until its time is over")
	}
	if b.role.TTL == "" {
		out = append(out, "a secret-id has no end of its own: if nobody rotates, it stays valid; to bound it write approle: {secret-id-ttl: …}")
	}
	return out, nil
}

// Adopt takes over the secret-id whose accessor the settings name, or the one that the role
// has. That services mount it, the probe of an adoption proves: a login shows the metadata
// of its secret-id, so no other one of the role may have the same.
func (b *Backend) Adopt(ctx context.Context, v rotation.Version) (rotation.Version, error) {
	c, err := b.open(ctx)
	if err != nil {
		return v, err
	}
	defer c.Close()
	roleID, err := b.roleID(ctx, c)
	if err != nil {
		return v, err
	}
	info, err := b.info(ctx, c)
	if err == nil {
		err = b.fits(info)
	}
	if err != nil {
		return v, err
	}
	all, err := b.secretIDs(ctx, c)
	if err != nil {
		return v, err
	}
	s, err := b.adoptee(all)
	if err != nil {
		return v, err
	}
	for field, value := range map[string]string{fieldRoleID: roleID, fieldAddress: b.settings.probes()[0]} {
		if has, told := v.Public[field]; told && has != value {
			return v, refused("make the services read what the next version would have", "the services read another %s than %s", field, value)
		}
	}
	v = v.Clone()
	v.Identity = s.Accessor
	if v.Public == nil {
		v.Public = map[string]string{}
	}
	v.Public[fieldRoleID], v.Public[publicMetadata] = roleID, digest(s.Metadata)
	return v, nil
}

// adoptee is the secret-id to take over.
func (b *Backend) adoptee(all []secretID) (secretID, error) {
	list := "vault list " + b.path("/secret-id")
	i := slices.IndexFunc(all, func(s secretID) bool { return s.Accessor == b.role.Adopt })
	switch {
	case len(all) == 0:
		return secretID{}, refused("leave it to Keyturn: prepare makes the first one", "role %q has no secret-id to take over", b.role.Role)
	case b.role.Adopt == "" && len(all) == 1:
		i = 0
	case b.role.Adopt == "":
		return secretID{}, refused("name the one that services use: approle: {adopt: …}; "+list, "role %q has %d secret-ids", b.role.Role, len(all))
	case i < 0:
		return secretID{}, refused(list, "role %q has no secret-id with the accessor under adopt, %s", b.role.Role, b.role.Adopt)
	}
	s := all[i]
	if title := s.Metadata[metaKey]; title != "" {
		return s, refused("find out whose it is, or make another one and give it to the services first", "%s says that Keyturn made it", s)
	}
	if s.Uses != 0 {
		return s, refused("give the services one that has num_uses=0 first", "%s is used up after %d more logins", s, s.Uses)
	}
	for j, other := range all {
		if j != i && other.Metadata[metaKey] == "" && digest(other.Metadata) == digest(s.Metadata) {
			return s, refused("destroy what nobody uses, or give the services one with metadata of its own first: vault write "+b.path("/secret-id")+` metadata='{"for": "orders"}'`,
				"%s has the same metadata as %s: nobody could tell which of them services use", s, other)
		}
	}
	return s, nil
}

// Examine implements [rotation.Examiner]: which secret-ids the role has.
func (b *Backend) Examine(ctx context.Context) ([]rotation.Remark, error) {
	c, err := b.open(ctx)
	if err != nil {
		return nil, err
	}
	defer c.Close()
	all, err := b.secretIDs(ctx, c)
	if err != nil {
		return nil, err
	}
	var found []rotation.Remark
	ours := 0
	for _, s := range all {
		if of, number := rotation.ParseTitle(s.Metadata[metaKey]); of == b.options.Credential && number > 0 {
			ours++
			found = append(found, rotation.Remark{Level: rotation.Fine, Text: s.String()})
		}
	}
	if ours > 2 {
		found = append(found, rotation.Remark{Level: rotation.Warning, Text: fmt.Sprintf("there are %d secret-ids of this credential, and two at most are needed", ours),
			Hint: "compare with keyturn status, and destroy by hand what it does not name"})
	}
	if others := len(all) - ours; others > 0 {
		found = append(found, rotation.Remark{Level: rotation.Warning, Text: fmt.Sprintf("role %s has %d secret-ids that Keyturn did not make", b.role.Role, others),
			Hint: "who has one of them logs in as the services do; what nobody uses is destroyed by hand: vault list " + b.path("/secret-id")})
	}
	return found, nil
}
