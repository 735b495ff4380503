package postgres

import (
	"context"
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
func (b *Backend) changes(ctx context.Context, c *cluster) ([]change, error) {
	s, role := c.primary, b.settings.Role
	var out []change
	named := []string{b.admin.database}
	for _, a := range b.ways() {
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
	for _, s := range c.servers {
		hba, err := b.hbaChanges(ctx, s)
		if err != nil {
			return nil, err
		}
		out = append(out, hba...)
	}
	return out, nil
}

// hbaChanges lists the lines of one host's pg_hba.conf that let the login in and
// not each of its successors, or says that they cannot be seen.
func (b *Backend) hbaChanges(ctx context.Context, s *server) ([]change, error) {
	rows, err := s.conn.Query(ctx, "select number, databases, users from "+b.function("hba")+"($1::text)", b.settings.Role)
	if err != nil {
		return nil, wrap(s.name, err)
	}
	list, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (change, error) {
		var number int
		var databases, users []string
		err := row.Scan(&number, &databases, &users)
		return change{changeHBA, fmt.Sprintf("line %d on %s (databases %s; users %s)", number, s.name, strings.Join(databases, ","), strings.Join(users, ","))}, err
	})
	err = wrap(s.name, err)
	switch {
	case err == nil, rotation.ClassOf(err) == rotation.Unknown:
		return list, err
	case codeOf(err) == "42883":
		return nil, err // functions of before: the set-up is to be run again
	}
	b.options.Logger.WarnContext(ctx, "pg_hba.conf is not visible to the administrator: lines that name the login must name its successors too",
		"login", b.settings.Role, "host", s.name, "error", err)
	return []change{{changeHBA, "pg_hba.conf of " + s.name + " (not visible)"}}, nil
}

// changesIn looks at one database, with a connection of its own.
func (b *Backend) changesIn(ctx context.Context, s *server, database string) ([]change, error) {
	admin, err := b.administrator()
	if err != nil {
		return nil, err
	}
	conn, err := b.adminAt(ctx, s.name, database, admin, "60s")
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
