package github

import (
	"context"
	"fmt"
	"net/http"
	"time"

	"github.com/google/go-github/v60/github"
	"golang.org/x/crypto/ssh"

	"github.com/keyturn/keyturn/internal/githubapp"
	"github.com/keyturn/keyturn/internal/rotation"
)

// Identify chooses the title of the version's key. A key with this title, or one of a
// later number, was made by somebody else: another record rotates the same keys.
func (b *KeyBackend) Identify(ctx context.Context, next rotation.Version, _ []rotation.Version) (rotation.Version, error) {
	all, err := b.look(ctx)
	if err != nil {
		return next, err
	}
	for _, k := range all {
		if before, number := rotation.ParseTitle(k.Title); before == b.title && number >= next.Number {
			return next, refused("find out who made it; if nobody else rotates it, delete it by hand, or choose another title: deploy-key: {title: …}",
				"%s of %s/%s is not on this record, whose next version is %d: somebody else rotates, or did", k.describe(), b.owner, b.repo, next.Number)
		}
	}
	next = next.Clone()
	next.Identity = rotation.Title(b.title, next.Number)
	next.Public = map[string]string{fieldURL: b.endpoints[0]}
	return next, nil
}

// Observe looks for the version's key. One that is not there is Absent: GitHub keeps
// nothing of a key that was deleted.
func (b *KeyBackend) Observe(ctx context.Context, v rotation.Version) (rotation.Standing, error) {
	known := printOf(v)
	if known == "" {
		return rotation.Standing{Status: rotation.Absent, Detail: "no key was made for it"}, nil
	}
	all, err := b.look(ctx)
	if err != nil {
		return rotation.Standing{}, err
	}
	k, ok := all.of(known)
	if !ok {
		return rotation.Standing{Status: rotation.Absent, Detail: fmt.Sprintf("%s/%s has no such key", b.owner, b.repo)}, nil
	}
	return rotation.Standing{Status: rotation.Armed, Detail: k.describe()}, nil
}

// Arm adds the public half to the repository. GitHub knows no expiry of a key. After
// an answer that was lost, the key is looked for by its fingerprint.
func (b *KeyBackend) Arm(ctx context.Context, v rotation.Version, m rotation.Material, _ time.Time) error {
	known := printOf(v)
	if known == "" {
		return fmt.Errorf("github: the key %q is not of version %d", v.Identity, v.Number)
	}
	signer, problem := signerOf(known, m)
	if problem != "" {
		return fmt.Errorf("github: adding the key of version %d: %s", v.Number, problem)
	}
	c := b.client(toWrite)
	all, err := b.list(ctx, c)
	if err != nil {
		return err
	}
	if k, ok := all.of(known); ok {
		return b.fits(k)
	}
	if err := rotation.CheckLease(ctx); err != nil {
		return err
	}
	title, line := v.Identity, string(ssh.MarshalAuthorizedKey(signer.PublicKey()))
	_, _, err = c.Repositories.CreateKey(ctx, b.owner, b.repo, &github.Key{Title: &title, Key: &line, ReadOnly: b.key.ReadOnly})
	if err == nil {
		return nil
	}
	return b.added(ctx, c, known, wrap(fmt.Sprintf("adding the deploy key %q to %s/%s", title, b.owner, b.repo), err))
}

// added looks whether a key that was refused, or whose adding was not answered, is there.
func (b *KeyBackend) added(ctx context.Context, c *githubapp.Client, known string, failed error) error {
	all, err := b.list(ctx, c)
	if err != nil {
		return rotation.Classify(rotation.Unknown, rotation.HintOf(failed), failed) // it may be there
	}
	if k, ok := all.of(known); ok {
		return b.fits(k)
	}
	return failed
}

// fits refuses a key that is there and is not what the settings say: a key cannot be
// changed, and what was made by somebody else is not repaired.
func (b *KeyBackend) fits(k deployKey) error {
	if k.ReadOnly != *b.key.ReadOnly {
		return fmt.Errorf("github: %s is there, and read-only: %t is wanted", k.describe(), *b.key.ReadOnly)
	}
	return nil
}

// End deletes the version's key. Only the key whose fingerprint is on the record is
// deleted, whatever others are called. An answer that was lost is looked after.
func (b *KeyBackend) End(ctx context.Context, v rotation.Version, why rotation.Why) error {
	known := printOf(v)
	if known == "" {
		return nil
	}
	c := b.client(toWrite)
	all, err := b.list(ctx, c)
	if err != nil {
		return err
	}
	k, ok := all.of(known)
	if !ok {
		return nil
	}
	if err := rotation.CheckLease(ctx); err != nil {
		return err
	}
	b.options.Logger.InfoContext(ctx, "deleting a deploy key", "key", k.describe(), "repository", b.key.Repository, "version", v.Number, "reason", string(why))
	_, err = c.Repositories.DeleteKey(ctx, b.owner, b.repo, k.ID)
	if err == nil || notFound(err) {
		return nil
	}
	failed := wrap(fmt.Sprintf("deleting the deploy key %q of %s/%s", k.Title, b.owner, b.repo), err)
	if all, err = b.list(ctx, c); err != nil {
		return rotation.Classify(rotation.Unknown, rotation.HintOf(failed), failed)
	}
	if _, ok := all.of(known); !ok {
		return nil
	}
	return failed
}

// Compare checks that both keys may do the same.
func (b *KeyBackend) Compare(ctx context.Context, next, current rotation.Version) error {
	all, err := b.look(ctx)
	if err != nil {
		return err
	}
	var found [2]deployKey
	for i, v := range []rotation.Version{next, current} {
		var ok bool
		if found[i], ok = all.of(printOf(v)); !ok {
			return fmt.Errorf("github: comparing the keys: %s/%s has no key of version %d", b.owner, b.repo, v.Number)
		}
	}
	if found[0].ReadOnly != found[1].ReadOnly {
		return rotation.Errorf(rotation.Failed, "write read-only: to the configuration as the services need it; what pushed with the old key could not any more, or the other way round",
			"github: the keys may not do the same: %s; %s", found[0].describe(), found[1].describe())
	}
	return nil
}

// repository reads what is known of the repository.
func (b *KeyBackend) repository(ctx context.Context, c *githubapp.Client) (*github.Repository, error) {
	r, resp, err := c.Repositories.Get(ctx, b.owner, b.repo)
	if err == nil && resp.StatusCode != http.StatusOK {
		err = fmt.Errorf("GitHub answered %s", resp.Status)
	}
	return r, wrap(fmt.Sprintf("reading %s/%s", b.owner, b.repo), err)
}
