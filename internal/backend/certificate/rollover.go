package certificate

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"time"

	"github.com/mholt/acmez/v3/acme"

	"github.com/keyturn/keyturn/internal/rotation"
)

// An AccountKey rotates the key of an ACME account (RFC 8555, section 7.3.5): its authority
// takes the next one in place of the one before, at once, and the account stays what it is. That
// is a gap, see [rotation.Gapped]. Whose a key is the authority says; nothing else is believed.
//
// Both keys sign the change, and it may be made by a process that made neither: they are
// read from the folder that the directory target writes.
type AccountKey struct {
	acme     acmeIssuer
	keys     keyFolder
	ended    map[int]bool    // numbers of versions that were seen to be refused when they were ended
	accounts map[int]string  // number of a version → the account that it was activated for
	answered map[string]bool // name of a version's folder → the last change to its key was answered, or seen
}

// The interfaces that an AccountKey fulfils.
var (
	_ rotation.Proceeder   = (*AccountKey)(nil)
	_ rotation.Drafter     = (*AccountKey)(nil)
	_ rotation.Recognizer  = (*AccountKey)(nil)
	_ rotation.Gapped      = (*AccountKey)(nil)
	_ rotation.Irrevocable = (*AccountKey)(nil)
	_ rotation.Preflighter = (*AccountKey)(nil)
	_ rotation.Adopter     = (*AccountKey)(nil)
	_ rotation.Warner      = (*AccountKey)(nil)
	_ rotation.Examiner    = (*AccountKey)(nil)
	_ rotation.Nouner      = (*AccountKey)(nil)
)

// NewAccountKey returns an AccountKey for settings that passed [Section] and say so. It does no I/O.
func NewAccountKey(s Settings, o Options) (*AccountKey, error) {
	b, err := New(s, o)
	if err != nil {
		return nil, err
	}
	if !s.rolls() {
		return nil, rotation.Errorf(rotation.Invalid, "", "certificate: the credential is a certificate")
	}
	return &AccountKey{acme: acmeIssuer{b}, keys: keysBeside(s.ACME.Account), ended: map[int]bool{}, accounts: map[int]string{}, answered: map[string]bool{}}, nil
}

// Noun implements [rotation.Nouner].
func (*AccountKey) Noun() string { return "account key" }

// Gap implements [rotation.Gapped].
func (*AccountKey) Gap() string { return oneKey }

// The public fields of a version of an account's key, beside the hash of its public half.
const (
	publicAccount = "account"     // its URL, the same for all versions
	publicNew     = "new-account" // it is made for this version, by its activation, which notes its URL
)

// An asked is the key of a version, and the account that the authority says has it.
type asked struct {
	*acmeServer
	version rotation.Version
	key     keptKey
	found   acme.Account // without a location: nobody has it
}

// ask looks up whose the key of a version is. The error is [fs.ErrNotExist] if it is stored nowhere.
func (k *AccountKey) ask(ctx context.Context, v rotation.Version) (asked, error) {
	key, err := k.keys.of(v)
	if err != nil {
		return asked{}, err
	}
	return k.look(ctx, asked{version: v, key: key})
}

// serving looks up whose the key in service is.
func (k *AccountKey) serving(ctx context.Context) (asked, error) {
	key, err := k.keys.read(k.keys.inService())
	if err != nil {
		return asked{}, fmt.Errorf("certificate: the key in service: %w", err)
	}
	return k.look(ctx, asked{key: key})
}

func (k *AccountKey) look(ctx context.Context, q asked) (asked, error) {
	var err error
	if q.acmeServer, err = k.acme.server(ctx); err != nil {
		return q, err
	}
	q.found, err = q.whose(ctx, q.key.Signer)
	return q, err
}

// checkAccount refuses a key that is another account's than the record says.
func checkAccount(v rotation.Version, found acme.Account) error {
	want := v.Public[publicAccount]
	if want == "" || found.Location == "" || found.Location == want {
		return nil
	}
	return rotation.Errorf(rotation.Failed, "somebody made an account with this key: deactivate it there; the account on the record is left alone",
		"certificate: the key of version %d is that of the account %s, and not of %s", v.Number, found.Location, want)
}

// elsewhere reports whether the key of a version that was in service before is another account's
// now: whoever made that one, the account on the record has one key, and it is a later one.
func elsewhere(v rotation.Version, found acme.Account) bool {
	return v.State != rotation.Pending && v.State != rotation.Current && checkAccount(v, found) != nil
}

// Identify names the version, and the account by the key that it has now.
func (k *AccountKey) Identify(ctx context.Context, next rotation.Version, others []rotation.Version) (rotation.Version, error) {
	next = next.Clone()
	next.Identity, next.Public = rotation.Title("keyturn "+k.acme.options.Credential, next.Number), map[string]string{}
	for _, o := range others {
		k.acme.saw(o)
	}
	a, err := k.acme.server(ctx)
	if err != nil {
		return next, err
	}
	found, err := k.inForce(ctx, a, others)
	next.Public[publicAccount] = found.Location
	if found.Location == "" {
		next.Public = map[string]string{publicNew: "yes"}
	}
	return next, err
}

