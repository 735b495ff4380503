package postgres

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"strconv"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/keyturn/keyturn/internal/rotation"
	"github.com/keyturn/keyturn/internal/secret"
)

// connectTimeout bounds one connection's making, TLS and authentication included.
const connectTimeout = 5 * time.Second

// dialTimeout is added to it where a connection is made through a relay: a process
// starts in a container first, which takes seconds on a busy node.
const dialTimeout = 10 * time.Second

// A dialFunc makes network connections.
type dialFunc func(ctx context.Context, network, address string) (net.Conn, error)

// A line is everything that one connection needs.
type line struct {
	hostport, user, database string
	password                 secret.Value
	ca                       []byte
	weaker                   []string
	pins                     Pins
	binding                  string // channel_binding: "require", "prefer"
	dial                     dialFunc
	params                   map[string]string
}

// connect logs in by SCRAM-SHA-256 and nothing else. Its error is the driver's:
// callers wrap it.
func (l line) connect(ctx context.Context) (*pgx.Conn, error) {
	host, port, err := net.SplitHostPort(l.hostport)
	if err != nil {
		return nil, localError("malformed host")
	}
	// Every value is set below; the string keeps files and most of the
	// environment of libpq out.
	c, err := pgx.ParseConfig("host=localhost port=5432 user=x database=x sslmode=disable sslrootcert='' passfile=/dev/null " +
		"channel_binding=prefer require_auth=scram-sha-256 target_session_attrs=any sslnegotiation=postgres sslcertmode=allow " +
		"connect_timeout=5 min_protocol_version=3.0 max_protocol_version=3.0")
	if err != nil {
		return nil, localError("a variable of the environment that PostgreSQL's clients read (PGSERVICE?) is in the way: unset it")
	}
	number, err := strconv.ParseUint(port, 10, 16)
	if err != nil {
		return nil, localError("malformed port")
	}
	c.Host, c.Port, c.User, c.Database = host, uint16(number), l.user, l.database
	c.Password = string(l.password.Reveal())
	c.Fallbacks, c.ValidateConnect, c.ConnectTimeout = nil, nil, connectTimeout
	if c.TLSConfig, err = tlsConfig(host, l.ca, l.weaker, l.pins); err != nil {
		return nil, err
	}
	c.ChannelBinding, c.SSLNegotiation = l.binding, "postgres"
	if c.TLSConfig == nil {
		c.ChannelBinding = "disable"
	}
	if l.dial != nil {
		c.DialFunc, c.ConnectTimeout = pgconn.DialFunc(l.dial), connectTimeout+dialTimeout
		c.LookupFunc = func(_ context.Context, host string) ([]string, error) { return []string{host}, nil }
	}
	c.RuntimeParams = l.params
	c.DefaultQueryExecMode = pgx.QueryExecModeExec // works through poolers, prepares nothing
	return pgx.ConnectConfig(ctx, c)
}

// A server is one host that the administrator is logged in to.
type server struct {
	name    string
	conn    *pgx.Conn
	standby bool
	version int
	skew    time.Duration // its clock minus ours

	silenced bool // its log tells nothing of this session's statements; see [Backend.silence]

	encryption string // password_encryption: how it stores passwords, and what it asks who has none for
}

// A cluster is every host of the administrator's URL.
type cluster struct {
	primary *server
	servers []*server
	admin   account
	lost    []error // of hosts that could not be reached
	kept    *kept   // where the connections go when they are closed
}

// open logs in to every host, or takes the connections that are kept. A cluster without exactly one primary is an
// error of class Unknown; hosts beside it that cannot be reached are in lost.
func (b *Backend) open(ctx context.Context) (*cluster, error) {
	admin, err := b.administrator()
	if err != nil {
		return nil, err
	}
	if b.options.Ready != nil {
		if err := b.options.Ready(ctx); err != nil {
			return nil, fmt.Errorf("postgres: %w", err)
		}
	}
	if c := b.kept.take(ctx, b, admin); c != nil {
		return c, nil
	}
	c := &cluster{admin: admin, kept: &b.kept}
	for _, hp := range b.admin.hosts {
		s, err := b.login(ctx, hp, admin)
		if err != nil {
			c.lost = append(c.lost, err)
			continue
		}
		c.servers = append(c.servers, s)
		switch {
		case s.standby:
		case c.primary != nil:
			c.disconnect()
			return nil, rotation.Errorf(rotation.Unknown, "name one cluster in the administrator's URL",
				"postgres: %s and %s are both primaries", c.primary.name, s.name)
		default:
			c.primary = s
		}
	}
	if c.primary == nil {
		c.disconnect()
		if len(c.servers) > 0 {
			c.lost = append(c.lost, rotation.Errorf(rotation.Unknown, "name the primary in the administrator's URL",
				"postgres: no host is a primary"))
		}
		return nil, joined("connecting as administrator", c.lost)
	}
	return c, nil
}

