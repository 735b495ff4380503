// Package rotatedpgx logs in to PostgreSQL, by pgx, with a credential that is
// being rotated: each new connection reads the credential afresh and as a
// whole, and one that the server refuses is followed by the next whole one.
//
// # Which function
//
//   - [Connect] opens one connection.
//   - [Connector] is for database/sql ([database/sql.OpenDB]).
//   - [BeforeConnect] is the hook of that name of a pgxpool.Config. Such a hook
//     comes before the login and never hears of its outcome, so wherever there
//     are two credentials or more it first tries, by a login of its own, which
//     one the server takes. With one credential, which is the usual state, it
//     does not: that costs nothing.
//
// # Fields
//
// The source must have the fields username and password, or the field dsn, a
// connection string or URL from which the user and the password are taken.
// Host, database and everything else come from the application's own
// configuration. For example:
//
//	rotated.Env(rotated.Vars{"POSTGRES_USER": "username", "POSTGRES_PASSWORD": "password"})
//	rotated.Dir("/run/creds/orders-db", "username", "password")
//
// # Connections that exist
//
// PostgreSQL asks for a password at the login only. Connections that were made
// with the old credential go on until the rotation ends them, after the
// overlap. Where the credential moves under a running process (a directory of
// versions), watch it ([rotated.Source.Watch]) and reset the pool, or give the
// pool a MaxConnLifetime well below the overlap.
package rotatedpgx
