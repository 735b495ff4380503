package kafka

import (
	"context"
	"fmt"
	"slices"

	"github.com/keyturn/keyturn/internal/rotation"
)

// Adopt takes over the user that the settings name as version 1. That services have its
// password, and is no super user, the probe of an adoption proves.
func (b *Backend) Adopt(ctx context.Context, v rotation.Version) (rotation.Version, error) {
	user := b.settings.Adopt
	if user == "" {
		return v, refused("name it: kafka: {adopt: …}", "nothing says as which user services log in today")
	}
	if slices.Contains([]string{b.settings.Admin, b.settings.RightsOf}, user) {
		return v, refused("make the services a user of their own first", "%q is Keyturn's own administrator, or the model of all versions, and would be ended", user)
	}
	as := slot{principal: user, mechanism: b.settings.Mechanism}
	if err := b.reads(v, as); err != nil {
		return v, err
	}
	c, err := b.open(ctx)
	if err != nil {
		return v, err
	}
	defer c.close()
	found, _, err := as.look(ctx, c)
	if err != nil {
		return v, err
	}
	return b.adopted(ctx, c, v, as, found[0])
}

// reads refuses a version whose services read something else than its slot would have.
func (t *turn) reads(v rotation.Version, as slot) error {
	for field, value := range t.public(as) {
		if has, told := v.Public[field]; told && has != value {
			return refused("make the services read what the next version would have", "the services read another %s than %s", field, value)
		}
	}
	return nil
}

// adopted returns a version that has a slot's credential, if it works and is not one that Keyturn ended.
func (t *turn) adopted(ctx context.Context, c *cluster, v rotation.Version, as slot, has held) (rotation.Version, error) {
	iterations, there := has[mechanisms[as.mechanism]]
	_, ended := parseMark(iterations)
	switch {
	case !there:
		return v, refused("`kafka-configs --describe --entity-type users` says who has one", "%q has no credential for %s", as.principal, as.mechanism)
	case ended:
		return v, refused("give it a password again, with other iterations: kafka-configs --alter --add-config '"+as.mechanism+"=[iterations=4096,…]'",
			"%q has %s", as.principal, has)
	}
	if err := c.unstopped(ctx, as.principal); err != nil {
		return v, err
	}
	v = v.Clone()
	v.Identity = as.identity()
	if v.Public == nil {
		v.Public = map[string]string{}
	}
	for field, value := range t.public(as) {
		v.Public[field] = value
	}
	v.Public[publicIterations] = fmt.Sprint(iterations)
	return v, nil
}

// unstopped refuses a principal that is denied what it needs.
func (c *cluster) unstopped(ctx context.Context, principal string) error {
	has, err := c.rights(ctx, principal)
	if err == nil && len(has.stopped()) > 0 {
		err = refused("remove that ACL", "%q is denied what it needs: %s", principal, has.stopped()[0])
	}
	return err
}

// Examine implements [rotation.Examiner]: what each principal has.
func (b *Backend) Examine(ctx context.Context) ([]rotation.Remark, error) {
	c, err := b.open(ctx)
	if err != nil {
		return nil, err
	}
	defer c.close()
	var out []rotation.Remark
	for _, principal := range b.settings.Principals {
		found, _, err := every(ctx, c, fmt.Sprintf("looking at %q", principal), credentials(principal))
		if err != nil {
			return out, err
		}
		out = append(out, rotation.Remark{Level: rotation.Fine, Text: fmt.Sprintf("principal %q has %s", principal, found[0])})
		has, err := c.rights(ctx, principal)
		if err != nil {
			return out, err
		}
		if found[0].alive() == "" && len(found[0]) > 0 && len(has.stopped()) < len(stops) {
			out = append(out, rotation.Remark{Level: rotation.Warning, Text: fmt.Sprintf("principal %q was ended, and is not denied everything any more: a client that stayed connected goes on", principal),
				Hint: "deny it ALL on every topic, group and transactional id: kafka-acls --add --deny-principal …"})
		}
	}
	return out, nil
}
