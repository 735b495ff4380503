package certificate

import (
	"context"
	"errors"
	"fmt"
	"io/fs"

	"github.com/keyturn/keyturn/internal/rotation"
)

// End sees to it that the authority refuses the version's key. That of the account now is
// replaced by the one that services read. Of an account that was made for the version,
// nothing is left: it is deactivated. An account that somebody made with an old key is left
// alone.
func (k *AccountKey) End(ctx context.Context, v rotation.Version, why rotation.Why) error {
	q, err := k.ask(ctx, v)
	switch {
	case errors.Is(err, fs.ErrNotExist) && why != rotation.ToRevoke:
		return nil // an account has one key: the proof tries the next one
	case errors.Is(err, errInactive):
		err = k.believed(ctx, q, err)
	case err == nil && q.found.Location != "" && !elsewhere(v, q.found):
		err = k.depose(ctx, q, why)
	}
	if err != nil {
		return err
	}
	k.acme.mu.Lock()
	defer k.acme.mu.Unlock()
	k.ended[v.Number] = true
	return nil
}

// believed judges an authority that says that the account of a key is not active. That may be a
// problem of another kind, for all are called "unauthorized": then the version is refused for good
// only if it was ended, or was made for that account and given up, or if the account on the record
// is there, by another key.
func (k *AccountKey) believed(ctx context.Context, q asked, said error) error {
	v := q.version
	if !is(said, unauthorized) || k.wasEnded(v) || v.State == rotation.Pending && v.Public[publicNew] != "" {
		return nil
	}
	_, holder, err := k.holder(ctx, q)
	if err == nil && holder.name != "" {
		return nil
	}
	return rotation.Classify(rotation.Unknown, "look at the account at its authority: nothing is concluded from that, and nothing ended", errors.Join(said, err))
}

// depose takes the account from the key that it has.
func (k *AccountKey) depose(ctx context.Context, q asked, why rotation.Why) error {
	v := q.version
	if err := checkAccount(v, q.found); err != nil {
		return err
	}
	if err := rotation.CheckLease(ctx); err != nil {
		return err
	}
	if name := k.keys.inService(); name != "" && name != nameOf(v) {
		heir, err := k.keys.read(name)
		if err != nil {
			return fmt.Errorf("certificate: the key in service: %w", err)
		}
		k.acme.options.Logger.InfoContext(ctx, "giving an account the key in service", "account", q.found.Location, "version", v.Number)
		_, err = q.roll(ctx, q.found, heir)
		return err
	}
	switch {
	case why == rotation.ToRevoke:
		return k.Irrevocable()
	case why == rotation.ToDiscard && v.Public[publicNew] != "":
		return q.deactivate(ctx, q.found)
	}
	return refused("see: keyturn status "+k.acme.options.Credential, "version %d is the account's key, and no other one is in service", v.Number)
}

// Irrevocable implements [rotation.Irrevocable].
func (k *AccountKey) Irrevocable() error {
	return refused("the next key ends it, at its cutover, as by --mode fast: see keyturn status "+k.acme.options.Credential,
		"what is in service is the account's key: to end it is to end the account, and nobody could revoke its certificates any more")
}
