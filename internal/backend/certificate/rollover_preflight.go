package certificate

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"slices"

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
	live := slices.DeleteFunc(c.Live(), func(v rotation.Version) bool {
		return v.State == rotation.Pending && (v.Identity == "" || v.Public[publicNew] != "") // it has no account yet, or maybe not
	})
	switch {
	case err != nil:
		return wrap("reading the directory", err)
	case directory.KeyChange == "":
		return cannotRoll(nil)
	case len(live) > 0:
		_, err := k.inForce(ctx, a, live)
		return err
	case k.keys.plain():
		return k.homeless()
	case k.keys.inService() == "":
		return k.acme.mayRegister(directory)
	case c.Open != nil:
		return refused("let it be version 1: keyturn adopt "+k.acme.options.Credential, "a key is in service in %s, and is no version on the record", k.keys)
	}
	q, err := k.serving(ctx)
	if err == nil && q.found.Location == "" {
		err = k.unowned(q.key)
	}
	return err
}

// unowned refuses to adopt a key that no account has.
func (k *AccountKey) unowned(key keptKey) error {
	return refused(fmt.Sprintf("put the account's key there; or, if there is no account yet, move %s elsewhere and let Keyturn make both: keyturn prepare %s", k.keys, k.acme.options.Credential),
		"the authority knows no account with the key in %s", filepath.Join(string(k.keys), key.name))
}

// homeless refuses a key that no move of the link would reach.
func (k *AccountKey) homeless() error {
	return refused("put the key into a folder there, and lead the link to it: ln -s initial "+filepath.Join(string(k.keys), current),
		"the key stands in no folder of %s that the link %q leads to", k.keys, current)
}

// Adopt takes over the key in service, with its account.
func (k *AccountKey) Adopt(ctx context.Context, v rotation.Version) (rotation.Version, error) {
	q, err := k.ask(ctx, v)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		err = k.homeless()
	case err == nil && q.found.Location == "":
		err = k.unowned(q.key)
	}
	if err != nil {
		return v, err
	}
	v = v.Clone()
	v.Identity = rotation.Title("keyturn "+k.acme.options.Credential, v.Number)
	if v.Public == nil {
		v.Public = map[string]string{}
	}
	v.Public[publicAccount] = q.found.Location
	v.Public[publicKey], err = hashOfKey(q.key.Public())
	return v, err
}

// Warnings implements [rotation.Warner].
func (k *AccountKey) Warnings(context.Context, string) ([]string, error) {
	return []string{fmt.Sprintf("a copy of the account's key that stands elsewhere is refused from the cutover on: let all who need it read %s", filepath.Join(string(k.keys), current, fieldKey))}, nil
}

// Examine implements [rotation.Examiner]: it says which account it is, and whether a change of its
// key was cut off.
func (k *AccountKey) Examine(ctx context.Context) ([]rotation.Remark, error) {
	if k.keys.inService() == "" {
		return nil, nil
	}
	q, err := k.serving(ctx)
	if err != nil {
		return nil, err
	}
	if q.found.Location != "" {
		remarks, err := k.others(ctx, q)
		return append([]rotation.Remark{{Level: rotation.Fine, Text: fmt.Sprintf("the key in service, in %s, is that of the account %s", q.key.name, q.found.Location)}}, remarks...), err
	}
	found, holder, err := k.holder(ctx, q)
	if err != nil || holder.name == "" {
		return nil, err
	}
	return []rotation.Remark{{Level: rotation.Problem, Text: fmt.Sprintf("the account %s has the key in %s, and the one in service is in %s: a change was cut off, or came when nobody waited for it any more", found.Location, holder.name, q.key.name),
		Hint: fmt.Sprintf("go on with it: keyturn cutover %[1]s; or take it back: keyturn rollback --reason … %[1]s", k.acme.options.Credential)}}, nil
}

// others says which keys beside the one in service somebody made an account with.
func (k *AccountKey) others(ctx context.Context, serving asked) ([]rotation.Remark, error) {
	keys, err := k.keys.all(true)
	var out []rotation.Remark
	for _, key := range keys {
		if err != nil || key.is(serving.key.Signer) {
			continue
		}
		found, failed := serving.whose(ctx, key.Signer)
		switch next := numberOf(key.name) > numberOf(serving.key.name); {
		case errors.Is(failed, errInactive):
		case failed != nil:
			err = failed
		case found.Location != "" && next:
			out = append(out, rotation.Remark{Level: rotation.Problem, Text: fmt.Sprintf("somebody made an account with the next key, in %s: %s", key.name, found.Location),
				Hint: "it cannot be this account's any more: deactivate that account there, then keyturn rollback --reason … " + k.acme.options.Credential})
		case found.Location != "":
			out = append(out, rotation.Remark{Level: rotation.Warning, Text: fmt.Sprintf("somebody made an account with an old key, in %s: %s", key.name, found.Location),
				Hint: "whoever has a copy of the key can, and some clients do it by themselves; it is not this account"})
		}
	}
	return out, err
}
