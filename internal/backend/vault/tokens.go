package vault

import (
	"context"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/keyturn/keyturn/internal/backend/remote"
	"github.com/keyturn/keyturn/internal/backend/remote/vaultapi"
	"github.com/keyturn/keyturn/internal/rotation"
)

// A token is what Vault says of one to whoever asks by its accessor.
type token struct {
	Accessor string            `json:"accessor"`
	Path     string            `json:"path"`
	Meta     map[string]string `json:"meta"`
	Made     int64             `json:"creation_time"`
	Uses     int               `json:"num_uses"` // that are left; 0: any number
}

// ending reports whether Vault began to end a token, and refuses it. One that stays so is left
// of a Vault that was stopped then: it can be ended by nobody, and is gone when its time is over.
func (t token) ending() bool { return t.Uses < 0 }

// publicMetadata is the public field that says what the metadata of an adopted secret-id
// are known by: the tokens that were made from it have no title.
const publicMetadata = "metadata"

// from reports whether a token was made from a version's secret-id. A login copies its
// metadata to the token, with the role's name as Vault has it: in small letters.
func (b *Backend) from(t token, v rotation.Version) bool {
	if t.Path != "auth/"+b.role.mount()+"/login" || !strings.EqualFold(t.Meta[metaRole], b.role.Role) {
		return false
	}
	if title, ok := t.Meta[metaKey]; ok {
		return isTitle(title, v)
	}
	return v.Public[publicMetadata] != "" && digest(t.Meta) == v.Public[publicMetadata]
}

// ripe is how long a token must have been there before it is looked up: Vault ends one whose
// lease is not there, and a login makes the token first and its lease after it. Who looks at
// a token that is being made ends it.
const ripe = 2 * time.Second

// known is what was learnt of tokens, by accessor.
type known struct {
	mu     sync.Mutex
	first  map[string]time.Time // when an accessor was first listed
	tokens map[string]token     // that were looked up: what they were made by never changes
}

// list takes a list of accessors, forgets all others, and returns those that are to be looked
// up, and when the last of them is ripe.
func (k *known) list(accessors []string, after time.Duration) (unknown []string, when time.Time) {
	k.mu.Lock()
	defer k.mu.Unlock()
	now := time.Now()
	first, tokens := map[string]time.Time{}, map[string]token{}
	for _, accessor := range accessors {
		if t, ok := k.tokens[accessor]; ok {
			tokens[accessor] = t
			continue
		}
		seen, ok := k.first[accessor]
		if !ok {
			seen = now
		}
		first[accessor], unknown = seen, append(unknown, accessor)
		if seen = seen.Add(after); seen.After(when) {
			when = seen
		}
	}
	k.first, k.tokens = first, tokens
	return unknown, when
}

func (k *known) learn(t token) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.tokens[t.Accessor] = t
}

// forget has a token looked up anew.
func (k *known) forget(accessor string) {
	k.mu.Lock()
	defer k.mu.Unlock()
	delete(k.tokens, accessor)
}

// tokens returns those that were made from a version's secret-id. Vault knows no way to
// ask for them, but to look at all that there are.
func (b *Backend) tokens(ctx context.Context, c *vaultapi.Client, v rotation.Version) (out []token, err error) {
	accessors, err := c.List(ctx, "listing the tokens", "auth/token/accessors")
	if err != nil {
		return nil, err
	}
	unknown, when := b.known.list(accessors, b.options.Ripe)
	if len(unknown) > 0 {
		if err := remote.Pause(ctx, time.Until(when)); err != nil {
			return nil, c.Wrap("", "waiting", err)
		}
	}
	control := sync.OnceValue(func() error { return lookUpOwn(ctx, c) })
	err = c.Each(ctx, unknown, func(ctx context.Context, accessor string) error {
		t, err := lookUpToken(ctx, c, accessor)
		switch {
		case isGone(err):
			return control()
		case err != nil:
			return err
		}
		t.Accessor = accessor
		b.known.learn(t)
		return nil
	})
	if err != nil {
		return nil, err
	}
	b.known.mu.Lock()
	defer b.known.mu.Unlock()
	for _, accessor := range accessors {
		if t, ok := b.known.tokens[accessor]; ok && b.from(t, v) && !t.ending() {
			out = append(out, t)
		}
	}
	slices.SortFunc(out, func(x, y token) int { return strings.Compare(x.Accessor, y.Accessor) })
	return out, nil
}

