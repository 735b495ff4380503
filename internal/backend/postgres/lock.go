package postgres

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/keyturn/keyturn/internal/rotation"
)

// The session of a run that was killed goes when its server notices, which takes a
// busy one a moment: so long the lock is asked for again.
const (
	lockPatience = 2 * time.Second
	lockPause    = 100 * time.Millisecond
)

// tryLock takes the lock, unless somebody holds it.
func tryLock(ctx context.Context, s *server, key int64) (got bool, err error) {
	for end := time.Now().Add(lockPatience); ; {
		err = s.conn.QueryRow(ctx, "select pg_catalog.pg_try_advisory_lock($1::bigint)", key).Scan(&got)
		if got || err != nil || time.Now().After(end) {
			return got, err
		}
		select {
		case <-ctx.Done():
			return false, ctx.Err()
		case <-time.After(lockPause):
		}
	}
}

// Lock takes an advisory lock on the primary, on a connection of its own,
// which holds it until unlock or until the connection ends. Its name is the
// credential's in the administrator's database. It keeps rotators with another
// journal away; the lease keeps ours. Until unlock, connections are kept between
// calls.
//
// Every phase begins with it, and no plan does: it is where an adopted login
// that was ended for the credential, and that somebody has given a password or
// LOGIN since, is disarmed again. The log says so.
func (b *Backend) Lock(ctx context.Context, credential string) (func(context.Context) error, error) {
	doing := fmt.Sprintf("locking %q", credential)
	c, err := b.open(ctx)
	if err != nil {
		return nil, err
	}
	for _, s := range c.servers {
		if s != c.primary {
			s.close()
		}
	}
	key := lockKey(b.settings.Role, credential)
	got, err := tryLock(ctx, c.primary, key)
	if err != nil {
		c.primary.close()
		return nil, joined(doing, []error{wrap(c.primary.name, err)})
	}
	if !got {
		who := lockHolder(ctx, c.primary, key)
		c.primary.close()
		return nil, rotation.Errorf(rotation.Refused, "wait until it is done; if it hangs, end it with select pg_terminate_backend(pid)",
			"postgres: %s: another rotator holds the lock on %s: %s", doing, c.primary.name, who)
	}
	if err := b.keepRetired(ctx, c.primary, credential); err != nil {
		c.primary.close()
		return nil, joined(doing, []error{err})
	}
	b.kept.begin()
	return func(ctx context.Context) error {
		defer c.primary.close()
		b.kept.end()
		if err := c.primary.conn.QueryRow(ctx, "select pg_catalog.pg_advisory_unlock($1::bigint)", key).Scan(&got); err != nil {
			return wrap(c.primary.name, err) // the connection's end gives it back
		}
		return nil
	}, nil
}

// keepRetired disarms the adopted login again if it was ended for the
// credential and is not disarmed any more. Its sessions are left alone: who
// revived it may not know better, and is to be asked.
func (b *Backend) keepRetired(ctx context.Context, s *server, credential string) error {
	var managed bool
	err := s.conn.QueryRow(ctx, "select exists (select from "+b.function("logins")+"() where login = $1::text)", b.settings.Role).Scan(&managed)
	switch codeOf(err) {
	case "3F000", "42883", "42501": // nothing is set up, and preflight says so
		return nil
	}
	if err != nil || !managed {
		return wrap(s.name, err)
	}
	st, err := b.state(ctx, s, b.settings.Role)
	h := st.Holder
	if err != nil || !h.Ended || h.Credential != credential || !st.Exists || st.disarmed() {
		return err
	}
	sessions, err := b.sessions(ctx, s, st.Login)
	if err != nil {
		return err
	}
	if _, err := b.disarm(ctx, s, rotation.Version{Credential: h.Credential, Number: h.Version, Identity: st.Login}); err != nil {
		return err
	}
	b.options.Logger.WarnContext(ctx, "somebody had revived a login that was retired: it is disarmed again; find out who uses it",
		"login", st.Login, "version", h.Version, "was", b.describe(st), "sessions", len(sessions))
	return nil
}

// lockKey makes a number of the names.
func lockKey(role, credential string) int64 {
	sum := sha256.Sum256([]byte("keyturn\x00" + role + "\x00" + credential))
	return int64(binary.BigEndian.Uint64(sum[:8])) // any 64 bits will do
}

// lockHolder names the process that holds the lock, as far as it is still there.
func lockHolder(ctx context.Context, s *server, key int64) string {
	var pid int
	var application, client string
	err := s.conn.QueryRow(ctx, `select l.pid, coalesce(a.application_name, ''), coalesce(pg_catalog.host(a.client_addr), 'local')
		from pg_catalog.pg_locks l join pg_catalog.pg_stat_activity a on a.pid = l.pid
		where l.locktype = 'advisory' and l.granted and l.objsubid = 1
		and ((l.classid::bigint << 32) | l.objid::bigint) = $1::bigint`, key).Scan(&pid, &application, &client)
	if errors.Is(err, pgx.ErrNoRows) {
		return "a process that has just ended"
	}
	if err != nil {
		return "unknown"
	}
	return fmt.Sprintf("pid %d (%s, from %s)", pid, application, client)
}