// inForce returns the account that one of the versions has the key of. Without a version it
// has no location.
func (k *AccountKey) inForce(ctx context.Context, a *acmeServer, versions []rotation.Version) (acme.Account, error) {
	var other error
	for _, v := range versions {
		key, err := k.keys.of(v)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return acme.Account{}, err
		}
		found, err := a.whose(ctx, key.Signer)
		switch err = cmp.Or(err, checkAccount(v, found)); {
		case errors.Is(err, errInactive) || err != nil && found.Location != "":
			other = cmp.Or(other, err) // that says nothing of the next one
		case err != nil || found.Location != "":
			return found, err
		}
	}
	if other != nil {
		return acme.Account{}, other
	}
	if len(versions) > 0 {
		return acme.Account{}, refused("somebody changed it elsewhere, and has the key that the account has now: change it back there. Or let that key be version 1 of a credential with another name: keyturn adopt",
			"no version on the record has the account's key: nothing was changed, and nothing is ended")
	}
	return acme.Account{}, nil
}

// Draft makes the key.
func (k *AccountKey) Draft(v rotation.Version) (rotation.Material, error) {
	key, err := k.acme.newKey(v)
	if err != nil {
		return nil, err
	}
	value, err := encode(key)
	return rotation.Material{fieldKey: value}, err
}

// Recognize implements [rotation.Recognizer] by the public half.
func (k *AccountKey) Recognize(v rotation.Version, m rotation.Material) (rotation.Version, error) {
	key, err := parseKey(m[fieldKey].Reveal())
	if err != nil {
		return v, fmt.Errorf("certificate: the key of version %d: %w", v.Number, err)
	}
	v = v.Clone()
	if v.Public == nil {
		v.Public = map[string]string{}
	}
	v.Public[publicKey], err = hashOfKey(key.Public())
	return v, err
}

// Observe asks the authority whose the version's key is. One that is stored and nobody's is
// Staged, until it was ended.
func (k *AccountKey) Observe(ctx context.Context, v rotation.Version) (rotation.Standing, error) {
	q, err := k.ask(ctx, v)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return rotation.Standing{Status: rotation.Absent, Detail: "its key stands in no file"}, nil
	case errors.Is(err, errInactive):
		return rotation.Standing{Status: rotation.Ended, Detail: err.Error()}, k.believed(ctx, q, err)
	case err != nil:
		return rotation.Standing{}, err
	case elsewhere(v, q.found):
		return rotation.Standing{Status: rotation.Ended, Detail: "it is the key of another account, " + q.found.Location}, nil
	case q.found.Location != "":
		return rotation.Standing{Status: rotation.Armed, Detail: "it is the key of " + q.found.Location}, checkAccount(v, q.found)
	case k.wasEnded(v):
		return rotation.Standing{Status: rotation.Ended, Detail: "it is the key of no account"}, nil
	}
	return rotation.Standing{Status: rotation.Staged, Detail: "it is the key of no account, and kept"}, nil
}

// wasEnded reports whether a version whose key is nobody's will never be anybody's.
func (k *AccountKey) wasEnded(v rotation.Version) bool {
	k.acme.mu.Lock()
	defer k.acme.mu.Unlock()
	return k.ended[v.Number] || v.State == rotation.Retired || v.State == rotation.Discarded
}

// Arm checks that the key can be made the account's: it is stored, it is no other account's, and
// no other one waits. It has no end of its own: the authority does not know it.
func (k *AccountKey) Arm(ctx context.Context, v rotation.Version, _ rotation.Material, _ time.Time) error {
	q, err := k.ask(ctx, v)
	if err != nil || q.found.Location != "" {
		return errors.Join(err, checkAccount(v, q.found))
	}
	_, holder, err := k.holder(ctx, q)
	if err != nil || holder.name == "" {
		return err
	}
	all, err := k.keys.all(true)
	if err != nil {
		return err
	}
	for _, other := range all {
		if n := numberOf(other.name); n > numberOf(holder.name) && n != v.Number {
			return rotation.Errorf(rotation.Refused, "bring it to its end first: keyturn status "+k.acme.options.Credential, "certificate: the key in %s waits to be the account's, too", other.name)
		}
	}
	return nil
}

// holder returns the account of a version that does not have it, and the key that has. None
// has no location.
func (k *AccountKey) holder(ctx context.Context, q asked) (acme.Account, keptKey, error) {
	all, err := k.keys.all(true)
	if err != nil {
		return acme.Account{}, keptKey{}, err
	}
	return q.among(ctx, all, q.key.Signer, func(found acme.Account) bool { return checkAccount(q.version, found) == nil })
}
