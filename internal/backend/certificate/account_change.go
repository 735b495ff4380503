package certificate

import (
	"context"
	"errors"
	"fmt"
	"net/http"

	"github.com/mholt/acmez/v3/acme"

	"github.com/keyturn/keyturn/internal/rotation"
)

// roll changes the key of an account, and reads that back by the next one, whatever was answered.
func (a *acmeServer) roll(ctx context.Context, from acme.Account, to keptKey) (acme.Account, error) {
	directory, err := a.client.GetDirectory(ctx)
	if err != nil {
		return acme.Account{}, wrap("reading the directory", err)
	}
	if directory.KeyChange == "" {
		return acme.Account{}, cannotRoll(nil)
	}
	_, failed := a.client.AccountKeyRollover(ctx, from, to.Signer)
	found, err := a.whose(ctx, to.Signer)
	p, told := problemOf(failed)
	switch {
	case err != nil:
		return acme.Account{}, rotation.Classify(rotation.Unknown, "run it again", errors.Join(err, wrap("changing the account's key", failed)))
	case found.Location == from.Location:
		return found, nil
	case found.Location != "":
		return acme.Account{}, rotation.Errorf(rotation.Failed, "nothing was changed: somebody made an account with that key", "certificate: the key to change to is that of another account: %s", found.Location)
	case failed == nil:
		return acme.Account{}, rotation.Errorf(rotation.Unknown, "run it again", "certificate: the account's key was changed, and the authority does not know the new one")
	case told && (p.Status == http.StatusNotImplemented || p.Status == http.StatusNotFound || p.Status == http.StatusMethodNotAllowed):
		return acme.Account{}, cannotRoll(failed)
	}
	err = wrap("changing the account's key", failed)
	if rotation.ClassOf(err) == rotation.Failed {
		err = rotation.Classify(rotation.Failed, "nothing was changed", fmt.Errorf("certificate: changing the account's key: %w", failed))
	}
	return acme.Account{}, err
}

// cannotRoll is the error of an authority that changes no account's key.
func cannotRoll(err error) error {
	const hint = "nothing was changed; leave the credential out of the configuration: with this authority another account is the only way to another key"
	if err == nil {
		return refused(hint, "the authority names no place where the key of an account is changed")
	}
	return rotation.Classify(rotation.Failed, hint, fmt.Errorf("certificate: the authority cannot change the key of an account: %w", err))
}

// deactivate ends an account (RFC 8555, section 7.3.6), and reads that back.
func (a *acmeServer) deactivate(ctx context.Context, account acme.Account) error {
	_, failed := a.client.UpdateAccount(ctx, acme.Account{Location: account.Location, PrivateKey: account.PrivateKey, Status: acme.StatusDeactivated})
	_, err := a.whose(ctx, account.PrivateKey)
	if err == nil && failed == nil {
		err = unknown("run it again", "the account was deactivated, and is still active")
	}
	if errors.Is(err, errInactive) {
		return nil
	}
	return errors.Join(err, wrap("deactivating the account", failed))
}