// sessionOf returns the parameters of an administrator's session: whatever the
// role, the database or the server have as defaults, a statement means what it
// says, nobody's operators are found, and what was committed is kept.
func sessionOf(timeout string) map[string]string {
	return map[string]string{"application_name": "keyturn", "client_encoding": "UTF8",
		"statement_timeout": timeout, "lock_timeout": "10s", "idle_in_transaction_session_timeout": "30s",
		"search_path": "pg_catalog, pg_temp", "standard_conforming_strings": "on",
		"default_transaction_isolation": "read committed", "default_transaction_read_only": "off", "synchronous_commit": "on"}
}

// adminAt logs the administrator in to a database of one host.
func (b *Backend) adminAt(ctx context.Context, hostport, database string, admin account, timeout string) (*pgx.Conn, error) {
	conn, err := line{hostport: hostport, user: admin.user, database: database, password: admin.password, ca: b.options.CA,
		weaker: b.settings.InsecureTLS, pins: b.settings.Pins, binding: "require", dial: b.options.Dial, params: sessionOf(timeout)}.connect(ctx)
	return conn, wrap(hostport, err)
}

func (b *Backend) login(ctx context.Context, hostport string, admin account) (*server, error) {
	conn, err := b.adminAt(ctx, hostport, b.admin.database, admin, "20s")
	if err != nil {
		return nil, err
	}
	s := &server{name: hostport, conn: conn}
	if err := b.look(ctx, s); err != nil {
		s.close()
		return nil, err
	}
	return s, nil
}

// look reads what a host is now.
func (b *Backend) look(ctx context.Context, s *server) error {
	var now time.Time
	begun := b.options.Now()
	// Our session may wait for standbys, or hold a lock for a whole phase.
	err := s.conn.QueryRow(ctx, `select pg_catalog.pg_is_in_recovery(), pg_catalog.current_setting('server_version_num')::int,
		pg_catalog.clock_timestamp(), case when pg_catalog.current_setting('server_version_num')::int >= 140000
		then pg_catalog.set_config('idle_session_timeout', '0', false) end is null, pg_catalog.current_setting('password_encryption')`).
		Scan(&s.standby, &s.version, &now, new(bool), &s.encryption)
	if err != nil {
		return wrap(s.name, err)
	}
	ended := b.options.Now()
	s.skew = now.Sub(begun.Add(ended.Sub(begun) / 2))
	return nil
}

// joined returns the errors that are not nil as one, with the class of the first
// that is not known, and the first hint.
func joined(doing string, errs []error) error {
	errs = slices.DeleteFunc(errs, func(err error) bool { return err == nil })
	if len(errs) == 0 {
		return nil
	}
	class, hint := rotation.ClassOf(errs[0]), ""
	for _, e := range errs {
		if rotation.ClassOf(e) == rotation.Unknown {
			class = rotation.Unknown
		}
		if hint == "" {
			hint = rotation.HintOf(e)
		}
	}
	return rotation.Errorf(class, hint, "postgres: %s: %w", doing, errors.Join(errs...))
}

// everywhere returns an error of class Unknown if a host could not be reached.
func (c *cluster) everywhere(doing string) error {
	if len(c.lost) == 0 {
		return nil
	}
	return rotation.Classify(rotation.Unknown, "every host of the administrator's URL must answer", joined(doing, c.lost))
}

// at returns the host of a name, which a session of it bears.
func (c *cluster) at(name string) *server {
	return c.servers[slices.IndexFunc(c.servers, func(s *server) bool { return s.name == name })]
}

func (s *server) close() {
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	_ = s.conn.Close(ctx) // nothing hangs on it: every transaction is over
}
