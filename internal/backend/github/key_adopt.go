package github

import (
	"context"
	"fmt"
	"strings"

	"golang.org/x/crypto/ssh"

	"github.com/keyturn/keyturn/internal/rotation"
)

var _ rotation.Adopter = (*KeyBackend)(nil)

// Adopt takes over the key whose fingerprint the settings name. That services mount
// its private half, the probe of an adoption proves: it takes no other key.
func (b *KeyBackend) Adopt(ctx context.Context, v rotation.Version) (rotation.Version, error) {
	all, err := b.look(ctx)
	if err != nil {
		return v, err
	}
	if b.key.Adopt == "" {
		return v, refused("name it: deploy-key: {adopt: SHA256:…}; ssh-keygen -lf FILE says it of a key", "nothing says which deploy key of %s/%s services use today%s",
			b.owner, b.repo, all.list())
	}
	k, ok := all.of(b.key.Adopt)
	if !ok {
		return v, refused("ssh-keygen -lf FILE says the fingerprint of a key", "%s/%s has no deploy key with the fingerprint under adopt%s", b.owner, b.repo, all.list())
	}
	if k.ReadOnly != *b.key.ReadOnly {
		return v, refused(fmt.Sprintf("write read-only: %t, or give the services the other kind of key first", k.ReadOnly),
			"%s is the key of today, and read-only: %t is wanted", k.describe(), *b.key.ReadOnly)
	}
	if _, number := rotation.ParseTitle(k.Title); number > 1 {
		return v, refused("add the same public key under another title", "the title %q says that it is a later version", k.Title)
	}
	line, _, _, _, err := ssh.ParseAuthorizedKey([]byte(k.Key))
	if err != nil {
		return v, fmt.Errorf("github: %s cannot be read", k.describe())
	}
	for field, value := range b.public(line) {
		if has, told := v.Public[field]; told && has != value {
			return v, refused("make the services read what the next version would have", "the services read another %s than %s", field, value)
		}
	}
	v = v.Clone()
	v.Identity = k.Title
	if v.Public == nil {
		v.Public = map[string]string{}
	}
	v.Public[fieldFingerprint] = b.key.Adopt
	return v, nil
}

// list names the keys for people.
func (all keys) list() string {
	var out []string
	for _, k := range all {
		out = append(out, fmt.Sprintf("%q %s", k.Title, k.fingerprint()))
	}
	if out == nil {
		return ": it has none"
	}
	return ": it has " + strings.Join(out, ", ")
}
