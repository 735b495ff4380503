package postgres

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5"

	"github.com/keyturn/keyturn/internal/rotation"
)

// The kinds of things that change for an application, mostly without a word,
// when the login that it has used becomes the role of others. The role's owner
// accepts them one by one under allow-changed.
const (
	changeSessionUser  = "session-user" // code and rules that ask session_user, which is the new login
	changeOwnSessions  = "own-sessions" // code that watches or cancels sessions of its own login
	changeCron         = "cron"         // pg_cron logs in as the user of a job
	changeUserMapping  = "user-mapping" // a foreign server is logged in to as the adopted login
	changeSubscription = "subscription" // a subscription's worker logs in as its owner
	changeHBA          = "pg-hba"       // lines that name the adopted login
	changeDatabase     = "database"     // databases that could not be looked at
)

var changeKinds = []string{changeSessionUser, changeOwnSessions, changeCron, changeUserMapping,
	changeSubscription, changeHBA, changeDatabase}

// A change is one thing that would change.
type change struct{ kind, what string }

func (c change) allowed(by []string) bool {
	return slices.Contains(by, c.kind) || slices.Contains(by, c.kind+":"+c.what)
}

// Adopt checks that the login which services use today can become the role of
// the logins: version 1 is the role itself. It refuses superusers, CREATEROLE,
// REPLICATION, BYPASSRLS and roles of the system, passwords that are not stored
// as SCRAM, and whatever would change without being accepted. It changes nothing.
func (b *Backend) Adopt(ctx context.Context, v rotation.Version) (rotation.Version, error) {
	role := b.settings.Role
	doing := fmt.Sprintf("adopting login %q", role)
	if v.Identity != "" && v.Identity != role {
		return v, rotation.Errorf(rotation.Refused, fmt.Sprintf("write role: %s; it becomes the role of the logins", v.Identity),
			"postgres: services log in as %q, and the role is %q", v.Identity, role)
	}
	c, err := b.open(ctx)
	if err != nil {
		return v, err
	}
	defer c.close()
	if err := c.everywhere(doing); err != nil {
		return v, err
	}
	for _, s := range c.servers {
		if err := checkServer(s); err != nil {
			return v, joined(doing, []error{err})
		}
	}
	if err := b.checkFunctions(ctx, c.primary); err != nil {
		return v, joined(doing, []error{err})
	}
	if err := b.checkAdopted(ctx, c.primary); err != nil {
		return v, joined(doing, []error{err})
	}
	changes, err := b.changes(ctx, c.primary)
	if err != nil {
		return v, joined(doing, []error{err})
	}
	changes = slices.DeleteFunc(changes, func(x change) bool { return x.allowed(b.settings.AllowChanged) })
	if len(changes) > 0 {
		var lines []string
		for _, x := range changes {
			lines = append(lines, x.kind+": "+x.what)
		}
		return v, rotation.Errorf(rotation.Refused, fmt.Sprintf("change them, or accept them under allow-changed, e.g. [%s]", changes[0].kind),
			"postgres: %s: this would change when services log in as %q: %s", doing, b.settings.Logins[0], strings.Join(lines, "; "))
	}
	b.mentionClients(ctx, c)
	return b.identified(v, role), nil
}

// checkAdopted judges the login itself.
func (b *Backend) checkAdopted(ctx context.Context, s *server) error {
	role := b.settings.Role
	// Judged before the allow-list is asked: the set-up refuses these too, and
	// its refusal should not be the one that people read.
	powers, system, err := b.powers(ctx, s)
	if errors.Is(err, pgx.ErrNoRows) {
		return rotation.Errorf(rotation.Refused, "write the login that services use today as role, or prepare a first version without adopting",
			"%s: there is no role %q", s.name, role)
	}
	if err != nil {
		return wrap(s.name, err)
	}
	if len(powers) > 0 {
		return rotation.Errorf(rotation.Refused, plainRole, "%s: %q is %s, which logins in turn must not be", s.name, role, strings.Join(powers, ", "))
	}
	if system {
		return rotation.Errorf(rotation.Refused, plainRole, "%s: %q belongs to the system or owns a database of it", s.name, role)
	}
	st, err := b.state(ctx, s, role)
	if err != nil {
		return err
	}
	return b.judgeAdopted(s.name, st)
}

const plainRole = "give the application's objects and rights to a plain role, and let services use that"

// powers returns what the role is beyond a plain one, and whether it belongs to
// the system. The error of a role that is not there is [pgx.ErrNoRows].
func (b *Backend) powers(ctx context.Context, s *server) (powers []string, system bool, err error) {
	err = s.conn.QueryRow(ctx, `select pg_catalog.array_remove(array[case when r.rolsuper then 'a superuser' end,
		case when r.rolcreaterole then 'CREATEROLE' end, case when r.rolreplication then 'REPLICATION' end,
		case when r.rolbypassrls then 'BYPASSRLS' end], null), r.oid < 16384 or r.rolname like 'pg\_%' or exists (
		select from pg_catalog.pg_database d where d.datdba = r.oid and (d.datistemplate or d.datname = 'postgres'))
		from pg_catalog.pg_roles r where r.rolname = $1::text`, b.settings.Role).Scan(&powers, &system)
	return powers, system, err
}

