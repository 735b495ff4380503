package certificate

import (
	"context"

	"github.com/mholt/acmez/v3/acme"

	"github.com/keyturn/keyturn/internal/rotation"
)

// Activate makes the version's key the account's. What an answer that was lost has done is
// found, for the authority is asked first; and last, with the new key.
func (k *AccountKey) Activate(ctx context.Context, v rotation.Version) error {
	q, err := k.ask(ctx, v)
	if err != nil {
		return err
	}
	if q.found.Location != "" {
		return k.activated(v, q.found)
	}
	from, _, err := k.holder(ctx, q)
	if err != nil {
		return err
	}
	if err := rotation.CheckLease(ctx); err != nil {
		return err
	}
	var found acme.Account
	switch {
	case from.Location != "":
		k.acme.options.Logger.InfoContext(ctx, "changing the key of an account", "account", from.Location, "version", v.Number)
		found, err = q.roll(ctx, from, q.key)
	case v.Public[publicNew] != "" && v.State == rotation.Pending:
		found, err = k.made(ctx, q)
	default:
		err = rotation.Errorf(rotation.Failed, "somebody changed it elsewhere, and has the key that the account has now: change it back there",
			"certificate: none of the keys in %s is the account's", k.keys)
	}
	if err != nil {
		return err
	}
	return k.activated(v, found)
}

// made makes the account of a first version.
func (k *AccountKey) made(ctx context.Context, q asked) (acme.Account, error) {
	if err := k.acme.agreed(); err != nil {
		return acme.Account{}, err
	}
	q.account = acme.Account{PrivateKey: q.key.Signer}
	err := k.acme.register(ctx, q.acmeServer)
	return q.account, err
}

// activated notes whose key a version is, which must be the account of the record.
func (k *AccountKey) activated(v rotation.Version, found acme.Account) error {
	if err := checkAccount(v, found); err != nil {
		return err
	}
	k.acme.mu.Lock()
	defer k.acme.mu.Unlock()
	delete(k.ended, v.Number)
	k.accounts[v.Number] = found.Location
	return nil
}
