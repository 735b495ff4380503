package consul

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"sync"

	"github.com/hashicorp/consul/api"

	"github.com/keyturn/keyturn/internal/rotation"
)

// redacted stands for the SecretID where a token may read others and not write them.
const redacted = "<hidden>"

// Preflight checks that every server answers and is named in the settings, that the
// administrator's token may write others, and that what they are to be linked with is
// there. It reads only.
func (b *Backend) Preflight(ctx context.Context, cred rotation.Credential) error {
	c, err := b.open(ctx)
	if err != nil {
		return err
	}
	errs := make([]error, len(c.servers))
	var wg sync.WaitGroup
	for i, s := range c.servers {
		wg.Go(func() { errs[i] = c.ready(ctx, s) })
	}
	wg.Wait()
	if err := errors.Join(errs...); err != nil {
		return err
	}
	if current, ok := cred.In(rotation.Current); ok && !b.settings.Itself {
		if err := c.another(ctx, current); err != nil {
			return err
		}
	}
	return b.linkable(ctx, c)
}

// another refuses the token that Consul is asked with: nobody could go on once it is deleted.
// Keyturn's own token is rotated by a credential whose target writes where it is read.
func (c *cluster) another(ctx context.Context, v rotation.Version) error {
	var self *api.ACLToken
	err := c.anyServer(ctx, "looking at the administrator's token", func(ctx context.Context, client *api.Client) (err error) {
		self, _, err = client.ACL().TokenReadSelf((&api.QueryOptions{RequireConsistent: true}).WithContext(ctx))
		return err
	})
	if err == nil && self.AccessorID == v.Identity {
		err = refused("write own: true, and read the token from where this credential is written: token: {from-file: FOLDER/"+v.Credential+"/current/token}",
			"Keyturn itself asks Consul with the token of version %d, which is to be deleted", v.Number)
	}
	return err
}

// linkable refuses policies and roles that Consul does not have.
func (b *Backend) linkable(ctx context.Context, c *cluster) error {
	for _, kind := range []struct {
		what  string
		names []string
		read  func(*api.ACL, string, *api.QueryOptions) (bool, error)
	}{
		{"policy", b.settings.Policies, func(acl *api.ACL, name string, how *api.QueryOptions) (bool, error) {
			p, _, err := acl.PolicyReadByName(name, how)
			return p != nil, err
		}},
		{"role", b.settings.Roles, func(acl *api.ACL, name string, how *api.QueryOptions) (bool, error) {
			r, _, err := acl.RoleReadByName(name, how)
			return r != nil, err
		}},
	} {
		for _, name := range kind.names {
			there := false
			err := c.anyServer(ctx, fmt.Sprintf("reading %s %q", kind.what, name), func(ctx context.Context, client *api.Client) (err error) {
				there, err = kind.read(client.ACL(), name, (&api.QueryOptions{}).WithContext(ctx))
				if text, status := refusal(err); status == http.StatusNotFound || strings.Contains(text, "does not exist") {
					err = nil
				}
				return err
			})
			if err != nil {
				return err
			}
			if !there {
				return refused("make it, or write another one", "Consul has no %s %q, which new tokens are to be linked with", kind.what, name)
			}
		}
	}
	return nil
}

// ready checks one server.
func (c *cluster) ready(ctx context.Context, s server) error {
	var peers []string
	var self, again *api.ACLToken
	err := c.once(ctx, s.api, func(ctx context.Context, client *api.Client) (err error) {
		how := (&api.QueryOptions{}).WithContext(ctx)
		if peers, err = client.Status().PeersWithQueryOptions(how); err != nil {
			return err
		}
		if self, _, err = client.ACL().TokenReadSelf(how); err != nil {
			return err
		}
		again, _, err = client.ACL().TokenRead(self.AccessorID, how)
		return err
	})
	switch {
	case err != nil:
		return wrap(s.url, "looking at the administrator's token", err)
	case again.SecretID == redacted:
		return refused(`give it a policy with acl = "write"`, "%s: the administrator's token %s may read tokens, and not make any", s.url, self.AccessorID)
	case len(peers) > len(c.servers):
		return refused("name each server by itself under servers:, not what balances between them",
			"%s says that %d servers are in the cluster, and %d are named: whether a token is dead is asked of every one", s.url, len(peers), len(c.servers))
	}
	return nil
}

