package rotatedpgx

import (
	"context"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/keyturn/keyturn/rotated"
)

// BeforeConnect returns a hook for the field BeforeConnect of a pgxpool.Config,
// and for stdlib.OptionBeforeConnect: it sets the user and the password of a
// connection about to be made to those of the credential.
//
// Where the source has several whole credentials, the hook logs in with one
// after the other and hangs up, to find the first that the server takes: twice
// the logins, for as long as there are several. A credential that is ended
// between the trial and the connection itself makes that one connection fail
// ([IsRefused]); the next one is made with the other credential. [Connect] and
// [Connector] have no such moment.
func BeforeConnect(source *rotated.Source) func(context.Context, *pgx.ConnConfig) error {
	return func(ctx context.Context, config *pgx.ConnConfig) error {
		found, err := source.Candidates(ctx)
		if err != nil {
			return err
		}
		if len(found) == 1 {
			return Apply(found[0], config)
		}
		return source.Do(ctx, func(ctx context.Context, c rotated.Credential) error {
			if err := Apply(c, config); err != nil {
				return err
			}
			return mark(try(ctx, config))
		})
	}
}

// hangUp is how long a trial login may take to say goodbye.
const hangUp = 5 * time.Second

// try logs in and hangs up. Hooks of the application that come after a login
// are left out.
func try(ctx context.Context, config *pgx.ConnConfig) error {
	trial := config.Config.Copy()
	trial.AfterConnect = nil
	conn, err := pgconn.ConnectConfig(ctx, trial)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), hangUp)
	defer cancel()
	_ = conn.Close(ctx) // the login is what was asked for
	return nil
}
