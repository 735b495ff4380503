package postgres

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/keyturn/keyturn/internal/rotation"
)

// End disarms the login three ways, commits, and then ends its sessions on
// every host until two readings, Settle apart, find none. Whatever the reason,
// the acts are the same. A login that belongs to another version is left alone:
// this version is ended there already. Hosts that cannot be reached, and
// standbys that have not replayed it, are an error of class Unknown, after
// everything that could be done on the others was done.
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
	if err := c.notItself(doing, v); err != nil {
		return err
	}
	ours, err := b.disarm(ctx, c.primary, v)
	if err != nil {
		return joined(doing, []error{err})
	}
	if !ours {
		b.options.Logger.InfoContext(ctx, "the login belongs to another version and is left alone",
			"login", v.Identity, "version", v.Number, "reason", string(why))
		return nil
	}
	return joined(doing, []error{b.emptied(ctx, c, v.Identity), c.everywhere(doing)})
}

// disarm says whether the login was the version's.
func (b *Backend) disarm(ctx context.Context, s *server, v rotation.Version) (ours bool, err error) {
	err = b.retried(ctx, func() error {
		call := "select " + b.function("disarm") + "($1::text, $2::text, $3::int)"
		return wrap(s.name, s.conn.QueryRow(ctx, call, v.Identity, v.Credential, v.Number).Scan(&ours))
	})
	return ours, err
}

// emptied ends the login's sessions on every host. Those on the primary, and on
// standbys that know of the end, are struck before a standby that lags is
// waited for.
func (b *Backend) emptied(ctx context.Context, c *cluster, login string) error {
	if _, err := b.strike(ctx, c, login); err != nil { // tried again below
		b.options.Logger.WarnContext(ctx, "sessions of an ended login", "login", login, "error", err)
	}
	st, err := b.state(ctx, c.primary, login)
	if err != nil {
		return err
	}
	strike := func(ctx context.Context) ([]session, error) { return b.strike(ctx, c, login) }
	return errors.Join(b.replayed(ctx, c, st), b.drained(ctx, c, login, strike))
}

// drained strikes until two readings in a row find no session: a login in flight
// may pass its check just before the commit. A host that fails does not keep
// the others from it.
func (b *Backend) drained(ctx context.Context, c *cluster, login string, strike func(context.Context) ([]session, error)) error {
	deadline := time.Now().Add(b.options.Patience)
	for clean := 0; ; {
		wait := b.options.Settle
		left, failed := strike(ctx)
		switch {
		case len(left) == 0:
			if clean++; clean == 2 {
				return failed
			}
		case time.Now().After(deadline):
			return errors.Join(failed, rotation.Errorf(rotation.Unknown, "a backend that does not end is often stuck in a system call: see pg_stat_activity",
				"%d sessions of %q do not end: %s", len(left), login, left[0].use().Detail))
		default:
			clean, wait = 0, 50*time.Millisecond
		}
		if err := pause(ctx, wait); err != nil {
			return errors.Join(failed, wrap(c.primary.name, err))
		}
	}
}

// strike tells the login's sessions to end, on all hosts at once, and returns
// those that it found.
func (b *Backend) strike(ctx context.Context, c *cluster, login string) ([]session, error) {
	ctx, cancel := context.WithTimeout(ctx, b.options.Patience) // one host that hangs is not to use up the time of all
	defer cancel()
	found, errs := make([][]session, len(c.servers)), make([]error, len(c.servers))
	var wg sync.WaitGroup
	for i, s := range c.servers {
		wg.Go(func() { found[i], errs[i] = b.strikeAt(ctx, s, login) })
	}
	wg.Wait()
	return slices.Concat(found...), errors.Join(errs...)
}

// strikeAt passes over a standby where the login may still log in: it lags.
func (b *Backend) strikeAt(ctx context.Context, s *server, login string) ([]session, error) {
	if s.standby {
		if st, err := b.state(ctx, s, login); err != nil || st.CanLogin {
			return nil, err
		}
	}
	found, err := b.sessions(ctx, s, login)
	if err != nil || len(found) == 0 {
		return nil, err
	}
	var told int64
	err = s.conn.QueryRow(ctx, "select "+b.function("kill")+"($1::text)", login).Scan(&told)
	return found, wrap(s.name, err)
}
