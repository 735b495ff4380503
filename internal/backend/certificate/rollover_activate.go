package certificate

import (
	"context"
	"errors"
	"fmt"
	"io/fs"

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
	from, holder, err := k.holder(ctx, q)
	if err != nil {
		return err
	}
	if err := rotation.CheckLease(ctx); err != nil {
		return err
	}
	var found acme.Account
	switch {
	case from.Location != "":
		k.heard(holder.name, true) // it has the account
		k.acme.options.Logger.InfoContext(ctx, "changing the key of an account", "account", from.Location, "version", v.Number)
		found, err = k.change(ctx, q, from, holder)
	case v.Public[publicNew] != "" && v.State == rotation.Pending:
		found, err = k.made(ctx, q)
	default:
		err = rotation.Errorf(rotation.Failed, "somebody changed it elsewhere, and has the key that the account has now: change it back there",
			"certificate: none of the keys in %s is the account's", k.keys)
	}
	k.heard(q.key.name, err == nil || rotation.ClassOf(err) != rotation.Unknown)
	if err != nil {
		return err
	}
	return k.activated(v, found)
}

// change makes the version's key the account's, in place of the holder's. The key may have been
// removed meanwhile, by a run that took over and gave the version up: then it stands here alone,
// and the account gets back the one that it had.
func (k *AccountKey) change(ctx context.Context, q asked, from acme.Account, holder keptKey) (acme.Account, error) {
	found, err := q.roll(ctx, from, q.key)
	_, gone := k.keys.of(q.version)
	if !errors.Is(gone, fs.ErrNotExist) {
		return found, err
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), k.acme.options.Timeout)
	defer cancel()
	if _, back := q.roll(ctx, acme.Account{Location: from.Location, PrivateKey: q.key.Signer}, holder); back != nil {
		return acme.Account{}, rotation.Classify(rotation.Stuck, "see who has the account: keyturn doctor", fmt.Errorf("certificate: the key was removed while it was made the account's, and it may be: %w", errors.Join(gone, err, back)))
	}
	return acme.Account{}, rotation.Classify(rotation.Failed, "the account has the key before", fmt.Errorf("certificate: the key was removed while it was made the account's: %w", errors.Join(gone, err)))
}

// heard notes whether a change to the key of a version cannot be under way any more.
func (k *AccountKey) heard(name string, answered bool) {
	k.acme.mu.Lock()
	defer k.acme.mu.Unlock()
	k.answered[name] = answered
}

func (k *AccountKey) wasHeard(v rotation.Version) bool {
	k.acme.mu.Lock()
	defer k.acme.mu.Unlock()
	return k.answered[nameOf(v)]
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
