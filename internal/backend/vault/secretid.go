package vault

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/keyturn/keyturn/internal/backend/remote/vaultapi"
	"github.com/keyturn/keyturn/internal/rotation"
	"github.com/keyturn/keyturn/internal/secret"
)

// What stands in the metadata of a secret-id, and so of the tokens that are made from it.
const (
	metaKey  = "keyturn"   // the title of the version
	metaRole = "role_name" // Vault's own, of tokens
)

// A secretID is what Vault says of one, without its value.
type secretID struct {
	Accessor   string            `json:"secret_id_accessor"`
	Metadata   map[string]string `json:"metadata"`
	CIDRs      []string          `json:"cidr_list"`
	TokenCIDRs []string          `json:"token_bound_cidrs"`
	Uses       int               `json:"secret_id_num_uses"`
	TTL        int64             `json:"secret_id_ttl"` // seconds
	Expires    time.Time         `json:"expiration_time"`
}

// of reports whether a secret-id is a version's: one that was made here says so in its
// metadata, one that was adopted, as version 1, is known by its accessor.
func (s secretID) of(v rotation.Version) bool {
	if title, ok := s.Metadata[metaKey]; ok {
		return isTitle(title, v)
	}
	return s.Accessor == v.Identity && v.Number == 1
}

// isTitle reports whether a title is a version's, whatever the record says of its identity.
func isTitle(title string, v rotation.Version) bool {
	_, number := rotation.ParseTitle(title)
	return title == v.Identity && number == v.Number
}

func (s secretID) String() string {
	name := strings.TrimSpace("secret-id " + s.Accessor)
	if title := s.Metadata[metaKey]; title != "" {
		return fmt.Sprintf("%s %q", name, title)
	}
	return name
}

// traits are what a secret-id brings beside its value, in words, sorted.
func (s secretID) traits() (out []string) {
	for key, value := range s.Metadata {
		if key != metaKey {
			out = append(out, "metadata "+key+"="+value)
		}
	}
	for _, block := range s.CIDRs {
		out = append(out, "from "+block)
	}
	for _, block := range s.TokenCIDRs {
		out = append(out, "tokens from "+block)
	}
	if s.Uses != 0 {
		out = append(out, "uses")
	}
	if s.TTL != 0 {
		out = append(out, "lives for "+(time.Duration(s.TTL)*time.Second).String())
	}
	slices.Sort(out)
	return out
}

// digest is what metadata is known by: its texts are the owner's, and not for the record.
// The version and the role do not count.
func digest(metadata map[string]string) string {
	own := maps.Clone(metadata)
	delete(own, metaKey)
	delete(own, metaRole)
	b, err := json.Marshal(own) // sorted by key
	if err != nil || len(own) == 0 {
		b = []byte("{}")
	}
	sum := sha256.Sum256(b)
	return "sha256:" + hex.EncodeToString(sum[:])
}

// path is one below the role.
func (b *Backend) path(below string) string {
	return "auth/" + b.role.mount() + "/role/" + b.role.Role + below
}

// secretIDs returns those of the role.
func (b *Backend) secretIDs(ctx context.Context, c *vaultapi.Client) (out []secretID, err error) {
	accessors, err := c.List(ctx, "listing the secret-ids of role "+b.role.Role, b.path("/secret-id"))
	if err != nil {
		return nil, err
	}
	var mu sync.Mutex
	err = c.Each(ctx, accessors, func(ctx context.Context, accessor string) error {
		s, err := b.lookup(ctx, c, accessor)
		if s != nil {
			mu.Lock()
			defer mu.Unlock()
			out = append(out, *s)
		}
		return err
	})
	slices.SortFunc(out, func(x, y secretID) int { return strings.Compare(x.Accessor, y.Accessor) })
	return out, err
}

// lookup returns the secret-id with an accessor; nil if there is none.
func (b *Backend) lookup(ctx context.Context, c *vaultapi.Client, accessor string) (*secretID, error) {
	var s secretID
	found, err := c.Write(ctx, "looking up secret-id "+accessor, b.path("/secret-id-accessor/lookup"), map[string]any{"secret_id_accessor": accessor}, &s)
	if isAbsent(err) || err == nil && !found {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	return &s, nil
}

// find returns the secret-id of a version; nil if there is none.
func (b *Backend) find(ctx context.Context, c *vaultapi.Client, v rotation.Version) (*secretID, error) {
	all, err := b.secretIDs(ctx, c)
	if i := slices.IndexFunc(all, func(s secretID) bool { return s.of(v) }); err == nil && i >= 0 {
		return &all[i], nil
	}
	return nil, err
}

// findValue returns the accessor of the secret-id with a value; "" if there is none.
func (b *Backend) findValue(ctx context.Context, c *vaultapi.Client, value secret.Value) (accessor string, err error) {
	var s secretID
	_, err = c.Write(ctx, "looking up a secret-id by its value", b.path("/secret-id/lookup"), map[string]any{fieldSecretID: string(value.Reveal())}, &s)
	return s.Accessor, err
}

// register has Vault take a secret-id with a value of ours.
func (b *Backend) register(ctx context.Context, c *vaultapi.Client, value secret.Value, want secretID) error {
	metadata, err := json.Marshal(want.Metadata)
	if err != nil {
		return err
	}
	data := map[string]any{fieldSecretID: string(value.Reveal()), "metadata": string(metadata), "cidr_list": want.CIDRs, "token_bound_cidrs": want.TokenCIDRs}
	if want.TTL > 0 {
		data["ttl"] = want.TTL
	}
	_, err = c.Write(ctx, fmt.Sprintf("making %s", want), b.path("/custom-secret-id"), data, nil)
	return err
}

func (b *Backend) destroy(ctx context.Context, c *vaultapi.Client, s secretID) error {
	_, err := c.Write(ctx, fmt.Sprintf("destroying %s", s), b.path("/secret-id-accessor/destroy"), map[string]any{"secret_id_accessor": s.Accessor}, nil)
	return err
}
