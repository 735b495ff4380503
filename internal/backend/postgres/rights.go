package postgres

import (
	"context"
	"strings"

	"github.com/jackc/pgx/v5"

	"github.com/keyturn/keyturn/internal/rotation"
)

// What an administrator needs who changes logins by a CREATEROLE of its own
// (rights: createrole). The functions run as the administrator then.
//
//   - up to PostgreSQL 15 CREATEROLE reaches every role that is no superuser, and
//     lets it grant itself nearly everything: near superuser
//   - from 16 on it reaches the roles that it has ADMIN on, as on those that it made
//   - up to 14 a login may, besides, make others members of itself
//
// To end sessions and to see whose they are is another right in every release.

// checkRights names what an administrator lacks.
func (b *Backend) checkRights(ctx context.Context, s *server) error {
	if b.settings.Rights != byCreateRole {
		return nil
	}
	names := append([]string{b.settings.Role}, b.settings.Logins...)
	var creates, super bool
	var rights, unreached []string
	err := s.conn.QueryRow(ctx, `select r.rolcreaterole, r.rolsuper,
		array(select p from unnest(array['pg_signal_backend', 'pg_read_all_stats']) p where not pg_catalog.pg_has_role(p, 'USAGE')),
		array(select o.rolname::text from pg_catalog.pg_roles o where o.rolname = any ($1::text[])
			and pg_catalog.current_setting('server_version_num')::int >= 160000 and not pg_catalog.pg_has_role(o.oid, 'MEMBER WITH ADMIN OPTION')
			order by 1)
		from pg_catalog.pg_roles r where r.rolname = current_user`, names).Scan(&creates, &super, &rights, &unreached)
	admin := pgx.Identifier{b.admin.user}.Sanitize()
	switch {
	case err != nil:
		return wrap(s.name, err)
	case super:
		return rotation.Errorf(rotation.Refused, "ALTER ROLE "+admin+" NOSUPERUSER CREATEROLE", "%s: the administrator %q is a superuser, which it need not be", s.name, b.admin.user)
	case !creates:
		return rotation.Errorf(rotation.Refused, "ALTER ROLE "+admin+" CREATEROLE; or take out rights: createrole and run what `keyturn setup postgres` prints",
			"%s: the administrator %q has no CREATEROLE", s.name, b.admin.user)
	case len(unreached) > 0:
		var grants []string
		for _, name := range unreached {
			grants = append(grants, pgx.Identifier{name}.Sanitize())
		}
		return rotation.Errorf(rotation.Refused, "GRANT "+strings.Join(grants, ", ")+" TO "+admin+" WITH ADMIN TRUE, INHERIT FALSE, SET FALSE",
			"%s: from PostgreSQL 16 on CREATEROLE reaches only what it has ADMIN on, and %q has none on %s", s.name, b.admin.user, strings.Join(unreached, ", "))
	case len(rights) > 0:
		return rotation.Errorf(rotation.Refused, "GRANT "+strings.Join(rights, ", ")+" TO "+admin,
			"%s: the administrator %q may not end sessions or see whose they are", s.name, b.admin.user)
	}
	return nil
}

// examineRights says what a CREATEROLE of its own costs on this server.
func (b *Backend) examineRights(ctx context.Context, s *server, say func(rotation.Level, string, string, ...any)) {
	if s.version < 160000 {
		say(rotation.Warning, "leave rights out, and run what `keyturn setup postgres` prints as a superuser: the functions reach the listed logins alone",
			"rights: createrole: up to PostgreSQL 15 the administrator %q can make itself nearly a superuser", b.admin.user)
	}
	b.silence(ctx, s)
	var loud bool
	err := s.conn.QueryRow(ctx, `select coalesce(pg_catalog.current_setting('log_parameter_max_length', true), '-1') <> '0'
		and (pg_catalog.current_setting('log_statement') = 'all' or pg_catalog.current_setting('log_min_duration_statement') <> '-1')`).Scan(&loud)
	switch {
	case err != nil:
		say(rotation.Warning, "", "%v", wrap(s.name, err))
	case loud:
		say(rotation.Warning, "as a superuser: ALTER ROLE "+pgx.Identifier{b.admin.user}.Sanitize()+" SET log_parameter_max_length = 0",
			"%s: its log will hold SCRAM verifiers: it logs the statements of %q with their parameters", s.name, b.admin.user)
	}
}