func (b *Backend) judgeAdopted(host string, st state) error {
	acts, set := settingOf(st.Config, "role")
	switch {
	case !st.CanLogin, st.Password != nil && !*st.Password, st.Expired:
		return rotation.Errorf(rotation.Refused, "name the login that services use as role; a role without a login has nothing to adopt",
			"%s: nobody can log in as %q: %s", host, st.Login, b.describe(st))
	case st.Holder.Ended:
		return rotation.Errorf(rotation.Refused, fmt.Sprintf("let services use another login; to take this one anew, run UPDATE %s.managed SET credential = NULL, version = NULL, ended = false WHERE login = '%s'",
			b.settings.Schema, st.Login), "%s: %q was ended as %s: every phase would end it again", host, st.Login, st.Holder)
	case set && acts != st.Login:
		return rotation.Errorf(rotation.Refused, fmt.Sprintf("write role: %s only if services log in as it", acts),
			"%s: %q acts as %q by a SET role of its own", host, st.Login, acts)
	case st.Scheme == "md5":
		return rotation.Errorf(rotation.Refused, `set the same password anew with password_encryption = 'scram-sha-256', e.g. by \password`,
			"%s: the password of %q is stored as md5, and logins are tried by SCRAM-SHA-256 only", host, st.Login)
	}
	return nil
}

// homes finds the databases where the role is at home: ours and those of the
// probes, and where it owns something, has a right, a setting or a session.
const homes = `select d.datname from pg_catalog.pg_database d, (select oid from pg_catalog.pg_roles where rolname = $1::text) r
	where d.datallowconn and not d.datistemplate and (d.datname = any ($2::text[])
	or exists (select from pg_catalog.pg_shdepend s where s.dbid = d.oid
		and s.refclassid = 'pg_catalog.pg_authid'::pg_catalog.regclass and s.refobjid = r.oid)
	or exists (select from pg_catalog.pg_shdepend s where s.dbid = 0 and s.classid = 'pg_catalog.pg_database'::pg_catalog.regclass
		and s.objid = d.oid and s.refobjid = r.oid)
	or exists (select from pg_catalog.pg_db_role_setting s where s.setdatabase = d.oid and s.setrole = r.oid)
	or exists (select from pg_catalog.pg_stat_activity a where a.datid = d.oid and a.usesysid = r.oid)) order by 1`

// changes lists what would change, in every database where the role is at home.
func (b *Backend) changes(ctx context.Context, s *server) ([]change, error) {
	role := b.settings.Role
	var out []change
	named := []string{b.admin.database}
	for _, p := range b.settings.Probe {
		a, _ := parseURL(p)
		named = append(named, a.database)
	}
	rows, err := s.conn.Query(ctx, homes, role, named)
	if err != nil {
		return nil, wrap(s.name, err)
	}
	databases, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		return nil, wrap(s.name, err)
	}
	for _, d := range databases {
		found, err := b.changesIn(ctx, s, d)
		if err != nil {
			if rotation.ClassOf(err) == rotation.Unknown {
				return nil, err
			}
			b.options.Logger.WarnContext(ctx, "a database cannot be looked at", "database", d, "error", err)
			out = append(out, change{changeDatabase, d})
		}
		out = append(out, found...)
	}
	shared, err := b.collect(ctx, s.name, s.conn, sharedChanges, role)
	if err != nil {
		return nil, err
	}
	out = append(out, shared...)
	hba, err := b.collect(ctx, s.name, s.conn, hbaChanges, role)
	if err != nil {
		b.options.Logger.InfoContext(ctx, "pg_hba.conf is not visible to the administrator: lines that name the login must name its successors too", "login", role)
	}
	return append(out, hba...), nil
}

// changesIn looks at one database, with a connection of its own.
func (b *Backend) changesIn(ctx context.Context, s *server, database string) ([]change, error) {
	password, err := b.settings.AdminPassword.Read(b.options.Getenv)
	if err != nil {
		return nil, err
	}
	conn, err := b.adminAt(ctx, s.name, database, password, "60s")
	if err != nil {
		return nil, err
	}
	d := &server{name: s.name, conn: conn}
	defer d.close()
	out, err := b.collect(ctx, s.name, conn, codeChanges, b.settings.Schema)
	if err != nil {
		return nil, err
	}
	more, err := b.collect(ctx, s.name, conn, mappingChanges, b.settings.Role)
	if err != nil {
		return nil, err
	}
	out = append(out, more...)
	for i := range out {
		out[i].what = database + "." + out[i].what
	}
	return out, nil
}

// collect runs a query that yields kind and what.
func (b *Backend) collect(ctx context.Context, host string, conn *pgx.Conn, query, arg string) ([]change, error) {
	rows, err := conn.Query(ctx, query, arg)
	if err != nil {
		return nil, wrap(host, err)
	}
	list, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (change, error) {
		var c change
		return c, row.Scan(&c.kind, &c.what)
	})
	return list, wrap(host, err)
}

// mentionClients says who uses the login now, and what their connection strings
// may lack. The services that are declared are among them.
func (b *Backend) mentionClients(ctx context.Context, c *cluster) {
	role := b.settings.Role
	sessions, err := b.everySession(ctx, c, role)
	if err != nil {
		b.options.Logger.WarnContext(ctx, "the login's clients cannot be listed", "error", err)
		return
	}
	for _, s := range sessions {
		b.options.Logger.InfoContext(ctx, "a client of the adopted login: it must be one of the declared services, or it fails when version 1 ends",
			"login", role, "application", s.Application, "from", s.Client, "database", s.Database)
	}
	var namesake bool
	err = c.primary.conn.QueryRow(ctx, "select exists (select from pg_catalog.pg_database where datname = $1::text)", role).Scan(&namesake)
	if err != nil {
		b.options.Logger.WarnContext(ctx, "the databases cannot be listed", "error", wrap(c.primary.name, err))
		return
	}
	if namesake {
		b.options.Logger.WarnContext(ctx, "the database is named like the login: a connection string without a database name would look for one named like the new login",
			"database", role)
	}
}
