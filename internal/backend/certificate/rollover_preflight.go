package certificate

import (
	"context"
	"fmt"
	"path/filepath"
	"slices"

	"github.com/mholt/acmez/v3/acme"

	"github.com/keyturn/keyturn/internal/rotation"
)

// Preflight checks that the account's key can be changed: the authority says where, and a
// version on the record has it. Before there is a version, that one can be adopted, or that
// an account may be made.
func (k *AccountKey) Preflight(ctx context.Context, c rotation.Credential) error {
	for _, v := range c.Versions {
		k.acme.saw(v)
	}
	a, err := k.acme.server(ctx)
	if err != nil {
		return err
	}
	directory, err := a.client.GetDirectory(ctx)
	live := slices.DeleteFunc(c.Live(), func(v rotation.Version) bool { return v.Identity == "" }) // that is the one to be made
	switch {
	case err != nil:
		return wrap("reading the directory", err)
	case directory.KeyChange == "":
		return cannotRoll(nil)
	case len(live) > 0:
		_, err := k.inForce(ctx, a, live)
		return err
	case k.keys.inService() == "":
		return k.acme.mayRegister(directory)
	case c.Open != nil:
		return refused("let it be version 1: keyturn adopt "+k.acme.options.Credential, "a key is in service in %s, and is no version on the record", k.keys)
	}
	key, err := k.keys.read(k.keys.inService())
	if err == nil {
		_, err = k.owned(ctx, a, key)
	}
	return err
}

// owned returns the account of a key that is to be adopted.
func (k *AccountKey) owned(ctx context.Context, a *acmeServer, key keptKey) (acme.Account, error) {
	found, err := a.whose(ctx, key.Signer)
	if err == nil && found.Location == "" {
		err = refused(fmt.Sprintf("put the account's key there; or, if there is no account yet, move %s elsewhere and let Keyturn make both: keyturn prepare %s", k.keys, k.acme.options.Credential),
			"the authority knows no account with the key in %s", filepath.Join(string(k.keys), key.name))
	}
	return found, err
}

// Adopt takes over the key in service, with its account.
func (k *AccountKey) Adopt(ctx context.Context, v rotation.Version) (rotation.Version, error) {
	key, err := k.keys.of(v)
	if err != nil {
		return v, err
	}
	a, err := k.acme.server(ctx)
	if err != nil {
		return v, err
	}
	found, err := k.owned(ctx, a, key)
	if err != nil {
		return v, err
	}
	v = v.Clone()
	v.Identity = rotation.Title("keyturn "+k.acme.options.Credential, v.Number)
	if v.Public == nil {
		v.Public = map[string]string{}
	}
	v.Public[publicAccount] = found.Location
	v.Public[publicKey], err = hashOfKey(key.Public())
	return v, err
}

// Warnings implements [rotation.Warner].
func (k *AccountKey) Warnings(context.Context, string) ([]string, error) {
	return []string{fmt.Sprintf("a copy of the account's key that stands elsewhere is refused from the cutover on: let all who need it read %s", filepath.Join(string(k.keys), current, fieldKey))}, nil
}

// Examine implements [rotation.Examiner]: it says which account it is, and whether a change of its
// key was cut off.
func (k *AccountKey) Examine(ctx context.Context) ([]rotation.Remark, error) {
	name := k.keys.inService()
	if name == "" {
		return nil, nil
	}
	key, err := k.keys.read(name)
	if err != nil {
		return nil, fmt.Errorf("certificate: the key in service: %w", err)
	}
	a, err := k.acme.server(ctx)
	if err != nil {
		return nil, err
	}
	found, err := a.whose(ctx, key.Signer)
	if err != nil {
		return nil, err
	}
	if found.Location != "" {
		return []rotation.Remark{{Level: rotation.Fine, Text: fmt.Sprintf("the key in service, in %s, is that of the account %s", name, found.Location)}}, nil
	}
	found, other, err := k.account(ctx, a, rotation.Version{}, key)
	if err != nil || other == "" {
		return nil, err
	}
	return []rotation.Remark{{Level: rotation.Problem, Text: fmt.Sprintf("the account %s has the key in %s, and the one in service is in %s: a change was cut off", found.Location, other, name),
		Hint: "what comes next: keyturn status " + k.acme.options.Credential}}, nil
}
