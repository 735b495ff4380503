package postgres

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5"

	"github.com/keyturn/keyturn/internal/rotation"
)

// Adopt checks that the login which services use today can become the role of
// the logins: version 1 is the role itself. It refuses superusers, CREATEROLE,
// REPLICATION, BYPASSRLS and roles of the system, passwords that are not stored
// as SCRAM, services that say something else than they would be told, and
// whatever would change without being accepted. It changes nothing. Who uses the
// login now is in the log.
func (b *Backend) Adopt(ctx context.Context, v rotation.Version) (rotation.Version, error) {
	doing := fmt.Sprintf("adopting login %q", b.settings.Role)
	c, err := b.open(ctx)
	if err != nil {
		return v, err
	}
	defer c.close()
	if err := c.everywhere(doing); err != nil {
		return v, err
	}
	if err := b.adoptable(ctx, c, v); err != nil {
		return v, joined(doing, []error{err})
	}
	b.mentionClients(ctx, c)
	return b.identified(v, b.settings.Role), nil
}

// agrees compares the public fields that services read now with those that the
// next version would have in their place. What the services say is not repeated:
// it may be no public field at all.
func (b *Backend) agrees(found rotation.Version) error {
	ours := b.identified(found, b.settings.Role).Public
	said := maps.Clone(found.Public)
	if found.Identity != "" {
		said = map[string]string{"username": found.Identity}
		maps.Copy(said, found.Public)
	}
	var differ []string
	for _, field := range slices.Sorted(maps.Keys(said)) {
		want, known := ours[field]
		if known && said[field] != want && !(field == "host" && strings.EqualFold(said[field], want)) {
			differ = append(differ, fmt.Sprintf("%s (it would be %q)", field, want))
		}
	}
	if len(differ) == 0 {
		return nil
	}
	return rotation.Errorf(rotation.Refused, "write role (the login that services use) and probe (its first URL is how they reach the database) so that they agree, or correct the services",
		"what services read now differs from what they would get: %s", strings.Join(differ, ", "))
}

// adoptable judges the hosts, the functions, the login, what services read, and
// what would change.
func (b *Backend) adoptable(ctx context.Context, c *cluster, found rotation.Version) error {
	for _, s := range c.servers {
		if err := checkServer(s); err != nil {
			return err
		}
	}
	if err := b.checkFunctions(ctx, c.primary); err != nil {
		return err
	}
	if err := b.checkAdopted(ctx, c.primary); err != nil {
		return err
	}
	if err := b.agrees(found); err != nil {
		return err
	}
	changes, err := b.changes(ctx, c)
	if err != nil {
		return err
	}
	changes = slices.DeleteFunc(changes, func(x change) bool { return x.allowed(b.settings.AllowChanged) })
	if len(changes) == 0 {
		return nil
	}
	var lines []string
	for _, x := range changes {
		lines = append(lines, x.kind+": "+x.what)
	}
	return rotation.Errorf(rotation.Refused, fmt.Sprintf("change them, or accept them under allow-changed, e.g. [%s]", changes[0].kind),
		"this would change when services log in as %q: %s", b.settings.Logins[0], strings.Join(lines, "; "))
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

// mentionClients warns of every client that uses the login now, once for each
// program and address, and of what connection strings may lack. The services
// that are declared are among the clients, and the server cannot tell them from
// others: none is a reason to refuse.
func (b *Backend) mentionClients(ctx context.Context, c *cluster) {
	role, log := b.settings.Role, b.options.Logger
	sessions, err := b.everySession(ctx, c, role)
	if err != nil {
		log.WarnContext(ctx, "the login's clients cannot be listed", "error", err)
		return
	}
	count := map[[2]string]int{}
	for _, s := range sessions {
		count[[2]string{s.Application, s.Client}]++
	}
	byName := func(x, y [2]string) int { return slices.Compare(x[:], y[:]) }
	for _, who := range slices.SortedFunc(maps.Keys(count), byName) {
		log.WarnContext(ctx, "a client of the adopted login: it must be one of the declared services, or it fails when version 1 ends",
			"login", role, "application", who[0], "from", who[1], "sessions", count[who])
	}
	var namesake bool
	err = c.primary.conn.QueryRow(ctx, "select exists (select from pg_catalog.pg_database where datname = $1::text)", role).Scan(&namesake)
	if err != nil {
		log.WarnContext(ctx, "the databases cannot be listed", "error", wrap(c.primary.name, err))
		return
	}
	if namesake {
		log.WarnContext(ctx, "the database is named like the login: a connection string without a database name would look for one named like the new login",
			"database", role)
	}
}
