package postgres

import (
	"fmt"
	"os"
	"path/filepath"

	"github.com/keyturn/keyturn/internal/rotation"
	"github.com/keyturn/keyturn/internal/secret"
)

// An account is who the administrator is logged in as. It is a login of its own,
// or one of those that take turns for the administrator's role: then it may arm
// and end the others, and never itself.
type account struct {
	user     string
	password secret.Value
}

// administrator reads the account, anew for every call: a rotation of the
// administrator itself changes it under us.
func (b *Backend) administrator() (account, error) {
	if b.settings.AdminFrom != "" {
		return b.fromFolder(b.settings.AdminFrom)
	}
	password, err := b.settings.AdminPassword.Read(b.options.Getenv)
	if err != nil {
		return account{}, rotation.Classify(rotation.Invalid, "put it where admin-password says, from the runner's secrets",
			fmt.Errorf("postgres: the administrator's password: %w", err))
	}
	return account{b.admin.user, password}, nil
}

// fromFolder reads both fields below one link, so that they belong together.
func (b *Backend) fromFolder(folder string) (account, error) {
	fail := func(err error) (account, error) {
		return account{}, rotation.Classify(rotation.Invalid, "admin-from names the folder of a credential in a directory target, with current/username and current/password in it",
			fmt.Errorf("postgres: the administrator's login: %w", err))
	}
	home, err := os.OpenRoot(filepath.Join(folder, "current")) // resolves the link once
	if err != nil {
		return fail(err)
	}
	defer home.Close()
	read := func(name string) ([]byte, error) {
		text, err := home.ReadFile(name)
		if err == nil && len(secret.TrimNewline(text)) == 0 {
			err = fmt.Errorf("%s %w", name, secret.ErrMissing)
		}
		return secret.TrimNewline(text), err
	}
	user, err := read("username")
	if err != nil {
		return fail(err)
	}
	password, err := read("password")
	if err != nil {
		return fail(err)
	}
	if !roleName.Match(user) {
		return fail(fmt.Errorf("what username holds cannot be the name of a login"))
	}
	return account{string(user), secret.New(password)}, nil
}

const itselfHint = "admin-from must name the folder of this credential, whose link current names the version in use"

// notItself refuses to change the login that we are logged in as.
func (c *cluster) notItself(doing string, v rotation.Version) error {
	if v.Identity != c.admin.user {
		return nil
	}
	return rotation.Errorf(rotation.Refused, itselfHint, "postgres: %s: the administrator is logged in as %q, and may not change itself", doing, v.Identity)
}
