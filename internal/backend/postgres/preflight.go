package postgres

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/keyturn/keyturn/internal/rotation"
)

// maxSkew is how far the server's clock may be from ours: expiries are
// computed here and kept there.
const maxSkew = 5 * time.Minute

// ignoresSetRole holds the releases of November 2024 that ignore a role's SET
// role (repaired a week later): a login would act as itself.
var ignoresSetRole = []int{120021, 130017, 140014, 150009, 160005, 170001}

// Preflight checks, without changing anything, that every host answers, that
// the administrator may call the functions and they are those that this program
// knows, the server's release and clock, the logins' form, and that there is
// room for the sessions of a second login. It names all that is wrong at once.
func (b *Backend) Preflight(ctx context.Context, cred rotation.Credential) error {
	c, err := b.open(ctx)
	if err != nil {
		return err
	}
	defer c.close()
	var found []error
	if err := c.everywhere("preflight"); err != nil {
		found = append(found, err)
	}
	for _, s := range c.servers {
		if err := checkServer(s); err != nil {
			found = append(found, err)
		}
	}
	if err := b.checkFunctions(ctx, c.primary); err != nil {
		return joined("preflight", append(found, err)) // nothing else can be asked
	}
	if err := b.checkRights(ctx, c.primary); err != nil {
		found = append(found, err)
	}
	if err := b.checkRole(ctx, c.primary); err != nil {
		found = append(found, err)
	}
	if b.settings.single() {
		if err := b.checkSingle(ctx, c.primary, cred); err != nil {
			found = append(found, err)
		}
	}
	found = append(found, b.checkLogins(ctx, c.primary, cred)...)
	if err := b.checkRoom(ctx, c, cred); err != nil {
		found = append(found, err)
	}
	return joined("preflight", found)
}

// checkServer judges release, clock and password_encryption. Where the latter is
// md5, a line with the method md5 in pg_hba.conf makes the server ask for MD5
// wherever a role has no password, or one that has expired. That is not
// answered, so that no death could ever be proved there.
func checkServer(s *server) error {
	switch {
	case s.version < 120000:
		return rotation.Errorf(rotation.Refused, "PostgreSQL 12 or later is needed", "%s: PostgreSQL %s is too old", s.name, release(s.version))
	case slices.Contains(ignoresSetRole, s.version):
		return rotation.Errorf(rotation.Refused, "update to the next minor release",
			"%s: PostgreSQL %s ignores a role's SET role: logins would act as themselves", s.name, release(s.version))
	case s.skew > maxSkew || s.skew < -maxSkew:
		return rotation.Errorf(rotation.Refused, "set the clocks; expiries are kept by the server's",
			"%s: its clock is %s away from ours", s.name, s.skew.Round(time.Second))
	case s.encryption != "scram-sha-256":
		return rotation.Errorf(rotation.Refused, "set password_encryption = 'scram-sha-256' in postgresql.conf, and the method scram-sha-256 in the lines of pg_hba.conf",
			"%s: password_encryption is %s: the server may ask for MD5, which is not answered, and a refused login could not be told from another", s.name, s.encryption)
	}
	return nil
}

func release(number int) string { return fmt.Sprintf("%d.%d", number/10000, number%10000) }

// checkFunctions asks for the functions' version and the allow-list.
func (b *Backend) checkFunctions(ctx context.Context, s *server) error {
	var version int
	if err := s.conn.QueryRow(ctx, "select "+b.function("version")+"()").Scan(&version); err != nil {
		return wrap(s.name, err)
	}
	if err := b.sameFunctions(s, version); err != nil {
		return err
	}
	rows, err := s.conn.Query(ctx, "select login, role from "+b.function("logins")+"()")
	if err != nil {
		return wrap(s.name, err)
	}
	managed := map[string]string{}
	var login, role string
	if _, err := pgx.ForEachRow(rows, []any{&login, &role}, func() error { managed[login] = role; return nil }); err != nil {
		return wrap(s.name, err)
	}
	if err := b.checkMade(ctx, s, managed[b.settings.Role] != ""); err != nil {
		return err
	}
	for _, l := range b.settings.Logins {
		switch {
		case managed[l] == "":
			return rotation.Errorf(rotation.Refused, hintOf(codeUnmanaged), "%s: login %q is not on the list of logins that Keyturn may touch", s.name, l)
		case managed[l] != b.settings.Role:
			return rotation.Errorf(rotation.Refused, "choose other logins, or run the set-up again",
				"%s: login %q belongs to role %q, not to %q", s.name, l, managed[l], b.settings.Role)
		}
	}
	return nil
}

