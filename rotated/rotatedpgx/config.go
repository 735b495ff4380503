package rotatedpgx

import (
	"fmt"

	"github.com/jackc/pgx/v5"

	"github.com/keyturn/keyturn/rotated"
)

// The fields of a credential that this package reads.
const (
	Username = "username"
	Password = "password"
	DSN      = "dsn"
)

// Apply sets the user and the password of config to those of the credential:
// the fields username and password, or those that the field dsn holds. The
// rest of config stays as it is. No error holds a value.
func Apply(c rotated.Credential, config *pgx.ConnConfig) error {
	user, password := c.Field(Username), c.Field(Password)
	if !c.Has(Username) || !c.Has(Password) {
		if !c.Has(DSN) {
			return fmt.Errorf("the credential from %s has neither the fields %q and %q nor the field %q", c.Origin(), Username, Password, DSN)
		}
		var err error
		if user, password, err = splitDSN(c.Field(DSN)); err != nil {
			return fmt.Errorf("the credential from %s: field %q %w", c.Origin(), DSN, err)
		}
	}
	config.User, config.Password = user, password
	return nil
}
