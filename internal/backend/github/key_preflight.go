package github

import (
	"context"
	"fmt"

	"github.com/keyturn/keyturn/internal/githubapp"
	"github.com/keyturn/keyturn/internal/rotation"
)

// Preflight checks that keys can be added and deleted: the App or the token may
// administer the repository, which takes changes, and whose owner allows deploy
// keys. It reads only.
func (b *KeyBackend) Preflight(ctx context.Context, _ rotation.Credential) error {
	granted, err := b.options.App.Granted(ctx)
	if err != nil {
		return wrap("looking at what the App may do", err)
	}
	if granted != nil && granted["administration"] != toWrite {
		return refused("grant it: the App's page of settings, Permissions & events, Repository permissions, Administration; then have the organisation accept it",
			"the App may not administer %s/%s: it lacks administration: write", b.owner, b.repo)
	}
	c := b.client(toRead)
	if err := b.writable(ctx, c); err != nil {
		return err
	}
	all, err := b.list(ctx, c)
	if err != nil {
		return err
	}
	for _, k := range all {
		if k.Enabled != nil && !*k.Enabled {
			return refused("allow them again: settings of the organisation, Repository, Deploy keys; or let the service use an App",
				"deploy keys of %s/%s are switched off by its organisation", b.owner, b.repo)
		}
	}
	return nil
}

func (b *KeyBackend) writable(ctx context.Context, c *githubapp.Client) error {
	r, err := b.repository(ctx, c)
	if err != nil {
		return err
	}
	switch admin, told := r.GetPermissions()["admin"]; {
	case r.GetArchived():
		return refused("take it out of the configuration, or unarchive the repository", "%s/%s is archived: its keys cannot be changed", b.owner, b.repo)
	case b.options.App.Plain() && told && !admin:
		return refused("use an App with the permission administration: write, or a token of an administrator of the repository",
			"the token may not administer %s/%s", b.owner, b.repo)
	}
	return nil
}

// Warnings implements [rotation.Warner].
func (b *KeyBackend) Warnings(context.Context, string) ([]string, error) {
	out := []string{"GitHub ends no deploy key by itself: until cleanup has deleted the old one it stays valid"}
	if !*b.key.ReadOnly {
		out = append(out, fmt.Sprintf("read-only: false: who has the key may push to %s/%s", b.owner, b.repo))
	}
	return out, nil
}

// Examine implements [rotation.Examiner]: which keys the repository has, and which of
// them stand under this title.
func (b *KeyBackend) Examine(ctx context.Context) ([]rotation.Remark, error) {
	all, err := b.look(ctx)
	if err != nil {
		return nil, err
	}
	var found []rotation.Remark
	for _, k := range all {
		if before, number := rotation.ParseTitle(k.Title); before == b.title && number > 0 {
			found = append(found, rotation.Remark{Level: rotation.Fine, Text: k.describe()})
		}
	}
	if len(found) > 2 {
		found = append(found, rotation.Remark{Level: rotation.Warning, Text: fmt.Sprintf("%s/%s has %d keys of this credential, and two at most are needed", b.owner, b.repo, len(found)),
			Hint: "compare with keyturn status, and delete by hand what it does not name"})
	}
	return found, nil
}
