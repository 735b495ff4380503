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
	for field, value := range b.public(user) {
		if has, told := v.Public[field]; told && has != value {
			return v, refused("make the services read what the next version would have", "the services read another %s than %s", field, value)
		}
	}
	c, err := b.open(ctx)
	if err != nil {
		return v, err
	}
	defer c.close()
	found, _, err := every(ctx, c, fmt.Sprintf("looking at %q", user), credentials(user))
	if err != nil {
		return v, err
	}
	iterations, there := found[0][b.mechanism()]
	_, ended := parseMark(iterations)
	switch {
	case !there:
		return v, refused("`kafka-configs --describe --entity-type users` says who has one", "%q has no credential for %s", user, b.settings.Mechanism)
	case ended:
		return v, refused("give it a password again, with other iterations: kafka-configs --alter --add-config '"+b.settings.Mechanism+"=[iterations=4096,…]'",
			"%q has %s", user, found[0])
	}
	has, err := c.rights(ctx, user)
	if err != nil {
		return v, err
	}
	if len(has.stopped()) > 0 {
		return v, refused("remove that ACL", "%q is denied what it needs: %s", user, has.stopped()[0])
	}
	v = v.Clone()
	v.Identity = user
	if v.Public == nil {
		v.Public = map[string]string{}
	}
	for field, value := range b.public(user) {
		v.Public[field] = value
	}
	v.Public[publicIterations] = fmt.Sprint(iterations)
	return v, nil
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
