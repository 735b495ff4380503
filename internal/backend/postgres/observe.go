package postgres

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/keyturn/keyturn/internal/rotation"
)

// Observe asks every host. The version is Absent if its login does not exist,
// was never armed for it, or has been armed for another version since; Ended
// only if it is disarmed all three ways. One whose bound has passed without
// being disarmed is Expiring, with a time in the past. A host that cannot be
// reached, or has not replayed the primary's view, is an error of class Unknown.
func (b *Backend) Observe(ctx context.Context, v rotation.Version) (rotation.Standing, error) {
	doing := fmt.Sprintf("observing login %q", v.Identity)
	if v.Identity == "" {
		return rotation.Standing{Status: rotation.Absent, Detail: "no login was chosen"}, nil
	}
	if v.Identity != b.settings.Role && !slices.Contains(b.settings.Logins, v.Identity) {
		return rotation.Standing{}, rotation.Errorf(rotation.Refused, "put it back under logins until its versions are retired",
			"postgres: %s: it is neither the role nor one of the logins", doing)
	}
	c, err := b.open(ctx)
	if err != nil {
		return rotation.Standing{}, err
	}
	defer c.close()
	if err := c.everywhere(doing); err != nil {
		return rotation.Standing{}, err
	}
	st, err := b.state(ctx, c.primary, v.Identity)
	if err != nil {
		return rotation.Standing{}, joined(doing, []error{err})
	}
	if err := b.replayed(ctx, c, st); err != nil {
		return rotation.Standing{}, err
	}
	standing := b.standing(st, v)
	if standing.Status == rotation.Absent {
		return standing, nil
	}
	sessions, err := b.everySession(ctx, c, v.Identity)
	if err != nil {
		return rotation.Standing{}, joined(doing, []error{err})
	}
	for _, s := range sessions {
		standing.Uses = append(standing.Uses, s.use())
	}
	return standing, nil
}

// standing judges the state of the version's login.
func (b *Backend) standing(st state, v rotation.Version) rotation.Standing {
	h := st.Holder
	switch {
	case !st.Exists:
		return rotation.Standing{Status: rotation.Absent, Detail: "no such login"}
	case v.Identity != b.settings.Role && !h.is(v):
		return rotation.Standing{Status: rotation.Absent, Detail: "the login was armed last for " + h.String()}
	case st.disarmed():
		return rotation.Standing{Status: rotation.Ended, Detail: "NOLOGIN, no password, VALID UNTIL '-infinity'" + unseen(st)}
	case !st.until().IsZero():
		s := rotation.Standing{Status: rotation.Expiring, Until: st.until(), Detail: b.describe(st)}
		if st.Expired {
			s.Detail = "its time has passed, and it is not disarmed: " + s.Detail
		}
		return s
	}
	return rotation.Standing{Status: rotation.Armed, Detail: b.describe(st)}
}

func unseen(st state) string {
	if st.Password == nil {
		return " (whether there is a password is not visible here)"
	}
	return ""
}

func (b *Backend) describe(st state) string {
	parts := []string{"NOLOGIN"}
	if st.CanLogin {
		parts[0] = "LOGIN"
	}
	switch {
	case st.Password == nil:
		parts = append(parts, "password not visible")
	case *st.Password:
		parts = append(parts, "a password")
	default:
		parts = append(parts, "no password")
	}
	parts = append(parts, "valid until "+st.Until)
	if h := st.Holder; h.Ended && st.CanLogin {
		parts = append(parts, "ended by Keyturn before, and revived by somebody")
	}
	return strings.Join(parts, ", ")
}