// lookUpToken looks up a token. A Vault that loses its leadership meanwhile calls that an invalid
// request, as it calls everything that keeps it from finding out.
func lookUpToken(ctx context.Context, c *vaultapi.Client, accessor string) (t token, err error) {
	_, err = c.Write(ctx, "looking up a token", "auth/token/lookup-accessor", map[string]any{"accessor": accessor}, &t)
	if a := vaultapi.Answered(err); a != nil && a.Status == http.StatusBadRequest && !isGone(err) {
		err = rotation.Classify(rotation.Unknown, "has the cluster a leader? see: vault operator raft list-peers", err)
	}
	return t, err
}

// lookUpOwn looks up the administrator's token by its accessor. Of one that is ending, or that
// ended without its accessor, Vault says "permission denied", as it does to who may not look
// any up.
func lookUpOwn(ctx context.Context, c *vaultapi.Client) error {
	var own token
	if _, err := c.Read(ctx, "looking up its own token", "auth/token/lookup-self", &own); err != nil {
		return err
	}
	_, err := lookUpToken(ctx, c, own.Accessor)
	return err
}

// isGone reports whether an error may say that there is no token with an accessor.
func isGone(err error) bool {
	a := vaultapi.Answered(err)
	return a != nil && (a.Status == http.StatusForbidden || a.Status == http.StatusNotFound ||
		a.Status == http.StatusBadRequest && (strings.Contains(a.Text, "invalid accessor") || strings.Contains(a.Text, "token not found")))
}

// mostUses is how many tokens are named one by one.
const mostUses = 5

// uses says of tokens what people may want to know.
func uses(tokens []token) (out []rotation.Use) {
	for i, t := range tokens {
		if i == mostUses && len(tokens) > mostUses+1 {
			return append(out, rotation.Use{Kind: "session", Name: fmt.Sprintf("%d more tokens", len(tokens)-i)})
		}
		out = append(out, rotation.Use{Kind: "session", Name: "token " + t.Accessor, Detail: "made " + time.Unix(t.Made, 0).UTC().Format("2006-01-02 15:04:05 UTC")})
	}
	return out
}

// revoke ends the tokens of a version whose secret-id is gone, until as many looks as are
// asked for found none. A login that was under way when the secret-id went may make one more.
func (b *Backend) revoke(ctx context.Context, c *vaultapi.Client, v rotation.Version, looks int) error {
	for deadline, clean := time.Now().Add(b.options.Patience), 0; ; {
		found, err := b.tokens(ctx, c, v)
		if err != nil {
			return err
		}
		if len(found) == 0 {
			if clean++; clean >= looks {
				return nil
			}
			if err := remote.Pause(ctx, 200*time.Millisecond); err != nil {
				return c.Wrap("", "waiting", err)
			}
			continue
		}
		clean = 0
		if time.Now().After(deadline) {
			return rotation.Errorf(rotation.Unknown, "who makes them? see: vault list auth/token/accessors", "vault: there are still tokens of version %d after %s", v.Number, b.options.Patience)
		}
		if err := rotation.CheckLease(ctx); err != nil {
			return err
		}
		b.options.Logger.InfoContext(ctx, "revoking tokens", "count", len(found), "version", v.Number)
		var accessors []string
		for _, t := range found {
			accessors = append(accessors, t.Accessor)
		}
		err = c.Each(ctx, accessors, func(ctx context.Context, accessor string) error {
			_, err := c.Write(ctx, "revoking token "+accessor, "auth/token/revoke-accessor", map[string]any{"accessor": accessor}, nil)
			if isGone(err) && rotation.ClassOf(err) != rotation.Refused {
				b.known.forget(accessor)
				return nil // it ended meanwhile, or Vault is at it
			}
			return err
		})
		if err != nil {
			return err
		}
	}
}
