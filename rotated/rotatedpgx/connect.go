package rotatedpgx

import (
	"context"
	"database/sql/driver"
	"errors"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/stdlib"

	"github.com/keyturn/keyturn/rotated"
)

// The errors that say that a login is refused for its name or its password
// (PostgreSQL, appendix A, class 28). The second is also that of a line missing
// in pg_hba.conf: it is reason enough to try another login, and no proof that
// the first one is dead.
const (
	invalidPassword      = "28P01"
	invalidAuthorization = "28000"
)

// IsRefused reports whether err, which a connection attempt returned, says
// that the server does not accept the login: SQLSTATE 28P01 or 28000. A server
// that is away, starting up or out of connections has refused nothing.
func IsRefused(err error) bool {
	var pg *pgconn.PgError
	return errors.As(err, &pg) && (pg.Code == invalidPassword || pg.Code == invalidAuthorization)
}

func mark(err error) error {
	if IsRefused(err) {
		return rotated.Refused(err)
	}
	return err
}

// Connect opens a connection to the server of config with the credential of
// the source, and with the next whole one where the server refuses it. Config,
// which [pgx.ParseConfig] made, is not changed; its user and password are not used.
func Connect(ctx context.Context, source *rotated.Source, config *pgx.ConnConfig) (*pgx.Conn, error) {
	var conn *pgx.Conn
	err := source.Do(ctx, func(ctx context.Context, c rotated.Credential) error {
		with := config.Copy()
		if err := Apply(c, with); err != nil {
			return err
		}
		var err error
		conn, err = pgx.ConnectConfig(ctx, with)
		return mark(err)
	})
	if err != nil {
		return nil, err
	}
	return conn, nil
}

// Connector returns what [database/sql.OpenDB] opens a database by: each of
// its connections is made as [Connect] makes them. The options are those of
// the package stdlib of pgx.
func Connector(source *rotated.Source, config *pgx.ConnConfig, options ...stdlib.OptionOpenDB) driver.Connector {
	return &connector{source: source, config: config.Copy(), options: options}
}

type connector struct {
	source  *rotated.Source
	config  *pgx.ConnConfig
	options []stdlib.OptionOpenDB
}

// Connect opens a connection.
func (c *connector) Connect(ctx context.Context) (driver.Conn, error) {
	var conn driver.Conn
	err := c.source.Do(ctx, func(ctx context.Context, credential rotated.Credential) error {
		with := c.config.Copy()
		if err := Apply(credential, with); err != nil {
			return err
		}
		var err error
		conn, err = stdlib.GetConnector(*with, c.options...).Connect(ctx)
		return mark(err)
	})
	if err != nil {
		return nil, err
	}
	return conn, nil
}

// Driver returns pgx's driver.
func (*connector) Driver() driver.Driver { return stdlib.GetDefaultDriver() }
