package rotatedpgx

import (
	"errors"
	"net/url"
	"strings"

	"github.com/jackc/pgx/v5"
)

// nobody stands for a user and a password that a connection string leaves out,
// so that pgx does not take them from the environment, a password file or the
// operating system: they would belong to another credential.
const nobody = "(none)"

// splitDSN returns the user and the password of a connection string or URL.
// The errors of the parsers are left out: they quote the string.
func splitDSN(dsn string) (user, password string, err error) {
	explicit := "user='" + nobody + "' password='" + nobody + "' " + dsn // of two settings the later one holds
	if strings.HasPrefix(dsn, "postgres://") || strings.HasPrefix(dsn, "postgresql://") {
		u, err := url.Parse(dsn)
		if err != nil {
			return "", "", errors.New("is no URL")
		}
		name, word := nobody, nobody
		if u.User != nil {
			name = u.User.Username()
			if given, ok := u.User.Password(); ok {
				word = given
			}
		}
		u.User = url.UserPassword(name, word)
		explicit = u.String()
	}
	config, err := pgx.ParseConfig(explicit)
	if err != nil {
		return "", "", errors.New("is no connection string of PostgreSQL that can be used here")
	}
	for _, part := range []string{config.User, config.Password} {
		if part == "" || part == nobody {
			return "", "", errors.New("does not hold both a user and a password")
		}
	}
	return config.User, config.Password, nil
}
