package postgres

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

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

// End disarms the login three ways, commits, and then ends its sessions on
// every host until two readings, Settle apart, find none. Whatever the reason,
// the acts are the same. A login that belongs to another version is left alone:
// this version is ended there already. Hosts that cannot be reached are an
// error of class Unknown, after everything that could be done was done.
func (b *Backend) End(ctx context.Context, v rotation.Version, why rotation.Why) error {
	doing := fmt.Sprintf("ending login %q", v.Identity)
	if v.Identity == "" {
		return nil
	}
	c, err := b.open(ctx)
	if err != nil {
		return err
	}
	defer c.close()
	ours := false
	err = b.retried(ctx, func() error {
		call := "select " + b.function("disarm") + "($1::text, $2::text, $3::int)"
		return wrap(c.primary.name, c.primary.conn.QueryRow(ctx, call, v.Identity, v.Credential, v.Number).Scan(&ours))
	})
	if err != nil {
		return joined(doing, []error{err})
	}
	if !ours {
		b.options.Logger.InfoContext(ctx, "the login belongs to another version and is left alone",
			"login", v.Identity, "version", v.Number, "reason", string(why))
		return nil
	}
	if err := b.emptied(ctx, c, v.Identity); err != nil {
		return joined(doing, []error{err})
	}
	return c.everywhere(doing)
}

// emptied ends the login's sessions on every host until two readings in a row
// find none: a login in flight may pass its check just before the commit.
func (b *Backend) emptied(ctx context.Context, c *cluster, login string) error {
	st, err := b.state(ctx, c.primary, login)
	if err != nil {
		return err
	}
	if err := b.replayed(ctx, c, st); err != nil {
		return err
	}
	deadline := time.Now().Add(b.options.Patience)
	for clean := 0; ; {
		left, err := b.everySession(ctx, c, login)
		if err != nil {
			return err
		}
		if len(left) == 0 {
			if clean++; clean == 2 {
				return nil
			}
			if err := pause(ctx, b.options.Settle); err != nil {
				return wrap(c.primary.name, err)
			}
			continue
		}
		clean = 0
		if time.Now().After(deadline) {
			return rotation.Errorf(rotation.Unknown, "a backend that does not end is often stuck in a system call: see pg_stat_activity",
				"%d sessions of %q do not end: %s", len(left), login, left[0].use().Detail)
		}
		for _, s := range c.servers {
			var n int64
			if err := s.conn.QueryRow(ctx, "select "+b.function("kill")+"($1::text)", login).Scan(&n); err != nil {
				return wrap(s.name, err)
			}
		}
		if err := pause(ctx, 50*time.Millisecond); err != nil {
			return wrap(c.primary.name, err)
		}
	}
}