// sameFunctions refuses functions that this program was not written for: what
// they say, or do not say, would be misread.
func (b *Backend) sameFunctions(s *server, version int) error {
	if version == functionsVersion {
		return nil
	}
	return rotation.Errorf(rotation.Refused, "run what `keyturn setup postgres` prints again",
		"%s: the functions in schema %q have version %d, this program needs %d", s.name, b.settings.Schema, version, functionsVersion)
}

// checkRole judges the role itself: its power is that of whoever acts as it.
func (b *Backend) checkRole(ctx context.Context, s *server) error {
	powers, _, err := b.powers(ctx, s)
	switch {
	case errors.Is(err, pgx.ErrNoRows):
		return rotation.Errorf(rotation.Refused, hintOf(codeUnmanaged), "%s: there is no role %q", s.name, b.settings.Role)
	case err != nil:
		return wrap(s.name, err)
	case len(powers) > 0:
		return rotation.Errorf(rotation.Refused, plainRole, "%s: role %q is %s, which logins in turn must not be",
			s.name, b.settings.Role, strings.Join(powers, ", "))
	}
	return nil
}

// checkLogins judges the form of every login, whoever's turn it is.
func (b *Backend) checkLogins(ctx context.Context, s *server, cred rotation.Credential) []error {
	var found []error
	for _, login := range b.settings.Logins {
		st, err := b.state(ctx, s, login)
		switch {
		case err != nil:
			found = append(found, err)
			continue
		case !st.Exists:
			found = append(found, rotation.Errorf(rotation.Refused, hintOf(codeUnmanaged), "%s: login %q does not exist", s.name, login))
			continue
		}
		if unlike := b.unlike(st); len(unlike) > 0 {
			found = append(found, rotation.Errorf(rotation.Refused, "run what `keyturn setup postgres` prints again, and take away what is too much",
				"%s: %s", s.name, strings.Join(unlike, "; ")))
		}
		if h := st.Holder; st.CanLogin && h.Credential != cred.Name && h != (holder{}) {
			found = append(found, rotation.Errorf(rotation.Refused, "two credentials cannot share logins", "%s: login %q is armed for %s", s.name, login, h))
		}
	}
	return found
}

// checkRoom asks every host whether the sessions of the current version fit a
// second time beside everything else, as they may during the overlap.
func (b *Backend) checkRoom(ctx context.Context, c *cluster, cred rotation.Credential) error {
	current, ok := cred.In(rotation.Current)
	if !ok || current.Identity == "" {
		return nil
	}
	for _, s := range c.servers {
		sessions, err := b.sessions(ctx, s, current.Identity)
		if err != nil {
			return err
		}
		var limit, used int
		err = s.conn.QueryRow(ctx, `select pg_catalog.current_setting('max_connections')::int
			- pg_catalog.current_setting('superuser_reserved_connections')::int
			- coalesce(pg_catalog.current_setting('reserved_connections', true), '0')::int,
			(select count(*) from pg_catalog.pg_stat_activity where datid is not null)`).Scan(&limit, &used)
		if err != nil {
			return wrap(s.name, err)
		}
		if used+len(sessions) > limit {
			return rotation.Errorf(rotation.Refused, "raise max_connections, or make the pools smaller for the rotation",
				"%s: %d sessions of %q may double during the overlap, and only %d of %d connections are free",
				s.name, len(sessions), current.Identity, max(limit-used, 0), limit)
		}
	}
	return nil
}