// Warnings implements [rotation.Warner].
func (b *Backend) Warnings(ctx context.Context, _ string) ([]string, error) {
	out := []string{"Consul ends no token by itself: until cleanup has deleted the old one it stays valid"}
	c, err := b.open(ctx)
	if err != nil {
		return out, err
	}
	var self map[string]map[string]any
	err = c.anyServer(ctx, "reading its configuration", func(ctx context.Context, client *api.Client) error {
		_, err := client.Raw().Query("/v1/agent/self", &self, (&api.QueryOptions{}).WithContext(ctx))
		return err
	})
	if rotation.ClassOf(err) == rotation.Refused {
		return out, nil // it needs agent:read, which an administrator of tokens need not have
	}
	if err != nil {
		return out, err
	}
	resolver, _ := self["DebugConfig"]["ACLResolverSettings"].(map[string]any)
	if policy, _ := resolver["ACLDownPolicy"].(string); policy == "extend-cache" || policy == "async-cache" {
		out = append(out, fmt.Sprintf("acl.down_policy is %s: an agent that loses its servers believes in a deleted token until they are back", policy))
	}
	return out, nil
}

// Adopt takes over the token whose accessor the settings name. That services mount its
// SecretID, the probe of an adoption proves: it takes no other token.
func (b *Backend) Adopt(ctx context.Context, v rotation.Version) (rotation.Version, error) {
	if b.settings.Adopt == "" {
		return v, refused("name its AccessorID, which `consul acl token read -self` says: consul: {adopt: …}", "nothing says which token services use today")
	}
	c, err := b.open(ctx)
	if err != nil {
		return v, err
	}
	t, err := c.find(ctx, b.settings.Adopt)
	if err != nil {
		return v, err
	}
	if t == nil {
		return v, refused("`consul acl token list` says the AccessorID of every token", "no token has the accessor under adopt, %s", b.settings.Adopt)
	}
	switch _, number := rotation.ParseTitle(t.Description); {
	case number > 1:
		return v, refused("give it another description: consul acl token update", "the description %q says that it is a later version", t.Description)
	case t.AuthMethod != "":
		return v, refused("make a token that is no login's, and give it to the services first", "%s was made by a login with %s, which ends it by itself", describe(t), t.AuthMethod)
	}
	for _, p := range t.Policies {
		if p.Name == managementPolicy {
			return v, refused("link a policy with what the services need, and give that token to them first", "%s may do everything", describe(t))
		}
	}
	if b.settings.declared() {
		if text := rightsOf(b.settings.declaredRights()).differ(rightsOf(t)); text != "" {
			return v, refused("write what it has, or link it with what is written first", "%s is linked otherwise than the configuration says: %s", describe(t), text)
		}
	}
	for field, value := range map[string]string{fieldAccessor: t.AccessorID, fieldAddress: b.settings.probes()[0]} {
		if has, told := v.Public[field]; told && has != value {
			return v, refused("make the services read what the next version would have", "the services read another %s than %s", field, value)
		}
	}
	v = v.Clone()
	v.Identity = t.AccessorID
	if v.Public == nil {
		v.Public = map[string]string{}
	}
	v.Public[fieldAccessor] = t.AccessorID
	return v, nil
}

// Examine implements [rotation.Examiner]: which tokens stand under this description.
func (b *Backend) Examine(ctx context.Context) ([]rotation.Remark, error) {
	c, err := b.open(ctx)
	if err != nil {
		return nil, err
	}
	all, err := b.list(ctx, c)
	if err != nil {
		return nil, err
	}
	var found []rotation.Remark
	for _, t := range all {
		if before, number := rotation.ParseTitle(t.Description); before == b.title && number > 0 {
			found = append(found, rotation.Remark{Level: rotation.Fine, Text: fmt.Sprintf("token %s %q", t.AccessorID, t.Description)})
		}
	}
	if len(found) > 2 {
		found = append(found, rotation.Remark{Level: rotation.Warning, Text: fmt.Sprintf("there are %d tokens of this credential, and two at most are needed", len(found)),
			Hint: "compare with keyturn status, and delete by hand what it does not name"})
	}
	return found, nil
}

// list returns every token.
func (b *Backend) list(ctx context.Context, c *cluster) (all []*api.ACLTokenListEntry, err error) {
	err = c.anyServer(ctx, "listing the tokens", func(ctx context.Context, client *api.Client) error {
		all, _, err = client.ACL().TokenList((&api.QueryOptions{}).WithContext(ctx))
		return err
	})
	return all, err
}
